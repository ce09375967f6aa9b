//! Reads the positions of share groups: one `DescribeShareGroupOffsets` for all groups of a
//! coordinator. `OffsetFetch` reports no commits for such a group, without an error.
//!
//! A share-partition's start offset is what the broker has persisted: all records before it are
//! done. Records acquired or acknowledged beyond it appear with a later write, so a group that is
//! done may appear one batch behind until it gets the next record (seen on Kafka 4.1). Records that
//! are done beyond the start offset only show in the lag that brokers report since Kafka 4.2
//! (KIP-1226).

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use kafka_protocol::messages::DescribeShareGroupOffsetsRequest;
use kafka_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::cluster::WireCluster;
use super::cursor::{Malformed, ResponseCursor};
use super::offset_fetch::{FetchedOffsets, MAX_FETCHED_TOPICS, OffsetFetchQuery};
use super::responses::PartitionEntry;
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::ReportedLags;
use crate::model::units::names;
use crate::model::units::newtypes::{Lag, Partition, TopicName};

/// Maximum groups per request, because the coordinator reads the state of each partition from another broker.
const MAX_GROUPS: usize = 100;

/// Start offsets of a share group, and the lags that its coordinator reports.
pub(super) type ShareOffsets = (FetchedOffsets, ReportedLags);

impl WireCluster {
    /// Fetches the start offsets and lags of share groups; one result per group, in order, by the deadline.
    /// Pass only known share groups and existing partitions: the broker logs an error for each
    /// other one.
    pub(super) async fn share_offsets(
        &self,
        queries: &[&OffsetFetchQuery],
        deadline: Instant,
    ) -> Vec<Result<ShareOffsets, Fault>> {
        let mut by_address: BTreeMap<Address, Vec<(usize, &OffsetFetchQuery)>> = BTreeMap::new();
        for (place, query) in queries.iter().enumerate() {
            if let Some(address) = self.coordinators.get(&query.group) {
                by_address.entry(address).or_default().push((place, query));
            }
        }
        let each = by_address.iter().flat_map(|(address, groups)| {
            let batches = groups.chunks(MAX_GROUPS);
            batches.map(move |batch| self.fetch_share_offsets(address, batch, deadline))
        });
        let mut results: Vec<_> = queries
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

    async fn fetch_share_offsets(
        &self,
        address: &Address,
        batch: &[(usize, &OffsetFetchQuery)],
        deadline: Instant,
    ) -> Vec<(usize, Result<ShareOffsets, Fault>)> {
        let broker = self.broker(address);
        let api = ApiKey::DescribeShareGroupOffsets;
        let answer = async {
            let versions = broker.versions(deadline).await?;
            let version = versions
                .highest_common(api)
                .map_err(|_| Fault::Unsupported)?;
            let request = request(batch.iter().map(|(_, query)| *query));
            let body = broker.send_request(api, version, &request, deadline);
            Ok::<_, Fault>((body.await?, version))
        };
        let answer = answer.await;
        let groups = match &answer {
            Ok((body, version)) => decode_share_offsets(body, *version)
                .map_err(|error| self.report_malformed(address, &error)),
            Err(fault) => Err(*fault),
        };
        let mut room = MAX_FETCHED_TOPICS;
        let mut result_of = |query: &OffsetFetchQuery| {
            let groups = groups.as_ref().map_err(|fault| *fault)?;
            let found = groups.get(query.group.as_str());
            match found.ok_or(Fault::NoAnswer)? {
                (codes::NONE, topics) => {
                    let starts = topics
                        .iter()
                        .map(|topic| (topic.name, topic.starts.as_slice()));
                    let starts = FetchedOffsets::new(query, starts, &mut room)?;
                    Ok((starts, reported_lags(topics)))
                }
                (code, _) => Err(codes::fault_of((*code).into())),
            }
        };
        let each = batch
            .iter()
            .map(|(place, query)| (*place, result_of(query)));
        each.collect()
    }
}

fn request<'a>(
    queries: impl Iterator<Item = &'a OffsetFetchQuery>,
) -> DescribeShareGroupOffsetsRequest {
    let name = |text: &str| StrBytes::from_string(text.to_owned());
    let topic = |(topic, partitions): &(TopicName, usize)| {
        DescribeShareGroupOffsetsRequestTopic::default()
            .with_topic_name(name(topic.as_str()).into())
            .with_partitions((0..).take(*partitions).collect())
    };
    let group = |query: &OffsetFetchQuery| {
        let topics = query.named_topics();
        DescribeShareGroupOffsetsRequestGroup::default()
            .with_group_id(name(query.group.as_str()).into())
            .with_topics(topics.map(|topics| topics.map(topic).collect()))
    };
    DescribeShareGroupOffsetsRequest::default().with_groups(queries.map(group).collect())
}

fn reported_lags(topics: &[ShareTopic<'_>]) -> ReportedLags {
    let valid = topics
        .iter()
        .filter(|topic| names::topic(topic.name).is_ok());
    let lags = valid.map(|topic| {
        let lags = topic.lags.iter().copied();
        (TopicName::from(topic.name), lags.collect())
    });
    lags.collect()
}

/// Error code, and entries by topic.
type ShareGroupOffsets<'a> = (i16, Vec<ShareTopic<'a>>);

/// A topic of a share group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShareTopic<'a> {
    name: &'a str,
    /// Start offsets; -1 where the group has not begun.
    starts: Vec<PartitionEntry>,
    /// Lags, where the broker reports them.
    lags: Vec<(Partition, Lag)>,
}

pub(super) fn decode_share_offsets(
    body: &[u8],
    version: i16,
) -> Result<HashMap<&str, ShareGroupOffsets<'_>>, Malformed> {
    let mut cursor = ResponseCursor::new(body, true);
    cursor.i32()?;
    let mut groups = HashMap::new();
    for _ in 0..cursor.count(6)? {
        let group = cursor.string()?;
        let mut topics = Vec::new();
        for _ in 0..cursor.count(19)? {
            let topic = cursor.string()?;
            cursor.uuid()?;
            let count = cursor.count(20)?;
            let (mut starts, mut lags) = (Vec::with_capacity(count), Vec::new());
            for _ in 0..count {
                let (entry, lag) = partition(&mut cursor, version)?;
                lags.extend(lag.map(|lag| (entry.partition, lag)));
                starts.push(entry);
            }
            cursor.skip_tags()?;
            topics.push(ShareTopic {
                name: topic,
                starts,
                lags,
            });
        }
        let code = cursor.i16()?;
        cursor.skip_string()?;
        cursor.skip_tags()?;
        groups.insert(group, (code, topics));
    }
    cursor.skip_tags()?;
    Ok(groups)
}

fn partition(
    cursor: &mut ResponseCursor<'_>,
    version: i16,
) -> Result<(PartitionEntry, Option<Lag>), Malformed> {
    let (partition, offset) = (cursor.i32()?, cursor.i64()?);
    cursor.i32()?;
    // -1 where the broker does not know it.
    let lag = if version >= 1 {
        u64::try_from(cursor.i64()?).ok().map(Lag)
    } else {
        None
    };
    let code = cursor.i16()?;
    cursor.skip_string()?;
    cursor.skip_tags()?;
    let entry = PartitionEntry {
        partition,
        code,
        offset,
    };
    Ok((entry, lag))
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
    use crate::kafka::wire::frame::Request;

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
    fn share_offsets_decode_to_start_offsets_and_faults() {
        let entry = |partition, offset, code| PartitionEntry {
            partition,
            code,
            offset,
        };
        let starts = vec![entry(0, 7, 0), entry(1, -1, 0), entry(2, 0, 29)];
        let topic = |lags| ShareTopic {
            name: "t",
            starts: starts.clone(),
            lags,
        };
        for (version, response, lags) in [
            (0, response(), vec![]),
            (1, with_lags(&[3, -1, -1]), vec![(0, Lag(3))]),
            (
                1,
                with_lags(&[0, i64::MAX, i64::MIN]),
                vec![(0, Lag(0)), (1, Lag(u64::MAX / 2))],
            ),
        ] {
            let expected = HashMap::from([("a", (0, vec![topic(lags)])), ("b", (30, Vec::new()))]);
            assert_eq!(decode_share_offsets(&response, version), Ok(expected));
        }
    }

    /// The response in version 1, which `kafka-protocol` lacks: a lag between leader epoch and
    /// error code.
    fn with_lags(lags: &[i64]) -> Vec<u8> {
        let mut bytes = response();
        // Throttle time, count of groups, name; count of topics, name, ID; count of partitions.
        let first = 4 + 1 + 2 + 1 + 2 + 16 + 1;
        // Bytes of a partition, and of the part before the lag.
        let (whole, before) = (20, 16);
        for (place, lag) in lags.iter().enumerate().rev() {
            let at = first + place * whole + before;
            bytes.splice(at..at, lag.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn version_1_differs_from_version_0_in_the_header_only() {
        let query = OffsetFetchQuery {
            group: "g".into(),
            topics: Some(vec![("t".into(), 2)]),
            is_changing: false,
        };
        let api = ApiKey::DescribeShareGroupOffsets;
        let of = |version| {
            let body = request(std::iter::once(&query));
            let mut request = Request::new(api, version, "c", &body).unwrap();
            request.take_frame(7).to_vec()
        };
        let (mut old, new) = (of(0), of(1));
        assert_eq!(old[6..8], [0, 0]);
        old[7] = 1;
        assert_eq!(old, new);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0_usize..80, at in 0_usize..80) {
            drop(decode_share_offsets(&bytes, 0));
            drop(decode_share_offsets(&bytes, 1));
            let mut response = response();
            response.truncate(cut);
            if let Some(byte) = response.get_mut(at) {
                *byte ^= 0x7f;
            }
            drop(decode_share_offsets(&response, 0));
        }
    }
}
