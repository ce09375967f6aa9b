//! Brokers that make a login expensive: the lag of other Kafka clusters stays correct and fresh.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kafka_protocol::messages::ApiKey;
use serde_json::json;

use self::fake::FakeCluster;
use crate::daemon::{Daemon, Options, cluster};
use crate::probes::Probes;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

#[path = "../../wire/fake.rs"]
#[allow(dead_code, reason = "the scripted brokers of other tests")]
pub(super) mod fake;

/// Maximum number of iterations that lagwise computes for a login.
const MAX_ITERATIONS: u32 = 1_000_000;
const BROKERS: i32 = 8;
const FLOOD_DURATION: Duration = Duration::from_secs(10);
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
const LAG: usize = 7;
/// Maximum age of a reading. It is served until it is eight seconds old.
const MAX_AGE_SECONDS: f64 = 8.0;

/// All brokers of a Kafka cluster require a million SCRAM iterations and reject the proof. Another cluster is read at
/// the same time.
pub(crate) fn a_million_iterations_affect_only_their_cluster(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    kafka.produce_to(&topic, &[(0, LAG)])?;
    let fake = FakeCluster::start(BROKERS);
    let brokers: Vec<_> = (1..=BROKERS).collect();
    fake.topic("a", &brokers);
    fake.group("ga", 1, "a", &[Some(1); 8]);
    {
        let mut state = fake.state.lock().map_err(|_| anyhow!("poisoned"))?;
        state.scram_iterations = MAX_ITERATIONS;
    }
    let login = [
        ("bootstrap.servers", fake.bootstrap()),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
        ("reconnect.backoff.max.ms", "300"),
    ];
    let options = Options::main(&kafka.bootstrap());
    let target = |cluster: &str, group: &str, topic: &str| json!({"name": cluster, "cluster": cluster, "group": group, "topics": [topic]});
    let options = Options {
        targets: vec![target("main", &group, &topic), target("hostile", "ga", "a")],
        clusters: [options.clusters.clone(), vec![cluster("hostile", &login)]].concat(),
        ..options
    };
    let daemon = Daemon::alone(testbed, &options)?;
    let selector = format!("group={group},topic={topic},cluster=main");
    let of_hostile = "group=ga,topic=a,cluster=hostile";
    poll_until(WAIT_TIMEOUT, "the lag beside it", || {
        let lag = daemon.lag(&selector)?;
        ensure!(lag == LAG as u64, "{lag}");
        daemon.refusal(of_hostile, 503).map(drop)
    })?;
    let logins = || fake.request_count(ApiKey::SaslAuthenticate);
    let (before, cpu, begun) = (logins(), daemon.process.cpu()?, Instant::now());
    let (mut probes, mut oldest, mut answers) = (Probes::default(), 0.0, 0);
    while begun.elapsed() < FLOOD_DURATION {
        let lag = daemon.lag(&selector)?;
        ensure!(lag == LAG as u64, "{lag}");
        answers += 1;
        let probe = Instant::now();
        let (code, body) = http_get(daemon.probe_port, "/livez")?;
        ensure!(code == 200, "{code}: {body}");
        probes.add(probe.elapsed());
        oldest = age(&daemon, &group)?.max(oldest);
        thread::sleep(Duration::from_millis(50));
    }
    println!(
        "{} logins with {MAX_ITERATIONS} iterations by {BROKERS} brokers in {FLOOD_DURATION:?}, {:.1} s of CPU (two threads at most); \
         {answers} answers of another cluster, at most {oldest:.1} s old (limit {MAX_AGE_SECONDS} s); {probes}",
        logins() - before,
        (daemon.process.cpu()? - cpu).as_secs_f64(),
    );
    ensure!(logins() > 0, "nobody logs in");
    ensure!(oldest < MAX_AGE_SECONDS, "{oldest} s old");
    probes.check()?;
    let refusal = daemon.refusal(of_hostile, 503)?;
    ensure!(!refusal.contains("hunter2"), "{refusal}");
    Ok(())
}

/// Age of the reading of a group, in seconds.
pub(super) fn age(daemon: &Daemon, group: &str) -> Result<f64> {
    let metrics = daemon.metrics()?;
    let of_group = format!("consumergroup=\"{group}\"");
    let mut ages = metrics
        .lines()
        .filter(|line| line.starts_with("lagwise_data_age_seconds{"));
    let age = ages
        .find(|line| line.contains(&of_group))
        .context("no age")?;
    Ok(age.rsplit(' ').next().context("no age")?.parse()?)
}
