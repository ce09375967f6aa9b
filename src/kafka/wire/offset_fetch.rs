//! One `OffsetFetch`: the question about some groups, and its answer as columns.

use std::collections::BTreeMap;

use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::protocol::StrBytes;

use super::responses::PartitionEntry;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::CommittedColumn;
use crate::model::units::newtypes::{GroupId, Offset, Partition, TopicName};

/// A group and what is asked of it.
#[derive(Debug)]
pub(super) struct OffsetFetchQuery {
    pub(super) group: GroupId,
    /// The topics, in their order, and their numbers of partitions; one that has none is not asked
    /// about. `None` asks for all that have a commit.
    pub(super) topics: Option<Vec<(TopicName, usize)>>,
}

impl OffsetFetchQuery {
    /// The topics that are asked about by name.
    pub(super) fn readable(&self) -> Option<impl Iterator<Item = &(TopicName, usize)>> {
        let topics = self.topics.as_ref()?;
        Some(topics.iter().filter(|(_, partitions)| *partitions > 0))
    }

    /// How many partitions the answer will have, about.
    pub(super) fn partitions(&self) -> usize {
        // A group whose topics are not known may have many.
        self.readable().map_or(200, |topics| {
            topics.fold(0, |all, (_, n)| all.saturating_add(*n))
        })
    }
}

/// What a broker said of a group's partitions.
#[derive(Debug)]
pub(super) enum FetchedOffsets {
    /// Of the topics that were named: of each of them.
    Named(BTreeMap<TopicName, CommittedColumn>),
    /// Of all that have a commit, as they came.
    Discovered(Vec<(String, Vec<Commit>)>),
}

/// One partition of a topic that was not known before.
pub(super) type Commit = (Partition, Result<Option<Offset>, Fault>);

impl FetchedOffsets {
    /// Takes in what the answer says of the group that this was asked of.
    pub(super) fn new<'a>(
        asked: &OffsetFetchQuery,
        answered: impl Iterator<Item = (&'a str, &'a [PartitionEntry])>,
    ) -> Self {
        let Some(topics) = &asked.topics else {
            let commit = |entry: &PartitionEntry| (entry.partition, committed(entry));
            let topic = |(name, entries): (&str, &[PartitionEntry])| {
                (name.to_owned(), entries.iter().map(commit).collect())
            };
            return Self::Discovered(answered.map(topic).collect());
        };
        let mut columns: BTreeMap<_, _> = topics
            .iter()
            .map(|(name, partitions)| {
                // An answer about named topics leaves out nothing.
                (name.clone(), vec![Err(Fault::NoAnswer); *partitions])
            })
            .collect();
        for (name, entries) in answered {
            if let Some(column) = columns.get_mut(name) {
                fill(column, entries.iter().map(|e| (e.partition, committed(e))));
            }
        }
        Self::Named(columns)
    }
}

/// Puts commits into their places of a column.
pub(super) fn fill(column: &mut CommittedColumn, commits: impl Iterator<Item = Commit>) {
    for (partition, committed) in commits {
        let slot = usize::try_from(partition)
            .ok()
            .and_then(|partition| column.get_mut(partition));
        if let Some(slot) = slot {
            *slot = committed;
        }
    }
}

fn committed(entry: &PartitionEntry) -> Result<Option<Offset>, Fault> {
    match (entry.code, entry.offset) {
        (codes::NONE, offset) if offset >= 0 => Ok(Some(Offset(offset))),
        // The protocol's -1: no commit.
        (codes::NONE, _) => Ok(None),
        (code, _) => Err(codes::fault_of(code.into())),
    }
}

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn indexes(partitions: usize) -> Vec<Partition> {
    (0..).take(partitions).collect()
}

/// The question about these groups; below version 8, about the first.
pub(super) fn request<'a>(
    groups: impl Iterator<Item = &'a OffsetFetchQuery>,
    version: i16,
) -> OffsetFetchRequest {
    let request = OffsetFetchRequest::default();
    if version >= 8 {
        let topic = |(topic, partitions): &(TopicName, usize)| {
            OffsetFetchRequestTopics::default()
                .with_name(name(topic.as_str()).into())
                .with_partition_indexes(indexes(*partitions))
        };
        let group = |asked: &OffsetFetchQuery| {
            OffsetFetchRequestGroup::default()
                .with_group_id(name(asked.group.as_str()).into())
                .with_topics(asked.readable().map(|topics| topics.map(topic).collect()))
        };
        // The fields of older versions count as set unless they are empty lists.
        return request
            .with_topics(Some(Vec::new()))
            .with_groups(groups.map(group).collect());
    }
    let topic = |(topic, partitions): &(TopicName, usize)| {
        OffsetFetchRequestTopic::default()
            .with_name(name(topic.as_str()).into())
            .with_partition_indexes(indexes(*partitions))
    };
    let Some(asked) = groups.into_iter().next() else {
        return request;
    };
    request
        .with_group_id(name(asked.group.as_str()).into())
        .with_topics(asked.readable().map(|topics| topics.map(topic).collect()))
}
