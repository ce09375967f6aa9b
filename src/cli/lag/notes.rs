//! Notes of `lagwise lag` on groups.

use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic};
use crate::model::lag::group_summary::GroupSummary;
use crate::model::units::counted::counted;
use crate::model::units::newtypes::{Lag, TopicName};
use crate::model::units::short_list::short_list;

/// A note on the lag of a group on topics that it has left; `None` without any.
pub(super) fn lag_left_behind(
    read: &GroupSnapshot,
    topics: &[(&TopicName, &GroupTopic)],
) -> Option<String> {
    // There are no requests here, so the topics that do not count are those that it has left.
    let left = topics.iter().filter(|(topic, _)| !read.counts(topic));
    let lags = left.map(|(topic, read)| (topic, known_lag(read)));
    let lags = Vec::from_iter(lags.filter(|(_, lag)| *lag > Lag(0)));
    if lags.is_empty() {
        return None;
    }
    let sum: Lag = lags.iter().map(|(_, lag)| *lag).sum();
    let names = short_list(lags.iter().map(|(topic, _)| topic.to_string()));
    Some(format!(
        "{sum} of the lag is on topics that its members no longer read: {names}"
    ))
}

/// Sum of the lag of the partitions whose lag is known.
fn known_lag(topic: &GroupTopic) -> Lag {
    let lags = topic.latest.as_deref().into_iter().flat_map(|lag| {
        let partitions = 0..lag.lags.len();
        partitions.filter_map(|partition| lag.lag_since_commit(partition).ok()?)
    });
    lags.sum()
}

/// The note on a group: faults, partitions without a committed offset, and topics that it has `left`.
pub(super) fn group_note(
    fault: Option<Fault>,
    summary: &GroupSummary,
    left: Option<String>,
) -> Option<String> {
    let mut notes = Vec::new();
    if let Some(fault) = fault {
        notes.push(fault.to_string());
    } else if summary.partitions == 0 && summary.unread.is_empty() {
        notes.push("no committed offset".to_owned());
    }
    if let Some((topic, fault)) = summary.unread.first() {
        let others = match summary.unread.len() {
            0 | 1 => String::new(),
            count => format!(" (and {})", counted(count - 1, "more topic")),
        };
        notes.push(format!("topic {topic}: {fault}{others}"));
    }
    let GroupSummary {
        partitions,
        unknown,
        uncommitted,
        ..
    } = summary;
    if let Some(fault) = summary.fault {
        notes.push(format!(
            "unknown on {unknown} of {partitions} partitions: {fault}"
        ));
        let others = summary.known_lag;
        notes.extend(others.map(|lag| format!("the others have lag {lag}")));
    }
    if *uncommitted > 0 {
        notes.push(format!(
            "no commit on {uncommitted} of {partitions} partitions"
        ));
    }
    notes.extend(left);
    (!notes.is_empty()).then(|| notes.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures::{self, PartitionReading};
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    const UNKNOWN: PartitionReading = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));
    const NO_COMMIT: PartitionReading = (0, Ok(None), Ok(500));

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    /// Reads a group whose member subscribes to `reads`, on these topics.
    fn group(reads: &str, topics: &[(&str, &[PartitionReading])]) -> Arc<GroupSnapshot> {
        let mut observation = fixtures::nothing(Duration::ZERO, "g");
        let group = &mut observation.groups[0];
        group.plan = GroupPlan::new("g", Default::default());
        group.description = Ok(Arc::new(fixtures::member_of(reads)));
        let mut committed = group.committed.clone().unwrap();
        for (topic, rows) in topics {
            let read = fixtures::read(Duration::ZERO, "g", topic, rows);
            let commits = read.groups[0].committed.as_ref().unwrap();
            committed.insert((*topic).into(), commits.get(*topic).unwrap().clone());
            observation.topics.extend(read.topics);
        }
        observation.groups[0].committed = Ok(committed);
        let snapshot = ClusterHistory::default().apply(observation, Scope::Partial);
        Arc::clone(&snapshot.groups["g"])
    }

    fn note(rows: &[PartitionReading]) -> Option<String> {
        let read = group("orders", &[("orders", rows)]);
        group_note(None, &GroupSummary::new(read.topics.iter(), None), None)
    }

    #[test]
    fn a_partly_unknown_lag_comes_with_the_known_part() {
        let all = "unknown on 2 of 2 partitions: a partition has no leader";
        assert_eq!(note(&[UNKNOWN, UNKNOWN]).as_deref(), Some(all));
        for (known, expected) in [
            (
                NO_COMMIT,
                "unknown on 1 of 2 partitions: a partition has no leader; no commit on 1 of 2 partitions",
            ),
            (
                ok(7, 7),
                "unknown on 1 of 2 partitions: a partition has no leader; the others have lag 0",
            ),
            (
                ok(7, 12),
                "unknown on 1 of 2 partitions: a partition has no leader; the others have lag 5",
            ),
        ] {
            assert_eq!(note(&[UNKNOWN, known]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn unread_topics_are_counted() {
        for (count, expected) in [
            (1, "topic t0: the topic does not exist"),
            (2, "topic t0: the topic does not exist (and 1 more topic)"),
            (3, "topic t0: the topic does not exist (and 2 more topics)"),
        ] {
            let unread = (0..count).map(|i| (format!("t{i}").as_str().into(), Fault::TopicMissing));
            let summary = GroupSummary {
                unread: unread.collect(),
                ..GroupSummary::default()
            };
            assert_eq!(group_note(None, &summary, None).as_deref(), Some(expected));
        }
    }

    #[test]
    fn only_left_topics_with_lag_are_named() {
        let topics: [(&str, &[PartitionReading]); 5] = [
            ("behind", &[ok(3, 8), ok(4, 4)]),
            ("done", &[ok(5, 5)]),
            ("leaderless", &[UNKNOWN]),
            ("partial", &[UNKNOWN, ok(1, 3)]),
            ("read", &[ok(0, 90)]),
        ];
        let left = |topics: &[(&str, &[PartitionReading])]| {
            let read = group("read", topics);
            lag_left_behind(&read, &Vec::from_iter(&read.topics))
        };
        assert_eq!(
            left(&topics).as_deref(),
            Some("7 of the lag is on topics that its members no longer read: behind, partial")
        );
        assert_eq!(
            left(&topics[..2]).as_deref(),
            Some("5 of the lag is on topics that its members no longer read: behind")
        );
        assert_eq!(left(&topics[1..3]), None);
    }
}
