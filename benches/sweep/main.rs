//! Cost of one sweep of lag on a real broker for each client, and, as a lower bound, of the same requests sent raw on
//! one connection and decoded, nothing else.
//!
//! ```sh
//! tests/run --fast && tests/testbed/build kafka    # once: the broker
//! cargo bench --bench sweep                        # W1, both sources
//! cargo bench --bench sweep -- W2 20               # W2, 20 rounds
//! cargo bench --bench sweep -- W2 20 3             # the same on three brokers
//! cargo bench --bench sweep -- W2 60 policy        # what the rate policy costs, over 60 sweeps
//! cargo bench --profile production --bench sweep -- W2    # with the profile of releases
//! ```
//!
//! The bound of memory with HPAs is for images, which are built with the profile of releases and packed relocations
//! (.ci/cross-build). `LAGWISE_TEST_BINARY` names such a binary.
//!
//! Below the table are the figures that have a bound, among them CPU time and resident memory of a whole `lagwise run`.
//!
//! Each contender runs in a separate process, so that its memory, CPU and connections are measured separately. W1 is
//! 200 groups x 1 topic x 12 partitions on 100 topics, W2 is 1,000 groups x 3 topics x 12 on 500. librdkafka takes part
//! in W1 only: it needs a client for each group. The limit knows one broker only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    dead_code,
    reason = "a measurement may end by a panic, prints, and needs only parts of the testbed"
)]

mod daemon;
mod figures;
mod raw;
#[path = "../../tests/testbed/mod.rs"]
mod testbed;
mod traffic;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use figures::{Bounds, Figures, Meter};
use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::observation::{Observation, Traffic};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::poller::OffsetSource;
use testbed::Testbed;
use testbed::kafka::{KafkaCluster, KafkaOptions};
use traffic::GroupTraffic;

/// First argument that makes this binary run as one contender.
const CONTENDER: &str = "contender-of-the-sweep";

const PARTITIONS: i32 = 12;

/// A set of groups and topics to sweep.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    groups: usize,
    topics_per_group: usize,
    topics: usize,
}

const WORKLOADS: [Workload; 2] = [
    Workload {
        name: "W1",
        groups: 200,
        topics_per_group: 1,
        topics: 100,
    },
    Workload {
        name: "W2",
        groups: 1000,
        topics_per_group: 3,
        topics: 500,
    },
];

impl Workload {
    fn named(name: &str) -> Result<Self> {
        let found = WORKLOADS.into_iter().find(|workload| workload.name == name);
        found.with_context(|| format!("no workload {name}: there are W1 and W2"))
    }

    fn topic(self, i: usize) -> String {
        format!("sweep-{}", i % self.topics)
    }

    fn group(i: usize) -> String {
        format!("sweep-group-{i:04}")
    }

    fn all_topics(self) -> Vec<String> {
        (0..self.topics).map(|i| self.topic(i)).collect()
    }

    /// Each group with its topics.
    fn all(self) -> Vec<(String, Vec<String>)> {
        let topics = |i: usize| {
            (0..self.topics_per_group)
                .map(|j| self.topic(i * self.topics_per_group + j))
                .collect()
        };
        (0..self.groups)
            .map(|i| (Self::group(i), topics(i)))
            .collect()
    }

    fn group_partitions(self) -> usize {
        self.groups * self.topics_per_group * usize::try_from(PARTITIONS).unwrap_or(0)
    }

    fn plan(self) -> SweepPlan {
        let plan = |(group, topics): (String, Vec<String>)| {
            GroupPlan::new(group, topics.into_iter().map(Into::into).collect())
        };
        SweepPlan {
            groups: self.all().into_iter().map(plan).collect(),
            ..SweepPlan::default()
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [CONTENDER, kind, bootstrap, workload, rounds] => {
            contend(kind, bootstrap, Workload::named(workload)?, rounds.parse()?)
        }
        [] => compare(WORKLOADS[0], 20, 1),
        [workload] => compare(Workload::named(workload)?, 20, 1),
        [workload, rounds] => compare(Workload::named(workload)?, rounds.parse()?, 1),
        [workload, polls, "policy"] => compare_policies(Workload::named(workload)?, polls.parse()?),
        [workload, rounds, brokers] => compare(
            Workload::named(workload)?,
            rounds.parse()?,
            brokers.parse()?,
        ),
        _ => bail!("usage: cargo bench --bench sweep -- [W1|W2] [ROUNDS] [BROKERS|policy]"),
    }
}

/// A cluster with the topics of a workload, and with its groups, which have committed the start of each partition.
fn load(testbed: &Testbed, workload: Workload, options: &KafkaOptions) -> Result<KafkaCluster> {
    let kafka = testbed.start_kafka("sweep", options)?;
    let started = Instant::now();
    let topics = workload.all_topics();
    for some in topics.chunks(50) {
        kafka.create_topics(
            &some.iter().map(String::as_str).collect::<Vec<_>>(),
            PARTITIONS,
        )?;
    }
    // Kafka creates the offsets topic when a client looks up a coordinator, which the raw client does not do.
    kafka.commit("sweep-first", &topics[0], &[(0, 0)])?;
    let mut raw = kafka
        .bootstrap()
        .split(',')
        .map(raw::Connection::open)
        .collect::<Result<Vec<_>>>()?;
    raw::Connection::commit_all(&mut raw, &workload.all(), PARTITIONS)?;
    println!(
        "{} on {} brokers: {} groups, {} topics, {} group-partitions, loaded in {:.0?}",
        workload.name,
        options.brokers,
        workload.groups,
        workload.topics,
        workload.group_partitions(),
        started.elapsed()
    );
    Ok(kafka)
}

/// Compares the CPU time of a daemon that has all groups under the rate policy with that of one without.
fn compare_policies(workload: Workload, polls: u32) -> Result<()> {
    let testbed = Testbed::new()?;
    let (key, value) = traffic::JOIN_TOGETHER;
    let options = KafkaOptions {
        heap_mb: 1024,
        properties: vec![(key.to_owned(), value.to_owned())],
        ..KafkaOptions::default()
    };
    let kafka = load(&testbed, workload, &options)?;
    let bootstrap = kafka.bootstrap();
    let topics = workload.all_topics();
    let traffic = GroupTraffic::start(&bootstrap, &workload.all(), &topics, PARTITIONS)?;
    let mut bounds = Bounds::default();
    let compared = daemon::compare_policies(
        &testbed,
        workload,
        (&bootstrap, &traffic),
        polls,
        &mut bounds,
    );
    traffic.stop()?;
    compared?;
    kafka.stop_all()?;
    testbed.stop()?;
    bounds.finish()
}

/// Starts the brokers, loads the workload, lets every contender sweep it, and prints the table.
fn compare(workload: Workload, rounds: usize, brokers: u16) -> Result<()> {
    let testbed = Testbed::new()?;
    let options = KafkaOptions {
        brokers,
        heap_mb: 1024,
        ..KafkaOptions::default()
    };
    let kafka = load(&testbed, workload, &options)?;
    let bootstrap = kafka.bootstrap();
    println!("{rounds} rounds, medians");
    let mut table: Vec<(&str, Figures)> = Vec::new();
    for kind in ["limit", "wire", "librdkafka"] {
        if kind == "limit" && brokers > 1 {
            continue;
        }
        if kind == "librdkafka" && workload.groups > 200 {
            println!(
                "librdkafka is left out: it needs a client for each of {} groups",
                workload.groups
            );
            continue;
        }
        let rounds = rounds.to_string();
        let arguments = [CONTENDER, kind, &bootstrap, workload.name, &rounds];
        let output = Command::new(std::env::current_exe()?)
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "{kind}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        table.push((kind, serde_json::from_slice(&output.stdout)?));
    }
    figures::print(&table);
    println!();
    let mut bounds = Bounds::default();
    let of = |wanted| table.iter().find(|(kind, _)| *kind == wanted);
    let brokers = f64::from(brokers);
    if let Some((_, wire)) = of("wire") {
        if let Some((_, limit)) = of("limit") {
            bounds.check("wall time, in limits", wire.wall_ms / limit.wall_ms, 2.0);
            bounds.check("CPU time, in limits", wire.cpu_ms / limit.cpu_ms, 2.0);
        }
        let requests = wire.requests_per_round.context("no count of requests")?;
        bounds.check("requests in a sweep", requests as f64, 3.0 * brokers);
        bounds.check("connections", wire.connections as f64, brokers + 1.0);
    }
    let limit_cpu_ms = of("limit").map(|(_, limit)| limit.cpu_ms);
    daemon::measure(&testbed, workload, &bootstrap, limit_cpu_ms, &mut bounds)?;
    kafka.stop_all()?;
    testbed.stop()?;
    bounds.finish()
}

/// Runs one contender and prints its figures as JSON.
fn contend(kind: &str, bootstrap: &str, workload: Workload, rounds: usize) -> Result<()> {
    let figures = match kind {
        "limit" => limit(bootstrap, workload, rounds)?,
        kind => {
            let client = if kind == "wire" {
                ClientKind::Wire
            } else {
                ClientKind::Librdkafka
            };
            let runtime = tokio::runtime::Runtime::new()?;
            let figures = runtime.block_on(source(client, bootstrap, workload, rounds))?;
            runtime.shutdown_background();
            figures
        }
    };
    println!("{}", serde_json::to_string(&figures)?);
    // Do not wait until hundreds of clients are closed.
    std::process::exit(0);
}

fn limit(bootstrap: &str, workload: Workload, rounds: usize) -> Result<Figures> {
    let groups = workload.all();
    let topics: BTreeSet<String> = groups
        .iter()
        .flat_map(|(_, topics)| topics.clone())
        .collect();
    let mut connection = raw::Connection::open(bootstrap)?;
    let mut meter = Meter::start(bootstrap)?;
    for _ in 0..rounds {
        meter.round(|| {
            let commits = connection.offset_fetch(&groups, PARTITIONS)?;
            let ends = connection.list_offsets(&topics, PARTITIONS)?;
            ensure!(
                commits == workload.group_partitions(),
                "{commits} committed offsets"
            );
            ensure!(ends == topics.len() * 12, "{ends} ends");
            Ok(())
        })?;
    }
    let mut figures = meter.end()?;
    figures.bytes_per_round = Some(connection.bytes / u64::try_from(rounds)?);
    figures.requests_per_round = Some(2);
    Ok(figures)
}

async fn source(
    client: ClientKind,
    bootstrap: &str,
    workload: Workload,
    rounds: usize,
) -> Result<Figures> {
    let settings = ClientSettings {
        name: "sweep".into(),
        properties: [("bootstrap.servers".to_owned(), bootstrap.to_owned())].into(),
        max_groups: 1000,
        token: None,
        renew: None,
        allowed_hosts: Vec::new(),
        client,
    };
    let source = KafkaSource::connect(settings)?;
    let plan = workload.plan();
    // The first sweep connects and fills the caches.
    complete(
        &source
            .observe(plan.clone(), Instant::now() + Duration::from_secs(60))
            .await,
        workload,
    )?;
    // Further ones look up where the logs ended a while ago.
    let mut traffic = Traffic::default();
    for _ in 0..10 {
        let deadline = Instant::now() + Duration::from_secs(30);
        let observation = source.observe(plan.clone(), deadline).await;
        traffic = observation.traffic.unwrap_or_default();
    }
    let mut requests = Vec::new();
    let before = traffic;
    let mut meter = Meter::start(bootstrap)?;
    for _ in 0..rounds {
        let begun = meter.begin()?;
        let observation = source
            .observe(plan.clone(), Instant::now() + Duration::from_secs(30))
            .await;
        meter.finish(begun)?;
        complete(&observation, workload)?;
        let now = observation.traffic.unwrap_or_default();
        requests.push(now.requests - traffic.requests);
        traffic = now;
    }
    let mut figures = meter.end()?;
    if client == ClientKind::Wire {
        requests.sort_unstable();
        // The median, because some rounds also fetch metadata.
        figures.requests_per_round = requests.get(rounds / 2).copied();
        let bytes = traffic.received_bytes - before.received_bytes;
        figures.bytes_per_round = Some(bytes / u64::try_from(rounds)?);
    }
    Ok(figures)
}

/// Fails if a sweep left something out, since it would look fast.
fn complete(observation: &Observation, workload: Workload) -> Result<()> {
    let columns = observation
        .groups
        .iter()
        .filter_map(|group| group.committed.as_ref().ok())
        .flat_map(|topics| topics.values());
    let commits = columns
        .flat_map(CommittedOffsets::iter)
        .filter(|committed| matches!(committed, Ok(Some(_))))
        .count();
    ensure!(
        commits == workload.group_partitions(),
        "{commits} committed offsets: {:?}",
        observation.connection
    );
    let read = observation
        .topics
        .values()
        .filter_map(|topic| topic.as_ref().ok());
    let ends = read
        .flat_map(|topic| &topic.ends)
        .filter(|end| end.is_ok())
        .count();
    ensure!(
        ends == observation.topics.len() * 12,
        "{ends} ends of {} topics",
        observation.topics.len()
    );
    Ok(())
}
