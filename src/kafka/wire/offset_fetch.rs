//! Encodes `OffsetFetch` requests and turns their responses into columns.

use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::protocol::StrBytes;

use super::responses::PartitionEntry;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::names;
use crate::model::units::newtypes::{GroupId, Offset, Partition, TopicName};

/// A group and the topics whose offsets to fetch.
#[derive(Debug)]
pub(super) struct OffsetFetchQuery {
    pub(super) group: GroupId,
    /// Topics, sorted, with their partition counts; topics with 0 partitions are not requested.
    /// `None` requests all topics with a commit.
    pub(super) topics: Option<Vec<(TopicName, usize)>>,
    /// Whether its members may change now.
    pub(super) is_changing: bool,
}

impl OffsetFetchQuery {
    /// Topics that are requested by name.
    pub(super) fn named_topics(&self) -> Option<impl Iterator<Item = &(TopicName, usize)>> {
        let topics = self.topics.as_ref()?;
        Some(topics.iter().filter(|(_, partitions)| *partitions > 0))
    }

    /// Estimated number of partitions in the response.
    pub(super) fn expected_partitions(&self) -> usize {
        match self.topics {
            Some(_) => self.named_partitions(),
            // Unknown topics: assume many partitions.
            None => 200,
        }
    }

    /// Number of partitions that are requested by name.
    pub(super) fn named_partitions(&self) -> usize {
        let topics = self.named_topics().into_iter().flatten();
        topics.fold(0, |all, (_, partitions)| all.saturating_add(*partitions))
    }
}

/// Limit of topics with a commit in a response about groups that are asked for all of them. A group with more is not
/// read.
pub(super) const MAX_DISCOVERED: usize = 200_000;

/// Committed offsets of a group.
#[derive(Debug)]
pub(super) enum FetchedOffsets {
    /// For every requested topic.
    Named(TopicMap<CommittedOffsets>),
    /// For all topics with a commit, as they appear in the response.
    Discovered(Vec<(String, Vec<PartitionCommit>)>),
}

/// Partition and committed offset.
pub(super) type PartitionCommit = (Partition, Result<Option<Offset>, Fault>);

impl FetchedOffsets {
    /// Collects the response about the group of `query`. `room` is how many topics may still be
    /// discovered.
    ///
    /// # Errors
    /// It has commits on too many topics.
    pub(super) fn new<'a>(
        query: &OffsetFetchQuery,
        answered: impl Iterator<Item = (&'a str, &'a [PartitionEntry])>,
        room: &mut usize,
    ) -> Result<Self, Fault> {
        let Some(topics) = &query.topics else {
            let commit = |entry: &PartitionEntry| (entry.partition, committed(entry));
            let topic = |(name, entries): (&str, &[PartitionEntry])| {
                (name.to_owned(), entries.iter().map(commit).collect())
            };
            let topics = answered.filter(|(name, _)| names::topic(name).is_ok());
            let topics = topics.take(room.saturating_add(1)).map(topic);
            let topics: Vec<_> = topics.collect();
            *room = room.checked_sub(topics.len()).ok_or(Fault::OverBudget)?;
            return Ok(Self::Discovered(topics));
        };
        let mut columns: TopicMap<_> = topics
            .iter()
            .map(|(name, partitions)| {
                // Responses contain every requested topic; one that is missing was not answered.
                let column = CommittedOffsets::filled(*partitions, Err(Fault::NoAnswer));
                (name.clone(), column)
            })
            .collect();
        for (index, (name, entries)) in answered.enumerate() {
            if let Some(column) = columns.get_mut_near(index, name) {
                fill(column, entries.iter().map(|e| (e.partition, committed(e))));
            }
        }
        Ok(Self::Named(columns))
    }
}

/// Writes commits into a column by partition number.
pub(super) fn fill(column: &mut CommittedOffsets, commits: impl Iterator<Item = PartitionCommit>) {
    for (partition, committed) in commits {
        if let Ok(partition) = usize::try_from(partition) {
            column.set(partition, committed);
        }
    }
}

fn committed(entry: &PartitionEntry) -> Result<Option<Offset>, Fault> {
    match (entry.code, entry.offset) {
        (codes::NONE, offset) if offset >= 0 => Ok(Some(Offset(offset))),
        // The protocol encodes "no commit" as -1.
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

/// Builds the request for these groups; below version 8, for the first only.
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
        let group = |query: &OffsetFetchQuery| {
            OffsetFetchRequestGroup::default()
                .with_group_id(name(query.group.as_str()).into())
                .with_topics(
                    query
                        .named_topics()
                        .map(|topics| topics.map(topic).collect()),
                )
        };
        // `kafka-protocol` rejects fields of older versions unless they are empty lists.
        return request
            .with_topics(Some(Vec::new()))
            .with_groups(groups.map(group).collect());
    }
    let topic = |(topic, partitions): &(TopicName, usize)| {
        OffsetFetchRequestTopic::default()
            .with_name(name(topic.as_str()).into())
            .with_partition_indexes(indexes(*partitions))
    };
    let Some(query) = groups.into_iter().next() else {
        return request;
    };
    request
        .with_group_id(name(query.group.as_str()).into())
        .with_topics(
            query
                .named_topics()
                .map(|topics| topics.map(topic).collect()),
        )
}
