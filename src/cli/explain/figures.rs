//! Lines of `lagwise explain` about the rates and the state of a consumer group.

use std::time::Duration;

use crate::cli::text_table::rate;
use crate::model::lag::group_figures::GroupFigures;
use crate::model::units::short_duration::{from_seconds, short_duration};
use crate::model::units::untrusted_text::Printable;

/// Part of a log from which on it is said that retention may delete unread messages.
const RETENTION_RISK: f64 = 0.8;

/// The figures of a group as sentences. What is unknown has none. Without a known lag the rates would suggest that
/// there is none, so they are left out.
pub(super) fn figure_lines(figures: &GroupFigures, is_lag_known: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let rates = figures.produced_per_second.zip(figures.consumed_per_second);
    if let Some((produced, consumed)) = rates.filter(|_| is_lag_known) {
        let drain = match figures.drain_seconds {
            Some(seconds) if seconds > 0.0 => {
                let left = short_duration(from_seconds(seconds));
                format!("at these rates the lag is gone in {left}")
            }
            Some(_) => "there is no lag".to_owned(),
            None => "the lag does not shrink".to_owned(),
        };
        lines.push(format!(
            "messages per second, over a minute: {} written, {} consumed; {drain}",
            rate(produced),
            rate(consumed)
        ));
    }
    let state = figures.state.map(|state| {
        let rebalances = match figures.rebalances {
            None => String::new(),
            Some(1) => ", 1 rebalance seen".to_owned(),
            Some(count) => format!(", {count} rebalances seen"),
        };
        format!("state {}{rebalances}", state.label())
    });
    let commit = figures.since_commit_seconds.map(|seconds| {
        let since = Duration::from_secs(seconds);
        format!("last commit {} ago", short_duration(since))
    });
    let facts: Vec<_> = state.into_iter().chain(commit).collect();
    if !facts.is_empty() {
        lines.push(facts.join(", "));
    }
    if let Some(used) = figures
        .retention_used
        .filter(|used| *used >= RETENTION_RISK)
    {
        lines.push(format!(
            "{:.0} % of the log of a partition is unread: retention may delete messages before they are read",
            used * 100.0
        ));
    }
    for hot in &figures.hot_partitions {
        lines.push(format!(
            "partition {} of {} gets {:.0} % of the messages of its topic: more members do not help it",
            hot.partition,
            Printable::name(hot.topic.as_str()),
            hot.share * 100.0
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kafka::group::GroupState;
    use crate::model::lag::group_figures::HotPartition;

    #[test]
    fn each_known_figure_has_a_line() {
        let figures = GroupFigures {
            state: Some(GroupState::Stable),
            rebalances: Some(2),
            produced_per_second: Some(21.0),
            consumed_per_second: Some(150.0),
            lag_velocity: Some(-129.0),
            drain_seconds: Some(54.0),
            retention_used: Some(0.83),
            since_commit_seconds: Some(3),
            hot_partitions: vec![HotPartition {
                topic: "orders".into(),
                partition: 3,
                share: 0.61,
            }],
        };
        let expected = [
            "messages per second, over a minute: 21.0 written, 150 consumed; at these rates the lag is gone in 54s",
            "state stable, 2 rebalances seen, last commit 3s ago",
            "83 % of the log of a partition is unread: retention may delete messages before they are read",
            "partition 3 of orders gets 61 % of the messages of its topic: more members do not help it",
        ];
        assert_eq!(figure_lines(&figures, true), expected);
        let growing = GroupFigures {
            drain_seconds: None,
            ..figures.clone()
        };
        assert!(figure_lines(&growing, true)[0].ends_with("the lag does not shrink"));
        let none = GroupFigures {
            drain_seconds: Some(0.0),
            ..figures
        };
        assert!(figure_lines(&none, true)[0].ends_with("there is no lag"));
    }

    #[test]
    fn rates_are_left_out_while_the_lag_is_unknown() {
        for drain_seconds in [Some(0.0), Some(54.0), None] {
            let figures = GroupFigures {
                state: Some(GroupState::Empty),
                produced_per_second: Some(0.0),
                consumed_per_second: Some(0.0),
                drain_seconds,
                ..GroupFigures::default()
            };
            assert_eq!(figure_lines(&figures, false), ["state empty"]);
            assert_eq!(figure_lines(&figures, true).len(), 2);
        }
    }

    #[test]
    fn unknown_figures_have_no_line() {
        assert_eq!(figure_lines(&GroupFigures::default(), true), [""; 0]);
        let once = GroupFigures {
            state: Some(GroupState::Rebalancing),
            rebalances: Some(1),
            retention_used: Some(0.79),
            ..GroupFigures::default()
        };
        assert_eq!(
            figure_lines(&once, true),
            ["state rebalancing, 1 rebalance seen"]
        );
    }
}
