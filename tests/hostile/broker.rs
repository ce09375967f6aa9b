//! A hostile broker that responds with more than was requested.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};

/// The timestamp by which a client asks for the first offset of a log.
const EARLIEST: i64 = -2;
/// End of each log, which begins at 0.
pub(crate) const LOG_END: i64 = 100;
/// Committed offset of each group.
pub(crate) const COMMITTED: i64 = 5;

/// Behaviour of the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attack {
    None,
    /// Sends this number of bytes of topics that were not requested.
    UnrequestedTopics {
        bytes: usize,
    },
    /// Sends this number of bytes of topics on which a group has commits.
    Commits {
        bytes: usize,
    },
    /// Sends this number of bytes of commits, with a different coordinator for each group.
    EndlessCommits {
        bytes: usize,
    },
    /// Reports that the topic has this number of partitions.
    Partitions {
        count: usize,
    },
    /// Reports this number of brokers, each of which leads a partition.
    Brokers {
        count: usize,
    },
}

/// A broker at every address of the loopback network, at one port. It stops with the process.
pub(crate) struct HostileBroker {
    port: u16,
    attack: Arc<Mutex<Attack>>,
    sent: Arc<AtomicUsize>,
    pub(crate) open: Arc<AtomicUsize>,
}

impl HostileBroker {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let broker = Self {
            port: listener.local_addr().unwrap().port(),
            attack: Arc::new(Mutex::new(Attack::None)),
            sent: Arc::default(),
            open: Arc::default(),
        };
        let (attack, sent, open) = (
            Arc::clone(&broker.attack),
            Arc::clone(&broker.sent),
            Arc::clone(&broker.open),
        );
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (attack, sent, open) =
                    (Arc::clone(&attack), Arc::clone(&sent), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &attack, &sent);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        broker
    }

    pub(crate) fn bootstrap(&self) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string()
    }

    pub(crate) fn behave(&self, attack: Attack) {
        *self.attack.lock().unwrap() = attack;
        self.sent.store(0, Ordering::SeqCst);
    }

    /// Bytes that were sent since the last change of its behaviour.
    pub(crate) fn take_sent(&self) -> usize {
        self.sent.swap(0, Ordering::SeqCst)
    }
}

/// The APIs with their highest versions, none of which has variable lengths, so that responses can be written by hand.
const APIS: [(ApiKey, i16); 5] = [
    (ApiKey::ApiVersions, 2),
    (ApiKey::Metadata, 8),
    (ApiKey::FindCoordinator, 2),
    (ApiKey::OffsetFetch, 5),
    (ApiKey::ListOffsets, 5),
];

fn serve(mut stream: TcpStream, attack: &Mutex<Attack>, sent: &AtomicUsize) -> io::Result<()> {
    let port = stream.local_addr()?.port();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut frame).unwrap();
        let (key, version) = (header.request_api_key, header.request_api_version);
        let attack = *attack.lock().unwrap();
        let mut out = BytesMut::new();
        out.extend_from_slice(&header.correlation_id.to_be_bytes());
        let long = respond(
            ApiKey::try_from(key).unwrap(),
            version,
            frame,
            attack,
            port,
            &mut out,
        );
        let count = long.as_ref().map_or(0, |long| long.count);
        let more = long
            .as_ref()
            .map_or(0, |long| long.entry.len() * count + long.end.len());
        let whole = out.len() + more;
        stream.write_all(&u32::try_from(whole).unwrap().to_be_bytes())?;
        stream.write_all(&out)?;
        if let Some(long) = long {
            long.write(&mut stream, sent)?;
        }
        sent.fetch_add(out.len(), Ordering::SeqCst);
    }
}

/// A response that consists of many entries that differ by a number in their name.
struct LongResponse {
    entry: Vec<u8>,
    /// Where the number is in an entry.
    number: usize,
    count: usize,
    end: Vec<u8>,
}

/// Digits of the number.
const DIGITS: usize = 9;

impl LongResponse {
    fn write(mut self, stream: &mut TcpStream, sent: &AtomicUsize) -> io::Result<()> {
        let mut piece = Vec::with_capacity(64 * 1024);
        for i in 0..self.count {
            let number = format!("{i:09}");
            self.entry[self.number..self.number + DIGITS].copy_from_slice(number.as_bytes());
            piece.extend_from_slice(&self.entry);
            if piece.len() > 60 * 1024 {
                stream.write_all(&piece)?;
                sent.fetch_add(piece.len(), Ordering::SeqCst);
                piece.clear();
            }
        }
        piece.extend_from_slice(&self.end);
        stream.write_all(&piece)?;
        sent.fetch_add(piece.len(), Ordering::SeqCst);
        Ok(())
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The host of a node: the first is the one in `bootstrap.servers`.
fn host(node: usize) -> String {
    match node {
        0 => "127.0.0.1".to_owned(),
        _ => format!("127.1.{}.{}", node / 250, node % 250 + 1),
    }
}

/// Writes the response, or its beginning.
fn respond(
    api: ApiKey,
    version: i16,
    mut body: Bytes,
    attack: Attack,
    port: u16,
    out: &mut BytesMut,
) -> Option<LongResponse> {
    match api {
        ApiKey::ApiVersions => {
            let apis = APIS.map(|(api, highest)| {
                ApiVersion::default()
                    .with_api_key(api as i16)
                    .with_min_version(api.valid_versions().min)
                    .with_max_version(highest)
            });
            let mut response = ApiVersionsResponse::default();
            // A version that is not supported is answered in the form of version 0.
            let is_refused = version > 2;
            if is_refused {
                response = response.with_error_code(35);
            }
            let version = if is_refused { 0 } else { version };
            let response = response.with_api_keys(apis.to_vec());
            response.encode(out, version).unwrap();
            None
        }
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut body, version).unwrap();
            metadata(&request, version, attack, port, out)
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::decode(&mut body, version).unwrap();
            let node = match attack {
                Attack::EndlessCommits { .. } => request.key[1..].parse().unwrap_or(0),
                _ => 0,
            };
            let response = FindCoordinatorResponse::default()
                .with_node_id(i32::try_from(node).unwrap().into())
                .with_host(text(&host(node)))
                .with_port(port.into());
            response.encode(out, version).unwrap();
            None
        }
        ApiKey::OffsetFetch => {
            let request = OffsetFetchRequest::decode(&mut body, version).unwrap();
            commits(&request, version, attack, out)
        }
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut body, version).unwrap();
            let topics = request.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let is_begin = partition.timestamp == EARLIEST;
                    ListOffsetsPartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_offset(if is_begin { 0 } else { LOG_END })
                });
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            let response = ListOffsetsResponse::default().with_topics(topics.collect());
            response.encode(out, version).unwrap();
            None
        }
        other => panic!("{other:?} is not offered"),
    }
}

fn metadata(
    request: &MetadataRequest,
    version: i16,
    attack: Attack,
    port: u16,
    out: &mut BytesMut,
) -> Option<LongResponse> {
    let brokers = match attack {
        Attack::Brokers { count } => count,
        Attack::EndlessCommits { .. } => 17,
        _ => 1,
    };
    let broker = |node: usize| {
        MetadataResponseBroker::default()
            .with_node_id(i32::try_from(node).unwrap().into())
            .with_host(text(&host(node)))
            .with_port(port.into())
    };
    let partitions = match attack {
        Attack::Brokers { count } | Attack::Partitions { count } => count,
        _ => 1,
    };
    let partition = |i: usize| {
        let i = i32::try_from(i).unwrap();
        let leader = if brokers > 1 { i } else { 0 };
        MetadataResponsePartition::default()
            .with_partition_index(i)
            .with_leader_id(leader.into())
    };
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions((0..partitions).map(partition).collect())
    });
    let response = MetadataResponse::default()
        .with_brokers((0..brokers).map(broker).collect())
        .with_topics(topics.collect());
    response.encode(out, version).unwrap();
    let Attack::UnrequestedTopics { bytes } = attack else {
        return None;
    };
    // Code, name, not internal, no partitions, no rights.
    let mut entry = vec![0, 0, 0, 13];
    entry.extend_from_slice(b"aaaa000000000");
    entry.extend_from_slice(&[0; 9]);
    let count = bytes / entry.len();
    // More topics than were counted, before the rights in the cluster.
    let known = request.topics.iter().flatten().count();
    let end = out.split_off(out.len() - 4).to_vec();
    let before: usize = request
        .topics
        .iter()
        .flatten()
        .map(|topic| 2 + 2 + topic.name.as_ref().unwrap().len() + 1 + 4 + partition_bytes() + 4)
        .sum();
    let place = out.len() - before - 4;
    let all = u32::try_from(known + count).unwrap();
    out[place..place + 4].copy_from_slice(&all.to_be_bytes());
    Some(LongResponse {
        entry,
        number: 8,
        count,
        end,
    })
}

/// Bytes of a partition without replicas in version 8.
fn partition_bytes() -> usize {
    2 + 4 + 4 + 4 + 4 + 4 + 4
}

fn commits(
    request: &OffsetFetchRequest,
    version: i16,
    attack: Attack,
    out: &mut BytesMut,
) -> Option<LongResponse> {
    let bytes = match attack {
        Attack::Commits { bytes } | Attack::EndlessCommits { bytes } => bytes,
        _ => {
            let topics = request.topics.iter().flatten().map(|topic| {
                let partitions = topic.partition_indexes.iter().map(|partition| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(*partition)
                        .with_committed_offset(COMMITTED)
                });
                OffsetFetchResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            let response = OffsetFetchResponse::default().with_topics(topics.collect());
            response.encode(out, version).unwrap();
            return None;
        }
    };
    // Name, one partition: its number, offset, epoch, no metadata, no error.
    let mut entry = vec![0, 13];
    entry.extend_from_slice(b"aaaa000000000");
    entry.extend_from_slice(&1_u32.to_be_bytes());
    entry.extend_from_slice(&0_u32.to_be_bytes());
    entry.extend_from_slice(&5_u64.to_be_bytes());
    entry.extend_from_slice(&[0xff; 6]);
    entry.extend_from_slice(&[0; 2]);
    let count = (bytes - 64) / entry.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(count).unwrap().to_be_bytes());
    Some(LongResponse {
        entry,
        number: 6,
        count,
        end: vec![0; 2],
    })
}
