//! The wire client with scripted brokers that do what real ones never or rarely do: garbage, wrong lengths, silence.
//! The end-to-end tests show how a real Kafka behaves.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod fake;
mod network;
mod ports;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake::{FakeCluster, Misbehavior};
use kafka_protocol::messages::ApiKey;
use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{LOOK_BACK, Observation, Traffic};
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::model::kafka::topic_listing::Unlisted;
use lagwise::model::units::newtypes::{Isolation, Offset};
use lagwise::model::units::topic_pattern::TopicPattern;
use lagwise::poller::OffsetSource;

/// A client for the brokers that refuses responses of more than a megabyte, and detects dead connections early.
fn source(fake: &FakeCluster) -> KafkaSource {
    source_with(fake, &[])
}

/// Like [`source`], with further or different properties.
fn source_with(fake: &FakeCluster, more: &[(&str, &str)]) -> KafkaSource {
    KafkaSource::connect(settings_with(fake, more)).unwrap()
}

fn settings_with(fake: &FakeCluster, more: &[(&str, &str)]) -> ClientSettings {
    let mut properties = vec![
        ("bootstrap.servers", fake.bootstrap()),
        ("receive.message.max.bytes", "1000000"),
        ("socket.timeout.ms", "1500"),
        ("reconnect.backoff.max.ms", "300"),
    ];
    properties.extend(more);
    let properties = properties.into_iter();
    ClientSettings {
        name: "main".into(),
        properties: properties
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        max_groups: 1,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client: ClientKind::Wire,
    }
}

fn group(name: &str, topics: &[&str]) -> GroupPlan {
    GroupPlan::new(name, topics.iter().map(|t| (*t).into()).collect())
}

/// Deadline of sweeps: longer than any sweep takes here without a misbehaving broker, even on busy cores.
const SWEEP_DEADLINE: Duration = Duration::from_secs(6);
/// Deadline of sweeps with a misbehaving broker.
const MISBEHAVIOR_DEADLINE: Duration = Duration::from_secs(3);
/// Timeout of waits for a state.
const STATE_TIMEOUT: Duration = Duration::from_secs(30);

async fn observe(source: &KafkaSource, groups: &[GroupPlan]) -> Observation {
    observe_within(source, groups, SWEEP_DEADLINE).await
}

async fn observe_within(
    source: &KafkaSource,
    groups: &[GroupPlan],
    timeout: Duration,
) -> Observation {
    let plan = SweepPlan {
        groups: groups.to_vec(),
        ..SweepPlan::default()
    };
    source.observe(plan, Instant::now() + timeout).await
}

/// Sweeps until all is known.
async fn observe_until_known(source: &KafkaSource, groups: &[GroupPlan; 2]) {
    let deadline = Instant::now() + STATE_TIMEOUT;
    loop {
        let observation = observe(source, groups).await;
        let is_known = |group: usize, topic: &str| {
            commits(&observation, group, topic).is_ok() && ends(&observation, topic).is_ok()
        };
        if is_known(0, "a") && is_known(1, "b") {
            return assert_complete(&observation);
        }
        assert!(Instant::now() < deadline, "{observation:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Polls until the brokers have at most this number of connections.
async fn wait_for_connections(fake: &FakeCluster, most: usize) {
    let deadline = Instant::now() + STATE_TIMEOUT;
    while fake.open_connections.load(Ordering::SeqCst) > most {
        assert!(Instant::now() < deadline, "connections stay open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A group's commits on a topic; `Err` where nothing is known of the group or of a partition.
fn commits(
    observation: &Observation,
    group: usize,
    topic: &str,
) -> Result<Vec<Option<i64>>, Fault> {
    let topics = observation.groups[group]
        .committed
        .as_ref()
        .map_err(|fault| *fault)?;
    let column = topics[topic].iter();
    column.map(|c| c.map(|c| c.map(|Offset(o)| o))).collect()
}

fn ends(observation: &Observation, topic: &str) -> Result<Vec<i64>, Fault> {
    let offsets = observation.topics[topic].as_ref().map_err(|fault| *fault)?;
    offsets
        .ends
        .iter()
        .map(|end| end.map(|Offset(o)| o))
        .collect()
}

/// Two brokers: each leads one topic, and coordinates the group that reads it.
fn two_brokers() -> (FakeCluster, [GroupPlan; 2]) {
    let fake = FakeCluster::start(2);
    fake.topic("a", &[1, 1]);
    fake.topic("b", &[2, 2]);
    fake.group("ga", 1, "a", &[Some(1), Some(2)]);
    fake.group("gb", 2, "b", &[Some(3), Some(4)]);
    (fake, [group("ga", &["a"]), group("gb", &["b"])])
}

fn assert_complete(observation: &Observation) {
    assert_eq!(commits(observation, 0, "a"), Ok(vec![Some(1), Some(2)]));
    assert_eq!(commits(observation, 1, "b"), Ok(vec![Some(3), Some(4)]));
    assert_eq!(ends(observation, "a"), Ok(vec![100, 100]));
    assert_eq!(ends(observation, "b"), Ok(vec![100, 100]));
    assert_eq!(observation.connection, None);
}

#[tokio::test]
async fn many_groups_cost_one_request_to_each_broker() {
    let (fake, mut groups) = (FakeCluster::start(3), Vec::new());
    fake.topic("orders", &[1, 2, 3]);
    for i in 0..300 {
        let name = format!("group-{i}");
        fake.group(&name, i % 3 + 1, "orders", &[Some(1), None, Some(100)]);
        groups.push(group(&name, &["orders"]));
    }
    let source = source(&fake);
    let mut traffic = Traffic::default();
    for _ in 0..3 {
        let observation = observe(&source, &groups).await;
        for place in 0..groups.len() {
            let found = commits(&observation, place, "orders");
            assert_eq!(found, Ok(vec![Some(1), None, Some(100)]));
        }
        assert_eq!(ends(&observation, "orders"), Ok(vec![100, 100, 100]));
        let now = observation.traffic.unwrap();
        assert!(now.received_bytes > traffic.received_bytes);
        traffic = now;
    }
    assert_eq!(traffic.connections, 3);
    assert_eq!(traffic.requests, 1 + 1 + 9 + 33);
    assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), 3);
    assert_eq!(fake.request_count(ApiKey::Metadata), 1);
    assert_eq!(fake.request_count(ApiKey::FindCoordinator), 1);
    assert_eq!(fake.request_count(ApiKey::OffsetFetch), 9);
    // Ends, and starts too, since a partition without a commit may begin anywhere; once, where the
    // logs ended at five times, since groups have unread messages from before the first four.
    assert_eq!(fake.request_count(ApiKey::ListOffsets), 18 + 5 * 3);
}

#[tokio::test]
async fn past_log_ends_are_looked_up_once_and_again_after_a_failure() {
    let (fake, mut groups) = two_brokers();
    groups[1].isolation = Isolation::ReadCommitted;
    let source = source(&fake);
    fake.state.lock().unwrap().hangs_on_lookup = Some(2);
    let observation = observe(&source, &groups).await;
    assert_complete(&observation);
    let of = |topic| observation.topics[topic].as_ref().unwrap();
    let (read, lost) = (&of("a").past, &of("b").past);
    assert_eq!(read[0].ends, [Some(Offset(90)); 2]);
    assert_eq!(lost[0].ends, [None; 2]);
    assert_eq!(read[0].ago, LOOK_BACK);
    assert_eq!(of("a").stable, None);
    assert_eq!(of("b").stable, Some(vec![Ok(Offset(99)); 2]));
    fake.state.lock().unwrap().hangs_on_lookup = None;
    // There was no time left for the earlier times of the other topic. The one without an answer is looked up again.
    for expected in [(4, 5), (0, 0)] {
        let observation = observe(&source, &groups).await;
        assert_complete(&observation);
        let looked_up = |topic| observation.topics[topic].as_ref().unwrap().past.len();
        assert_eq!((looked_up("a"), looked_up("b")), expected);
    }
    assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn old_brokers_get_a_request_for_each_group() {
    for (fetch, find, metadata, list) in [(7, 3, 8, 5), (5, 1, 4, 2), (2, 0, 1, 1)] {
        let (fake, groups) = two_brokers();
        fake.state.lock().unwrap().max_versions = [
            (ApiKey::OffsetFetch as i16, fetch),
            (ApiKey::FindCoordinator as i16, find),
            (ApiKey::Metadata as i16, metadata),
            (ApiKey::ListOffsets as i16, list),
        ]
        .into();
        assert_complete(&observe(&source(&fake), &groups).await);
        assert_eq!(fake.request_count(ApiKey::FindCoordinator), 2);
        let discovered = observe(&source(&fake), &[group("ga", &[])]).await;
        assert_eq!(commits(&discovered, 0, "a"), Ok(vec![Some(1), Some(2)]));
    }
}

#[tokio::test]
async fn topics_are_discovered_by_their_commits() {
    let (fake, _) = two_brokers();
    fake.group("ga", 1, "b", &[None, Some(9)]);
    fake.group("ga", 1, "__internal", &[Some(1)]);
    fake.group("ga", 1, "gone", &[Some(1)]);
    fake.topic("__internal", &[1]);
    let source = source(&fake);
    for _ in 0..2 {
        let observation = observe(&source, &[group("ga", &[])]).await;
        let found = observation.groups[0].committed.as_ref().unwrap();
        let names: Vec<_> = found.keys().map(|t| t.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(commits(&observation, 0, "b"), Ok(vec![None, Some(9)]));
        assert_eq!(ends(&observation, "b"), Ok(vec![100, 100]));
    }
    let listed = source.list_groups(Instant::now() + SWEEP_DEADLINE).await;
    let names: Vec<_> = listed.groups.iter().map(|g| g.as_str()).collect();
    assert_eq!((names, listed.faults), (vec!["ga", "gb"], vec![]));
}

#[tokio::test]
async fn a_cluster_without_requests_counts_as_connected() {
    let (fake, _) = two_brokers();
    let source = source(&fake);
    for _ in 0..3 {
        let plan = [group("ga", &["missing"]), group("idle", &[])];
        let observation = observe(&source, &plan).await;
        assert_eq!(observation.connection, None);
        assert_eq!(observation.topics["missing"], Err(Fault::TopicMissing));
    }
}

/// Broken responses to any request.
fn broken_responses() -> Vec<Misbehavior> {
    let mut huge_frame = 0x7fff_ffff_u32.to_be_bytes().to_vec();
    huge_frame.extend([0; 100]);
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let mut huge_count = vec![0; 4];
    huge_count.extend([0xff, 0xff, 0xff, 0xff, 0x07]);
    let mut plain_count = vec![0; 4];
    plain_count.extend(0x7fff_ffff_u32.to_be_bytes());
    vec![
        Misbehavior::Close,
        Misbehavior::Truncate,
        Misbehavior::WrongCorrelationId,
        Misbehavior::Raw(huge_frame),
        Misbehavior::Raw(http),
        Misbehavior::Raw(0xffff_ffff_u32.to_be_bytes().to_vec()),
        Misbehavior::Raw(vec![0, 0, 0, 2, 1, 1]),
        Misbehavior::Body(vec![]),
        Misbehavior::Body(vec![0xff; 300]),
        Misbehavior::Body(huge_count),
        Misbehavior::Body(plain_count),
    ]
}

/// Every API with every broken response, all in parallel.
async fn for_each_broken_response<F: Future<Output = ()>>(
    apis: &[ApiKey],
    test: impl Fn(ApiKey, Misbehavior) -> F,
) {
    let cases = apis.iter().flat_map(|api| {
        broken_responses()
            .into_iter()
            .map(|misbehavior| (*api, misbehavior))
    });
    futures::future::join_all(cases.map(|(api, misbehavior)| test(api, misbehavior))).await;
}

#[tokio::test]
async fn broken_responses_of_a_broker_leave_the_data_of_others_known() {
    for_each_broken_response(
        &[ApiKey::OffsetFetch, ApiKey::ListOffsets],
        async |api, misbehavior| {
            let (fake, groups) = two_brokers();
            let source = source(&fake);
            assert_complete(&observe(&source, &groups).await);
            fake.misbehave(2, api, misbehavior.clone(), usize::MAX);
            let observation = observe(&source, &groups).await;
            let own = commits(&observation, 0, "a");
            assert_eq!(own, Ok(vec![Some(1), Some(2)]), "{misbehavior:?}");
            assert_eq!(
                ends(&observation, "a"),
                Ok(vec![100, 100]),
                "{misbehavior:?}"
            );
            let fault = if api == ApiKey::OffsetFetch {
                commits(&observation, 1, "b").unwrap_err()
            } else {
                ends(&observation, "b").unwrap_err()
            };
            assert!(fault.is_connection(), "{misbehavior:?}: {fault}");
            assert_recovers(&fake, &source, &groups).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_malformed_response_while_connecting_is_reported_and_recovered_from() {
    let apis = [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::FindCoordinator,
    ];
    for_each_broken_response(&apis, async |api, misbehavior| {
        let (fake, groups) = two_brokers();
        let source = source(&fake);
        for node in [1, 2] {
            fake.misbehave(node, api, misbehavior.clone(), usize::MAX);
        }
        let observation = observe(&source, &groups).await;
        for group in &observation.groups {
            assert!(group.committed.is_err(), "{api:?} {misbehavior:?}");
        }
        assert_recovers(&fake, &source, &groups).await;
    })
    .await;
}

/// Brokers that behave again are read again, over one connection each.
async fn assert_recovers(fake: &FakeCluster, source: &KafkaSource, groups: &[GroupPlan; 2]) {
    fake.clear_misbehaviors();
    observe_until_known(source, groups).await;
    wait_for_connections(fake, 2).await;
}

#[tokio::test]
async fn a_silent_broker_delays_others_briefly() {
    let apis = [ApiKey::OffsetFetch, ApiKey::ListOffsets, ApiKey::Metadata];
    let cases = apis.map(async |api| {
        let (fake, groups) = two_brokers();
        let source = source(&fake);
        assert_complete(&observe(&source, &groups).await);
        fake.misbehave(2, api, Misbehavior::Silent, usize::MAX);
        for round in 0..4 {
            let started = Instant::now();
            let observation = observe_within(&source, &groups, MISBEHAVIOR_DEADLINE).await;
            let took = started.elapsed();
            assert!(took < 2 * MISBEHAVIOR_DEADLINE, "{api:?}: {took:?}");
            assert_eq!(
                commits(&observation, 0, "a"),
                Ok(vec![Some(1), Some(2)]),
                "{api:?}"
            );
            assert_eq!(
                ends(&observation, "a"),
                Ok(vec![100, 100]),
                "{api:?} {round}"
            );
        }
        assert_recovers(&fake, &source, &groups).await;
    });
    futures::future::join_all(cases).await;
}

#[tokio::test]
async fn a_moved_coordinator_and_a_moved_leader_are_found_within_the_sweep() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    assert_complete(&observe(&source, &groups).await);
    fake.state
        .lock()
        .unwrap()
        .coordinators
        .insert("gb".into(), 1);
    fake.misbehave(
        2,
        ApiKey::OffsetFetch,
        Misbehavior::ErrorCode(16),
        usize::MAX,
    );
    fake.state
        .lock()
        .unwrap()
        .topics
        .insert("b".into(), vec![(1, 100), (1, 100)]);
    fake.misbehave(
        2,
        ApiKey::ListOffsets,
        Misbehavior::ErrorCode(6),
        usize::MAX,
    );
    assert_complete(&observe(&source, &groups).await);
}

/// Adds a third topic and its group, so that the next sweep fetches metadata.
fn add_third_topic(fake: &FakeCluster, groups: &[GroupPlan; 2]) -> Vec<GroupPlan> {
    fake.topic("c", &[1]);
    fake.group("gc", 1, "c", &[Some(5)]);
    [&groups[..], &[group("gc", &["c"])]].concat()
}

#[tokio::test]
async fn a_client_sent_back_to_its_bootstrap_servers_connects_to_them_again() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    assert_complete(&observe(&source, &groups).await);
    assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), 2);
    let three = add_third_topic(&fake, &groups);
    fake.misbehave(1, ApiKey::Metadata, Misbehavior::MetadataError(129), 1);
    let observation = observe(&source, &three).await;
    assert_complete(&observation);
    assert_eq!(commits(&observation, 2, "c"), Ok(vec![Some(5)]));
    assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), 4);
    wait_for_connections(&fake, 2).await;
}

#[tokio::test]
async fn other_brokers_are_used_while_one_requires_a_rebootstrap() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    assert_complete(&observe(&source, &groups).await);
    let three = add_third_topic(&fake, &groups);
    fake.misbehave(
        1,
        ApiKey::Metadata,
        Misbehavior::MetadataError(129),
        usize::MAX,
    );
    let observation = observe(&source, &three).await;
    assert_eq!(commits(&observation, 2, "c"), Ok(vec![Some(5)]));
}

#[tokio::test]
async fn metadata_refused_as_a_whole_makes_the_cluster_unknown_and_no_topic_missing() {
    for (code, words) in [
        (129, "REBOOTSTRAP_REQUIRED"),
        (-1, "Metadata with Kafka error code -1"),
    ] {
        let (fake, groups) = two_brokers();
        let source = source(&fake);
        assert_complete(&observe(&source, &groups).await);
        let three = add_third_topic(&fake, &groups);
        for node in [1, 2] {
            fake.misbehave(
                node,
                ApiKey::Metadata,
                Misbehavior::MetadataError(code),
                usize::MAX,
            );
        }
        let observation = observe(&source, &three).await;
        let fault = commits(&observation, 2, "c").unwrap_err();
        assert!(fault.is_connection(), "{code}: {fault:?}");
        let connection = observation.connection.as_ref().unwrap();
        assert!(connection.reason.contains(words), "{connection:?}");
        assert_recovers(&fake, &source, &groups).await;
    }
}

#[tokio::test]
async fn retriable_errors_are_retried_within_the_sweep() {
    for (api, code) in [
        (ApiKey::OffsetFetch, 14),
        (ApiKey::OffsetFetch, 15),
        (ApiKey::OffsetFetch, 88),
        (ApiKey::FindCoordinator, 15),
        (ApiKey::ListOffsets, 78),
        (ApiKey::ListOffsets, 74),
        (ApiKey::ListOffsets, 75),
        (ApiKey::ApiVersions, 35),
    ] {
        let (fake, groups) = two_brokers();
        for node in [1, 2] {
            fake.misbehave(node, api, Misbehavior::ErrorCode(code), 1);
        }
        assert_complete(&observe(&source(&fake), &groups).await);
    }
}

#[tokio::test]
async fn groups_that_old_brokers_refuse_one_by_one_are_retried_together() {
    let (fake, mut groups) = (FakeCluster::start(2), Vec::new());
    fake.topic("orders", &[1]);
    for i in 0..200 {
        let name = format!("group-{i}");
        fake.group(&name, 2, "orders", &[Some(i)]);
        groups.push(group(&name, &["orders"]));
    }
    let old = [(ApiKey::OffsetFetch as i16, 7)];
    fake.state.lock().unwrap().max_versions = old.into();
    // The coordinator has moved, for all that is known.
    fake.misbehave(2, ApiKey::OffsetFetch, Misbehavior::ErrorCode(16), 200);
    let observation = observe(&source(&fake), &groups).await;
    for (i, place) in (0..200).zip(0..) {
        assert_eq!(commits(&observation, place, "orders"), Ok(vec![Some(i)]));
    }
    assert_eq!(fake.request_count(ApiKey::OffsetFetch), 400);
    // One for each group before they were made together.
    let lookups = fake.request_count(ApiKey::FindCoordinator);
    assert!(lookups <= 50, "{lookups}");
}

#[tokio::test]
async fn groups_with_more_partitions_than_allowed_are_refused_with_their_number() {
    let (fake, groups) = two_brokers();
    fake.group("open", 1, "a", &[Some(1), Some(2)]);
    // Its topics are discovered first, and known in the second sweep.
    let groups = [groups.to_vec(), vec![group("open", &[])]].concat();
    for (max_partitions, expected) in [
        (6, [None, None, None]),
        (5, [None, None, Some(2)]),
        (3, [None, Some(2), Some(2)]),
    ] {
        let source = source(&fake);
        for max_partitions in [max_partitions, 6, max_partitions] {
            let plan = SweepPlan {
                groups: groups.clone(),
                max_partitions: Some(max_partitions),
                ..SweepPlan::default()
            };
            let observation = source.observe(plan, Instant::now() + SWEEP_DEADLINE).await;
            let refused = |plan: &GroupPlan| {
                let mut all = observation.groups.iter();
                let read = all.find(|read| read.plan == *plan).unwrap();
                let is_refused = read.committed == Err(Fault::OverBudget);
                assert_eq!(is_refused, read.refused_partitions.is_some());
                read.refused_partitions
            };
            let refused: Vec<_> = groups.iter().map(refused).collect();
            let expected = if max_partitions == 6 {
                [None; 3]
            } else {
                expected
            };
            assert_eq!(refused, expected, "{max_partitions}");
        }
    }
}

/// Observes three times a group whose pattern needs a list of all topics that is too long. Returns the numbers of
/// requests for metadata and of connections, and the time that it took.
async fn observe_with_a_long_list(
    topics: usize,
    name_bytes: usize,
    deadline: Duration,
) -> (usize, usize, Duration) {
    let (fake, groups) = two_brokers();
    for topic in 0..topics {
        fake.topic(&format!("t{topic:0>name_bytes$}"), &[1]);
    }
    fake.group("open", 1, "a", &[Some(1), Some(2)]);
    let pattern = TopicPattern::parse("t.*").unwrap();
    let open = GroupPlan {
        patterns: vec![pattern.clone()],
        ..group("open", &[])
    };
    let groups = [groups.to_vec(), vec![open]].concat();
    let source = source(&fake);
    let started = Instant::now();
    for _ in 0..3 {
        let observation = observe_within(&source, &groups, deadline).await;
        assert_complete(&observation);
        assert_eq!(commits(&observation, 2, "a"), Ok(vec![Some(1), Some(2)]));
        let listed = observation.listings["open"].topics_of(&pattern);
        let too_long = Unlisted::Failed(Fault::OverBudget);
        assert_eq!(listed, Some(Err(too_long)));
        assert_eq!(observation.connection, None);
        assert!(observation.unreachable_brokers.is_empty());
    }
    let connections = fake.accepted_connections.load(Ordering::SeqCst);
    let requests = fake.request_count(ApiKey::Metadata);
    (requests, connections, started.elapsed())
}

#[tokio::test]
async fn a_list_of_all_topics_that_is_too_long_is_requested_once() {
    // Metadata is requested again after ten seconds, which it may take on busy cores.
    let max_age = Duration::from_secs(10);
    // The list may take a fifth of the sweep, and a second broker is asked after a quarter of that: after `max_age`.
    let deadline = 20 * max_age;
    for (topics, name_bytes) in [(6_000, 190), (20_000, 40)] {
        let mut tries = 0;
        let (requests, connections) = loop {
            let (requests, connections, took) =
                observe_with_a_long_list(topics, name_bytes, deadline).await;
            tries += 1;
            if took < max_age || tries == 5 {
                break (requests, connections);
            }
        };
        // One of all topics, and one of those that are read.
        assert_eq!(requests, 2);
        // The broker that got the request needs a new connection.
        assert_eq!(connections, 3);
    }
}

#[tokio::test]
async fn groups_are_listed_in_a_full_sweep_but_not_in_a_partial_one() {
    for (first, second) in [(true, false), (true, true)] {
        let (fake, _) = two_brokers();
        fake.group("orders", 2, "b", &[Some(1)]);
        let source = source(&fake);
        let sweep = |is_partial| {
            let plan = SweepPlan {
                groups: vec![group("ordesr", &["a"])],
                is_partial,
                ..SweepPlan::default()
            };
            source.observe(plan, Instant::now() + SWEEP_DEADLINE)
        };
        for is_partial in [first, second] {
            let is_listed = sweep(is_partial).await.group_names.is_some();
            assert_eq!(is_listed, !is_partial);
        }
        assert!(second || sweep(false).await.group_names.is_none());
    }
}

#[tokio::test]
async fn authorization_errors_and_unknown_codes_are_separate_faults() {
    for (api, code, fault) in [
        (ApiKey::OffsetFetch, 30, Fault::GroupDenied),
        (ApiKey::OffsetFetch, 12345, Fault::Code(12345)),
        (ApiKey::ListOffsets, 29, Fault::TopicDenied),
        (ApiKey::ListOffsets, -1, Fault::Code(-1)),
    ] {
        let (fake, groups) = two_brokers();
        fake.misbehave(2, api, Misbehavior::ErrorCode(code), usize::MAX);
        let observation = observe(&source(&fake), &groups).await;
        assert_eq!(commits(&observation, 0, "a"), Ok(vec![Some(1), Some(2)]));
        let found = match commits(&observation, 1, "b") {
            Ok(_) => ends(&observation, "b").err(),
            Err(fault) => Some(fault),
        };
        assert_eq!(found, Some(fault));
        assert_eq!(observation.connection, None);
    }
    let (fake, _) = two_brokers();
    let observation = observe(&source(&fake), &[group("ga", &["a", "missing"])]).await;
    assert_eq!(observation.topics["missing"], Err(Fault::TopicMissing));
    assert_eq!(commits(&observation, 0, "a"), Ok(vec![Some(1), Some(2)]));
}

#[tokio::test]
async fn requests_wait_for_the_throttle_time() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    fake.misbehave(1, ApiKey::Metadata, Misbehavior::Throttle(400), 1);
    let started = Instant::now();
    let observation = observe(&source, &groups).await;
    assert_complete(&observation);
    assert!(started.elapsed() >= Duration::from_millis(400));
    let traffic = observation.traffic.unwrap();
    assert_eq!(traffic.throttled, Duration::from_millis(400));
}

#[tokio::test]
async fn the_wire_client_rejects_properties_of_librdkafka_only() {
    let connect = |properties: &[(&str, &str)], client| {
        let mut all = vec![("bootstrap.servers", "127.0.0.1:1")];
        all.extend(properties);
        KafkaSource::connect(ClientSettings {
            name: "main".into(),
            properties: all
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            max_groups: 1,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client,
        })
    };
    let kerberos = [("sasl.kerberos.service.name", "hunter2")];
    let refused = connect(&kerberos, ClientKind::Wire)
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("sasl.kerberos.service.name (Kerberos)"),
        "{refused}"
    );
    assert!(!refused.contains("hunter2"), "{refused}");
    for (properties, requested, client) in [
        (&kerberos[..], ClientKind::Auto, ClientKind::Librdkafka),
        (&[], ClientKind::Auto, ClientKind::Wire),
        (&[], ClientKind::Librdkafka, ClientKind::Librdkafka),
    ] {
        assert_eq!(
            connect(properties, requested).ok().unwrap().client(),
            client
        );
    }
    let no_file = [
        ("security.protocol", "ssl"),
        ("ssl.ca.location", "/no/such/file"),
    ];
    let refused = connect(&no_file, ClientKind::Auto)
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("ssl.ca.location"), "{refused}");
}
