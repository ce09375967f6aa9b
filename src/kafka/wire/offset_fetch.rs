//! Encodes `OffsetFetch` requests and turns their responses into columns.

use anyhow::Result as EncodeResult;
use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::protocol::buf::ByteBufMut;
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::request_writer::{MAX_COUNT_BYTES, RequestWriter};
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
            None => PARTITIONS_OF_UNKNOWN_TOPICS,
        }
    }

    /// Number of partitions that are requested by name.
    pub(super) fn named_partitions(&self) -> usize {
        let topics = self.named_topics().into_iter().flatten();
        topics.fold(0, |all, (_, partitions)| all.saturating_add(*partitions))
    }
}

/// Maximum number of topics with a commit in a response about groups whose topics are all requested. A group with more
/// is not read.
pub(super) const MAX_FETCHED_TOPICS: usize = 200_000;

/// How many partitions a response about all topics of a group is assumed to have: more than most groups read, so that
/// it rarely shares a request with many others.
const PARTITIONS_OF_UNKNOWN_TOPICS: usize = 200;

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

/// A request for the offsets of these groups; below version 8, of one group.
#[derive(Debug)]
pub(super) struct OffsetFetchBody<'a>(pub(super) Vec<&'a OffsetFetchQuery>);

impl HeaderVersion for OffsetFetchBody<'_> {
    fn header_version(version: i16) -> i16 {
        OffsetFetchRequest::header_version(version)
    }
}

impl Encodable for OffsetFetchBody<'_> {
    fn encode<B: ByteBufMut>(&self, buffer: &mut B, version: i16) -> EncodeResult<()> {
        let mut body = RequestWriter::new(buffer, version >= 6);
        let groups = if version >= 8 {
            body.count(Some(self.0.len()))?;
            &self.0[..]
        } else {
            self.0.get(..1).unwrap_or_default()
        };
        for query in groups {
            body.string(Some(query.group.as_str()))?;
            if version >= 9 {
                // The member ID and epoch: empty, because this client is not a member.
                body.string(None)?;
                body.i32(-1);
            }
            write_topics(query, &mut body)?;
            if version >= 8 {
                body.end();
            }
        }
        if version >= 7 {
            // Offsets of open transactions are not waited for.
            body.i8(0);
        }
        body.end();
        Ok(())
    }

    /// Upper bound of the size of the body, and close to it.
    fn compute_size(&self, _version: i16) -> EncodeResult<usize> {
        const MAX_GROUP_BYTES: usize = 4 * MAX_COUNT_BYTES;
        const MAX_TOPIC_BYTES: usize = 3 * MAX_COUNT_BYTES;
        let mut bytes = MAX_GROUP_BYTES;
        for query in &self.0 {
            bytes = bytes
                .saturating_add(MAX_GROUP_BYTES)
                .saturating_add(query.group.as_str().len())
                .saturating_add(
                    query
                        .named_partitions()
                        .saturating_mul(size_of::<Partition>()),
                );
            for (topic, _) in query.named_topics().into_iter().flatten() {
                bytes = bytes
                    .saturating_add(MAX_TOPIC_BYTES)
                    .saturating_add(topic.as_str().len());
            }
        }
        Ok(bytes)
    }
}

fn write_topics<B: ByteBufMut>(
    query: &OffsetFetchQuery,
    body: &mut RequestWriter<'_, B>,
) -> EncodeResult<()> {
    body.count(query.named_topics().map(Iterator::count))?;
    for (topic, partitions) in query.named_topics().into_iter().flatten() {
        body.string(Some(topic.as_str()))?;
        body.count(Some(*partitions))?;
        for partition in (0..).take(*partitions) {
            body.i32(partition);
        }
        body.end();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn query(group: &str, topics: Option<&[(&str, usize)]>) -> OffsetFetchQuery {
        let sized = |(name, partitions): &(&str, usize)| (TopicName::from(*name), *partitions);
        OffsetFetchQuery {
            group: group.into(),
            topics: topics.map(|topics| topics.iter().map(sized).collect()),
            is_changing: false,
        }
    }

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn named(query: &OffsetFetchQuery) -> Option<Vec<(StrBytes, Vec<i32>)>> {
        let topics = query.named_topics()?;
        let topic = |(name, partitions): &(TopicName, usize)| {
            (text(name.as_str()), (0..).take(*partitions).collect())
        };
        Some(topics.map(topic).collect())
    }

    /// The same request by the library's own types.
    fn by_library(queries: &[&OffsetFetchQuery], version: i16) -> OffsetFetchRequest {
        let request = OffsetFetchRequest::default();
        if version < 8 {
            let topic = |(name, indexes): (StrBytes, _)| {
                OffsetFetchRequestTopic::default()
                    .with_name(name.into())
                    .with_partition_indexes(indexes)
            };
            let topics = named(queries[0]);
            return request
                .with_group_id(text(queries[0].group.as_str()).into())
                .with_topics(topics.map(|topics| topics.into_iter().map(topic).collect()));
        }
        let group = |query: &&OffsetFetchQuery| {
            let topic = |(name, indexes): (StrBytes, _)| {
                OffsetFetchRequestTopics::default()
                    .with_name(name.into())
                    .with_partition_indexes(indexes)
            };
            let topics = named(query);
            OffsetFetchRequestGroup::default()
                .with_group_id(text(query.group.as_str()).into())
                .with_topics(topics.map(|topics| topics.into_iter().map(topic).collect()))
        };
        // `kafka-protocol` rejects fields of older versions unless they are empty lists.
        request
            .with_topics(Some(Vec::new()))
            .with_groups(queries.iter().map(group).collect())
    }

    #[test]
    fn requests_are_encoded_as_by_the_library_in_every_version() {
        let long = "t".repeat(249);
        let topics = [("orders", 3), ("without-partitions", 0), (&long, 200)];
        let (named, discovered) = (query("named", Some(&topics)), query("discovered", None));
        let empty = query("empty", Some(&[]));
        for queries in [
            vec![&named],
            vec![&discovered],
            vec![&empty],
            vec![&named, &discovered, &empty],
        ] {
            for version in 1..=9 {
                let mut expected = Vec::new();
                let request = by_library(&queries, version);
                request.encode(&mut expected, version).unwrap();
                let body = OffsetFetchBody(queries.clone());
                let mut written = Vec::new();
                body.encode(&mut written, version).unwrap();
                assert_eq!(written, expected, "version {version}");
                assert!(written.len() <= body.compute_size(version).unwrap());
            }
        }
    }
}
