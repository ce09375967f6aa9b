//! A finding in words.

use std::fmt;

use super::{Finding, Window};
use crate::model::units::metric::DESIRED_METRIC;

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
            Finding::MaxAboveCeiling {
                hpa,
                ceiling,
                max_replicas,
            } => write!(
                f,
                "HPA {hpa}: maxReplicas {max_replicas} is above the ceiling {ceiling}: the value served never asks for more than that"
            ),
            Finding::MinAboveCeiling {
                hpa,
                ceiling,
                min_replicas,
            } => write!(
                f,
                "HPA {hpa}: minReplicas {min_replicas} is above the ceiling {ceiling}: the replicas beyond it never have work"
            ),
            Finding::OthersAbove {
                hpa,
                metric,
                ceiling,
                max_replicas,
            } => write!(
                f,
                "HPA {hpa}: its metric {metric} of others may ask for more replicas than the ceiling {ceiling} (up to maxReplicas {max_replicas})"
            ),
            Finding::ConflictingTargets { hpa, reason }
            | Finding::NothingToRead { hpa, reason } => {
                write!(f, "HPA {hpa}: {reason}")
            }
            Finding::SharedScaleTarget { hpa, other, scales } => {
                write!(f, "HPA {hpa}: HPA {other} scales {scales}, too")
            }
            Finding::TopicMissing {
                hpa,
                cluster,
                topic,
            } => write!(
                f,
                "HPA {hpa}: topic {topic:?} does not exist on Kafka cluster {cluster:?}"
            ),
            Finding::NoMembers { cluster, group } => write!(
                f,
                "group {group:?} on Kafka cluster {cluster:?} has lag and no members"
            ),
            Finding::OffsetsExpire { cluster, group } => write!(
                f,
                "group {group:?} on Kafka cluster {cluster:?} has had no members for five days: brokers delete the offsets of such a group after seven by default"
            ),
            Finding::ForeignMembers {
                hpa,
                group,
                members,
            } => write!(
                f,
                "HPA {hpa}: {members} of the members of group {group:?} are no pods of what it scales"
            ),
            Finding::UnevenPartitions {
                hpa,
                ceiling,
                max_replicas,
            } => write!(
                f,
                "HPA {hpa}: {max_replicas} replicas (maxReplicas) cannot share the {ceiling} parts of the work evenly"
            ),
            Finding::Stabilised {
                hpa,
                window: Window::Up,
                seconds,
            } => write!(
                f,
                "HPA {hpa}: behavior.scaleUp.stabilizationWindowSeconds {seconds}: it follows the least that was wanted in that time, so new lag waits as long"
            ),
            Finding::Stabilised {
                hpa,
                window: Window::Down,
                seconds,
            } => write!(
                f,
                "HPA {hpa}: behavior.scaleDown.stabilizationWindowSeconds {seconds}: it follows the most that was wanted in that time, although {DESIRED_METRIC} is a decision already"
            ),
            Finding::Stabilised {
                hpa,
                window: Window::Cooldown,
                seconds,
            } => write!(
                f,
                "HPA {hpa}: its scale-down stabilisation of {seconds} s is longer than lagwise.dev/cooldown: it goes to zero that much later"
            ),
            Finding::ControllerOwned { hpa, controller } => write!(
                f,
                "HPA {hpa}: {controller} owns it, so lagwise writes nothing about it, whatever its annotations ask for"
            ),
            Finding::ReplicasInManifest { hpa, scales, owner } => write!(
                f,
                "HPA {hpa}: spec.replicas of {scales} is set by {owner} as well: every time that is applied it undoes the HPA"
            ),
            Finding::OrderedReady { hpa, scales } => write!(
                f,
                "HPA {hpa}: {scales} starts its pods one after another (podManagementPolicy OrderedReady)"
            ),
            Finding::SurgeAboveCeiling {
                hpa,
                scales,
                surge,
                ceiling,
            } => write!(
                f,
                "HPA {hpa}: a rollout of {scales} at the ceiling {ceiling} starts up to {surge} pods more, which join the group and have no work"
            ),
            Finding::ToleranceLeft { hpa } => write!(
                f,
                "HPA {hpa}: its tolerance is not \"0\": within it the HPA may stop short of the ceiling, or keep replicas above it"
            ),
        }
    }
}
