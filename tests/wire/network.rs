//! Addresses of brokers, and the lifetime of connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::units::host_pattern::HostPattern;

use super::fake::{FakeCluster, Misbehavior};
use super::{
    assert_complete, commits, ends, group, observe, observe_until_known, settings_with, source,
    source_with, two_brokers, wait_for_connections,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn brokers_on_ipv6_are_read() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // This machine has no IPv6.
        return;
    }
    let fake = FakeCluster::start_on(Ipv6Addr::LOCALHOST.into(), 2);
    fake.topic("a", &[1, 2]);
    fake.group("ga", 2, "a", &[Some(1), Some(2)]);
    let groups = [group("ga", &["a"])];
    for family in ["any", "v6"] {
        let source = source_with(&fake, &[("broker.address.family", family)]);
        let found = commits(&observe(&source, &groups).await, 0, "a");
        assert_eq!(found, Ok(vec![Some(1), Some(2)]), "{family}");
    }
    let source = source_with(&fake, &[("broker.address.family", "v4")]);
    let connection = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(connection.kind, Fault::NameResolution);
    assert!(connection.reason.contains("family"), "{connection:?}");
}

#[tokio::test]
async fn an_unreachable_bootstrap_server_is_skipped() {
    let (fake, groups) = two_brokers();
    let unused = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let dead = unused.local_addr().unwrap();
    drop(unused);
    let bootstrap = format!("{dead},{}", fake.bootstrap());
    let source = source_with(&fake, &[("bootstrap.servers", &bootstrap)]);
    assert_complete(&observe(&source, &groups).await);
}

#[tokio::test]
async fn unused_connections_are_closed_and_made_again() {
    let (fake, groups) = two_brokers();
    let source = source_with(&fake, &[("connections.max.idle.ms", "300")]);
    for round in 1..=3 {
        assert_complete(&observe(&source, &groups).await);
        wait_for_connections(&fake, 0).await;
        assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), round * 2);
    }
}

#[tokio::test]
async fn idle_connections_that_brokers_close_fail_no_sweep() {
    let (fake, groups) = two_brokers();
    // Longer than the maximum backoff: connections that were closed earlier count as refused.
    fake.state.lock().unwrap().idle_timeout = Some(Duration::from_millis(700));
    let source = source(&fake);
    for round in 1..=3 {
        assert_complete(&observe(&source, &groups).await);
        wait_for_connections(&fake, 0).await;
        assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), round * 2);
    }
}

#[tokio::test]
async fn a_broker_that_moved_to_another_address_is_found() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    assert_complete(&observe(&source, &groups).await);
    let before = fake.state.lock().unwrap().requests.len();
    fake.start_node(2, LOOPBACK);
    // The first sweep may detect that the broker has moved.
    let first = observe(&source, &groups).await;
    assert_eq!(
        commits(&first, 0, "a"),
        Ok(vec![Some(1), Some(2)]),
        "commits at the other broker"
    );
    assert_complete(&observe(&source, &groups).await);
    let requests = fake.state.lock().unwrap().requests.len() - before;
    assert!(requests < 40, "{requests} requests to find one broker");
    // Connections to the old address are closed.
    wait_for_connections(&fake, 2).await;
}

#[tokio::test]
async fn a_broker_that_joins_is_read_within_the_sweep() {
    let (fake, groups) = two_brokers();
    let source = source(&fake);
    assert_complete(&observe(&source, &groups).await);
    fake.start_node(3, LOOPBACK);
    fake.topic("b", &[3, 3]);
    fake.group("gb", 3, "b", &[Some(3), Some(4)]);
    fake.misbehave(
        2,
        ApiKey::OffsetFetch,
        Misbehavior::ErrorCode(16),
        usize::MAX,
    );
    fake.misbehave(
        2,
        ApiKey::ListOffsets,
        Misbehavior::ErrorCode(6),
        usize::MAX,
    );
    assert_complete(&observe(&source, &groups).await);
    assert_eq!(fake.accepted_connections.load(Ordering::SeqCst), 3);
}

fn ensure_printable(reason: &str) {
    assert!(!reason.contains(char::is_control), "{reason:?}");
    if reason.contains("not with this proof") {
        assert!(
            reason.contains("\\u{1b}[2J\\r\\n2026"),
            "the broker's words are kept: {reason}"
        );
    }
}

#[tokio::test]
async fn a_scram_login_with_too_few_or_too_many_iterations_is_refused() {
    for (iterations, refused) in [(1, true), (2_000_000_000, true), (4096, false)] {
        let (fake, groups) = two_brokers();
        fake.state.lock().unwrap().scram_iterations = iterations;
        let login = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
        ];
        let source = source_with(&fake, &login);
        let connection = observe(&source, &groups).await.connection.unwrap();
        assert_eq!(connection.kind, Fault::Login, "{iterations}");
        assert!(!connection.reason.contains("hunter2"));
        // The client sends no proof for too few or too many iterations.
        let proven = connection.reason.contains("not with this proof");
        assert_eq!(proven, !refused, "{iterations}: {}", connection.reason);
        ensure_printable(&connection.reason);
        let is_reported = connection
            .reason
            .contains(&format!("asks for {iterations} SCRAM iterations"));
        assert_eq!(is_reported, refused, "{iterations}: {}", connection.reason);
    }
}

/// Two brokers on different hosts. The first one, which is in the bootstrap servers, advertises the second.
fn brokers_on_two_hosts() -> (FakeCluster, [GroupPlan; 2]) {
    let fake = FakeCluster::start(1);
    fake.start_node(2, Ipv4Addr::new(127, 0, 0, 2).into());
    fake.topic("a", &[1, 1]);
    fake.topic("b", &[2, 2]);
    fake.group("ga", 1, "a", &[Some(1), Some(2)]);
    fake.group("gb", 2, "b", &[Some(3), Some(4)]);
    (fake, [group("ga", &["a"]), group("gb", &["b"])])
}

fn settings_allowing(fake: &FakeCluster, hosts: &[&str]) -> ClientSettings {
    let allowed = hosts.iter().map(|host| HostPattern::parse(host).unwrap());
    ClientSettings {
        allowed_hosts: allowed.collect(),
        ..settings_with(fake, &[])
    }
}

#[tokio::test]
async fn the_login_goes_to_allowed_hosts_only() {
    for (hosts, is_read) in [
        (&[][..], true),
        (&["127.0.0.*"], true),
        (&["10.*", "127.0.0.2"], true),
        (&["127.0.0.1"], false),
        (&["*.kafka.svc"], false),
    ] {
        let (fake, groups) = brokers_on_two_hosts();
        let source = KafkaSource::connect(settings_allowing(&fake, hosts)).unwrap();
        let observation = observe(&source, &groups).await;
        if is_read {
            assert_complete(&observation);
            continue;
        }
        // The host in bootstrap.servers needs no entry.
        assert_eq!(commits(&observation, 0, "a"), Ok(vec![Some(1), Some(2)]));
        assert_eq!(ends(&observation, "a"), Ok(vec![100, 100]));
        let refused = commits(&observation, 1, "b");
        assert_eq!(refused, Err(Fault::HostNotAllowed), "{hosts:?}");
        let state = fake.state.lock().unwrap();
        assert!(
            state.requests.iter().all(|(node, ..)| *node == 1),
            "{hosts:?}"
        );
    }
}

#[tokio::test]
async fn a_cluster_without_an_allowed_broker_names_the_broker_and_the_property() {
    let (fake, groups) = brokers_on_two_hosts();
    let source = KafkaSource::connect(settings_allowing(&fake, &["*.kafka.svc"])).unwrap();
    observe(&source, &groups).await;
    // The bootstrap server is stopped, and only the other broker remains.
    fake.start_node(1, Ipv4Addr::new(127, 0, 0, 3).into());
    let mut last = None;
    for _ in 0..12 {
        last = observe(&source, &groups).await.connection;
        if last
            .as_ref()
            .is_some_and(|fault| fault.kind == Fault::HostNotAllowed)
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let fault = last.unwrap();
    assert_eq!(fault.kind, Fault::HostNotAllowed, "{fault:?}");
    let is_named =
        fault.reason.starts_with("127.0.0.") && fault.reason.contains("allowed_broker_hosts");
    assert!(is_named, "{fault:?}");
}

#[tokio::test]
async fn an_unreachable_advertised_address_is_named() {
    // Bound, so that no other process gets the port, but not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind((LOOPBACK, 0).into()).unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    for (host, port, kind, reason) in [
        (
            "no-such-broker.invalid",
            9092,
            Fault::NameResolution,
            "failed to resolve",
        ),
        (
            "127.0.0.1",
            closed_port.into(),
            Fault::Unreachable,
            "Connection refused",
        ),
    ] {
        let (fake, groups) = two_brokers();
        // The bootstrap server answers for the second broker, which its clients do not find.
        let first = fake.bootstrap().split(',').next().unwrap().to_owned();
        let advertised = (host.to_owned(), port);
        fake.state.lock().unwrap().advertised = [(2, advertised)].into();
        let source = source_with(&fake, &[("bootstrap.servers", &first)]);
        for _ in 0..2 {
            let observation = observe(&source, &groups).await;
            assert_eq!(commits(&observation, 0, "a"), Ok(vec![Some(1), Some(2)]));
            assert_eq!(ends(&observation, "a"), Ok(vec![100, 100]));
            assert_eq!(commits(&observation, 1, "b"), Err(kind));
            // The cluster answers.
            assert_eq!(observation.connection, None);
            let [broker] = &observation.unreachable_brokers[..] else {
                panic!("{:?}", observation.unreachable_brokers);
            };
            assert_eq!(
                (&*broker.address, broker.kind),
                (&*format!("{host}:{port}"), kind)
            );
            let is_named = broker.reason.starts_with(&*broker.address);
            assert!(is_named && broker.reason.contains(reason), "{broker:?}");
        }
        // Its group's coordinator elsewhere, the partitions that it leads are still unknown.
        fake.state
            .lock()
            .unwrap()
            .coordinators
            .insert("gb".into(), 1);
        let observation = observe(&source, &groups).await;
        assert_eq!(commits(&observation, 1, "b"), Ok(vec![Some(3), Some(4)]));
        assert_eq!(ends(&observation, "b"), Err(kind));
        fake.state.lock().unwrap().advertised.clear();
        observe_until_known(&source, &groups).await;
        let observation = observe(&source, &groups).await;
        assert_eq!(observation.unreachable_brokers, []);
    }
}

#[tokio::test]
async fn librdkafka_is_refused_with_allowed_hosts() {
    let (fake, _) = brokers_on_two_hosts();
    let kerberos = ("sasl.kerberos.service.name".to_owned(), "kafka".to_owned());
    for (client, more) in [
        (ClientKind::Librdkafka, None),
        (ClientKind::Auto, Some(kerberos)),
    ] {
        let mut settings = ClientSettings {
            client,
            ..settings_allowing(&fake, &["127.0.0.1"])
        };
        settings.properties.extend(more);
        let refused = KafkaSource::connect(settings).err().unwrap().to_string();
        assert!(refused.contains("allowed_broker_hosts"), "{refused}");
    }
}
