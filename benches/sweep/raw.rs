//! The protocol with nothing around it: one blocking connection, one request after the other.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    BrokerId, GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// A connection to the one broker, which leads and coordinates everything.
pub(crate) struct Connection {
    stream: TcpStream,
    correlation: i32,
    /// Sent and received so far.
    pub(crate) bytes: u64,
}

impl Connection {
    pub(crate) fn open(bootstrap: &str) -> Result<Self> {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            correlation: 0,
            bytes: 0,
        })
    }

    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response>
    where
        R::Response: Decodable + HeaderVersion,
    {
        self.send(request, version)?;
        self.receive::<R>(version)
    }

    /// Sends a request whose answer [`Self::receive`] reads.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<()> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("sweep")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = u32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        self.bytes += u64::try_from(frame.len())?;
        Ok(())
    }

    /// Reads the answer to the request that was sent last.
    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response>
    where
        R::Response: Decodable + HeaderVersion,
    {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        self.stream.read_exact(&mut answer)?;
        self.bytes += u64::try_from(answer.len() + 4)?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))?;
        ensure!(
            header.correlation_id == self.correlation,
            "an answer to another request"
        );
        R::Response::decode(&mut answer, version)
    }

    /// Gives every group a commit on every partition of its topics, at the one of these brokers that takes it.
    pub(crate) fn commit_all(
        brokers: &mut [Self],
        groups: &[(String, Vec<String>)],
        partitions: i32,
    ) -> Result<()> {
        let partition = |index| OffsetCommitRequestPartition::default().with_partition_index(index);
        for (group, topics) in groups {
            let topic = |name: &String| {
                OffsetCommitRequestTopic::default()
                    .with_name(topic_name(name))
                    .with_partitions((0..partitions).map(partition).collect())
            };
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(topics.iter().map(topic).collect());
            // A coordinator that is still being elected or loading says so.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            for broker in (0..brokers.len()).cycle() {
                let answer: OffsetCommitResponse = brokers[broker].call(&request, 8)?;
                let codes: BTreeSet<i16> = answer
                    .topics
                    .iter()
                    .flat_map(|t| t.partitions.iter().map(|p| p.error_code))
                    .collect();
                if codes == BTreeSet::from([0]) {
                    break;
                }
                ensure!(
                    std::time::Instant::now() < deadline,
                    "committing for {group}: {codes:?}"
                );
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Every group's commits in one request; how many there are.
    pub(crate) fn offset_fetch(
        &mut self,
        groups: &[(String, Vec<String>)],
        partitions: i32,
    ) -> Result<usize> {
        let topic = |name: &String| {
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(name))
                .with_partition_indexes((0..partitions).collect())
        };
        let group = |(group, topics): &(String, Vec<String>)| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_topics(Some(topics.iter().map(topic).collect()))
        };
        let request = OffsetFetchRequest::default().with_groups(groups.iter().map(group).collect());
        let answer: OffsetFetchResponse = self.call(&request, 8)?;
        let topics = answer.groups.iter().flat_map(|group| &group.topics);
        Ok(topics
            .flat_map(|topic| &topic.partitions)
            .filter(|p| p.error_code == 0 && p.committed_offset >= 0)
            .count())
    }

    /// Every partition's end in one request; how many there are.
    pub(crate) fn list_offsets(
        &mut self,
        topics: &BTreeSet<String>,
        partitions: i32,
    ) -> Result<usize> {
        let partition = |index| {
            ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_timestamp(-1)
        };
        let topic = |name: &String| {
            ListOffsetsTopic::default()
                .with_name(topic_name(name))
                .with_partitions((0..partitions).map(partition).collect())
        };
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(topics.iter().map(topic).collect());
        let answer: ListOffsetsResponse = self.call(&request, 7)?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        Ok(partitions
            .filter(|p| p.error_code == 0 && p.offset >= 0)
            .count())
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
