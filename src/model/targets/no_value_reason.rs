//! Why a question has no value, in the words that the HPA's condition will show.

use super::WatchKey;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// Why a question has no value. `Display` is the text for the HPA's condition, so it stays the
/// same while the cause does: it tells since when, not for how long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValueReason {
    /// No metric of ours.
    #[error(
        "the metric {metric:?} is not served here: lagwise serves {LAG_METRIC} and {DESIRED_METRIC}"
    )]
    UnknownMetric {
        /// Its name.
        metric: String,
    },
    /// The selector names no group.
    #[error(
        "the selector {selector:?} names no consumer group: write for example \
         matchLabels: {{group: my-group, topic: my-topic}}"
    )]
    NoGroup {
        /// The selector.
        selector: String,
    },
    /// The selector names no target that is configured for the namespace.
    #[error("no target of the configuration matches {selector:?} for namespace {namespace:?}")]
    UnknownTarget {
        /// The selector.
        selector: String,
        /// The namespace.
        namespace: String,
    },
    /// The selector leaves out every topic of the group.
    #[error(
        "the selector {selector:?} leaves out every topic of group {group:?}: the labels that can be \
         matched are group, topic, cluster, hpa and target"
    )]
    NothingSelected {
        /// The selector.
        selector: String,
        /// The group.
        group: GroupId,
    },
    /// The selector names a cluster that is not configured.
    #[error("the Kafka cluster {cluster:?} is not configured: known are {known}")]
    UnknownCluster {
        /// The name.
        cluster: String,
        /// The configured ones.
        known: String,
    },
    /// Several clusters are configured and the selector names none.
    #[error("several Kafka clusters are configured ({known}): name one with the label cluster")]
    AmbiguousCluster {
        /// The configured ones.
        known: String,
    },
    /// HPAs with the same selector want different lag per replica.
    #[error(
        "HPAs {hpas} of namespace {namespace:?} select {selector:?} with different targets: \
         give each selector the label hpa with the HPA's name"
    )]
    ConflictingTargets {
        /// Their names.
        hpas: String,
        /// Their namespace.
        namespace: String,
        /// The selector.
        selector: String,
    },
    /// The HPAs are not known yet, so that nobody can say how much lag one replica may have.
    #[error(
        "the HPAs of the cluster have not been listed yet, so the lag wanted per replica is not known"
    )]
    HpasUnlisted,
    /// HPAs of the namespace are not watched, so that what they want is not known.
    #[error(
        "HPAs of namespace {namespace:?} are not watched: add it to kubernetes.namespaces of the configuration"
    )]
    NamespaceNotWatched {
        /// The namespace of the request.
        namespace: String,
    },
    /// Nothing was read for it yet.
    #[error("the first read of {} is not complete", shown(.0))]
    NotYetRead(Vec<WatchKey>),
    /// A topic that does not exist.
    #[error("topic {topic:?} does not exist on Kafka cluster {cluster:?}")]
    TopicMissing {
        /// The topic.
        topic: TopicName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// No topic is named and the group has none.
    #[error(
        "group {group:?} has committed no offset on Kafka cluster {cluster:?}, so its topics are \
         not known: name them with the label topic"
    )]
    NothingCommitted {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
    },
    /// No topic that the group reads matches the pattern that was set.
    #[error(
        "no topic that group {group:?} reads on Kafka cluster {cluster:?} matches the topic regex {pattern:?}"
    )]
    NothingMatches {
        /// The pattern.
        pattern: String,
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The topics have none of the partitions that were set.
    #[error("no topic of group {group:?} has any of the partitions {filter} that are set for it")]
    NoPartition {
        /// The partitions.
        filter: String,
        /// The group.
        group: GroupId,
    },
    /// Replicas wanted, and nobody says how much lag each may have.
    #[error(
        "{DESIRED_METRIC} of {selector:?} cannot be told without the lag wanted per replica: add the annotation lagwise.dev/lag-per-replica to the HPA"
    )]
    NoLagPerReplica {
        /// The selector.
        selector: String,
    },
    /// Never read completely.
    #[error("lag of group {group:?} on Kafka cluster {cluster:?} is unknown: {cause}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        cause: String,
    },
    /// Read completely, but too long ago.
    #[error(
        "lag of group {group:?} on Kafka cluster {cluster:?} is unknown since {since}: {cause}"
    )]
    Stale {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
        /// When it was last read completely, RFC 3339 in UTC.
        since: String,
        /// Why.
        cause: String,
    },
}

impl NoValueReason {
    /// Whether lag is not known at present, and will be again without anybody's doing.
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

fn shown(interests: &[WatchKey]) -> String {
    let one = |i: &WatchKey| format!("group {:?} on Kafka cluster {:?}", i.group, i.cluster);
    interests.iter().map(one).collect::<Vec<_>>().join(", ")
}
