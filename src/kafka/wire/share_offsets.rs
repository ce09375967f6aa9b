//! Where share groups stand: `DescribeShareGroupOffsets`, all groups of a coordinator in one.
//! `OffsetFetch` says of such a group that it has committed nothing, without an error.
//!
//! A share-partition's start offset is what the broker has written down: up to it, every record is
//! done with. What is acquired or acknowledged beyond comes with a later write, so a group that is
//! done may seem a batch behind until it gets the next record (seen on Kafka 4.1).

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use kafka_protocol::messages::DescribeShareGroupOffsetsRequest;
use kafka_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::cluster::Cluster;
use super::cursor::{FrameCursor, Malformed};
use super::offset_fetch::{FetchedOffsets, OffsetFetchQuery};
use super::responses::PartitionEntry;
use super::versions::ApiVersions;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// Groups of one request at most: for each partition the coordinator asks the one of its state.
const BATCH: usize = 100;

impl Cluster {
    /// Where these share groups stand; one result for each, in their order, by the deadline. Only
    /// for what is known to be a share group, and for partitions that exist: the broker logs an
    /// error for each that is not.
    pub(super) async fn share_offsets(
        &self,
        asked: &[&OffsetFetchQuery],
        deadline: Instant,
    ) -> Vec<Result<FetchedOffsets, Fault>> {
        let mut by_address: BTreeMap<Address, Vec<(usize, &OffsetFetchQuery)>> = BTreeMap::new();
        for (place, asked) in asked.iter().enumerate() {
            if let Some(address) = self.coordinators.get(&asked.group) {
                by_address.entry(address).or_default().push((place, asked));
            }
        }
        let each = by_address.iter().flat_map(|(address, groups)| {
            let batches = groups.chunks(BATCH);
            batches.map(move |batch| self.shares_of(address, batch, deadline))
        });
        let mut results: Vec<_> = asked
            .iter()
            .map(|_| Err(Fault::CoordinatorUnavailable))
            .collect();
        for (place, result) in join_all(each).await.into_iter().flatten() {
            if let Some(slot) = results.get_mut(place) {
                *slot = result;
            }
        }
        results
    }

    async fn shares_of(
        &self,
        address: &Address,
        batch: &[(usize, &OffsetFetchQuery)],
        deadline: Instant,
    ) -> Vec<(usize, Result<FetchedOffsets, Fault>)> {
        let broker = self.broker(address);
        let api = ApiVersions::DescribeShareGroupOffsets;
        let answer = async {
            let versions = broker.versions(deadline).await?;
            let version = versions.of(api).map_err(|_| Fault::Untold)?;
            let request = request(batch.iter().map(|(_, asked)| *asked));
            broker.ask(api, version, &request, deadline).await
        };
        let body = answer.await;
        let groups = match &body {
            Ok(body) => share_offsets(body).map_err(|error| self.garbled(address, &error)),
            Err(fault) => Err(*fault),
        };
        let of = |asked: &OffsetFetchQuery| {
            let groups = groups.as_ref().map_err(|fault| *fault)?;
            let found = groups.get(asked.group.as_str());
            match found.ok_or(Fault::NoAnswer)? {
                (codes::NONE, topics) => {
                    let topics = topics
                        .iter()
                        .map(|(name, entries)| (*name, entries.as_slice()));
                    Ok(FetchedOffsets::new(asked, topics))
                }
                (code, _) => Err(codes::fault_of((*code).into())),
            }
        };
        let each = batch.iter().map(|(place, asked)| (*place, of(asked)));
        each.collect()
    }
}

fn request<'a>(
    asked: impl Iterator<Item = &'a OffsetFetchQuery>,
) -> DescribeShareGroupOffsetsRequest {
    let name = |text: &str| StrBytes::from_string(text.to_owned());
    let topic = |(topic, partitions): &(TopicName, usize)| {
        DescribeShareGroupOffsetsRequestTopic::default()
            .with_topic_name(name(topic.as_str()).into())
            .with_partitions((0..).take(*partitions).collect())
    };
    let group = |asked: &OffsetFetchQuery| {
        let topics = asked.readable();
        DescribeShareGroupOffsetsRequestGroup::default()
            .with_group_id(name(asked.group.as_str()).into())
            .with_topics(topics.map(|topics| topics.map(topic).collect()))
    };
    DescribeShareGroupOffsetsRequest::default().with_groups(asked.map(group).collect())
}

/// A group's error code, and where it stands on each topic: -1 where it has not begun.
type ShareStarts<'a> = (i16, Vec<(&'a str, Vec<PartitionEntry>)>);

pub(super) fn share_offsets(body: &[u8]) -> Result<HashMap<&str, ShareStarts<'_>>, Malformed> {
    let mut cursor = FrameCursor::new(body, true);
    cursor.i32()?;
    let mut groups = HashMap::new();
    for _ in 0..cursor.count(6)? {
        let group = cursor.string()?;
        let mut topics = Vec::new();
        for _ in 0..cursor.count(19)? {
            let topic = cursor.string()?;
            cursor.uuid()?;
            let count = cursor.count(20)?;
            let mut entries = Vec::with_capacity(count);
            for _ in 0..count {
                entries.push(partition(&mut cursor)?);
            }
            cursor.tags()?;
            topics.push((topic, entries));
        }
        let code = cursor.i16()?;
        cursor.skip_string()?;
        cursor.tags()?;
        groups.insert(group, (code, topics));
    }
    cursor.tags()?;
    Ok(groups)
}

fn partition(cursor: &mut FrameCursor<'_>) -> Result<PartitionEntry, Malformed> {
    let (partition, offset) = (cursor.i32()?, cursor.i64()?);
    cursor.i32()?;
    let code = cursor.i16()?;
    cursor.skip_string()?;
    cursor.tags()?;
    Ok(PartitionEntry {
        partition,
        code,
        offset,
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::DescribeShareGroupOffsetsResponse;
    use kafka_protocol::messages::describe_share_group_offsets_response::{
        DescribeShareGroupOffsetsResponseGroup as Group,
        DescribeShareGroupOffsetsResponsePartition as Entry,
        DescribeShareGroupOffsetsResponseTopic as Topic,
    };
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;

    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn response() -> Vec<u8> {
        let entry = |partition, start, code| {
            Entry::default()
                .with_partition_index(partition)
                .with_start_offset(start)
                .with_error_code(code)
        };
        let partitions = vec![entry(0, 7, 0), entry(1, -1, 0), entry(2, 0, 29)];
        let topic = Topic::default()
            .with_topic_name(text("t").into())
            .with_partitions(partitions);
        let group = |name, code| {
            Group::default()
                .with_group_id(text(name).into())
                .with_error_code(code)
        };
        let groups = vec![group("a", 0).with_topics(vec![topic]), group("b", 30)];
        let mut bytes = Vec::new();
        let response = DescribeShareGroupOffsetsResponse::default().with_groups(groups);
        response.encode(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn start_offsets_and_faults() {
        let entry = |partition, offset, code| PartitionEntry {
            partition,
            code,
            offset,
        };
        let read = vec![entry(0, 7, 0), entry(1, -1, 0), entry(2, 0, 29)];
        let expected = HashMap::from([("a", (0, vec![("t", read)])), ("b", (30, Vec::new()))]);
        assert_eq!(share_offsets(&response()), Ok(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0_usize..80, at in 0_usize..80) {
            drop(share_offsets(&bytes));
            let mut response = response();
            response.truncate(cut);
            if let Some(byte) = response.get_mut(at) {
                *byte ^= 0x7f;
            }
            drop(share_offsets(&response));
        }
    }
}
