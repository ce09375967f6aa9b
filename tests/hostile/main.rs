//! Limits of the damage by a hostile broker: memory, counted by the allocator, connections, and effects on the readings
//! of other clusters. The broker writes its long responses in pieces, so that they cost this process nothing before
//! they are read.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "prints its measurements"
)]

mod broker;
#[path = "../wire/fake.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod fake;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::Observation;
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::poller::OffsetSource;
use peak_alloc::PeakAlloc;

use broker::{Attack, HostileBroker};
use fake::FakeCluster;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1024 * 1024;

/// Maximum response size of the client in this test. The default is four times as large, which would take longer.
const MAX_RESPONSE_BYTES: usize = 8 * MIB;

/// One test, because the allocator counts the memory of the whole process.
#[test]
fn a_hostile_broker_costs_little() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        unrequested_topics_are_not_kept().await;
        topics_of_a_group_are_bounded().await;
        long_responses_are_read_one_after_another().await;
        partitions_of_a_topic_are_bounded().await;
        connections_to_brokers_that_are_gone_are_closed().await;
        another_cluster_is_read_meanwhile().await;
    });
}

fn source(bootstrap: String) -> KafkaSource {
    KafkaSource::connect(ClientSettings {
        name: "main".into(),
        properties: BTreeMap::from([
            ("bootstrap.servers".to_owned(), bootstrap),
            (
                "receive.message.max.bytes".to_owned(),
                MAX_RESPONSE_BYTES.to_string(),
            ),
        ]),
        max_groups: 1,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client: ClientKind::Wire,
    })
    .unwrap()
}

fn plan_of_one_topic(groups: usize) -> SweepPlan {
    let group = |i| GroupPlan::new(format!("g{i}"), ["t".into()].into());
    SweepPlan {
        groups: (0..groups).map(group).collect(),
        ..SweepPlan::default()
    }
}

fn plan_with_discovery(groups: usize) -> SweepPlan {
    let group = |i| GroupPlan::new(format!("g{i}"), [].into());
    SweepPlan {
        groups: (0..groups).map(group).collect(),
        ..SweepPlan::default()
    }
}

async fn observe(source: &KafkaSource, plan: SweepPlan) -> Observation {
    source
        .observe(plan, Instant::now() + Duration::from_secs(8))
        .await
}

/// Memory that the calls take, in bytes: the peak, and the rest afterwards.
struct Cost {
    before: usize,
    peak: usize,
    after: usize,
}

impl Cost {
    fn peak(&self) -> usize {
        self.peak.saturating_sub(self.before)
    }

    fn kept(&self) -> usize {
        self.after.saturating_sub(self.before)
    }
}

/// Sweeps the cluster several times under attack, and once before.
async fn measure(
    name: &str,
    broker: &HostileBroker,
    attack: Attack,
    plan: impl Fn() -> SweepPlan,
) -> (Cost, Observation) {
    broker.behave(Attack::None);
    let source = source(broker.bootstrap());
    let first = observe(&source, plan()).await;
    assert_eq!(first.connection, None, "{name}");
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    broker.behave(attack);
    let mut last = first;
    // Metadata is read again after ten seconds; a new client reads it at once.
    let source = self::source(broker.bootstrap());
    for _ in 0..2 {
        last = observe(&source, plan()).await;
    }
    let cost = Cost {
        before: before / MIB,
        peak: ALLOCATOR.peak_usage() / MIB,
        after: ALLOCATOR.current_usage() / MIB,
    };
    eprintln!(
        "{name}: {} MiB before, {} MiB at the most, {} MiB after; the broker sent {} MiB",
        cost.before,
        cost.peak,
        cost.after,
        broker.take_sent() / MIB,
    );
    (cost, last)
}

async fn unrequested_topics_are_not_kept() {
    let broker = HostileBroker::start();
    for (bytes, is_read) in [(5 * MIB, true), (MAX_RESPONSE_BYTES - MIB, false)] {
        let attack = Attack::UnrequestedTopics { bytes };
        let name = format!("metadata of {} MiB", bytes / MIB);
        let (cost, observation) = measure(&name, &broker, attack, || plan_of_one_topic(1)).await;
        assert!(cost.peak() <= 16, "{}", cost.peak);
        assert!(cost.kept() <= 1, "{}", cost.after);
        assert_eq!(observation.groups[0].committed.is_ok(), is_read, "{name}");
    }
}

async fn topics_of_a_group_are_bounded() {
    let broker = HostileBroker::start();
    let attack = Attack::Commits {
        bytes: MAX_RESPONSE_BYTES,
    };
    let (cost, observation) = measure("commits on 215,000 topics", &broker, attack, || {
        plan_with_discovery(1)
    })
    .await;
    let over = observation.groups[0].committed.as_ref().err();
    assert_eq!(over, Some(&Fault::OverBudget));
    assert!(cost.peak() <= 96, "{}", cost.peak);
    assert!(cost.kept() <= 1, "{}", cost.after);
}

async fn long_responses_are_read_one_after_another() {
    let broker = HostileBroker::start();
    let attack = Attack::EndlessCommits {
        bytes: MAX_RESPONSE_BYTES,
    };
    let groups = 16;
    let (cost, _) = measure("16 brokers with 8 MiB each", &broker, attack, || {
        plan_with_discovery(groups)
    })
    .await;
    // Memory of one response: its bytes, a copy while its buffer grows, and the decoded values.
    assert!(cost.peak() <= 96, "{}", cost.peak);
}

async fn partitions_of_a_topic_are_bounded() {
    let broker = HostileBroker::start();
    for count in [100_001, 150_000] {
        let attack = Attack::Partitions { count };
        let name = format!("a topic of {count} partitions");
        let (cost, observation) = measure(&name, &broker, attack, || plan_of_one_topic(1)).await;
        assert_eq!(observation.topics.get("t"), Some(&Err(Fault::OverBudget)));
        // Most of it is the response in the broker before it is sent.
        assert!(cost.peak() <= 96, "{}", cost.peak);
        assert!(cost.kept() <= 1, "{}", cost.after);
    }
}

async fn connections_to_brokers_that_are_gone_are_closed() {
    let broker = HostileBroker::start();
    broker.behave(Attack::Brokers { count: 3000 });
    let source = source(broker.bootstrap());
    for _ in 0..2 {
        observe(&source, plan_of_one_topic(1)).await;
    }
    let open = broker.open.load(Ordering::SeqCst);
    broker.behave(Attack::None);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut left = open;
    while left > 2 {
        assert!(Instant::now() < deadline, "{left} connections stay open");
        observe(&source, plan_of_one_topic(1)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        left = broker.open.load(Ordering::SeqCst);
    }
    eprintln!("3,000 brokers: {open} connections, and {left} when they are gone");
    assert!(open > 2, "only {open} connections were opened");
}

async fn another_cluster_is_read_meanwhile() {
    let hostile = HostileBroker::start();
    hostile.behave(Attack::EndlessCommits {
        bytes: MAX_RESPONSE_BYTES,
    });
    let bootstrap = hostile.bootstrap();
    let attack = tokio::spawn(async move {
        let source = source(bootstrap);
        loop {
            observe(&source, plan_with_discovery(16)).await;
        }
    });
    let good = FakeCluster::start(2);
    good.topic("t", &[1, 2]);
    good.group("g0", 2, "t", &[Some(1), Some(2)]);
    let source = source(good.bootstrap().to_owned());
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let started = Instant::now();
        let observation = observe(&source, plan_of_one_topic(1)).await;
        slowest = slowest.max(started.elapsed());
        assert_eq!(observation.connection, None);
        let group = &observation.groups[0];
        assert!(group.committed.is_ok(), "{group:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    attack.abort();
    eprintln!("another cluster: 20 sweeps, the slowest in {slowest:?}");
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
}
