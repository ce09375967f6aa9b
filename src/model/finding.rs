//! What is odd about an HPA, the configuration or a group, for people.

use std::fmt;

use super::parallelism::ParallelismRule;
use super::target::DESIRED_METRIC;
use super::types::{ClusterName, GroupId, Replicas};

/// Something about an HPA, the configuration or a group that a person should know. `hpa` is always
/// its `namespace/name`. Texts stay the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "the fields are what the texts below say of them"
)]
pub enum Finding {
    /// A metric of ours whose selector names neither a group nor a configured target.
    NoGroup { hpa: String },
    /// A metric of ours that names a cluster which is not configured.
    UnknownCluster { hpa: String, cluster: String },
    /// A metric of ours that names no cluster, where several are configured.
    AmbiguousCluster { hpa: String },
    /// A metric of ours with a `Value` target, which multiplies at every sync.
    ValueTarget { hpa: String },
    /// Replicas wanted that are compared with anything but an average of one.
    DesiredNotOne { hpa: String },
    /// Replicas wanted, without the lag wanted per replica.
    NoLagPerReplica { hpa: String },
    /// A metric of ours whose selector has a label that means nothing.
    UnknownLabel {
        hpa: String,
        label: String,
        meant: Option<String>,
    },
    /// A metric of ours that names a target which is not configured for the namespace.
    UnknownTarget { hpa: String, target: String },
    /// An annotation of ours with a key that means nothing.
    UnknownAnnotation {
        hpa: String,
        annotation: String,
        meant: Option<String>,
    },
    /// An annotation of ours with a value that cannot be used; the default applies.
    BadAnnotation {
        hpa: String,
        annotation: String,
        value: String,
        allowed: &'static str,
    },
    /// An annotation for a group or target that no metric of the HPA names.
    StrayAnnotation { hpa: String, annotation: String },
    /// Both a list of topics and a pattern; the list applies.
    TopicsTwice { hpa: String },
    /// One group for several that the selector names.
    OneGroupForAll { hpa: String },
    /// A fallback's time without its replicas.
    NoFallbackReplicas { hpa: String },
    /// Targets that set a group's setting differently; the safer one applies.
    ConflictingSettings {
        cluster: ClusterName,
        group: GroupId,
        setting: &'static str,
    },
    /// More members than can have work.
    MembersBeyond {
        cluster: ClusterName,
        group: GroupId,
        useful: Replicas,
        rule: ParallelismRule,
    },
    /// Members that subscribe to different topics.
    MixedSubscriptions {
        cluster: ClusterName,
        group: GroupId,
    },
    /// A tolerance by which the HPA may keep replicas above the ceiling.
    ToleranceAbove {
        hpa: String,
        ceiling: Replicas,
        max_replicas: u32,
    },
    /// A tolerance by which the HPA stops short of the ceiling.
    ToleranceBelow { hpa: String, from: u32, goal: u32 },
    /// Lag has been unknown for so long that the fallback is served.
    FallbackServed { hpa: String },
    /// To be scaled to zero, and with an External metric of others that nobody asks at zero replicas.
    NoZeroWithOthers { hpa: String, metric: String },
}

impl Finding {
    /// The kind, for labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Finding::NoGroup { .. } => "no_group",
            Finding::UnknownCluster { .. } => "unknown_cluster",
            Finding::AmbiguousCluster { .. } => "ambiguous_cluster",
            Finding::ValueTarget { .. } => "value_target",
            Finding::DesiredNotOne { .. } => "desired_not_one",
            Finding::NoLagPerReplica { .. } => "no_lag_per_replica",
            Finding::UnknownLabel { .. } => "unknown_label",
            Finding::UnknownTarget { .. } => "unknown_target",
            Finding::UnknownAnnotation { .. } => "unknown_annotation",
            Finding::BadAnnotation { .. } => "bad_annotation",
            Finding::StrayAnnotation { .. } => "stray_annotation",
            Finding::TopicsTwice { .. } => "topics_twice",
            Finding::OneGroupForAll { .. } => "one_group_for_all",
            Finding::NoFallbackReplicas { .. } => "no_fallback_replicas",
            Finding::ConflictingSettings { .. } => "conflicting_settings",
            Finding::MembersBeyond { .. } => "members_beyond",
            Finding::MixedSubscriptions { .. } => "mixed_subscriptions",
            Finding::ToleranceAbove { .. } => "tolerance_above",
            Finding::ToleranceBelow { .. } => "tolerance_below",
            Finding::FallbackServed { .. } => "fallback_served",
            Finding::NoZeroWithOthers { .. } => "no_zero_with_others",
        }
    }
}

/// What was probably meant, after a comma.
struct Meant<'a>(&'a str, &'a Option<String>);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(meant) => write!(f, ", did you mean {}{meant}?", self.0),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NoGroup { hpa } => write!(
                f,
                "HPA {hpa}: the selector of its Kafka metric names no consumer group: add matchLabels.group"
            ),
            Finding::UnknownCluster { hpa, cluster } => {
                write!(
                    f,
                    "HPA {hpa}: the Kafka cluster {cluster:?} is not configured"
                )
            }
            Finding::AmbiguousCluster { hpa } => write!(
                f,
                "HPA {hpa}: several Kafka clusters are configured: add matchLabels.cluster"
            ),
            Finding::ValueTarget { hpa } => write!(
                f,
                "HPA {hpa}: a target of type Value multiplies lag by the ready pods at every sync: use AverageValue"
            ),
            Finding::DesiredNotOne { hpa } => write!(
                f,
                "HPA {hpa}: {DESIRED_METRIC} is the number of replicas itself: compare it with averageValue \"1\""
            ),
            Finding::NoLagPerReplica { hpa } => write!(
                f,
                "HPA {hpa}: {DESIRED_METRIC} cannot be told without the lag wanted per replica: add the annotation lagwise.dev/lag-per-replica"
            ),
            Finding::UnknownLabel { hpa, label, meant } => write!(
                f,
                "HPA {hpa}: the selector of its Kafka metric has the label {label}, which means nothing here{}",
                Meant("", meant)
            ),
            Finding::UnknownTarget { hpa, target } => write!(
                f,
                "HPA {hpa}: no target {target:?} is configured for its namespace"
            ),
            Finding::UnknownAnnotation {
                hpa,
                annotation,
                meant,
            } => write!(
                f,
                "HPA {hpa}: unknown annotation {annotation}{}",
                Meant("lagwise.dev/", meant)
            ),
            Finding::BadAnnotation {
                hpa,
                annotation,
                value,
                allowed,
            } => write!(
                f,
                "HPA {hpa}: annotation {annotation}: {value:?} cannot be used, the default applies; allowed: {allowed}"
            ),
            Finding::StrayAnnotation { hpa, annotation } => write!(
                f,
                "HPA {hpa}: annotation {annotation} is for a group or target that no metric of the HPA names"
            ),
            Finding::TopicsTwice { hpa } => write!(
                f,
                "HPA {hpa}: annotations lagwise.dev/topics and lagwise.dev/topic-regex exclude each other: the list applies"
            ),
            Finding::OneGroupForAll { hpa } => write!(
                f,
                "HPA {hpa}: annotation lagwise.dev/consumer-group stands for several groups of the selector, so that it counts once: name each, as in lagwise.dev/consumer-group.LABEL"
            ),
            Finding::NoFallbackReplicas { hpa } => write!(
                f,
                "HPA {hpa}: annotation lagwise.dev/fallback-after does nothing without lagwise.dev/fallback-replicas"
            ),
            Finding::ConflictingSettings {
                cluster,
                group,
                setting,
            } => write!(
                f,
                "group {group:?} on Kafka cluster {cluster:?}: {setting} is set differently by several targets: the safer one applies"
            ),
            Finding::MembersBeyond {
                cluster,
                group,
                useful,
                rule,
            } => write!(
                f,
                "group {group:?} on Kafka cluster {cluster:?} has more members than the {useful} that can have work ({rule})"
            ),
            Finding::MixedSubscriptions { cluster, group } => write!(
                f,
                "group {group:?} on Kafka cluster {cluster:?}: its members subscribe to different topics"
            ),
            Finding::ToleranceAbove {
                hpa,
                ceiling,
                max_replicas,
            } => write!(
                f,
                "HPA {hpa}: within its tolerance it may keep more replicas than the ceiling {ceiling} (up to maxReplicas {max_replicas}): set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\""
            ),
            Finding::ToleranceBelow { hpa, from, goal } => write!(
                f,
                "HPA {hpa}: within its tolerance it stops at {from} replicas or more and short of {goal}: set behavior.scaleUp.tolerance to \"0\""
            ),
            Finding::FallbackServed { hpa } => write!(
                f,
                "HPA {hpa}: lag has been unknown for longer than its fallback-after: fallback-replicas are served"
            ),
            Finding::NoZeroWithOthers { hpa, metric } => write!(
                f,
                "HPA {hpa}: annotation lagwise.dev/scale-to-zero does nothing while the HPA has the External metric {metric} of others, which nobody asks at zero replicas"
            ),
        }
    }
}
