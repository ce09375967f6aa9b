//! Description of a consumer group by its coordinator: protocol, state, members, assignments.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::units::newtypes::{Partition, TopicName};

/// Group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Classic: a member assigns the partitions.
    Classic,
    /// The broker assigns the partitions (KIP-848).
    Consumer,
    /// Share group: members share partitions record by record (KIP-932).
    Share,
    /// Kafka Streams: the broker assigns the tasks (KIP-1071).
    Streams,
}

/// State of a group. Equivalent states of different protocols are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// No members; committed offsets may exist.
    Empty,
    /// Committed offsets exist and no member ever joined: consumers use manual assignment.
    Unjoined,
    /// A rebalance is in progress.
    Rebalancing,
    /// All partitions are assigned.
    Stable,
    /// Unknown to the coordinator, or a streams group whose topics are missing.
    NotReady,
}

/// Description of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Group protocol.
    pub kind: GroupKind,
    pub state: GroupState,
    /// Assignor in use (`range`, `cooperative-sticky`, `uniform`, ...); `None` for an empty classic group.
    pub assignor: Option<Arc<str>>,
    pub members: Vec<Member>,
    /// Sub-topologies of a streams group. Each has as many tasks as its largest source topic has partitions.
    pub subtopologies: Vec<Subtopology>,
}

/// Member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Member ID.
    pub id: Arc<str>,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// `client.id`.
    pub client: Arc<str>,
    /// Client host, as reported by the broker.
    pub host: Arc<str>,
    /// Subscribed topics, if reported.
    pub subscribed: Option<BTreeSet<TopicName>>,
    /// Assigned partitions by topic.
    pub assigned: Vec<(TopicName, Vec<Partition>)>,
}

impl Member {
    /// Number of assigned partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        let counts = self.assigned.iter().map(|(_, partitions)| partitions.len());
        counts.fold(0, usize::saturating_add)
    }
}

/// Sub-topology of a streams group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtopology {
    /// Name within the topology.
    pub id: Arc<str>,
    /// Source topics, including repartition topics, with their number of partitions if known.
    pub sources: Vec<(TopicName, Option<u32>)>,
}
