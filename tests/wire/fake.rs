//! A cluster of scripted brokers on loopback. They respond as Kafka does, with the library's own encoder, unless a test
//! sets another behaviour.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};

/// Error message of a refused login: that of a real broker, and control characters that a terminal or a log would obey.
pub(crate) const REFUSAL: &str = "not with this proof\x1b[2J\r\n2026-01-01T00:00:00Z ERROR forged";

/// Behaviour of a broker instead of a normal response.
#[derive(Clone, Debug)]
pub(crate) enum Misbehavior {
    /// Never responds.
    Silent,
    /// Closes the connection.
    Close,
    /// Sends half of its response and closes the connection.
    Truncate,
    /// Sends these bytes.
    Raw(Vec<u8>),
    /// Sends this body with the correct header.
    Body(Vec<u8>),
    /// Responds with the correlation ID of another request.
    WrongCorrelationId,
    /// Responds, with this throttle time in milliseconds.
    Throttle(i32),
    /// Responds with this error code for every group or partition.
    ErrorCode(i16),
    /// Responds to `Metadata` with this error code for the whole response, and nothing else.
    MetadataError(i16),
}

/// State of the cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterState {
    /// By node id, from 1.
    addresses: BTreeMap<i32, SocketAddr>,
    /// Advertised addresses of nodes, where they differ from the real ones.
    pub(crate) advertised: BTreeMap<i32, (String, i32)>,
    /// Each topic's partitions: leader and end.
    pub(crate) topics: BTreeMap<String, Vec<(i32, i64)>>,
    /// Each group's coordinator.
    pub(crate) coordinators: BTreeMap<String, i32>,
    /// Commits by group and topic.
    pub(crate) commits: BTreeMap<(String, String), Vec<Option<i64>>>,
    /// Highest version of an API, where it differs from the library's.
    pub(crate) max_versions: HashMap<i16, i16>,
    /// APIs that the brokers do not have.
    pub(crate) missing_apis: Vec<ApiKey>,
    /// Idle time after which a broker closes a connection.
    pub(crate) idle_timeout: Option<Duration>,
    /// Iterations that a SCRAM login requires; every such login is rejected afterwards. 0 if the brokers need no login.
    pub(crate) scram_iterations: u32,
    /// Behaviour by node and API, and the number of responses for which it applies.
    misbehaviors: HashMap<(i32, i16), (Misbehavior, usize)>,
    /// Requests so far: node, API, version.
    pub(crate) requests: Vec<(i32, i16, i16)>,
    /// The node that does not answer requests for an offset by timestamp, nor any later request.
    pub(crate) hangs_on_lookup: Option<i32>,
}

/// The brokers. They stop with the process.
pub(crate) struct FakeCluster {
    pub(crate) state: Arc<Mutex<ClusterState>>,
    pub(crate) open_connections: Arc<AtomicUsize>,
    pub(crate) accepted_connections: Arc<AtomicUsize>,
    bootstrap: String,
}

impl ClusterState {
    /// The host and port that the brokers advertise for a node.
    fn advertised(&self, node: i32) -> (String, i32) {
        let address = self.addresses[&node];
        let own = || (address.ip().to_string(), i32::from(address.port()));
        self.advertised.get(&node).cloned().unwrap_or_else(own)
    }
}

impl FakeCluster {
    pub(crate) fn start(brokers: i32) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), brokers)
    }

    pub(crate) fn start_on(ip: IpAddr, brokers: i32) -> Self {
        let mut fake = Self {
            state: Arc::default(),
            open_connections: Arc::default(),
            accepted_connections: Arc::default(),
            bootstrap: String::new(),
        };
        let addresses: Vec<_> = (1..=brokers)
            .map(|node| fake.start_node(node, ip))
            .collect();
        let addresses = addresses.iter().map(SocketAddr::to_string);
        fake.bootstrap = addresses.collect::<Vec<_>>().join(",");
        fake
    }

    /// Adds a node, or moves one to a new address. The old address does not respond any more.
    pub(crate) fn start_node(&self, node: i32, ip: IpAddr) -> SocketAddr {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        self.state.lock().unwrap().addresses.insert(node, address);
        let (state, open, accepted) = (
            Arc::clone(&self.state),
            Arc::clone(&self.open_connections),
            Arc::clone(&self.accepted_connections),
        );
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, open) = (Arc::clone(&state), Arc::clone(&open));
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let _ = serve(node, stream.unwrap(), &state);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        address
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A topic whose partitions are led by these nodes, each ending at 100.
    pub(crate) fn topic(&self, name: &str, leaders: &[i32]) {
        let partitions = leaders.iter().map(|leader| (*leader, 100)).collect();
        let mut state = self.state.lock().unwrap();
        state.topics.insert(name.into(), partitions);
    }

    /// A group at that coordinator, with commits.
    pub(crate) fn group(&self, name: &str, node: i32, topic: &str, commits: &[Option<i64>]) {
        let mut state = self.state.lock().unwrap();
        state.coordinators.insert(name.into(), node);
        state
            .commits
            .insert((name.into(), topic.into()), commits.to_vec());
    }

    /// Sets the behaviour of a node for its next responses to an API.
    pub(crate) fn misbehave(&self, node: i32, api: ApiKey, misbehavior: Misbehavior, times: usize) {
        let mut state = self.state.lock().unwrap();
        state
            .misbehaviors
            .insert((node, api as i16), (misbehavior, times));
    }

    pub(crate) fn clear_misbehaviors(&self) {
        self.state.lock().unwrap().misbehaviors.clear();
    }

    pub(crate) fn request_count(&self, api: ApiKey) -> usize {
        let state = self.state.lock().unwrap();
        state
            .requests
            .iter()
            .filter(|(_, key, _)| *key == api as i16)
            .count()
    }
}

fn serve(node: i32, mut stream: TcpStream, state: &Mutex<ClusterState>) -> std::io::Result<()> {
    let here = stream.local_addr()?;
    loop {
        let mut length = [0; 4];
        stream.set_read_timeout(state.lock().unwrap().idle_timeout)?;
        stream.read_exact(&mut length)?;
        if state.lock().unwrap().addresses[&node] != here {
            return Ok(());
        }
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut frame).unwrap();
        let (key, version) = (header.request_api_key, header.request_api_version);
        let misbehavior = {
            let mut state = state.lock().unwrap();
            state.requests.push((node, key, version));
            match state.misbehaviors.get_mut(&(node, key)) {
                Some((misbehavior, times)) if *times > 0 => {
                    *times -= 1;
                    Some(misbehavior.clone())
                }
                _ => None,
            }
        };
        if is_lookup(key, version, frame.clone()) {
            while state.lock().unwrap().hangs_on_lookup == Some(node) {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let mut correlation = header.correlation_id;
        match &misbehavior {
            Some(Misbehavior::Silent) => loop {
                thread::sleep(Duration::from_millis(20));
                // Until it is woken up, as a stopped process is.
                if !state
                    .lock()
                    .unwrap()
                    .misbehaviors
                    .contains_key(&(node, key))
                {
                    break;
                }
            },
            Some(Misbehavior::Close) => return Ok(()),
            Some(Misbehavior::Raw(bytes)) => {
                stream.write_all(bytes)?;
                continue;
            }
            Some(Misbehavior::WrongCorrelationId) => correlation += 1,
            _ => {}
        }
        let mut out = BytesMut::from(&[0; 4][..]);
        ResponseHeader::default()
            .with_correlation_id(correlation)
            .encode(&mut out, header_version(key, version))
            .unwrap();
        if let Some(Misbehavior::Body(body)) = &misbehavior {
            out.extend_from_slice(body);
        } else {
            respond(
                node,
                key,
                version,
                frame,
                &mut state.lock().unwrap(),
                &misbehavior,
                &mut out,
            );
        }
        let length = u32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        if let Some(Misbehavior::Truncate) = misbehavior {
            stream.write_all(&out[..out.len() / 2])?;
            return Ok(());
        }
        stream.write_all(&out)?;
    }
}

/// Whether it requests an offset by timestamp.
fn is_lookup(key: i16, version: i16, mut body: Bytes) -> bool {
    if key != ApiKey::ListOffsets as i16 {
        return false;
    }
    let request = ListOffsetsRequest::decode(&mut body, version).unwrap();
    let mut partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| partition.timestamp >= 0)
}

fn header_version(key: i16, version: i16) -> i16 {
    match ApiKey::try_from(key).unwrap() {
        ApiKey::ApiVersions => 0,
        key => key.response_header_version(version),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encode(response: impl Encodable, version: i16, out: &mut BytesMut) {
    response.encode(out, version).unwrap();
}

#[allow(clippy::too_many_lines, reason = "one arm for each API")]
fn respond(
    node: i32,
    key: i16,
    version: i16,
    mut body: Bytes,
    state: &mut ClusterState,
    misbehavior: &Option<Misbehavior>,
    out: &mut BytesMut,
) {
    let code = match misbehavior {
        Some(Misbehavior::ErrorCode(code)) => *code,
        _ => 0,
    };
    let throttle = match misbehavior {
        Some(Misbehavior::Throttle(millis)) => *millis,
        _ => 0,
    };
    match ApiKey::try_from(key).unwrap() {
        ApiKey::ApiVersions => {
            let range = |api: ApiKey| {
                let own = api.valid_versions();
                let key = api as i16;
                let highest = state.max_versions.get(&key).copied().unwrap_or(own.max);
                ApiVersion::default()
                    .with_api_key(key)
                    .with_min_version(own.min)
                    .with_max_version(highest.min(own.max))
            };
            let apis = [
                ApiKey::ApiVersions,
                ApiKey::Metadata,
                ApiKey::FindCoordinator,
                ApiKey::OffsetFetch,
                ApiKey::ListOffsets,
                ApiKey::ListGroups,
                ApiKey::SaslHandshake,
                ApiKey::SaslAuthenticate,
            ];
            let apis = apis
                .into_iter()
                .filter(|api| !state.missing_apis.contains(api));
            let response = ApiVersionsResponse::default()
                .with_error_code(code)
                .with_api_keys(apis.map(range).collect());
            // Code 35 comes in the form of version 0.
            encode(response, if code == 35 { 0 } else { version }, out);
        }
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut body, version).unwrap();
            assert!(version < 4 || !request.allow_auto_topic_creation);
            let brokers = state.addresses.keys().map(|id| {
                let (host, port) = state.advertised(*id);
                MetadataResponseBroker::default()
                    .with_node_id((*id).into())
                    .with_host(text(&host))
                    .with_port(port)
            });
            let names: Vec<String> = match &request.topics {
                Some(topics) if version > 0 => topics
                    .iter()
                    .map(|t| t.name.as_ref().unwrap().to_string())
                    .collect(),
                _ => state.topics.keys().cloned().collect(),
            };
            let topics = names.iter().map(|name| {
                let known = state.topics.get(name);
                let partitions = known
                    .into_iter()
                    .flatten()
                    .enumerate()
                    .map(|(i, (leader, _))| {
                        MetadataResponsePartition::default()
                            .with_partition_index(i32::try_from(i).unwrap())
                            .with_leader_id((*leader).into())
                    });
                MetadataResponseTopic::default()
                    .with_error_code(if known.is_some() { code } else { 3 })
                    .with_name(Some(text(name).into()))
                    .with_partitions(partitions.collect())
            });
            let mut response = match misbehavior {
                Some(Misbehavior::MetadataError(code)) => {
                    MetadataResponse::default().with_error_code(*code)
                }
                _ => MetadataResponse::default()
                    .with_brokers(brokers.collect())
                    .with_topics(topics.collect()),
            };
            if version >= 3 {
                response = response.with_throttle_time_ms(throttle);
            }
            encode(response, version, out);
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::decode(&mut body, version).unwrap();
            let find = |group: &str| {
                let node = state.coordinators.get(group).copied().unwrap_or(1);
                let (host, port) = state.advertised(node);
                (node, text(&host), port)
            };
            let mut response = FindCoordinatorResponse::default();
            if version >= 1 {
                response = response.with_throttle_time_ms(throttle);
            }
            let response = if version >= 4 {
                let coordinators = request.coordinator_keys.iter().map(|key| {
                    let (node, host, port) = find(key);
                    Coordinator::default()
                        .with_key(key.clone())
                        .with_node_id(node.into())
                        .with_host(host)
                        .with_port(port)
                        .with_error_code(code)
                });
                response.with_coordinators(coordinators.collect())
            } else {
                let (node, host, port) = find(&request.key);
                response
                    .with_node_id(node.into())
                    .with_host(host)
                    .with_port(port)
                    .with_error_code(code)
            };
            encode(response, version, out);
        }
        ApiKey::OffsetFetch => encode(offset_fetch(body, version, state, code), version, out),
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut body, version).unwrap();
            let topics = request.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = usize::try_from(partition.partition_index).unwrap();
                    let known = state
                        .topics
                        .get(topic.name.as_str())
                        .and_then(|p| p.get(index));
                    let (code, offset) = match known {
                        None => (3, -1),
                        Some(_) if code != 0 => (code, -1),
                        Some(_) if partition.timestamp == -2 => (0, 0),
                        // The newest tenth of each log has new records, and the last of them may be missing.
                        Some((_, end)) if partition.timestamp >= 0 => (0, end / 10 * 9),
                        Some((_, end)) => (0, end - i64::from(request.isolation_level)),
                    };
                    ListOffsetsPartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code)
                        .with_offset(offset)
                });
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            let mut response = ListOffsetsResponse::default().with_topics(topics.collect());
            if version >= 2 {
                response = response.with_throttle_time_ms(throttle);
            }
            encode(response, version, out);
        }
        ApiKey::ListGroups => {
            let here = state
                .coordinators
                .iter()
                .filter(|(_, coordinator)| **coordinator == node);
            let listed = here.map(|(group, _)| {
                ListedGroup::default()
                    .with_group_id(text(group).into())
                    .with_protocol_type(text("consumer"))
            });
            let response = ListGroupsResponse::default()
                .with_error_code(code)
                .with_groups(listed.collect());
            encode(response, version, out);
        }
        ApiKey::SaslHandshake => {
            // As a listener without logins says.
            let code = if state.scram_iterations == 0 {
                34
            } else {
                code
            };
            let offered = if code == 0 {
                vec![text("SCRAM-SHA-256")]
            } else {
                Vec::new()
            };
            let response = SaslHandshakeResponse::default()
                .with_error_code(code)
                .with_mechanisms(offered);
            encode(response, version, out);
        }
        ApiKey::SaslAuthenticate => {
            let request = SaslAuthenticateRequest::decode(&mut body, version).unwrap();
            let said = String::from_utf8(request.auth_bytes.to_vec()).unwrap();
            let response = match said.split_once("r=") {
                // The client's first words, "n,,n=USER,r=NONCE".
                Some((first, nonce)) if first.starts_with('n') => {
                    let answer = format!("r={nonce}more,s=c2FsdA==,i={}", state.scram_iterations);
                    SaslAuthenticateResponse::default().with_auth_bytes(answer.into())
                }
                _ => SaslAuthenticateResponse::default()
                    .with_error_code(58)
                    .with_error_message(Some(text(REFUSAL))),
            };
            encode(response, version, out);
        }
        other => panic!("unexpected request {other:?}"),
    }
}

fn offset_fetch(
    mut body: Bytes,
    version: i16,
    state: &ClusterState,
    code: i16,
) -> OffsetFetchResponse {
    let request = OffsetFetchRequest::decode(&mut body, version).unwrap();
    let commit = |group: &str, topic: &str, partition: i32| {
        let commits = state.commits.get(&(group.to_owned(), topic.to_owned()));
        let index = usize::try_from(partition).unwrap();
        commits.and_then(|c| *c.get(index)?).unwrap_or(-1)
    };
    // Topic, and its partitions with their commits.
    let of =
        |group: &str, topics: Option<Vec<(String, Vec<i32>)>>| -> Vec<(String, Vec<(i32, i64)>)> {
            let topics = topics.unwrap_or_else(|| {
                let own = state.commits.iter().filter(|((g, _), _)| g == group);
                own.map(|((_, topic), commits)| {
                    let some = (0..).zip(commits).filter(|(_, c)| c.is_some());
                    (topic.clone(), some.map(|(i, _)| i).collect())
                })
                .collect()
            });
            topics
                .into_iter()
                .map(|(topic, indexes)| {
                    let found = indexes.into_iter().map(|i| (i, commit(group, &topic, i)));
                    let found = found.collect();
                    (topic, found)
                })
                .collect()
        };
    if version >= 8 {
        let groups = request.groups.iter().map(|group| {
            let topics = group.topics.as_ref().map(|topics| {
                let each = topics.iter();
                each.map(|t| (t.name.to_string(), t.partition_indexes.clone()))
                    .collect()
            });
            let topics = of(group.group_id.as_str(), topics)
                .into_iter()
                .map(|(name, found)| {
                    let partitions = found.into_iter().map(|(i, offset)| {
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(i)
                            .with_committed_offset(offset)
                    });
                    OffsetFetchResponseTopics::default()
                        .with_name(text(&name).into())
                        .with_partitions(partitions.collect())
                });
            OffsetFetchResponseGroup::default()
                .with_group_id(group.group_id.clone())
                .with_error_code(code)
                .with_topics(if code == 0 {
                    topics.collect()
                } else {
                    Vec::new()
                })
        });
        return OffsetFetchResponse::default()
            .with_topics(Vec::new())
            .with_groups(groups.collect());
    }
    let topics = request.topics.as_ref().map(|topics| {
        let each = topics.iter();
        each.map(|t| (t.name.to_string(), t.partition_indexes.clone()))
            .collect()
    });
    let topics = of(request.group_id.as_str(), topics)
        .into_iter()
        .map(|(name, found)| {
            let partitions = found.into_iter().map(|(i, offset)| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(i)
                    .with_committed_offset(offset)
            });
            OffsetFetchResponseTopic::default()
                .with_name(text(&name).into())
                .with_partitions(partitions.collect())
        });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 {
        response.with_error_code(code)
    } else {
        response
    }
}
