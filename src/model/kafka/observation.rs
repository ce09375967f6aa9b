//! What was asked of a Kafka cluster and what it said: raw facts, a `Result` for each partition,
//! nothing decided yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fault::{ConnectionFault, Fault};
use super::group::GroupDescription;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::units::newtypes::{ClusterName, Moment, Offset, TopicId, TopicName};

/// How far back a source asks once where each log ended, so that lag in time is known soon after a
/// start.
pub const LOOK_BACK: Duration = Duration::from_secs(600);

/// Committed offsets of a group on a topic, indexed by partition; `None` where there is none.
pub type CommittedColumn = Vec<Result<Option<Offset>, Fault>>;

/// A topic's offsets, indexed by partition.
pub type OffsetColumn = Vec<Result<Offset, Fault>>;

/// One topic's log, shared by all the groups that read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Its ID, where broker and client tell it.
    pub id: Option<TopicId>,
    /// Log start offsets (low watermarks), at most a minute old.
    pub starts: OffsetColumn,
    /// Log-end offsets (high watermarks), read after the committed offsets of the same sweep, so
    /// that a live consumer cannot make lag negative.
    pub ends: OffsetColumn,
    /// Last stable offsets, where a group of the plan reads committed records only; read with
    /// `ends`.
    pub stable: Option<OffsetColumn>,
    /// Where the log ended a while ago, at most once for a topic: soon after it was first read.
    pub past: Option<PastEnds>,
}

/// Where a topic's log ended a while ago, by the timestamps of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEnds {
    /// How long before the sweep began.
    pub ago: Duration,
    /// By partition: the first offset whose record is not older than that, or the log's end; `None`
    /// where the broker did not tell.
    pub ends: Vec<Option<Offset>>,
}

/// What the brokers said of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupObservation {
    /// The plan that this answers.
    pub plan: GroupPlan,
    /// By topic: those named in the plan, and, where the plan discovers, those with a commit.
    /// `Err` where nothing is known of the group. Of a share group, where each partition's records
    /// in flight begin.
    pub committed: Result<BTreeMap<TopicName, CommittedColumn>, Fault>,
    /// Its members and how its work is dealt out, at most half a minute old; [`Fault::Untold`] where
    /// broker or client cannot tell.
    pub description: Result<Arc<GroupDescription>, Fault>,
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
    /// What asking cost, where the client counts it.
    pub traffic: Option<Traffic>,
}

/// What asking a cluster has cost since the client was set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests sent, logins not counted.
    pub requests: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Connections that are open now.
    pub connections: u64,
    /// How long brokers wanted to be left alone, in all (`throttle_time_ms`).
    pub throttled: Duration,
}
