//! What a group's coordinator says of the group itself: its members and how work is dealt out.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::units::newtypes::{Partition, TopicName};

/// Which protocol a group's members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Clients deal out partitions among themselves.
    Classic,
    /// The broker deals out partitions (KIP-848).
    Consumer,
    /// Members share partitions, record by record (KIP-932).
    Share,
    /// The broker deals out the tasks of a Kafka Streams application (KIP-1071).
    Streams,
}

/// Where a group stands. States of the protocols that mean the same here are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// It has no members; its offsets may be there.
    Empty,
    /// It has offsets and no member ever joined: its consumers assign themselves their partitions.
    Unjoined,
    /// Its members are being dealt their partitions anew.
    Rebalancing,
    /// Its members have their partitions.
    Stable,
    /// The coordinator knows nothing of it, or a streams group lacks topics it needs.
    NotReady,
}

/// A group as its coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its members' protocol.
    pub kind: GroupKind,
    /// Where it stands.
    pub state: GroupState,
    /// The assignor in use by its protocol's name (`range`, `cooperative-sticky`, `uniform`, ...);
    /// `None` where it has none, as an empty classic group.
    pub assignor: Option<Arc<str>>,
    /// Its members.
    pub members: Vec<Member>,
    /// For a streams group, its sub-topologies: each is split into as many tasks as its largest
    /// source topic has partitions.
    pub subtopologies: Vec<Subtopology>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its member id, made by the coordinator or the client.
    pub id: Arc<str>,
    /// Its `group.instance.id`, for a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// Its `client.id`.
    pub client: Arc<str>,
    /// The host that it was seen from, as the broker writes it.
    pub host: Arc<str>,
    /// The topics that it subscribes to, where the broker tells.
    pub subscribed: Option<BTreeSet<TopicName>>,
    /// Its partitions, by topic.
    pub assigned: Vec<(TopicName, Vec<Partition>)>,
}

impl Member {
    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> usize {
        let counts = self.assigned.iter().map(|(_, partitions)| partitions.len());
        counts.fold(0, usize::saturating_add)
    }
}

/// A part of a streams group's topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtopology {
    /// Its name within the topology.
    pub id: Arc<str>,
    /// The topics that it reads, repartition topics too, and their numbers of partitions where
    /// those are known.
    pub sources: Vec<(TopicName, Option<u32>)>,
}
