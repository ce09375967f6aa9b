//! Why a query has no value, as the condition of the HPA shows it.

use super::denial_reason::DenialReason;
use super::selector_size::SelectorTooLarge;
use super::watch_key::WatchKey;
use crate::model::findings::suggestion;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// Why a query has no value. `Display` is the text for the HPA's condition, so it stays the same while the cause does:
/// it says since when, not for how long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValueReason {
    /// lagwise does not serve the metric.
    #[error("lagwise does not serve the metric {metric:?}, only {LAG_METRIC} and {DESIRED_METRIC}")]
    UnknownMetric { metric: String },
    /// The selector names no group.
    #[error(
        "the selector {selector:?} names no consumer group; set for example \
         matchLabels: {{group: my-group, topic: my-topic}}"
    )]
    NoGroup { selector: String },
    /// The selector names no target that is configured for the namespace.
    #[error(
        "no target of the configuration matches {selector:?} for namespace {namespace:?}; \
         configure the target, or add the namespace to it"
    )]
    UnknownTarget { selector: String, namespace: String },
    /// The selector selects more than the limits of one metric.
    #[error(transparent)]
    SelectorTooLarge(SelectorTooLarge),
    /// The selector leaves out every topic of the group.
    #[error(
        "the selector {selector:?} matches no topic of group {group:?}; it may use the labels group, \
         topic, cluster, hpa and target"
    )]
    NothingSelected { selector: String, group: GroupId },
    /// The selector names a cluster that is not configured.
    #[error("the Kafka cluster {cluster:?} is not configured; the configured ones are {known}")]
    UnknownCluster { cluster: String, known: String },
    /// Several clusters are configured and the selector names none.
    #[error("several Kafka clusters are configured ({known}); name one with the label cluster")]
    AmbiguousCluster { known: String },
    /// HPAs with the same selector have different metric targets or settings.
    #[error(
        "HPAs {hpas} of namespace {namespace:?} use the selector {selector:?} with different targets\
         {LABEL_HPA}"
    )]
    ConflictingTargets {
        hpas: String,
        namespace: String,
        selector: String,
    },
    /// The HPAs are not listed yet, so that the lag per replica is not known.
    #[error(
        "lagwise has not listed the HPAs of the cluster yet, so the lag per replica is not known"
    )]
    HpasUnlisted,
    /// HPAs of the namespace are not watched, so that their metric targets are not known.
    #[error(
        "lagwise does not watch the HPAs of namespace {namespace:?}; add it to kubernetes.namespaces of the configuration"
    )]
    NamespaceNotWatched { namespace: String },
    /// Requests of the HPA are refused.
    #[error(transparent)]
    Denied(DenialReason),
    /// The first reading is not complete.
    #[error("the first read of {} is not complete yet", list_groups(.0))]
    NotYetRead(Vec<WatchKey>),
    /// A topic that does not exist.
    #[error("topic {topic:?} does not exist on Kafka cluster {cluster:?}")]
    TopicMissing {
        topic: TopicName,
        cluster: ClusterName,
    },
    /// No topic is named and the group has none.
    #[error(
        "group {group:?} has committed no offset on Kafka cluster {cluster:?}, so its topics are \
         not known{LABEL_TOPIC}"
    )]
    NothingCommitted {
        group: GroupId,
        cluster: ClusterName,
    },
    /// The group has committed nothing on the topics that count, and several replicas run.
    #[error(
        "group {group:?}{} has no committed offset on the topics that count on Kafka cluster {cluster:?}, so its lag is \
         unknown; with several replicas that is no reason to remove any: check the names of group and topics",
        suggestion_of(nearest.as_ref())
    )]
    NeverRan {
        group: GroupId,
        cluster: ClusterName,
        /// An existing group of a similar name that the namespace may use.
        nearest: Option<GroupId>,
    },
    /// No topic that the group reads matches the pattern that was set.
    #[error(
        "no topic that group {group:?} reads on Kafka cluster {cluster:?} matches the topic regex {pattern:?}"
    )]
    NothingMatches {
        pattern: String,
        group: GroupId,
        cluster: ClusterName,
    },
    /// The topics have none of the partitions that were set.
    #[error(
        "no topic of group {group:?} has any of the partitions {filter} that are configured for it"
    )]
    NoPartition { filter: String, group: GroupId },
    /// The metric is desired replicas, and no lag per replica is set.
    #[error(
        "{DESIRED_METRIC} of {selector:?} needs to know the lag per replica; add the annotation lagwise.dev/lag-per-replica to the HPA"
    )]
    NoLagPerReplica { selector: String },
    /// Never read completely.
    #[error("lag of group {group:?} on Kafka cluster {cluster:?} is unknown: {cause}")]
    Unknown {
        group: GroupId,
        cluster: ClusterName,
        cause: String,
    },
    /// Read completely, but too long ago.
    #[error(
        "lag of group {group:?} on Kafka cluster {cluster:?} is unknown since {since}: {cause}"
    )]
    Stale {
        group: GroupId,
        cluster: ClusterName,
        /// When it was last read completely, RFC 3339 in UTC.
        since: String,
        cause: String,
    },
}

/// Advice in the texts of reasons. Findings have separate advice.
const LABEL_HPA: &str = "; add the label hpa with the HPA's name to each selector";
const LABEL_TOPIC: &str = "; name them with the label topic";

impl NoValueReason {
    /// The text without what to do about it.
    #[must_use]
    pub fn without_advice(&self) -> String {
        let text = self.to_string();
        let advice = [LABEL_HPA, LABEL_TOPIC];
        let mut plain = advice.iter().filter_map(|advice| text.strip_suffix(advice));
        plain.next().map(str::to_owned).unwrap_or(text)
    }

    /// The Kafka cluster whose answers are missing, if they are.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            NoValueReason::Unknown { cluster, .. } | NoValueReason::Stale { cluster, .. } => {
                Some(cluster)
            }
            NoValueReason::NotYetRead(keys) => keys.first().map(|key| &key.cluster),
            _ => None,
        }
    }

    /// Whether lag is unknown for now, and will be known again without a change of the HPA or the configuration.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            NoValueReason::NotYetRead(_)
                | NoValueReason::Unknown { .. }
                | NoValueReason::Stale { .. }
        )
    }
}

fn suggestion_of(group: Option<&GroupId>) -> String {
    suggestion("group ", group.map(GroupId::as_str))
}

fn list_groups(keys: &[WatchKey]) -> String {
    let one = |key: &WatchKey| format!("group {:?} on Kafka cluster {:?}", key.group, key.cluster);
    keys.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::limits::HpaTooLarge;
    use crate::model::targets::tenancy::TenancyError;

    #[test]
    fn the_text_of_every_reason() {
        let (selector, namespace) = ("group=g,topic=t".to_owned(), "shop".to_owned());
        let known = "main, other".to_owned();
        let (group, cluster) = (GroupId::from("g"), ClusterName::from("main"));
        let cause = "leader not available".to_owned();
        let key = |group: &str| WatchKey {
            cluster: "main".into(),
            group: group.into(),
            topics: std::collections::BTreeSet::new(),
        };
        let all = [
            NoValueReason::UnknownMetric {
                metric: "queue_length".into(),
            },
            NoValueReason::NoGroup {
                selector: "topic=t".into(),
            },
            NoValueReason::UnknownTarget {
                selector: "target=orders".into(),
                namespace: namespace.clone(),
            },
            NoValueReason::SelectorTooLarge(SelectorTooLarge::Groups(33)),
            NoValueReason::SelectorTooLarge(SelectorTooLarge::Topics(300)),
            NoValueReason::NothingSelected {
                selector: selector.clone(),
                group: group.clone(),
            },
            NoValueReason::UnknownCluster {
                cluster: "mian".into(),
                known: known.clone(),
            },
            NoValueReason::AmbiguousCluster { known },
            NoValueReason::ConflictingTargets {
                hpas: "billing, mail".into(),
                namespace: namespace.clone(),
                selector: selector.clone(),
            },
            NoValueReason::HpasUnlisted,
            NoValueReason::NamespaceNotWatched {
                namespace: namespace.clone(),
            },
            NoValueReason::Denied(DenialReason::NotAllowed(TenancyError::Group {
                namespace,
                group: "g".into(),
                cluster: "main".into(),
            })),
            NoValueReason::Denied(DenialReason::HpaTooLarge(HpaTooLarge::Metrics(100))),
            NoValueReason::NotYetRead(vec![key("g"), key("h")]),
            NoValueReason::TopicMissing {
                topic: "t".into(),
                cluster: cluster.clone(),
            },
            NoValueReason::NothingCommitted {
                group: group.clone(),
                cluster: cluster.clone(),
            },
            NoValueReason::NeverRan {
                group: "ordres".into(),
                cluster: cluster.clone(),
                nearest: Some("orders".into()),
            },
            NoValueReason::NothingMatches {
                pattern: "orders-.*".into(),
                group: group.clone(),
                cluster: cluster.clone(),
            },
            NoValueReason::NoPartition {
                filter: "7-9".into(),
                group: group.clone(),
            },
            NoValueReason::NoLagPerReplica { selector },
            NoValueReason::Unknown {
                group: group.clone(),
                cluster: cluster.clone(),
                cause: cause.clone(),
            },
            NoValueReason::Stale {
                group,
                cluster,
                since: "2024-05-06T07:08:09Z".into(),
                cause,
            },
        ];
        let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }
}
