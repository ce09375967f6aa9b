//! The clients on librdkafka's mock brokers. Fast, but only the end-to-end tests show how a real Kafka behaves.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lagwise::kafka::embedded::EmbeddedCluster;
use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::Observation;
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::units::newtypes::{Lag, Offset};
use lagwise::poller::OffsetSource;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset as At, TopicPartitionList};

fn plan(group: &str, topics: &[&str]) -> SweepPlan {
    SweepPlan {
        groups: vec![GroupPlan::new(
            group,
            topics.iter().map(|t| (*t).into()).collect(),
        )],
        ..SweepPlan::default()
    }
}

fn produce(bootstrap: &str, topic: &str, partition: i32, records: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    for _ in 0..records {
        producer
            .send(
                BaseRecord::<(), str>::to(topic)
                    .partition(partition)
                    .payload("x"),
            )
            .unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

fn commit(bootstrap: &str, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, At::Offset(*offset))
            .unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

async fn observe(source: &KafkaSource, plan: SweepPlan) -> Observation {
    source
        .observe(plan, Instant::now() + Duration::from_secs(20))
        .await
}

#[tokio::test]
async fn reads_commits_and_ends_partition_by_partition() {
    let broker = EmbeddedCluster::start("main", 3).unwrap();
    broker.create_topic("orders", 6).unwrap();
    let bootstrap = broker.bootstrap();
    produce(&bootstrap, "orders", 0, 10);
    produce(&bootstrap, "orders", 5, 3);
    commit(&bootstrap, "workers", "orders", &[(0, 4), (1, 0)]);

    let source = KafkaSource::connect(broker.settings()).unwrap();
    let observation = observe(&source, plan("workers", &["orders"])).await;
    let topic = observation.topics["orders"].as_ref().unwrap();
    let ends: Vec<_> = topic.ends.iter().map(|end| end.unwrap()).collect();
    assert_eq!(ends, [10, 0, 0, 0, 0, 3].map(Offset));
    let committed = &observation.groups[0].committed.as_ref().unwrap()["orders"];
    assert_eq!(
        committed.iter().take(3).collect::<Vec<_>>(),
        [Ok(Some(Offset(4))), Ok(Some(Offset(0))), Ok(None)]
    );

    let snapshot = ClusterHistory::default().apply(observation, Scope::Whole);
    let lag = snapshot.groups.get("workers").unwrap().topics["orders"]
        .complete
        .as_ref()
        .unwrap()
        .total();
    assert_eq!(lag, Ok(Lag(6)));
}

/// The mock brokers only support old versions, so this tests the wire client's requests of old versions.
#[tokio::test]
async fn the_wire_client_reads_the_same_as_librdkafka() {
    let broker = EmbeddedCluster::start("main", 3).unwrap();
    broker.create_topic("orders", 6).unwrap();
    let bootstrap = broker.bootstrap();
    produce(&bootstrap, "orders", 0, 10);
    commit(&bootstrap, "workers", "orders", &[(0, 4), (1, 0)]);
    let [wire, librdkafka] = [ClientKind::Wire, ClientKind::Librdkafka].map(|client| {
        KafkaSource::connect(ClientSettings {
            client,
            ..broker.settings()
        })
        .unwrap()
    });
    let theirs = observe(&librdkafka, plan("workers", &["orders"])).await;
    let mut ours = observe(&wire, plan("workers", &["orders"])).await;
    for log in ours.topics.values_mut().flatten() {
        // librdkafka does not report these.
        assert!(Arc::make_mut(log).id.take().is_some());
    }
    assert_eq!(ours.groups, theirs.groups, "{:?}", ours.connection);
    assert_eq!(ours.topics, theirs.topics, "{:?}", ours.connection);
}

#[tokio::test]
async fn finds_the_topics_that_a_group_committed_on() {
    let broker = EmbeddedCluster::start("main", 1).unwrap();
    for topic in ["a", "b", "c"] {
        broker.create_topic(topic, 2).unwrap();
    }
    commit(&broker.bootstrap(), "workers", "b", &[(0, 0)]);
    let source = KafkaSource::connect(broker.settings()).unwrap();
    let observation = observe(&source, plan("workers", &[])).await;
    let topics: Vec<_> = observation.groups[0]
        .committed
        .as_ref()
        .unwrap()
        .keys()
        .map(|t| t.as_str())
        .collect();
    assert_eq!(topics, ["b"]);
}

#[tokio::test]
async fn a_name_that_no_topic_can_have_is_a_missing_topic() {
    let broker = EmbeddedCluster::start("main", 1).unwrap();
    let source = KafkaSource::connect(broker.settings()).unwrap();
    let long = "t".repeat(600);
    for name in ["", ".", "a b", "nul\0", long.as_str()] {
        let observation = observe(&source, plan("workers", &[name])).await;
        let found = observation.topics[name].as_ref().unwrap_err();
        assert_eq!(*found, Fault::TopicMissing, "{name:?}");
    }
}

#[tokio::test]
async fn a_cluster_without_requests_counts_as_connected() {
    let broker = EmbeddedCluster::start("main", 1).unwrap();
    let source = KafkaSource::connect(broker.settings()).unwrap();
    for plan in [plan("g", &["nowhere"]), plan("idle", &[])] {
        for sweep in ["with new metadata", "with kept metadata"] {
            let observation = observe(&source, plan.clone()).await;
            assert_eq!(observation.connection, None, "{plan:?} {sweep}");
        }
    }
}

#[tokio::test]
async fn more_groups_than_allowed_are_a_fault_not_a_zero() {
    let broker = EmbeddedCluster::start("main", 1).unwrap();
    broker.create_topic("orders", 1).unwrap();
    let source = KafkaSource::connect(ClientSettings {
        max_groups: 1,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client: ClientKind::Librdkafka,
        ..broker.settings()
    })
    .unwrap();
    let mut two = plan("a", &["orders"]);
    two.groups.extend(plan("b", &["orders"]).groups);
    let observation = observe(&source, two).await;
    assert!(observation.groups[0].committed.is_ok());
    assert_eq!(observation.groups[1].committed, Err(Fault::TooManyGroups));
}

#[tokio::test]
async fn an_unreachable_cluster_is_a_fault_by_the_deadline() {
    // Bound and dropped, so that the port is free and nothing listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = ClientSettings {
        name: "gone".into(),
        properties: [("bootstrap.servers".to_owned(), format!("127.0.0.1:{port}"))].into(),
        max_groups: 50,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client: ClientKind::Librdkafka,
    };
    let source = KafkaSource::connect(settings).unwrap();
    let observation = source
        .observe(plan("g", &["t"]), Instant::now() + Duration::from_secs(2))
        .await;
    assert!(observation.groups[0].committed.is_err());
    let fault = observation.connection.unwrap();
    assert_eq!(fault.kind, Fault::Unreachable);
    assert!(
        fault.reason.contains("Connection refused"),
        "{}",
        fault.reason
    );
}

#[test]
fn a_property_that_librdkafka_refuses_is_named_without_its_value() {
    let settings = ClientSettings {
        name: "main".into(),
        properties: [("no.such.property".to_owned(), "secret".to_owned())].into(),
        max_groups: 50,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client: ClientKind::Librdkafka,
    };
    let error = KafkaSource::connect(settings).err().unwrap().to_string();
    assert!(
        error.contains("no.such.property") && !error.contains("secret"),
        "{error}"
    );
}
