//! What is odd about an HPA, the configuration or a group, for people.

mod kind;
mod text;

use std::fmt;

use super::units::newtypes::{ClusterName, GroupId, Replicas, TopicName};
use super::units::parallelism_rule::ParallelismRule;

pub use self::kind::{FindingKind, Severity};

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
    /// A `maxReplicas` that the ceiling makes unreachable; nothing is written about it.
    MaxAboveCeiling {
        hpa: String,
        ceiling: Replicas,
        max_replicas: u32,
    },
    /// A `minReplicas` of which some can have no work.
    MinAboveCeiling {
        hpa: String,
        ceiling: Replicas,
        min_replicas: u32,
    },
    /// A metric of others, which no ceiling of ours binds, on an HPA that may go above the ceiling.
    OthersAbove {
        hpa: String,
        metric: String,
        ceiling: Replicas,
        max_replicas: u32,
    },
    /// HPAs that select alike and want different lag per replica.
    ConflictingTargets { hpa: String, reason: String },
    /// Two HPAs that scale the same.
    SharedScaleTarget {
        hpa: String,
        other: String,
        scales: String,
    },
    /// A topic that does not exist.
    TopicMissing {
        hpa: String,
        cluster: ClusterName,
        topic: TopicName,
    },
    /// A metric of ours that no reading answers.
    NothingToRead { hpa: String, reason: String },
    /// A group that has lag and nobody to work on it.
    NoMembers {
        cluster: ClusterName,
        group: GroupId,
    },
    /// A group whose offsets the brokers are about to delete.
    OffsetsExpire {
        cluster: ClusterName,
        group: GroupId,
    },
    /// Members that are not pods of the workload that the HPA scales.
    ForeignMembers {
        hpa: String,
        group: GroupId,
        members: u32,
    },
    /// A most of replicas that cannot share the partitions evenly.
    UnevenPartitions {
        hpa: String,
        ceiling: Replicas,
        max_replicas: u32,
    },
    /// A stabilisation window that holds up what the metric says.
    Stabilised {
        hpa: String,
        window: Window,
        seconds: u32,
    },
    /// A write that is asked for and not made, since a controller would undo it.
    ControllerOwned { hpa: String, controller: String },
    /// `spec.replicas` of the scale target is in somebody's manifest.
    ReplicasInManifest {
        hpa: String,
        scales: String,
        owner: String,
    },
    /// A StatefulSet that starts its pods one after another.
    OrderedReady { hpa: String, scales: String },
    /// A rollout that starts pods above the ceiling.
    SurgeAboveCeiling {
        hpa: String,
        scales: String,
        surge: u32,
        ceiling: Replicas,
    },
    /// A tolerance that is not zero, where the ceiling is not known.
    ToleranceLeft { hpa: String },
}

/// Which stabilisation window of an HPA, and what it holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// `behavior.scaleUp`: replicas for new lag.
    Up,
    /// `behavior.scaleDown`: fewer replicas, which [`DESIRED_METRIC`](super::units::metric::DESIRED_METRIC) has
    /// decided on already.
    Down,
    /// `behavior.scaleDown`, longer than the cooldown of an HPA that goes to zero by itself.
    Cooldown,
}

impl Finding {
    /// What all findings of its kind have in common.
    #[must_use]
    pub fn kind(&self) -> FindingKind {
        match self {
            Finding::NoGroup { .. } => FindingKind::NoGroup,
            Finding::UnknownCluster { .. } => FindingKind::UnknownCluster,
            Finding::AmbiguousCluster { .. } => FindingKind::AmbiguousCluster,
            Finding::ValueTarget { .. } => FindingKind::ValueTarget,
            Finding::DesiredNotOne { .. } => FindingKind::DesiredNotOne,
            Finding::NoLagPerReplica { .. } => FindingKind::NoLagPerReplica,
            Finding::UnknownLabel { .. } => FindingKind::UnknownLabel,
            Finding::UnknownTarget { .. } => FindingKind::UnknownTarget,
            Finding::UnknownAnnotation { .. } => FindingKind::UnknownAnnotation,
            Finding::BadAnnotation { .. } => FindingKind::BadAnnotation,
            Finding::StrayAnnotation { .. } => FindingKind::StrayAnnotation,
            Finding::TopicsTwice { .. } => FindingKind::TopicsTwice,
            Finding::OneGroupForAll { .. } => FindingKind::OneGroupForAll,
            Finding::NoFallbackReplicas { .. } => FindingKind::NoFallbackReplicas,
            Finding::ConflictingSettings { .. } => FindingKind::ConflictingSettings,
            Finding::MembersBeyond { .. } => FindingKind::MembersBeyond,
            Finding::MixedSubscriptions { .. } => FindingKind::MixedSubscriptions,
            Finding::ToleranceAbove { .. } => FindingKind::ToleranceAbove,
            Finding::ToleranceBelow { .. } => FindingKind::ToleranceBelow,
            Finding::FallbackServed { .. } => FindingKind::FallbackServed,
            Finding::NoZeroWithOthers { .. } => FindingKind::NoZeroWithOthers,
            Finding::MaxAboveCeiling { .. } => FindingKind::MaxAboveCeiling,
            Finding::MinAboveCeiling { .. } => FindingKind::MinAboveCeiling,
            Finding::OthersAbove { .. } => FindingKind::OthersAbove,
            Finding::ConflictingTargets { .. } => FindingKind::ConflictingTargets,
            Finding::SharedScaleTarget { .. } => FindingKind::SharedScaleTarget,
            Finding::TopicMissing { .. } => FindingKind::TopicMissing,
            Finding::NothingToRead { .. } => FindingKind::NothingToRead,
            Finding::NoMembers { .. } => FindingKind::NoMembers,
            Finding::OffsetsExpire { .. } => FindingKind::OffsetsExpire,
            Finding::ForeignMembers { .. } => FindingKind::ForeignMembers,
            Finding::UnevenPartitions { .. } => FindingKind::UnevenPartitions,
            Finding::Stabilised { .. } => FindingKind::Stabilised,
            Finding::ControllerOwned { .. } => FindingKind::ControllerOwned,
            Finding::ReplicasInManifest { .. } => FindingKind::ReplicasInManifest,
            Finding::OrderedReady { .. } => FindingKind::OrderedReady,
            Finding::SurgeAboveCeiling { .. } => FindingKind::SurgeAboveCeiling,
            Finding::ToleranceLeft { .. } => FindingKind::ToleranceLeft,
        }
    }

    /// The kind, for labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.kind().label()
    }

    /// What it is about: an HPA, or a group of a cluster.
    #[must_use]
    pub fn about(&self) -> FindingSubject<'_> {
        match self {
            Finding::ConflictingSettings { cluster, group, .. }
            | Finding::MembersBeyond { cluster, group, .. }
            | Finding::MixedSubscriptions { cluster, group, .. }
            | Finding::NoMembers { cluster, group, .. }
            | Finding::OffsetsExpire { cluster, group } => FindingSubject::Group(cluster, group),
            Finding::NoGroup { hpa, .. }
            | Finding::UnknownCluster { hpa, .. }
            | Finding::AmbiguousCluster { hpa, .. }
            | Finding::ValueTarget { hpa, .. }
            | Finding::DesiredNotOne { hpa, .. }
            | Finding::NoLagPerReplica { hpa, .. }
            | Finding::UnknownLabel { hpa, .. }
            | Finding::UnknownTarget { hpa, .. }
            | Finding::UnknownAnnotation { hpa, .. }
            | Finding::BadAnnotation { hpa, .. }
            | Finding::StrayAnnotation { hpa, .. }
            | Finding::TopicsTwice { hpa, .. }
            | Finding::OneGroupForAll { hpa, .. }
            | Finding::NoFallbackReplicas { hpa, .. }
            | Finding::ToleranceAbove { hpa, .. }
            | Finding::ToleranceBelow { hpa, .. }
            | Finding::FallbackServed { hpa, .. }
            | Finding::NoZeroWithOthers { hpa, .. }
            | Finding::MaxAboveCeiling { hpa, .. }
            | Finding::MinAboveCeiling { hpa, .. }
            | Finding::OthersAbove { hpa, .. }
            | Finding::ConflictingTargets { hpa, .. }
            | Finding::SharedScaleTarget { hpa, .. }
            | Finding::TopicMissing { hpa, .. }
            | Finding::NothingToRead { hpa, .. }
            | Finding::ForeignMembers { hpa, .. }
            | Finding::UnevenPartitions { hpa, .. }
            | Finding::Stabilised { hpa, .. }
            | Finding::ControllerOwned { hpa, .. }
            | Finding::ReplicasInManifest { hpa, .. }
            | Finding::OrderedReady { hpa, .. }
            | Finding::SurgeAboveCeiling { hpa, .. }
            | Finding::ToleranceLeft { hpa, .. } => FindingSubject::Hpa(hpa),
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingSubject<'a> {
    /// This HPA, as `namespace/name`.
    Hpa(&'a str),
    /// This group, of this cluster.
    Group(&'a ClusterName, &'a GroupId),
}

impl fmt::Display for FindingSubject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FindingSubject::Hpa(hpa) => write!(f, "hpa/{hpa}"),
            FindingSubject::Group(cluster, group) => write!(f, "group/{cluster}/{group}"),
        }
    }
}

#[cfg(test)]
mod tests;
