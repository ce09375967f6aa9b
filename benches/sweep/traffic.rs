//! Groups with members that read a steady stream of messages, as input of the rate policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, JoinGroupRequest,
    JoinGroupResponse, OffsetCommitRequest, ProduceRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::raw::{Connection, topic_name};

/// Members of each group.
const MEMBERS: usize = 3;

/// Number of groups that join at the same time, and of connections for commits.
const AT_ONCE: usize = 200;

/// Time between two rounds of messages and commits: each sweep finds new ones.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long members stay without heartbeats: longer than the measurement, and no longer than Kafka allows.
const SESSION_MS: i32 = 20 * 60 * 1000;

/// Property of the broker that lets the members of a group join in one rebalance.
pub(crate) const JOIN_TOGETHER: (&str, &str) = ("group.initial.rebalance.delay.ms", "2000");

/// Versions of the requests, which brokers of all versions know.
const JOIN: i16 = 3;
const SYNC: i16 = 3;
const COMMIT: i16 = 7;
const PRODUCE: i16 = 8;

/// A group, and the member that commits for all.
struct Group {
    name: StrBytes,
    topics: Vec<String>,
    generation: i32,
    member: StrBytes,
}

/// Writes messages and commits offsets until it is stopped.
pub(crate) struct GroupTraffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU32>,
    thread: JoinHandle<Result<()>>,
}

impl GroupTraffic {
    /// Lets members join the groups, and begins to write and to commit. The groups are empty and the topics have no
    /// messages yet.
    pub(crate) fn start(
        bootstrap: &str,
        groups: &[(String, Vec<String>)],
        topics: &[String],
        partitions: i32,
    ) -> Result<Self> {
        let mut joined = Vec::with_capacity(groups.len());
        for some in groups.chunks(AT_ONCE) {
            joined.extend(join(bootstrap, some, partitions)?);
        }
        let connections = (0..AT_ONCE).map(|_| Connection::open(bootstrap));
        let mut writer = Writer {
            connections: connections.collect::<Result<_>>()?,
            groups: joined,
            produced: produce_request(topics, partitions)?,
            partitions,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU32::new(0));
        let thread = {
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            std::thread::spawn(move || writer.run(&stop, &rounds))
        };
        Ok(Self {
            stop,
            rounds,
            thread,
        })
    }

    /// Rounds of messages and commits so far.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Fails if a request has failed.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.ok().context("the thread that writes has panicked")?
    }
}

/// Inputs of the thread of [`GroupTraffic`].
struct Writer {
    connections: Vec<Connection>,
    groups: Vec<Group>,
    /// The messages of one round.
    produced: ProduceRequest,
    partitions: i32,
}

impl Writer {
    fn run(&mut self, stop: &AtomicBool, rounds: &AtomicU32) -> Result<()> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.produce()?;
            // All but the messages that were just written are read.
            self.commit(rounds.fetch_add(1, Ordering::Relaxed))?;
            let now = Instant::now();
            next = (next + INTERVAL).max(now);
            std::thread::sleep(next - now);
        }
        Ok(())
    }

    fn produce(&mut self) -> Result<()> {
        let answer = self.connections[0].call(&self.produced, PRODUCE)?;
        let topics = answer.responses.iter();
        let failed = topics
            .flat_map(|topic| &topic.partition_responses)
            .find(|partition| partition.error_code != 0);
        ensure!(failed.is_none(), "writing: {failed:?}");
        Ok(())
    }

    /// Commits the messages of this number of rounds in each group.
    fn commit(&mut self, rounds: u32) -> Result<()> {
        let partition = |index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(i64::from(rounds) * i64::from(messages(index)))
        };
        for some in self.groups.chunks(self.connections.len()) {
            for (connection, group) in self.connections.iter_mut().zip(some) {
                let topic = |name: &String| {
                    OffsetCommitRequestTopic::default()
                        .with_name(topic_name(name))
                        .with_partitions((0..self.partitions).map(partition).collect())
                };
                let request = OffsetCommitRequest::default()
                    .with_group_id(GroupId(group.name.clone()))
                    .with_generation_id_or_member_epoch(group.generation)
                    .with_member_id(group.member.clone())
                    .with_topics(group.topics.iter().map(topic).collect());
                connection.send(&request, COMMIT)?;
            }
            for (connection, group) in self.connections.iter_mut().zip(some) {
                let answer = connection.receive::<OffsetCommitRequest>(COMMIT)?;
                let topics = answer.topics.iter();
                let failed = topics
                    .flat_map(|topic| &topic.partitions)
                    .find(|partition| partition.error_code != 0);
                ensure!(
                    failed.is_none(),
                    "committing for {}: {failed:?}",
                    group.name
                );
            }
        }
        Ok(())
    }
}

/// Messages of a partition in each round. Partitions differ, as real ones do.
fn messages(partition: i32) -> i32 {
    1 + partition % 3
}

/// A request that writes the messages of one round.
fn produce_request(topics: &[String], partitions: i32) -> Result<ProduceRequest> {
    let data = |partition| -> Result<PartitionProduceData> {
        Ok(PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch(messages(partition))?)))
    };
    let data: Vec<_> = (0..partitions).map(data).collect::<Result<_>>()?;
    let topic = |name: &String| {
        TopicProduceData::default()
            .with_name(topic_name(name))
            .with_partition_data(data.clone())
    };
    Ok(ProduceRequest::default()
        .with_acks(1)
        .with_timeout_ms(30_000)
        .with_topic_data(topics.iter().map(topic).collect()))
}

/// A batch of this number of messages.
fn batch(messages: i32) -> Result<Bytes> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let timestamp = i64::try_from(now.as_millis())?;
    let record = |place: i32| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: place.into(),
        // One that does not grow with the offset would begin a new batch.
        sequence: NO_SEQUENCE + place,
        timestamp,
        key: None,
        value: Some(Bytes::from_static(b"x")),
        headers: std::iter::empty().collect(),
    };
    let records: Vec<_> = (0..messages).map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &options)?;
    Ok(batch.freeze())
}

/// Lets the members of these groups join. Each has a separate connection, because the response to one waits for the
/// others.
fn join(bootstrap: &str, groups: &[(String, Vec<String>)], partitions: i32) -> Result<Vec<Group>> {
    let mut connections: Vec<Vec<Connection>> = Vec::with_capacity(groups.len());
    for (group, topics) in groups {
        let request = join_request(group, topics)?;
        let mut members = Vec::with_capacity(MEMBERS);
        for _ in 0..MEMBERS {
            let mut connection = Connection::open(bootstrap)?;
            connection.send(&request, JOIN)?;
            members.push(connection);
        }
        connections.push(members);
    }
    let mut joined = Vec::with_capacity(groups.len());
    for ((name, topics), connections) in groups.iter().zip(&mut connections) {
        let answers = connections
            .iter_mut()
            .map(|connection| connection.receive::<JoinGroupRequest>(JOIN));
        let answers: Vec<JoinGroupResponse> = answers.collect::<Result<_>>()?;
        let failed = answers.iter().find(|answer| answer.error_code != 0);
        ensure!(failed.is_none(), "joining {name}: {failed:?}");
        let leader = answers
            .iter()
            .find(|answer| answer.member_id == answer.leader)
            .with_context(|| format!("{name} has no leader"))?;
        ensure!(
            leader.members.len() == MEMBERS,
            "{} members of {name} have joined together",
            leader.members.len()
        );
        for (connection, answer) in connections.iter_mut().zip(&answers) {
            let mut request = SyncGroupRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(name.clone())))
                .with_generation_id(answer.generation_id)
                .with_member_id(answer.member_id.clone());
            if answer.member_id == leader.member_id {
                request = request.with_assignments(assign(&leader.members, topics, partitions)?);
            }
            connection.send(&request, SYNC)?;
        }
        for connection in connections {
            let answer = connection.receive::<SyncGroupRequest>(SYNC)?;
            ensure!(
                answer.error_code == 0,
                "assigning partitions of {name}: {}",
                answer.error_code
            );
        }
        joined.push(Group {
            name: StrBytes::from_string(name.clone()),
            topics: topics.clone(),
            generation: leader.generation_id,
            member: leader.member_id.clone(),
        });
    }
    Ok(joined)
}

fn join_request(group: &str, topics: &[String]) -> Result<JoinGroupRequest> {
    let topics = topics.iter().cloned().map(StrBytes::from_string).collect();
    let subscription = ConsumerProtocolSubscription::default().with_topics(topics);
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(versioned(&subscription)?);
    Ok(JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]))
}

/// Distributes the partitions of each topic evenly among the members.
fn assign(
    members: &[JoinGroupResponseMember],
    topics: &[String],
    partitions: i32,
) -> Result<Vec<SyncGroupRequestAssignment>> {
    let assignment = |(member, first): (&JoinGroupResponseMember, i32)| -> Result<_> {
        let topic = |name: &String| {
            TopicPartition::default()
                .with_topic(topic_name(name))
                .with_partitions((first..partitions).step_by(members.len()).collect())
        };
        let assigned = topics.iter().map(topic).collect();
        let assigned = ConsumerProtocolAssignment::default().with_assigned_partitions(assigned);
        Ok(SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(versioned(&assigned)?))
    };
    members.iter().zip(0..).map(assignment).collect()
}

/// A message of the consumer protocol in version 0, with the version before it.
fn versioned(message: &impl Encodable) -> Result<Bytes> {
    let mut encoded = BytesMut::from(&0i16.to_be_bytes()[..]);
    message.encode(&mut encoded, 0)?;
    Ok(encoded.freeze())
}
