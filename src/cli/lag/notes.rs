//! Notes of `lagwise lag` on groups.

use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic};
use crate::model::lag::group_summary::GroupSummary;
use crate::model::units::newtypes::{Lag, TopicName};
use crate::model::units::short_list::short_list;

/// A note on the lag of a group on topics that it has left; `None` without any.
pub(super) fn lag_left_behind(
    read: &GroupSnapshot,
    topics: &[(&TopicName, &GroupTopic)],
) -> Option<String> {
    let left: Vec<_> = topics
        .iter()
        .filter(|(topic, _)| read.has_left(topic))
        .collect();
    let lags = left
        .iter()
        .filter_map(|(_, read)| read.latest.as_deref().ok());
    let lags = lags.flat_map(|lag| {
        let partitions = 0..lag.lags.len();
        partitions.filter_map(|partition| lag.lag_since_commit(partition).ok()?)
    });
    let sum: Lag = lags.sum();
    let names = left.iter().map(|(topic, _)| topic.to_string());
    (sum > Lag(0)).then(|| {
        let names = short_list(names);
        format!("{sum} of it on topics that its members do not read any more: {names}")
    })
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
            count => format!(" (and {} more topics)", count - 1),
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
        let rest = summary.known_lag.unwrap_or_default();
        notes.push(format!(
            "unknown on {unknown} of {partitions} partitions: {fault}; the others have lag {rest}"
        ));
    }
    if *uncommitted > 0 {
        notes.push(format!(
            "no commit on {uncommitted} of {partitions} partitions"
        ));
    }
    notes.extend(left);
    (!notes.is_empty()).then(|| notes.join("; "))
}
