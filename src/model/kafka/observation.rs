//! Raw responses of a Kafka cluster to one sweep, with a `Result` per partition. No lag rules are applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::fault::{BrokerFault, ConnectionFault, Fault};
use super::group::GroupDescription;
use super::offset_column::CommittedOffsets;
use super::topic_listing::TopicListing;
use super::topic_map::TopicMap;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::units::newtypes::{
    ClusterName, GroupId, Lag, Moment, Offset, Partition, TopicId, TopicName,
};

/// How far back log-end offsets are looked up first, so that lag in seconds is known soon after a start.
pub const LOOK_BACK: Duration = Duration::from_secs(600);

/// Offsets of a topic, by partition.
pub type OffsetColumn = Vec<Result<Offset, Fault>>;

/// Offsets of one topic's log, shared by all groups that read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Topic ID, if known.
    pub id: Option<TopicId>,
    /// Log-start offsets (low watermarks), at most a minute old.
    pub starts: OffsetColumn,
    /// High watermarks, read after the committed offsets of the same sweep, so that a running consumer
    /// cannot make lag negative.
    pub ends: OffsetColumn,
    /// Last stable offsets, read together with `ends` if a group of the plan is read-committed.
    pub stable: Option<OffsetColumn>,
    /// Log-end offsets at earlier times, looked up soon after the topic's first reading.
    pub past: Vec<PastEnds>,
}

/// Log-end offsets of a topic some time ago, by record timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEnds {
    /// Time before the start of the sweep.
    pub ago: Duration,
    /// By partition: the first offset whose record is not older, or the log end; `None` if unknown.
    pub ends: Vec<Option<Offset>>,
    /// The found records that are the first unread ones of a group.
    pub records: Vec<PastRecord>,
}

/// A record and its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastRecord {
    pub partition: usize,
    pub offset: Offset,
    /// Time from the record's timestamp to the start of the sweep; zero if the timestamp is later.
    pub age: Duration,
}

/// Lags of a share group as its coordinator reports them. A partition without one is behind by the records from
/// its start offset to the log end at most, since some of them may be done.
pub type ReportedLags = BTreeMap<TopicName, BTreeMap<Partition, Lag>>;

/// Responses about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupObservation {
    /// The plan that was executed.
    pub plan: GroupPlan,
    /// Committed offsets by topic: the topics named in the plan and, if it discovers, all topics with a
    /// committed offset. For a share group, the share-partition start offsets. `Err` if the group could not
    /// be read.
    pub committed: Result<TopicMap<CommittedOffsets>, Fault>,
    /// Description of the group, at most 30 s old; [`Fault::Unsupported`] if not supported.
    pub description: Result<Arc<GroupDescription>, Fault>,
    /// Lags that the coordinator reports; `None` unless it is a share group.
    pub reported_lags: Option<ReportedLags>,
    /// How many partitions the group has, if it was not read because the plan allows fewer.
    pub refused_partitions: Option<u64>,
}

impl GroupObservation {
    /// Whether the group is known to have no committed offset on any of its topics. Then it may not exist.
    #[must_use]
    pub fn has_no_commit(&self) -> bool {
        let Ok(committed) = &self.committed else {
            return false;
        };
        let mut columns = committed.values();
        columns.all(|column| column.iter().all(|c| c == Ok(None)))
    }

    /// A group that was not read because it has this many partitions.
    #[must_use]
    pub fn over_budget(plan: GroupPlan, partitions: u64) -> Self {
        Self {
            plan,
            committed: Err(Fault::OverBudget),
            description: Err(Fault::OverBudget),
            reported_lags: None,
            refused_partitions: Some(partitions),
        }
    }
}

/// Responses of one sweep of one cluster.
#[derive(Clone, Debug)]
pub struct Observation {
    pub cluster: ClusterName,
    /// When the sweep was planned. The data is no older than that.
    pub started: Moment,
    /// When the last response arrived or the deadline passed.
    pub finished: Moment,
    /// Every topic named in `groups`.
    pub topics: BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>,
    /// One per group of the plan.
    pub groups: Vec<GroupObservation>,
    /// Why the cluster does not answer, if it does not.
    pub connection: Option<ConnectionFault>,
    /// Brokers that were needed and could not be reached, by address.
    pub unreachable_brokers: Vec<BrokerFault>,
    /// Traffic so far, if the client counts it.
    pub traffic: Option<Traffic>,
    /// Topics that match the patterns of groups, by group: of those whose plan has patterns.
    pub listings: BTreeMap<GroupId, Arc<TopicListing>>,
    /// Names of the cluster's groups, if they were listed, at most [`MAX_GROUP_NAMES`] and none longer than
    /// [`MAX_GROUP_NAME_BYTES`].
    pub group_names: Option<Vec<GroupId>>,
    pub certificates: CertificateExpiry,
}

/// When certificates of connections to a cluster expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// lagwise's own; `None` without one that lagwise can read.
    pub client: Option<SystemTime>,
    /// The first one that a broker presented on a connection that is open; `None` without TLS, and with librdkafka.
    pub broker: Option<SystemTime>,
}

/// Maximum number of names of groups in an observation, and maximum length of each.
pub const MAX_GROUP_NAMES: usize = 10_000;
pub const MAX_GROUP_NAME_BYTES: usize = 128;

/// Traffic with a cluster since the client was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests sent, without those of logins.
    pub requests: u64,
    pub received_bytes: u64,
    /// Open connections.
    pub connections: u64,
    /// Total time brokers asked this client to throttle (`throttle_time_ms`).
    pub throttled: Duration,
}
