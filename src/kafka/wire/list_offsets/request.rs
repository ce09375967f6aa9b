//! Encodes `ListOffsets` requests.

use anyhow::Result;
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::protocol::buf::ByteBufMut;
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use crate::kafka::wire::request_writer::{MAX_COUNT_BYTES, RequestWriter};
use crate::kafka::wire::topics::PartitionLeader;
use crate::model::units::newtypes::{Partition, TopicName};

/// Which offset of a log to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kafka::wire) enum End {
    /// The high watermark: the log-end offset that consumers see.
    Latest,
    /// The log-start offset.
    Earliest,
    /// The last stable offset: the end for consumers that read committed records only.
    Stable,
    /// The first record at or after this time, in milliseconds since 1970.
    At(i64),
}

impl End {
    /// The timestamp that encodes it in a request.
    fn timestamp(self) -> i64 {
        match self {
            End::Latest | End::Stable => -1,
            End::Earliest => -2,
            End::At(millis) => millis,
        }
    }

    /// The isolation level in a request; 1 is read-committed (KIP-98).
    fn isolation(self) -> i8 {
        i8::from(self == End::Stable)
    }
}

/// A partition's offset to read; `topic` is an index into [`ListSweep::topics`](super::ListSweep::topics).
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingPartition {
    pub(super) topic: usize,
    pub(super) end: End,
    pub(super) partition: Partition,
    pub(super) leader: PartitionLeader,
}

/// Partitions that are sorted by topic, topic by topic.
pub(super) fn by_topic(items: &[PendingPartition]) -> impl Iterator<Item = &[PendingPartition]> {
    items.chunk_by(|a, b| a.topic == b.topic)
}

/// Name of the topic of partitions that are all of one topic.
pub(super) fn topic_name<'a>(
    topics: &'a [(TopicName, Vec<End>)],
    items: &[PendingPartition],
) -> &'a str {
    let topic = items.first().and_then(|item| topics.get(item.topic));
    topic.map_or("", |(name, _)| name.as_str())
}

/// A request for one kind of offset of these partitions.
pub(super) struct ListOffsetsBody<'a> {
    /// The topics that the partitions belong to.
    pub(super) topics: &'a [(TopicName, Vec<End>)],
    /// Sorted by topic.
    pub(super) partitions: &'a [PendingPartition],
    /// How long the broker may wait for remote storage, in milliseconds.
    pub(super) timeout_ms: i32,
}

impl HeaderVersion for ListOffsetsBody<'_> {
    fn header_version(version: i16) -> i16 {
        ListOffsetsRequest::header_version(version)
    }
}

impl Encodable for ListOffsetsBody<'_> {
    fn encode<B: ByteBufMut>(&self, buffer: &mut B, version: i16) -> Result<()> {
        let mut body = RequestWriter::new(buffer, version >= 6);
        // The replica ID: -1, because this client is not a replica.
        body.i32(-1);
        // Brokers that support only version 1 have no transactions.
        if version >= 2 {
            let end = self.partitions.first().map_or(End::Latest, |item| item.end);
            body.i8(end.isolation());
        }
        body.count(Some(by_topic(self.partitions).count()))?;
        for items in by_topic(self.partitions) {
            body.string(Some(topic_name(self.topics, items)))?;
            body.count(Some(items.len()))?;
            for item in items {
                body.i32(item.partition);
                if version >= 4 {
                    body.i32(item.leader.epoch);
                }
                body.i64(item.end.timestamp());
                body.end();
            }
            body.end();
        }
        if version >= 10 {
            body.i32(self.timeout_ms);
        }
        body.end();
        Ok(())
    }

    /// Upper bound of the size of the body, and close to it.
    fn compute_size(&self, _version: i16) -> Result<usize> {
        const MAX_PARTITION_BYTES: usize = 4 + 4 + 8 + 1;
        let topics = by_topic(self.partitions).map(|items| {
            let partitions = items.len().saturating_mul(MAX_PARTITION_BYTES);
            let name = topic_name(self.topics, items)
                .len()
                .saturating_add(3 * MAX_COUNT_BYTES);
            partitions.saturating_add(name)
        });
        Ok(topics.fold(4 * MAX_COUNT_BYTES, usize::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    /// The same request by the library's own types.
    fn by_library(request: &ListOffsetsBody<'_>, version: i16) -> ListOffsetsRequest {
        let partition = |item: &PendingPartition| {
            ListOffsetsPartition::default()
                .with_partition_index(item.partition)
                .with_current_leader_epoch(item.leader.epoch)
                .with_timestamp(item.end.timestamp())
        };
        let topic = |items: &[PendingPartition]| {
            let name = StrBytes::from_string(topic_name(request.topics, items).to_owned());
            ListOffsetsTopic::default()
                .with_name(name.into())
                .with_partitions(items.iter().map(partition).collect())
        };
        let isolation = request
            .partitions
            .first()
            .map_or(0, |item| item.end.isolation());
        ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(if version >= 2 { isolation } else { 0 })
            .with_topics(by_topic(request.partitions).map(topic).collect())
            .with_timeout_ms(request.timeout_ms)
    }

    #[test]
    fn requests_are_encoded_as_by_the_library_in_every_version() {
        let topics = ["a".to_owned(), "b".to_owned(), "t".repeat(249)];
        let topics = topics.map(|name| (TopicName::from(name), Vec::new()));
        for end in [
            End::Latest,
            End::Earliest,
            End::Stable,
            End::At(1_700_000_000_000),
        ] {
            let items = |topic: usize, partitions: i32| {
                (0..partitions).map(move |partition| PendingPartition {
                    topic,
                    end,
                    partition,
                    leader: PartitionLeader {
                        node: 1,
                        epoch: partition + 7,
                    },
                })
            };
            for partitions in [
                Vec::new(),
                items(1, 3).collect(),
                items(0, 1).chain(items(2, 200)).collect(),
            ] {
                let request = ListOffsetsBody {
                    topics: &topics,
                    partitions: &partitions,
                    timeout_ms: 4_321,
                };
                for version in 1..=10 {
                    let mut expected = Vec::new();
                    let library = by_library(&request, version);
                    library.encode(&mut expected, version).unwrap();
                    let mut written = Vec::new();
                    request.encode(&mut written, version).unwrap();
                    assert_eq!(written, expected, "version {version}");
                    assert!(written.len() <= request.compute_size(version).unwrap());
                }
            }
        }
    }
}
