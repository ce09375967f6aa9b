//! What was asked of a Kafka cluster and what it said: raw facts, a `Result` for each partition,
//! nothing decided yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fault::{ConnectionFault, Fault};
use super::types::{ClusterName, GroupId, Moment, Offset, OffsetReset, TopicName};

/// What one sweep of a cluster has to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// The groups, each once.
    pub groups: Vec<GroupPlan>,
}

/// What to read of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// Topics that are read whether or not the group has committed on them.
    pub topics: BTreeSet<TopicName>,
    /// Whether every topic that the group has committed on is read, too.
    pub discover: bool,
    /// Where its consumers start without a committed offset.
    pub reset: OffsetReset,
}

/// Committed offsets of a group on a topic, indexed by partition; `None` where there is none.
pub type CommittedColumn = Vec<Result<Option<Offset>, Fault>>;

/// A topic's offsets, indexed by partition.
pub type OffsetColumn = Vec<Result<Offset, Fault>>;

/// One topic's log, shared by all the groups that read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Log start offsets (low watermarks), at most a minute old.
    pub starts: OffsetColumn,
    /// Log-end offsets (high watermarks), read after the committed offsets of the same sweep, so
    /// that a live consumer cannot make lag negative.
    pub ends: OffsetColumn,
}

/// What the brokers said of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupObservation {
    /// The plan that this answers.
    pub plan: GroupPlan,
    /// By topic: those named in the plan, and, where the plan discovers, those with a commit.
    /// `Err` where nothing is known of the group.
    pub committed: Result<BTreeMap<TopicName, CommittedColumn>, Fault>,
}

/// What one sweep of one cluster brought.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The cluster asked.
    pub cluster: ClusterName,
    /// When the first request was made, or before: the poller says when it planned the sweep. Lag is
    /// at most this old.
    pub started: Moment,
    /// When the last answer had come, or the deadline had passed.
    pub finished: Moment,
    /// Every topic that a group's observation names.
    pub topics: BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>,
    /// One for each group of the plan, in its order.
    pub groups: Vec<GroupObservation>,
    /// What keeps the cluster from answering, where something does.
    pub connection: Option<ConnectionFault>,
}
