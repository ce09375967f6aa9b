//! Matches a selector against the topics of a group, and says why a topic has no lag to serve.

use super::topic_selection::{self, TopicSelection};
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic};
use crate::model::targets::WatchKey;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::TopicName;

/// Maximum number of topics that were not read yet in one reason. When they are read, it names the next ones.
const MAX_UNREAD_TOPICS: usize = 32;

/// Whether the snapshot of the group contains every topic that the watch key requests, or a fault that explains why
/// not.
pub(super) fn covers(group: &GroupSnapshot, key: &WatchKey) -> bool {
    if key.topics.is_empty() {
        group.discovered || group.fault.is_some()
    } else {
        key.topics
            .iter()
            .all(|topic| group.topics.contains_key(topic))
    }
}

/// Selects the topics of a group that the target includes (named topics, or those that match its topic regex) and
/// that the selector matches.
///
/// Returns the selected topics and, as the second value, an error if the selection is incomplete or empty. The topics
/// are returned even with an error, because the fallback starts once their lag has been unknown for long enough.
pub(super) fn select_topics<'a>(
    selector: &Selector,
    query: &GroupQuery,
    cluster: &ClusterSnapshot,
    group: &'a GroupSnapshot,
) -> (TopicSelection<'a>, Result<(), NoValueReason>) {
    let (key, settings) = (&query.key, &query.settings);
    let mut selected = topic_selection::pick(group, &key.topics, settings.pattern());
    let unknown = |fault| NoValueReason::Unknown {
        group: key.group.clone(),
        cluster: key.cluster.clone(),
        cause: cluster.cause(fault),
    };
    if let (true, false, Some(fault)) = (key.topics.is_empty(), group.discovered, group.fault) {
        // Topic discovery failed, so only topics named by other targets are known. The group may read more.
        return (selected, Err(unknown(fault)));
    }
    if key.topics.is_empty()
        && settings.pattern().is_some()
        && group.fault.is_none()
        && group.is_empty()
        && group.listing.is_none()
    {
        // Its members have left just now, so that the topics which match are yet to be listed.
        return (
            selected,
            Err(NoValueReason::NotYetRead(vec![(**key).clone()])),
        );
    }
    let selector_value = |label: &str| {
        selector
            .values(label)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let matches = |topic: &TopicName| {
        selector.matches(|label| match label {
            label::GROUP => Some(query.label.as_str()),
            // A selector that names no topic matches every topic of the target.
            label::TOPIC => Some(topic.as_str()),
            label::CLUSTER => Some(key.cluster.as_str()),
            // These labels only choose the target, so the selector always matches itself on them.
            label::HPA | label::TARGET => selector_value(label),
            _ => None,
        })
    };
    let has_topics = !selected.topics.is_empty();
    selected.topics.retain(|(topic, _)| matches(topic));
    selected.unread.retain(matches);
    let checked = if !selected.unread.is_empty() {
        Err(match group.fault {
            Some(fault) => unknown(fault),
            None => NoValueReason::NotYetRead(vec![WatchKey {
                // Members may subscribe to thousands, and each of their targets has such a reason.
                topics: selected
                    .unread
                    .iter()
                    .take(MAX_UNREAD_TOPICS)
                    .cloned()
                    .collect(),
                ..(**key).clone()
            }]),
        })
    } else if !selected.topics.is_empty() {
        Ok(())
    } else if has_topics {
        Err(NoValueReason::NothingSelected {
            selector: selector.to_string(),
            group: key.group.clone(),
        })
    } else if let Some(fault) = group.fault {
        Err(unknown(fault))
    } else {
        Err(nothing_read(query))
    };
    (selected, checked)
}

/// Reason why a group that was read has no topic to serve.
fn nothing_read(query: &GroupQuery) -> NoValueReason {
    let group = query.key.group.clone();
    let cluster = query.key.cluster.clone();
    match query.settings.pattern() {
        Some(pattern) => NoValueReason::NothingMatches {
            pattern: pattern.to_string(),
            group,
            cluster,
        },
        None => NoValueReason::NothingCommitted { group, cluster },
    }
}

/// Reason why the lag of a group on a topic is unknown: the topic is missing, was never read completely, or its last
/// complete reading is stale.
pub(super) fn unknown_reason(
    key: &WatchKey,
    cluster: &ClusterSnapshot,
    topic: &TopicName,
    group_topic: &GroupTopic,
) -> NoValueReason {
    let fault = group_topic.fault().unwrap_or(Fault::NoAnswer);
    let (group, name) = (key.group.clone(), key.cluster.clone());
    if fault == Fault::TopicMissing {
        return NoValueReason::TopicMissing {
            topic: topic.clone(),
            cluster: name,
        };
    }
    let cause = cluster.cause(fault);
    match &group_topic.complete {
        Some(complete) => NoValueReason::Stale {
            group,
            cluster: name,
            since: humantime::format_rfc3339_seconds(complete.read.wall).to_string(),
            cause,
        },
        None => NoValueReason::Unknown {
            group,
            cluster: name,
            cause,
        },
    }
}
