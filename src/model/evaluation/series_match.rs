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

/// Whether a group was read as far as this watch key asks for.
pub(super) fn covers(group: &GroupSnapshot, key: &WatchKey) -> bool {
    if key.topics.is_empty() {
        group.discovered || group.fault.is_some()
    } else {
        key.topics
            .iter()
            .all(|topic| group.topics.contains_key(topic))
    }
}

/// Selects the topics of a group that count and that the selector matches.
///
/// The second value is why these are not all the topics that count, or why there are none. The topics
/// are returned all the same: how long their lag has been unknown decides when a fallback is served.
pub(super) fn select_topics<'a>(
    selector: &Selector,
    query: &GroupQuery,
    cluster: &ClusterSnapshot,
    group: &'a GroupSnapshot,
) -> (TopicSelection<'a>, Result<(), NoValueReason>) {
    let (interest, settings) = (&query.key, &query.settings);
    let mut selected = topic_selection::pick(group, &interest.topics, settings.pattern());
    let unknown = |fault| NoValueReason::Unknown {
        group: interest.group.clone(),
        cluster: interest.cluster.clone(),
        cause: cluster.cause(fault),
    };
    if let (true, false, Some(fault)) = (interest.topics.is_empty(), group.discovered, group.fault)
    {
        // Only topics that another target named are known, perhaps not all that the group reads.
        return (selected, Err(unknown(fault)));
    }
    let pinned = |key: &str| {
        selector
            .values(key)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let matches = |topic: &TopicName| {
        selector.matches(|key| match key {
            label::GROUP => Some(query.label.as_str()),
            // A selector that names no topic matches every topic that counts.
            label::TOPIC => Some(topic.as_str()),
            label::CLUSTER => Some(interest.cluster.as_str()),
            label::HPA | label::TARGET => pinned(key),
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
                topics: selected.unread.clone(),
                ..(**interest).clone()
            }]),
        })
    } else if !selected.topics.is_empty() {
        Ok(())
    } else if has_topics {
        Err(NoValueReason::NothingSelected {
            selector: selector.to_string(),
            group: interest.group.clone(),
        })
    } else if let Some(fault) = group.fault {
        Err(unknown(fault))
    } else {
        Err(nothing_read(query))
    };
    (selected, checked)
}

/// Why a group that was read has no topic that counts.
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

/// Why the lag of a group on a topic is unknown: it was never read completely, or too long ago.
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
