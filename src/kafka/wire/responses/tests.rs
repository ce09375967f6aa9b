//! Decoding of responses: those that the encoder of `kafka-protocol` writes, in every version, and arbitrary bytes.

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
    ApiVersionsResponse, CreatePartitionsResponse, DescribeConfigsResponse,
    FindCoordinatorResponse, ListGroupsResponse, ListOffsetsResponse, MetadataResponse,
    OffsetFetchResponse, SaslAuthenticateResponse, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::metadata::{BrokerEntry, LeaderEntry};
use super::*;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn bytes(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode(&mut bytes, version).unwrap();
    bytes
}

fn entry(partition: i32, code: i16, offset: i64) -> PartitionEntry {
    PartitionEntry {
        partition,
        code,
        offset,
    }
}

#[test]
fn api_versions_decode_in_every_version() {
    let range = ApiVersion::default()
        .with_api_key(3)
        .with_min_version(1)
        .with_max_version(13);
    for version in 0..=3 {
        let response = ApiVersionsResponse::default()
            .with_error_code(35)
            .with_api_keys(vec![range.clone(), range.clone()]);
        let bytes = bytes(&response, version);
        let expected = (35, vec![(3, 1, 13), (3, 1, 13)]);
        assert_eq!(api_versions(&bytes, version), Ok(expected), "{version}");
    }
}

/// Only version 1 is requested: version 0 continues without Kafka's framing.
#[test]
fn sasl_handshake_decodes() {
    let response = SaslHandshakeResponse::default()
        .with_error_code(33)
        .with_mechanisms(vec![text("PLAIN"), text("GSSAPI")]);
    assert_eq!(
        sasl_handshake(&bytes(&response, 1)),
        Ok((33, vec!["PLAIN", "GSSAPI"]))
    );
}

#[test]
fn sasl_authenticate_decodes_in_every_version() {
    for version in 0..=2 {
        let lifetime_ms = if version >= 1 { 9000 } else { 0 };
        let response = SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(text("no")))
            .with_auth_bytes(b"x".as_slice().into())
            .with_session_lifetime_ms(lifetime_ms);
        let expected = SaslResult {
            code: 58,
            message: Some("no"),
            answer: b"x",
            lifetime_ms,
        };
        let bytes = bytes(&response, version);
        assert_eq!(
            sasl_authenticate(&bytes, version),
            Ok(expected),
            "{version}"
        );
    }
}

#[test]
fn metadata_decodes_in_every_version() {
    for version in 0..=13 {
        let mut partition = MetadataResponsePartition::default()
            .with_partition_index(1)
            .with_leader_id(2.into())
            .with_replica_nodes(vec![2.into(), 3.into()])
            .with_isr_nodes(vec![2.into()]);
        if version >= 7 {
            partition = partition.with_leader_epoch(5);
        }
        let id = [7; 16];
        let mut topic = MetadataResponseTopic::default()
            .with_error_code(5)
            .with_name(Some(text("orders").into()))
            .with_partitions(vec![partition]);
        if version >= 10 {
            topic = topic.with_topic_id("07070707-0707-0707-0707-070707070707".parse().unwrap());
        }
        let broker = MetadataResponseBroker::default()
            .with_node_id(2.into())
            .with_host(text("k"))
            .with_port(9092);
        let response = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic]);
        let bytes = bytes(&response, version);
        let found = metadata(&bytes, version, MetadataLimits::NONE).unwrap();
        let broker = BrokerEntry {
            id: 2,
            host: "k",
            port: 9092,
        };
        assert_eq!(found.brokers, [broker], "{version}");
        let leader = LeaderEntry {
            partition: 1,
            leader: 2,
            epoch: if version >= 7 { 5 } else { -1 },
        };
        let topic = TopicEntry {
            code: 5,
            name: Some("orders"),
            id: (version >= 10).then_some(id),
            partitions: vec![leader],
            is_too_large: false,
        };
        assert_eq!(found.topics, [topic], "{version}");
    }
}

#[test]
fn only_needed_metadata_is_kept() {
    let partitions = |count| vec![MetadataResponsePartition::default(); count];
    let topic = |name, count| {
        MetadataResponseTopic::default()
            .with_name(Some(text(name).into()))
            .with_partitions(partitions(count))
    };
    let broker = |id: i32| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(text("k"))
    };
    let response = MetadataResponse::default()
        .with_brokers((0..5).map(broker).collect())
        .with_topics(vec![
            topic("strange", 4),
            topic("orders", 2),
            topic("large", 4),
            topic("orders", 1),
            topic("payments", 1),
        ]);
    for version in [1, 9, 12] {
        let limits = MetadataLimits {
            is_wanted: &|name| name != "strange",
            topics: 3,
            brokers: 2,
            partitions: 3,
        };
        let bytes = bytes(&response, version);
        let found = metadata(&bytes, version, limits).unwrap();
        assert_eq!((found.brokers.len(), found.omitted_brokers), (2, 3));
        let kept: Vec<_> = found
            .topics
            .iter()
            .map(|topic| {
                (
                    topic.name.unwrap(),
                    topic.partitions.len(),
                    topic.is_too_large,
                )
            })
            .collect();
        // The duplicate of a topic counts toward the limit, so `payments` is left out.
        let expected = [
            ("orders", 2, false),
            ("large", 0, true),
            ("orders", 1, false),
        ];
        assert_eq!(kept, expected, "{version}");
    }
}

#[test]
fn coordinators_decode_in_every_version() {
    for version in 0..=3 {
        let response = FindCoordinatorResponse::default()
            .with_error_code(15)
            .with_node_id(1.into())
            .with_host(text("k"))
            .with_port(9092);
        let expected = CoordinatorEntry {
            group: None,
            code: 15,
            host: "k",
            port: 9092,
        };
        let bytes = bytes(&response, version);
        assert_eq!(find_coordinator(&bytes, version), Ok(vec![expected]));
    }
    for version in 4..=6 {
        let coordinator = |group| {
            Coordinator::default()
                .with_key(text(group))
                .with_node_id(1.into())
                .with_host(text("k"))
                .with_port(9092)
                .with_error_message(Some(text("fine")))
        };
        let response = FindCoordinatorResponse::default()
            .with_coordinators(vec![coordinator("a"), coordinator("b")]);
        let bytes = bytes(&response, version);
        let found = find_coordinator(&bytes, version).unwrap();
        let names: Vec<_> = found.iter().map(|entry| entry.group).collect();
        assert_eq!(names, [Some("a"), Some("b")]);
    }
}

#[test]
fn committed_offsets_decode_in_every_version() {
    let given = [entry(0, 0, 42), entry(3, 29, -1)];
    for version in 1..=7 {
        let partition = |entry: &PartitionEntry| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(entry.partition)
                .with_committed_offset(entry.offset)
                .with_error_code(entry.code)
                .with_metadata(Some(text("left by a consumer")))
        };
        let topic = OffsetFetchResponseTopic::default()
            .with_name(text("orders").into())
            .with_partitions(given.iter().map(partition).collect());
        let code = if version >= 2 { 16 } else { 0 };
        let response = OffsetFetchResponse::default()
            .with_topics(vec![topic])
            .with_error_code(code);
        let bytes = bytes(&response, version);
        let decoded = offset_fetch(&bytes, version, |group, found_code, offsets| {
            assert_eq!((group, found_code), (None, code));
            let topics: Vec<_> = offsets.topics().collect();
            assert_eq!(topics, [("orders", &given[..])]);
        });
        assert_eq!(decoded, Ok(()));
    }
    for version in 8..=9 {
        let partition = |entry: &PartitionEntry| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(entry.partition)
                .with_committed_offset(entry.offset)
                .with_error_code(entry.code)
        };
        let topic = |name| {
            OffsetFetchResponseTopics::default()
                .with_name(text(name).into())
                .with_partitions(given.iter().map(partition).collect())
        };
        let group = |name, code| {
            OffsetFetchResponseGroup::default()
                .with_group_id(text(name).into())
                .with_error_code(code)
                .with_topics(vec![topic("orders"), topic("bills")])
        };
        let response = OffsetFetchResponse::default()
            .with_topics(Vec::new())
            .with_groups(vec![group("a", 0), group("b", 30)]);
        let bytes = bytes(&response, version);
        let mut codes = Vec::new();
        let decoded = offset_fetch(&bytes, version, |name, code, offsets| {
            codes.push((name, code));
            let topics: Vec<_> = offsets.topics().collect();
            assert_eq!(topics, [("orders", &given[..]), ("bills", &given[..])]);
        });
        assert_eq!(decoded, Ok(()));
        assert_eq!(codes, [(Some("a"), 0), (Some("b"), 30)]);
    }
}

#[test]
fn log_offsets_decode_in_every_version() {
    let entry = |partition, code, offset, timestamp| ListedOffset {
        partition,
        code,
        offset,
        timestamp,
    };
    let given = [
        ("orders", vec![entry(0, 0, 42, 1_000), entry(3, 6, -1, -1)]),
        ("bills", vec![entry(1, 0, 7, -1)]),
    ];
    for version in 1..=10 {
        let partition = |entry: &ListedOffset| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(entry.partition)
                .with_error_code(entry.code)
                .with_timestamp(entry.timestamp)
                .with_offset(entry.offset)
        };
        let topic = |(name, entries): &(&'static str, Vec<ListedOffset>)| {
            ListOffsetsTopicResponse::default()
                .with_name(text(name).into())
                .with_partitions(entries.iter().map(partition).collect())
        };
        let topics = given.iter().map(topic).collect();
        let response = ListOffsetsResponse::default().with_topics(topics);
        let bytes = bytes(&response, version);
        let mut found = Vec::new();
        let decoded = list_offsets(&bytes, version, |name, entries| {
            found.push((name, entries.to_vec()));
        });
        assert_eq!((decoded, &found[..]), (Ok(()), &given[..]));
    }
}

#[test]
fn listed_groups_decode_in_every_version() {
    for version in 0..=5 {
        let kind = if version >= 5 { "classic" } else { "" };
        let group = |name, protocol| {
            ListedGroup::default()
                .with_group_id(text(name).into())
                .with_protocol_type(text(protocol))
                .with_group_type(text(kind))
        };
        let listed = vec![
            group("a", "consumer"),
            group("b", ""),
            group("c", "connect"),
            group("d", "share"),
        ];
        let response = ListGroupsResponse::default()
            .with_error_code(0)
            .with_groups(listed);
        let bytes = bytes(&response, version);
        let expected = vec![("a", kind), ("b", kind), ("d", kind)];
        assert_eq!(list_groups(&bytes, version), Ok((0, expected)));
    }
}

/// Decodes the same bytes by the decoder of every response.
fn decode_as_every_response(bytes: &[u8], version: i16) {
    drop(api_versions(bytes, version));
    drop(sasl_handshake(bytes));
    drop(sasl_authenticate(bytes, version));
    drop(metadata(bytes, version, MetadataLimits::NONE));
    drop(find_coordinator(bytes, version));
    drop(list_groups(bytes, version));
    drop(offset_fetch(bytes, version, |_, _, offsets| {
        offsets.topics().for_each(drop);
    }));
    drop(list_offsets(bytes, version, |_, _| {}));
    drop(create_partitions(bytes, version));
    drop(topic_config(bytes, version));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, version in 0_i16..14) {
        decode_as_every_response(&bytes, version);
    }

    /// Bytes that are often 0, 1, 0x7f or 0xff form lengths and counts that are null, small or huge.
    #[test]
    fn extreme_counts_are_read_or_refused(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), Just(0x7f), any::<u8>()], 0..64),
        version in 0_i16..14,
    ) {
        decode_as_every_response(&bytes, version);
    }
}

#[test]
fn results_of_created_partitions_decode_in_every_version() {
    let result = |code: i16, message: Option<&'static str>| {
        CreatePartitionsTopicResult::default()
            .with_name(text("orders").into())
            .with_error_code(code)
            .with_error_message(message.map(text))
    };
    for version in 0..=3 {
        let one = CreatePartitionsResponse::default().with_results(vec![result(
            37,
            Some("the topic already has 12 partitions"),
        )]);
        let expected = TopicResult {
            code: 37,
            message: Some("the topic already has 12 partitions".into()),
        };
        assert_eq!(
            create_partitions(&bytes(&one, version), version),
            Ok(expected),
            "{version}"
        );
        let two = CreatePartitionsResponse::default()
            .with_results(vec![result(0, None), result(0, None)]);
        assert_eq!(
            create_partitions(&bytes(&two, version), version),
            Err(Malformed)
        );
    }
}

#[test]
fn the_configuration_of_a_topic_decodes_in_every_version() {
    let response = |code: i16, values: &[&'static str]| {
        let entries = values.iter().map(|value| {
            DescribeConfigsResourceResult::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text(value)))
        });
        let result = DescribeConfigsResult::default()
            .with_error_code(code)
            .with_error_message(None)
            .with_resource_type(2)
            .with_resource_name(text("orders"))
            .with_configs(entries.collect());
        DescribeConfigsResponse::default().with_results(vec![result])
    };
    for version in 1..=4 {
        let compacted = bytes(&response(0, &["compact,delete"]), version);
        let expected = (0, Some("compact,delete".to_owned()));
        assert_eq!(topic_config(&compacted, version), Ok(expected), "{version}");
        let denied = bytes(&response(29, &[]), version);
        assert_eq!(topic_config(&denied, version), Ok((29, None)), "{version}");
    }
}
