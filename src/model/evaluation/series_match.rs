//! Which of a group's topics a selector is about, or why none.

use super::topic_selection::{self, TopicSelection};
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::TopicName;

/// A group as it was read, with its cluster; `None` where what is wanted of it was not read yet.
pub(crate) fn group_of<'a>(
    snapshot: &'a LagSnapshot,
    interest: &WatchKey,
) -> Option<(&'a ClusterSnapshot, &'a GroupSnapshot)> {
    let cluster = snapshot.clusters.get(&interest.cluster)?;
    let group = cluster.groups.get(&interest.group)?;
    let covered = if interest.topics.is_empty() {
        group.discovered || group.fault.is_some()
    } else {
        interest
            .topics
            .iter()
            .all(|topic| group.topics.contains_key(topic))
    };
    covered.then_some((cluster, group))
}

/// The group's topics that count and that the selector picks.
///
/// # Errors
/// Why there are none, or not all.
pub(crate) fn series<'a>(
    selector: &Selector,
    asked: &GroupQuery,
    cluster: &ClusterSnapshot,
    group: &'a GroupSnapshot,
) -> Result<TopicSelection<'a>, NoValueReason> {
    let GroupQuery {
        interest, settings, ..
    } = asked;
    let unknown = |fault| NoValueReason::Unknown {
        group: interest.group.clone(),
        cluster: interest.cluster.clone(),
        cause: cluster.cause(fault),
    };
    if let (true, false, Some(fault)) = (interest.topics.is_empty(), group.discovered, group.fault)
    {
        // What somebody else named of the group is here, and perhaps not all that it reads.
        return Err(unknown(fault));
    }
    let pinned = |key: &str| {
        selector
            .values(key)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let mut picked = topic_selection::pick(group, &interest.topics, settings.pattern());
    let matches = |topic: &TopicName| {
        selector.matches(|key| match key {
            label::GROUP => Some(asked.label.as_str()),
            // Where the selector does not pin it, any topic that counts is one.
            label::TOPIC => Some(topic.as_str()),
            label::CLUSTER => Some(interest.cluster.as_str()),
            label::HPA | label::TARGET => pinned(key),
            _ => None,
        })
    };
    let has_topics = !picked.topics.is_empty();
    picked.topics.retain(|(topic, _)| matches(topic));
    picked.unread.retain(matches);
    if !picked.unread.is_empty() {
        let TopicSelection { unread, .. } = picked;
        return Err(match group.fault {
            Some(fault) => unknown(fault),
            None => NoValueReason::NotYetRead(vec![WatchKey {
                topics: unread,
                ..(**interest).clone()
            }]),
        });
    }
    match (picked.topics.is_empty(), group.fault) {
        (false, _) => Ok(picked),
        (true, _) if has_topics => Err(NoValueReason::NothingSelected {
            selector: selector.to_string(),
            group: interest.group.clone(),
        }),
        (true, Some(fault)) => Err(unknown(fault)),
        (true, None) => Err(match settings.pattern() {
            Some(pattern) => NoValueReason::NothingMatches {
                pattern: pattern.to_string(),
                group: interest.group.clone(),
                cluster: interest.cluster.clone(),
            },
            None => NoValueReason::NothingCommitted {
                group: interest.group.clone(),
                cluster: interest.cluster.clone(),
            },
        }),
    }
}

/// Why a topic has no reading that may be served.
pub(crate) fn unknown(
    interest: &WatchKey,
    cluster: &ClusterSnapshot,
    topic: &TopicName,
    group_topic: &GroupTopic,
) -> NoValueReason {
    let fault = group_topic.fault().unwrap_or(Fault::NoAnswer);
    let (group, name) = (interest.group.clone(), interest.cluster.clone());
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
