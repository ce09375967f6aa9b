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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl GroupState {
    /// Name in tables, and in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            GroupState::Empty => "empty",
            GroupState::Unjoined => "unjoined",
            GroupState::Rebalancing => "rebalancing",
            GroupState::Stable => "stable",
            GroupState::NotReady => "not_ready",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Group protocol.
    pub kind: GroupKind,
    pub state: GroupState,
    /// Assignor in use (`range`, `cooperative-sticky`, `uniform`, ...); `None` for an empty classic group.
    pub assignor: Option<Arc<str>>,
    pub members: Vec<Member>,
    /// Number of members that are counted but not kept, because of [`MAX_MEMBER_BYTES`] or another limit of memory.
    pub omitted_members: usize,
    /// Sub-topologies of a streams group. Each has as many tasks as its largest source topic has partitions.
    pub subtopologies: Vec<Subtopology>,
}

/// Maximum memory of the members of one group, in bytes: enough for some thousands. Any client that may join a group
/// decides the number and names of its members.
pub const MAX_MEMBER_BYTES: usize = 4 * 1024 * 1024;

impl GroupDescription {
    /// A group without members.
    #[must_use]
    pub fn memberless(kind: GroupKind, state: GroupState) -> Self {
        Self {
            kind,
            state,
            assignor: None,
            members: Vec::new(),
            omitted_members: 0,
            subtopologies: Vec::new(),
        }
    }

    /// Number of members.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len().saturating_add(self.omitted_members)
    }

    #[must_use]
    pub fn has_members(&self) -> bool {
        self.member_count() > 0
    }

    /// Whether its members or what they own have changed since `before`, or a rebalance has begun.
    #[must_use]
    pub fn has_rebalanced_since(&self, before: &Self) -> bool {
        match (before.state, self.state) {
            // The end of a rebalance belongs to the one that was seen to begin.
            (GroupState::Rebalancing, _) => false,
            (_, GroupState::Rebalancing) => true,
            // If other members are omitted than before, only their number can be compared.
            _ if self.omitted_members != before.omitted_members => {
                self.member_count() != before.member_count()
            }
            _ => self.members != before.members,
        }
    }

    /// Memory that its members take, in bytes.
    #[must_use]
    pub fn member_bytes(&self) -> usize {
        let bytes = self.members.iter().map(Member::bytes);
        bytes.fold(0, usize::saturating_add)
    }

    /// The same group with its members only counted.
    #[must_use]
    pub fn without_members(&self) -> Self {
        Self {
            kind: self.kind,
            state: self.state,
            assignor: self.assignor.clone(),
            members: Vec::new(),
            omitted_members: self.member_count(),
            subtopologies: self.subtopologies.clone(),
        }
    }
}

/// Members of a group as they are read, up to [`MAX_MEMBER_BYTES`].
#[derive(Debug, Default)]
pub struct BoundedMembers {
    pub kept: Vec<Member>,
    pub omitted: usize,
    bytes: usize,
}

impl BoundedMembers {
    /// An empty list with room for this number of members, or for as many as are kept. A list that grows by doubling
    /// takes three times its memory for a moment.
    #[must_use]
    pub fn with_capacity(members: usize) -> Self {
        const MAX_MEMBERS: usize = MAX_MEMBER_BYTES / size_of::<Member>();
        Self {
            kept: Vec::with_capacity(members.min(MAX_MEMBERS)),
            ..Self::default()
        }
    }

    /// Adds a member, or only counts it if there is no room for it.
    pub fn push(&mut self, member: Member) {
        let bytes = self.bytes.saturating_add(member.bytes());
        if bytes > MAX_MEMBER_BYTES {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        self.bytes = bytes;
        self.kept.push(member);
    }
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
    /// Assigned partitions by topic. A topic has none while the broker plans to assign its first ones to the
    /// member.
    pub assigned: Vec<(TopicName, Vec<Partition>)>,
}

impl Member {
    /// Number of assigned partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        let counts = self.assigned.iter().map(|(_, partitions)| partitions.len());
        counts.fold(0, usize::saturating_add)
    }

    /// Memory that it takes, in bytes. Names of topics are shared.
    fn bytes(&self) -> usize {
        /// Reference counts, and the overhead of a list or set.
        const OVERHEAD: usize = 5 * 16;
        let texts = [&self.id, &self.client, &self.host].into_iter();
        let texts = texts.chain(&self.instance).map(|text| text.len());
        let subscribed = self.subscribed.iter().map(|topics| topics.len());
        let subscribed = subscribed.map(|topics| topics.saturating_mul(size_of::<TopicName>()));
        let assigned = self.assigned.iter().map(|(_, partitions)| {
            let partitions = partitions.len().saturating_mul(size_of::<Partition>());
            partitions.saturating_add(size_of::<(TopicName, Vec<Partition>)>())
        });
        let parts = texts.chain(subscribed).chain(assigned);
        parts.fold(
            size_of::<Self>().saturating_add(OVERHEAD),
            usize::saturating_add,
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client: usize, topics: usize, partitions: usize) -> Member {
        let topic = |n: usize| TopicName::from(format!("t{n}").as_str());
        Member {
            id: "m".into(),
            instance: None,
            client: "c".repeat(client).into(),
            host: "/10.0.0.1".into(),
            subscribed: Some((0..topics).map(topic).collect()),
            assigned: vec![(topic(0), vec![0; partitions])],
        }
    }

    #[test]
    fn members_beyond_the_memory_of_a_group_are_counted_only() {
        for (client, topics, partitions, at_least) in [
            (10, 1, 1, 10_000),
            (30_000, 1, 1, 100),
            (10, 10_000, 1, 20),
            (10, 1, 10_000, 100),
            (MAX_MEMBER_BYTES, 1, 1, 0),
        ] {
            let mut members = BoundedMembers::default();
            let count = 2 * at_least + 50;
            for _ in 0..count {
                members.push(member(client, topics, partitions));
            }
            let description = GroupDescription {
                members: members.kept,
                omitted_members: members.omitted,
                ..GroupDescription::memberless(GroupKind::Classic, GroupState::Stable)
            };
            assert_eq!(description.member_count(), count);
            assert!(description.has_members() && description.omitted_members > 0);
            assert!(
                description.members.len() >= at_least,
                "{client} {topics} {partitions}"
            );
            assert!(description.member_bytes() <= MAX_MEMBER_BYTES);
            let without = description.without_members();
            assert_eq!((without.member_count(), without.member_bytes()), (count, 0));
        }
    }

    #[test]
    fn a_rebalance_is_seen_once() {
        let group = |state, members: &[usize]| GroupDescription {
            members: members.iter().map(|client| member(*client, 1, 1)).collect(),
            ..GroupDescription::memberless(GroupKind::Classic, state)
        };
        let (stable, rebalancing) = (GroupState::Stable, GroupState::Rebalancing);
        // There was no room for its members.
        let omitted = |members: &[usize]| group(stable, members).without_members();
        for (before, now, expected) in [
            (group(stable, &[1]), group(stable, &[1]), false),
            (group(stable, &[1]), group(stable, &[1, 2]), true),
            (group(stable, &[1]), group(rebalancing, &[1]), true),
            (group(rebalancing, &[1]), group(rebalancing, &[1, 2]), false),
            (group(rebalancing, &[1]), group(stable, &[1, 2]), false),
            (group(stable, &[1]), omitted(&[1]), false),
            (omitted(&[1]), group(stable, &[1]), false),
            (omitted(&[1]), group(stable, &[1, 2]), true),
        ] {
            assert_eq!(
                now.has_rebalanced_since(&before),
                expected,
                "{before:?} {now:?}"
            );
        }
    }
}
