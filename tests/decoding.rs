//! Fuzz test of every response decoder: none panics, and none takes more memory than a small multiple of its input. It
//! has its own binary, because its allocator counts memory.
//!
//! For 10 s, with `LAGWISE_TIER=full` for ten minutes, in the fast tier for two seconds. The seed is printed, and
//! `LAGWISE_SEED` repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may end by a panic, and says what it did"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
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
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, ConsumerGroupDescribeResponse, ConsumerProtocolAssignment,
    ConsumerProtocolSubscription, CreatePartitionsResponse, DescribeConfigsResponse,
    DescribeGroupsResponse, DescribeShareGroupOffsetsResponse, FindCoordinatorResponse,
    ListGroupsResponse, ListOffsetsResponse, MetadataResponse, OffsetFetchResponse,
    SaslAuthenticateResponse, SaslHandshakeResponse, ShareGroupDescribeResponse,
    consumer_group_describe_response, consumer_protocol_assignment, describe_groups_response,
    describe_share_group_offsets_response, share_group_describe_response,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use lagwise::kafka::wire::decoding::{apis, is_well_formed};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Maximum memory for each byte of a response, and for an empty one. The worst case are lists of topics with empty
/// names: an entry takes 32 bytes for 3 bytes of the response, and a list that grows by doubling takes three times its
/// memory for a moment.
const MAX_BYTES_PER_RESPONSE_BYTE: usize = 32;
const MAX_BASE_BYTES: usize = 512;

/// Maximum length of the lists in a random response.
const MAX_ENTRIES: usize = 40;

#[test]
fn any_bytes_are_read_or_refused_within_bounds() {
    let budget = Duration::from_secs(match std::env::var("LAGWISE_TIER").as_deref() {
        Ok("full") => 600,
        Ok("plain") => 10,
        _ => 2,
    });
    let seed = std::env::var("LAGWISE_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("LAGWISE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let all = apis();
    let mut most: BTreeMap<i16, (usize, usize)> = BTreeMap::new();
    let (started, mut rounds, mut well_formed) = (Instant::now(), 0_u64, 0_u64);
    while started.elapsed() < budget {
        for (key, versions) in &all {
            let version = rng.i16(versions.clone());
            let valid = response(*key, version, &mut rng);
            assert!(
                is_well_formed(*key, version, &valid),
                "API {key} version {version}, LAGWISE_SEED={seed}: a right answer is refused: {valid:?}"
            );
            let mutated = mutated(valid.clone(), &mut rng);
            for body in [valid, mutated, noise(&mut rng)] {
                let took = measured(*key, version, &body, seed, &mut well_formed);
                let slot = most.entry(*key).or_default();
                // By the time per byte, compared without a fraction.
                if took * slot.1.max(1) > slot.0 * body.len().max(1) && took > MAX_BASE_BYTES {
                    *slot = (took, body.len());
                }
            }
        }
        rounds += 1;
    }
    println!(
        "{rounds} rounds over {} APIs, {well_formed} bodies were well-formed",
        all.len()
    );
    for (key, (took, length)) in most {
        println!("API {key}: at most {took} bytes for {length}");
    }
}

/// Decodes one body. Returns the peak memory that this took, in bytes.
fn measured(key: i16, version: i16, body: &[u8], seed: u64, well_formed: &mut u64) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let read = catch_unwind(AssertUnwindSafe(|| is_well_formed(key, version, body)));
    let took = MEMORY.peak_usage().saturating_sub(before);
    let Ok(read) = read else {
        panic!("API {key} version {version}, LAGWISE_SEED={seed}: reading {body:?} panicked");
    };
    *well_formed += u64::from(read);
    assert!(
        took <= MAX_BASE_BYTES + MAX_BYTES_PER_RESPONSE_BYTE * body.len(),
        "API {key} version {version}, LAGWISE_SEED={seed}: {took} bytes for the {} of {body:?}",
        body.len()
    );
    took
}

// --- bytes ------------------------------------------------------------------------------------------------------

/// Random bytes in which values with a meaning are frequent.
fn noise(rng: &mut Rng) -> Vec<u8> {
    let boundaries = [0, 1, 2, 3, 0x7f, 0x80, 0xff];
    if rng.u8(0..4) == 0 {
        // A head, and one thing as often as it goes: as an entry of a list it takes most for each byte.
        let mut body: Vec<u8> = (0..rng.usize(0..12))
            .map(|_| *rng.choice(&boundaries).unwrap())
            .collect();
        body.extend([rng.u8(0x80..), rng.u8(0..8)]);
        let entry: Vec<u8> = (0..rng.usize(1..6)).map(|_| rng.u8(0..3)).collect();
        body.extend(entry.repeat(rng.usize(0..600)));
        return body;
    }
    let length = rng.usize(0..400);
    let one = |_| match rng.bool() {
        true => *rng.choice(&boundaries).unwrap(),
        false => rng.u8(..),
    };
    (0..length).map(one).collect()
}

/// A body with random changes: other bytes and lengths, and parts that are cut off, removed or repeated.
fn mutated(mut body: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    for _ in 0..rng.usize(1..4) {
        if body.is_empty() {
            return body;
        }
        let at = rng.usize(0..body.len());
        let until = rng.usize(at..body.len());
        match rng.u8(0..7) {
            0 => body[at] = rng.u8(..),
            1 => body[at] = body[at].wrapping_add(1),
            2 => body.truncate(at),
            3 => drop(body.drain(at..until)),
            4 => {
                let part = body[at..until].to_vec();
                body.splice(at..at, part);
            }
            5 => {
                // A count or length of four bytes, or of two.
                let lies: [&[u8]; 5] = [
                    &[0x7f, 0xff, 0xff, 0xff],
                    &[0xff, 0xff, 0xff, 0xff],
                    &[0, 0, 0xff, 0xff],
                    &[0x7f, 0xff],
                    &[0, 0x40],
                ];
                overwrite(&mut body, at, rng.choice(lies).unwrap());
            }
            _ => overwrite(&mut body, at, &[0xff, 0xff, 0xff, 0xff, rng.u8(0..0x20)]),
        }
    }
    body
}

fn overwrite(body: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in body[at..].iter_mut().zip(with) {
        *to = *from;
    }
}

// --- right answers ----------------------------------------------------------------------------------------------

/// A random length of a list, usually small. Sometimes it is large with minimal entries, which take most memory per
/// byte.
struct Shape {
    count: usize,
    text: usize,
}

fn shape(rng: &mut Rng) -> Shape {
    match rng.u8(0..4) {
        0 => Shape {
            count: rng.usize(0..MAX_ENTRIES),
            text: 0,
        },
        _ => Shape {
            count: rng.usize(0..4),
            text: rng.usize(0..30),
        },
    }
}

fn text(rng: &mut Rng, length: usize) -> StrBytes {
    StrBytes::from_string((0..length).map(|_| rng.alphanumeric()).collect())
}

fn list<T>(rng: &mut Rng, mut one: impl FnMut(&mut Rng, usize) -> T) -> Vec<T> {
    let shape = shape(rng);
    (0..shape.count).map(|_| one(rng, shape.text)).collect()
}

fn bytes(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode(&mut bytes, version).unwrap();
    bytes
}

/// A valid response, made by the library's own encoder. A new decoder needs an arm here.
fn response(key: i16, version: i16, rng: &mut Rng) -> Vec<u8> {
    if key == STREAMS_GROUP_DESCRIBE {
        return streams_groups(rng);
    }
    match ApiKey::try_from(key).unwrap() {
        ApiKey::DescribeGroups => bytes(&classic_groups(rng), version),
        ApiKey::ConsumerGroupDescribe => bytes(&consumer_groups(rng), version),
        ApiKey::ShareGroupDescribe => bytes(&share_groups(rng), version),
        ApiKey::DescribeShareGroupOffsets if version > 0 => share_offsets_and_lags(rng),
        ApiKey::DescribeShareGroupOffsets => bytes(&share_offsets(rng), version),
        ApiKey::CreatePartitions => {
            let result = CreatePartitionsTopicResult::default()
                .with_name(text(rng, 20).into())
                .with_error_code(rng.i16(..))
                .with_error_message(rng.bool().then(|| text(rng, 20)));
            let response = CreatePartitionsResponse::default().with_results(vec![result]);
            bytes(&response, version)
        }
        ApiKey::DescribeConfigs => {
            let entry = |rng: &mut Rng, length| {
                DescribeConfigsResourceResult::default()
                    .with_name(text(rng, length))
                    .with_value(rng.bool().then(|| text(rng, length)))
            };
            let result = DescribeConfigsResult::default()
                .with_error_code(rng.i16(..))
                .with_resource_name(text(rng, 20))
                .with_configs(list(rng, entry));
            let response = DescribeConfigsResponse::default().with_results(vec![result]);
            bytes(&response, version)
        }
        ApiKey::ApiVersions => {
            let range = |rng: &mut Rng, _| {
                let range = ApiVersion::default().with_api_key(rng.i16(..));
                range.with_max_version(rng.i16(..))
            };
            let response = ApiVersionsResponse::default().with_error_code(rng.i16(..));
            bytes(&response.with_api_keys(list(rng, range)), version)
        }
        ApiKey::SaslHandshake => {
            let response = SaslHandshakeResponse::default().with_error_code(rng.i16(..));
            bytes(&response.with_mechanisms(list(rng, text)), version)
        }
        ApiKey::SaslAuthenticate => {
            let answer: Vec<u8> = list(rng, |rng, _| rng.u8(..));
            let message = rng.bool().then(|| text(rng, 20));
            let response = SaslAuthenticateResponse::default()
                .with_error_code(rng.i16(..))
                .with_error_message(message)
                .with_auth_bytes(answer.into());
            bytes(&response, version)
        }
        ApiKey::Metadata => bytes(&metadata(version, rng), version),
        ApiKey::FindCoordinator => {
            let response = FindCoordinatorResponse::default();
            let coordinator = |rng: &mut Rng, length| {
                Coordinator::default()
                    .with_key(text(rng, length))
                    .with_host(text(rng, length))
                    .with_port(rng.i32(..))
            };
            let response = if version >= 4 {
                response.with_coordinators(list(rng, coordinator))
            } else {
                response.with_host(text(rng, 9)).with_port(rng.i32(..))
            };
            bytes(&response, version)
        }
        ApiKey::OffsetFetch => bytes(&offset_fetch(version, rng), version),
        ApiKey::ListOffsets => {
            let partition = |rng: &mut Rng, _| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(rng.i32(..))
                    .with_offset(rng.i64(..))
            };
            let topic = |rng: &mut Rng, length| {
                ListOffsetsTopicResponse::default()
                    .with_name(text(rng, length).into())
                    .with_partitions(list(rng, partition))
            };
            let response = ListOffsetsResponse::default();
            bytes(&response.with_topics(list(rng, topic)), version)
        }
        ApiKey::ListGroups => {
            let group = |rng: &mut Rng, length| {
                let group = ListedGroup::default().with_group_id(text(rng, length).into());
                group
                    .with_protocol_type(StrBytes::from_static_str(["", "consumer"][rng.usize(..2)]))
            };
            let response = ListGroupsResponse::default();
            bytes(&response.with_groups(list(rng, group)), version)
        }
        other => panic!("no answer is made up for {other:?}"),
    }
}

fn classic_groups(rng: &mut Rng) -> DescribeGroupsResponse {
    let topic = |rng: &mut Rng, length| {
        let topic = consumer_protocol_assignment::TopicPartition::default();
        topic
            .with_topic(text(rng, length).into())
            .with_partitions(list(rng, |rng, _| rng.i32(..)))
    };
    let member = |rng: &mut Rng, length| {
        let subscription = ConsumerProtocolSubscription::default().with_topics(list(rng, text));
        let assignment =
            ConsumerProtocolAssignment::default().with_assigned_partitions(list(rng, topic));
        let versioned = |body: Vec<u8>| [vec![0, 0], body].concat().into();
        let member = describe_groups_response::DescribedGroupMember::default();
        let member = member
            .with_member_id(text(rng, length))
            .with_client_id(text(rng, length));
        if length == 0 {
            return member;
        }
        member
            .with_member_metadata(versioned(bytes(&subscription, 0)))
            .with_member_assignment(versioned(bytes(&assignment, 0)))
    };
    let group = |rng: &mut Rng, length| {
        let group = describe_groups_response::DescribedGroup::default();
        group
            .with_group_id(text(rng, length).into())
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocol_data(text(rng, length))
            .with_members(list(rng, member))
    };
    DescribeGroupsResponse::default().with_groups(list(rng, group))
}

fn consumer_groups(rng: &mut Rng) -> ConsumerGroupDescribeResponse {
    use consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
    let topic = |rng: &mut Rng, length| {
        TopicPartitions::default()
            .with_topic_name(text(rng, length).into())
            .with_partitions(list(rng, |rng, _| rng.i32(..)))
    };
    let member = |rng: &mut Rng, length| {
        Member::default()
            .with_member_id(text(rng, length))
            .with_instance_id(rng.bool().then(|| text(rng, length)))
            .with_subscribed_topic_names(list(rng, |rng, length| text(rng, length).into()))
            .with_assignment(Assignment::default().with_topic_partitions(list(rng, topic)))
    };
    let group = |rng: &mut Rng, length| {
        DescribedGroup::default()
            .with_group_id(text(rng, length).into())
            .with_members(list(rng, member))
    };
    ConsumerGroupDescribeResponse::default().with_groups(list(rng, group))
}

fn share_groups(rng: &mut Rng) -> ShareGroupDescribeResponse {
    use share_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
    let topic = |rng: &mut Rng, length| {
        TopicPartitions::default()
            .with_topic_name(text(rng, length).into())
            .with_partitions(list(rng, |rng, _| rng.i32(..)))
    };
    let member = |rng: &mut Rng, length| {
        Member::default()
            .with_member_id(text(rng, length))
            .with_subscribed_topic_names(list(rng, |rng, length| text(rng, length).into()))
            .with_assignment(Assignment::default().with_topic_partitions(list(rng, topic)))
    };
    let group = |rng: &mut Rng, length| {
        DescribedGroup::default()
            .with_group_id(text(rng, length).into())
            .with_members(list(rng, member))
    };
    ShareGroupDescribeResponse::default().with_groups(list(rng, group))
}

fn share_offsets(rng: &mut Rng) -> DescribeShareGroupOffsetsResponse {
    use describe_share_group_offsets_response as of;
    let partition = |rng: &mut Rng, _| {
        of::DescribeShareGroupOffsetsResponsePartition::default()
            .with_partition_index(rng.i32(..))
            .with_start_offset(rng.i64(..))
    };
    let topic = |rng: &mut Rng, length| {
        of::DescribeShareGroupOffsetsResponseTopic::default()
            .with_topic_name(text(rng, length).into())
            .with_partitions(list(rng, partition))
    };
    let group = |rng: &mut Rng, length| {
        of::DescribeShareGroupOffsetsResponseGroup::default()
            .with_group_id(text(rng, length).into())
            .with_topics(list(rng, topic))
    };
    DescribeShareGroupOffsetsResponse::default().with_groups(list(rng, group))
}

/// Version 1, which the library lacks: by hand, with a lag of each partition.
fn share_offsets_and_lags(rng: &mut Rng) -> Vec<u8> {
    let mut body = vec![0; 4];
    many(rng, &mut body, |rng, body, length| {
        word(rng, body, length);
        many(rng, body, |rng, body, length| {
            word(rng, body, length);
            body.extend([0; 16]);
            many(rng, body, |rng, body, length| {
                // Partition, start offset and leader epoch.
                body.extend([0; 16]);
                body.extend(rng.i64(..).to_be_bytes());
                body.extend([0, 0]);
                word(rng, body, length);
                body.push(0);
            });
            body.push(0);
        });
        body.extend([0, 0, 0, 0]);
    });
    body.push(0);
    body
}

/// One that the library lacks.
const STREAMS_GROUP_DESCRIBE: i16 = 89;

/// By hand: lists of at most 126 entries and texts of as many characters have lengths of one byte.
fn streams_groups(rng: &mut Rng) -> Vec<u8> {
    let mut body = vec![0; 4];
    many(rng, &mut body, |rng, body, length| {
        body.extend([0, 0, 0]);
        word(rng, body, length);
        word(rng, body, length);
        // Its epochs, a topology and that one's epoch.
        body.extend([0; 8]);
        body.extend([1, 0, 0, 0, 0]);
        many(rng, body, |rng, body, length| {
            word(rng, body, length);
            many(rng, body, word);
            many(rng, body, word);
            for _ in 0..2 {
                many(rng, body, |rng, body, length| {
                    word(rng, body, length);
                    body.extend([0; 6]);
                    body.extend([1, 0]);
                });
            }
            body.push(0);
        });
        body.push(0);
        many(rng, body, |rng, body, length| {
            word(rng, body, length);
            body.extend([0; 6]);
            word(rng, body, length);
            word(rng, body, length);
            body.extend([0; 4]);
            word(rng, body, length);
            body.extend([0xff, 1, 1, 1]);
            for _ in 0..2 {
                for _ in 0..3 {
                    many(rng, body, |rng, body, length| {
                        word(rng, body, length);
                        body.extend([2, 0, 0, 0, 0, 0]);
                    });
                }
                body.push(0);
            }
            body.extend([0, 0]);
        });
        body.extend([0; 5]);
    });
    body.push(0);
    body
}

fn word(rng: &mut Rng, body: &mut Vec<u8>, length: usize) {
    body.push(u8::try_from(length + 1).unwrap());
    body.extend(text(rng, length).as_bytes());
}

fn many(rng: &mut Rng, body: &mut Vec<u8>, mut one: impl FnMut(&mut Rng, &mut Vec<u8>, usize)) {
    let shape = shape(rng);
    body.push(u8::try_from(shape.count + 1).unwrap());
    for _ in 0..shape.count {
        one(rng, body, shape.text);
    }
}

fn metadata(version: i16, rng: &mut Rng) -> MetadataResponse {
    let broker = |rng: &mut Rng, length| {
        MetadataResponseBroker::default()
            .with_host(text(rng, length))
            .with_port(rng.i32(..))
    };
    let partition = |rng: &mut Rng, _| {
        let copies = list(rng, |rng, _| rng.i32(..).into());
        MetadataResponsePartition::default()
            .with_partition_index(rng.i32(..))
            .with_replica_nodes(copies.clone())
            .with_isr_nodes(copies)
    };
    let topic = |rng: &mut Rng, length| {
        // Only with an ID may a topic have no name.
        let is_named = version < 12 || rng.bool();
        MetadataResponseTopic::default()
            .with_name(is_named.then(|| text(rng, length).into()))
            .with_partitions(list(rng, partition))
    };
    MetadataResponse::default()
        .with_brokers(list(rng, broker))
        .with_topics(list(rng, topic))
}

fn offset_fetch(version: i16, rng: &mut Rng) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    if version < 8 {
        let partition = |rng: &mut Rng, length| {
            OffsetFetchResponsePartition::default()
                .with_committed_offset(rng.i64(..))
                .with_metadata(Some(text(rng, length)))
        };
        let topic = |rng: &mut Rng, length| {
            OffsetFetchResponseTopic::default()
                .with_name(text(rng, length).into())
                .with_partitions(list(rng, partition))
        };
        return response.with_topics(list(rng, topic));
    }
    let partition = |rng: &mut Rng, length| {
        OffsetFetchResponsePartitions::default()
            .with_committed_offset(rng.i64(..))
            .with_metadata(Some(text(rng, length)))
    };
    let topic = |rng: &mut Rng, length| {
        OffsetFetchResponseTopics::default()
            .with_name(text(rng, length).into())
            .with_partitions(list(rng, partition))
    };
    let group = |rng: &mut Rng, length| {
        OffsetFetchResponseGroup::default()
            .with_group_id(text(rng, length).into())
            .with_topics(list(rng, topic))
    };
    response
        .with_topics(Vec::new())
        .with_groups(list(rng, group))
}
