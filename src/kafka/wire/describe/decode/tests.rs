//! Descriptions as the library's own encoder writes them, in every version, as a real broker wrote
//! one that the library lacks; and any bytes at all.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{
    ConsumerGroupDescribeResponse, ConsumerProtocolAssignment, ConsumerProtocolSubscription,
    DescribeGroupsResponse, ShareGroupDescribeResponse,
    consumer_group_describe_response as consumer, consumer_protocol_assignment,
    share_group_describe_response as share,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::kafka::wire::topics::ClusterMetadata;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member, Subtopology};
use crate::model::units::newtypes::TopicName;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn bytes(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode(&mut bytes, version).unwrap();
    bytes
}

fn read(kind: GroupKind, bytes: &[u8], version: i16) -> Vec<GroupEntry<'_>> {
    decode_groups(kind, bytes, version, &ClusterMetadata::default()).unwrap()
}

/// A member of client `c` that subscribes to `t` and has its partitions 0 and 2.
fn member(instance: Option<&str>) -> Member {
    Member {
        id: "m".into(),
        instance: instance.map(Into::into),
        client: "c".into(),
        host: "/h".into(),
        subscribed: Some(BTreeSet::from(["t".into()])),
        assigned: vec![("t".into(), vec![0, 2])],
    }
}

fn group(kind: GroupKind, state: GroupState, members: Vec<Member>) -> GroupDescription {
    GroupDescription {
        kind,
        state,
        assignor: Some("range".into()),
        members,
        omitted_members: 0,
        subtopologies: Vec::new(),
    }
}

#[test]
fn consumer_groups_decode_in_every_version() {
    let topics = consumer::TopicPartitions::default()
        .with_topic_name(text("t").into())
        .with_partitions(vec![0, 2]);
    let assignment = consumer::Assignment::default().with_topic_partitions(vec![topics.clone()]);
    let by = |pattern: Option<&'static str>, names: Vec<&'static str>| {
        consumer::Member::default()
            .with_member_id(text("m"))
            .with_instance_id(Some(text("i")))
            .with_rack_id(Some(text("r")))
            .with_client_id(text("c"))
            .with_client_host(text("/h"))
            .with_subscribed_topic_names(names.into_iter().map(|n| text(n).into()).collect())
            .with_subscribed_topic_regex(pattern.map(text))
            .with_assignment(assignment.clone())
    };
    let target = consumer::TopicPartitions::default()
        .with_topic_name(text("t2").into())
        .with_partitions(vec![1]);
    let target = consumer::Assignment::default().with_topic_partitions(vec![topics, target]);
    let by_pattern = by(Some("t.*"), vec![]).with_target_assignment(target);
    let members = vec![by(None, vec!["t"]), by_pattern];
    let described = consumer::DescribedGroup::default()
        .with_group_id(text("g").into())
        .with_group_state(text("Reconciling"))
        .with_assignor_name(text("range"))
        .with_members(members);
    let missing = consumer::DescribedGroup::default()
        .with_group_id(text("n").into())
        .with_error_code(69)
        .with_error_message(Some(text("no")));
    let response = ConsumerGroupDescribeResponse::default().with_groups(vec![described, missing]);
    let mut by_pattern = Member {
        subscribed: None,
        ..member(Some("i"))
    };
    by_pattern.assigned.push(("t2".into(), Vec::new()));
    let expected = group(
        GroupKind::Consumer,
        GroupState::Rebalancing,
        vec![member(Some("i")), by_pattern],
    );
    for version in 0..=1 {
        let bytes = bytes(&response, version);
        let entries = read(GroupKind::Consumer, &bytes, version);
        let codes: Vec<_> = entries.iter().map(|e| (e.group, e.code)).collect();
        assert_eq!(codes, [("g", 0), ("n", 69)], "{version}");
        assert_eq!(entries[0].description, expected, "{version}");
    }
}

#[test]
fn share_groups_decode() {
    let topics = share::TopicPartitions::default()
        .with_topic_name(text("t").into())
        .with_partitions(vec![0, 2]);
    let one = share::Member::default()
        .with_member_id(text("m"))
        .with_client_id(text("c"))
        .with_client_host(text("/h"))
        .with_subscribed_topic_names(vec![text("t").into()])
        .with_assignment(share::Assignment::default().with_topic_partitions(vec![topics]));
    let described = share::DescribedGroup::default()
        .with_group_id(text("g").into())
        .with_group_state(text("Stable"))
        .with_assignor_name(text("range"))
        .with_members(vec![one]);
    let response = ShareGroupDescribeResponse::default().with_groups(vec![described]);
    let bytes = bytes(&response, 1);
    let entries = read(GroupKind::Share, &bytes, 1);
    let expected = group(GroupKind::Share, GroupState::Stable, vec![member(None)]);
    assert_eq!(entries[0].description, expected);
}

/// The partitions that a client of this version leaves to the other members.
fn left(version: i16) -> (Bytes, Bytes) {
    let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text("t")]);
    let topic = consumer_protocol_assignment::TopicPartition::default()
        .with_topic(text("t").into())
        .with_partitions(vec![0, 2]);
    let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
    let versioned = |body: Vec<u8>| [version.to_be_bytes().to_vec(), body].concat().into();
    (
        versioned(bytes(&subscription, version)),
        versioned(bytes(&assignment, version)),
    )
}

fn classic(state: &'static str, protocol: &'static str, left: (Bytes, Bytes)) -> DescribedGroup {
    let one = DescribedGroupMember::default()
        .with_member_id(text("m"))
        .with_client_id(text("c"))
        .with_client_host(text("/h"))
        .with_member_metadata(left.0)
        .with_member_assignment(left.1);
    DescribedGroup::default()
        .with_group_id(text("g").into())
        .with_group_state(text(state))
        .with_protocol_type(text(protocol))
        .with_protocol_data(text("range"))
        .with_members(vec![one])
}

#[test]
fn classic_groups_decode_in_every_version() {
    let silent = || Member {
        subscribed: None,
        assigned: Vec::new(),
        ..member(None)
    };
    let garbage = || Bytes::from_static(&[0, 1, 0xff, 0xff]);
    let of = |state, member| group(GroupKind::Classic, state, vec![member]);
    for version in 0..=6 {
        for clients in 0..=3 {
            let response = classic("Stable", "consumer", left(clients));
            let response = DescribeGroupsResponse::default().with_groups(vec![response]);
            let bytes = bytes(&response, version);
            let entries = read(GroupKind::Classic, &bytes, version);
            let expected = of(GroupState::Stable, member(None));
            assert_eq!(entries[0].description, expected, "{version} {clients}");
        }
        // What cannot be read of a member says nothing of the group.
        let odd = [
            classic("CompletingRebalance", "consumer", Default::default()),
            classic("Stable", "consumer", (garbage(), garbage())),
            classic("Stable", "connect", left(0)),
        ];
        let response = DescribeGroupsResponse::default().with_groups(odd.to_vec());
        let bytes = bytes(&response, version);
        let entries = read(GroupKind::Classic, &bytes, version);
        let found: Vec<_> = entries.into_iter().map(|entry| entry.description).collect();
        let none_of_ours = GroupDescription {
            assignor: None,
            ..of(GroupState::Stable, silent())
        };
        let expected = [
            of(GroupState::Rebalancing, silent()),
            of(GroupState::Stable, silent()),
            none_of_ours,
        ];
        assert_eq!(found, expected, "{version}");
    }
}

#[test]
fn a_dead_classic_group_counts_as_not_found() {
    for (version, code, expected) in [(0, 0, 69), (5, 0, 69), (6, 69, 69), (5, 30, 30)] {
        let described = DescribedGroup::default()
            .with_error_code(code)
            .with_group_id(text("g").into())
            .with_group_state(text("Dead"));
        let response = DescribeGroupsResponse::default().with_groups(vec![described]);
        let bytes = bytes(&response, version);
        let entries = read(GroupKind::Classic, &bytes, version);
        assert_eq!(entries[0].code, expected, "{version} {code}");
    }
}

/// As Kafka 4.1 answered for a group it has and one it has not: the topic `t` with a repartition
/// behind it, of two partitions.
const STREAMS: &[u8] = b"\x00\x00\x00\x00\x03\x00\x00\x00\x04app\x07Stable\x00\x00\x00\x02\x00\x00\
\x00\x02\x01\x00\x00\x00\x00\x03\x020\x02\x02t\x02/app-KSTREAM-REPARTITION-0000000001-repartition\
\x01\x01\x00\x021\x01\x01\x01\x02/app-KSTREAM-REPARTITION-0000000001-repartition\x00\x00\x00\x02\
\xff\xff\x05\x0fcleanup.policy\x07delete\x00\x17message.timestamp.type\x0bCreateTime\x00\
\rretention.ms\x03-1\x00\x0esegment.bytes\t52428800\x00\x00\x00\x00\x02\x17Ln6hDwsMRuKY_pCEnAj-xw\
\x00\x00\x00\x02\x00\x00Aapp-3f5c07b6-7604-4f41-9976-7ae14d25bde5-StreamThread-1-consumer\x0b\
/127.0.0.1\x00\x00\x00\x00%3f5c07b6-7604-4f41-9976-7ae14d25bde5\xff\x01\x01\x01\x03\x020\x02\x00\
\x00\x00\x00\x00\x021\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x01\x00\x03\x020\x02\x00\x00\
\x00\x00\x00\x021\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x01\x00\x00\x00\x80\x00\x00\x00\x00\
\x00E\x18Group nobody not found.\x07nobody\x01\x00\x00\x00\x00\x00\x00\x00\x00\xff\x01\x80\x00\
\x00\x00\x00\x00";

#[test]
fn streams_groups_decode() {
    let entries = read(GroupKind::Streams, STREAMS, 0);
    let codes: Vec<_> = entries.iter().map(|e| (e.group, e.code)).collect();
    assert_eq!(codes, [("app", 0), ("nobody", 69)]);
    let repartition = || TopicName::from("app-KSTREAM-REPARTITION-0000000001-repartition");
    let GroupDescription {
        state,
        members,
        subtopologies,
        ..
    } = &entries[0].description;
    assert_eq!(*state, GroupState::Stable);
    let sub = |id: &str, sources| Subtopology {
        id: id.into(),
        sources,
    };
    let expected = [
        sub("0", vec![("t".into(), None)]),
        sub("1", vec![(repartition(), Some(2))]),
    ];
    assert_eq!(subtopologies, &expected);
    assert_eq!(
        members[0].assigned,
        [("t".into(), vec![0]), (repartition(), vec![0, 1])]
    );
    assert_eq!(&*members[0].host, "/127.0.0.1");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, version in 0_i16..7) {
        let kinds = [GroupKind::Classic, GroupKind::Consumer, GroupKind::Share, GroupKind::Streams];
        for kind in kinds {
            drop(decode_groups(kind, &bytes, version, &ClusterMetadata::default()));
        }
    }

    /// Bytes that begin as a response does, with any byte in it changed.
    #[test]
    fn a_mutated_response_is_read_or_refused(
        at in 0..STREAMS.len(), to: u8, cut in 0..STREAMS.len(), version in 0_i16..7,
    ) {
        let topics = ClusterMetadata::default();
        let mut streams = STREAMS.to_vec();
        streams[at] = to;
        drop(decode_groups(GroupKind::Streams, &streams, 0, &topics));
        drop(decode_groups(GroupKind::Streams, &streams[..cut], 0, &topics));
        let described = classic("Stable", "consumer", left(3));
        let response = DescribeGroupsResponse::default().with_groups(vec![described]);
        let mut bytes = bytes(&response, version);
        let place = at % bytes.len();
        bytes[place] = to;
        drop(decode_groups(GroupKind::Classic, &bytes, version, &topics));
    }
}
