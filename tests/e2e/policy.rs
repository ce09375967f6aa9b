//! The rate policy on real consumers of a set rate and the real HPA controller, compared with plain lag under the same
//! load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::leader;
use crate::scale::workload;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios. They need consumers that keep their rate, so nothing else may run at the same time.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "policy::a_step_up_takes_two_moves_and_a_killed_daemon_changes_nothing",
        a_step_up_takes_two_moves_and_a_killed_daemon_changes_nothing,
    ),
    (
        "policy::a_leader_killed_with_a_standby_changes_nothing",
        a_leader_killed_with_a_standby_changes_nothing,
    ),
    (
        "policy::rate_rebalances_less_than_lag_under_the_same_load",
        rate_rebalances_less_than_lag_under_the_same_load,
    ),
];

const PARTITIONS: i32 = 12;

/// Messages per second that a consumer processes.
const CAPACITY: u32 = 30;

/// Maximum changes of the replicas by the rate policy for one change of the load.
const MAX_MOVES: usize = 2;

/// An HPA on the replicas that this policy wants, and its consumers.
struct Scaled {
    name: &'static str,
    group: String,
    fleet: ConsumerFleet,
    series: ReplicaSeries,
}

impl Scaled {
    fn start(
        testbed: &Testbed,
        (kafka, plane): (&KafkaCluster, &ControlPlane),
        namespace: &str,
        topic: &str,
        (name, lag_per_replica): (&'static str, &str),
    ) -> Result<Self> {
        let group = unique(name);
        let mut list: Value =
            serde_json::from_str(&workload(name, &[("group", &group), ("topic", topic)]))?;
        let hpa = &mut list["items"][1];
        hpa["metadata"]["annotations"] = json!({
            "lagwise.dev/policy": name,
            "lagwise.dev/slo": "60s",
            "lagwise.dev/lag-per-replica": lag_per_replica,
        });
        hpa["spec"]["metrics"][0]["external"]["metric"]["name"] = json!("kafka_desired_replicas");
        hpa["spec"]["metrics"][0]["external"]["target"]["averageValue"] = json!("1");
        plane.apply(namespace, &list.to_string())?;
        let options = ConsumerOptions {
            bootstrap: kafka.bootstrap(),
            group: group.clone(),
            topic: topic.to_owned(),
            per_second: CAPACITY,
            properties: vec![("group.protocol".to_owned(), "consumer".to_owned())],
        };
        Ok(Self {
            name,
            group,
            fleet: ConsumerFleet::new(&testbed.folder(name)?, options),
            series: ReplicaSeries::record(plane, namespace, name)?,
        })
    }

    /// Starts or stops consumers to match the replicas.
    fn follow(&mut self) -> Result<()> {
        self.fleet.scale_to(usize::try_from(self.series.now())?)
    }

    /// Numbers of replicas, each once while it lasted.
    fn moves(&self) -> Vec<i32> {
        let mut moves = self.series.values();
        moves.retain(|replicas| *replicas > 0);
        moves.dedup();
        moves
    }

    /// How often the broker has reassigned the partitions: the epoch of the group.
    fn rebalances(&self, kafka: &KafkaCluster) -> Result<u32> {
        let text = kafka.consumer_groups_tool(&[
            "--describe",
            "--state",
            "--verbose",
            "--group",
            &self.group,
        ])?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let header = lines.find(|line| line.contains("GROUP-EPOCH"));
        let place = header.and_then(|line| {
            let mut columns = line.split_whitespace();
            columns.position(|column| column == "GROUP-EPOCH")
        });
        let row = lines.next().with_context(|| format!("no group: {text}"))?;
        let epoch = place.and_then(|place| row.split_whitespace().nth(place));
        let epoch = epoch.with_context(|| format!("no epoch: {text}"))?;
        epoch
            .parse()
            .with_context(|| format!("epoch {epoch:?}: {text}"))
    }
}

/// Produces at this rate (messages per second, seconds), while the consumers follow the replicas.
fn produce(
    kafka: &KafkaCluster,
    topic: &str,
    (per_second, seconds): (usize, u64),
    scaled: &mut [&mut Scaled],
    mut is_done: impl FnMut(&[&mut Scaled]) -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    let mut sent = 0usize;
    while began.elapsed() < Duration::from_secs(seconds) && !is_done(scaled)? {
        let millis = usize::try_from(began.elapsed().as_millis())?;
        let due = per_second * millis / 1000;
        if due < sent + per_second.div_ceil(2) {
            // The load is a rate, so that time has to pass.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let count = usize::try_from(PARTITIONS)?;
        let of = |partition: usize| (sent..due).filter(|n| n % count == partition).count();
        let counts: Vec<_> = (0..count)
            .map(|partition| Ok((i32::try_from(partition)?, of(partition))))
            .collect::<Result<_>>()?;
        kafka.produce_to(topic, &counts)?;
        sent = due;
        for one in &mut *scaled {
            one.follow()?;
        }
    }
    Ok(())
}

/// The value that a daemon serves for the metric of an HPA, as a line of `/metrics`; `None` while it knows none or does
/// not lead.
fn served_value(daemon: &Daemon, namespace: &str, hpa: &str) -> Result<Option<String>> {
    let metrics = daemon.metrics()?;
    let value = format!("lagwise_target_value{{namespace=\"{namespace}\",hpa=\"{hpa}\"");
    let mut lines = metrics.lines();
    Ok(lines
        .find(|line| line.starts_with(&value))
        .map(str::to_owned))
}

fn until_served(daemon: &Daemon, namespace: &str, hpa: &str) -> Result<bool> {
    let value = served_value(daemon, namespace, hpa)?;
    Ok(value.is_some_and(|line| line.contains("rule=\"rate\"")))
}

/// Lets the policy observe the group, and then take a step up. Returns the replicas that there were.
fn step_up(
    daemon: &Daemon,
    kafka: &KafkaCluster,
    namespace: &str,
    topic: &str,
    rate: &mut Scaled,
) -> Result<Vec<i32>> {
    // A backlog, from which the policy learns the capacity of a member.
    let backlog: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 40)).collect();
    kafka.produce_to(topic, &backlog)?;
    produce(kafka, topic, (20, 180), &mut [&mut *rate], |_| {
        until_served(daemon, namespace, "rate")
    })?;
    ensure!(until_served(daemon, namespace, "rate")?, "not served");
    // Earlier changes by lag are not counted for the policy.
    let before = rate.moves().len();
    produce(kafka, topic, (130, 150), &mut [&mut *rate], |scaled| {
        Ok(scaled.iter().all(|one| one.series.now() >= 5))
    })?;
    // Long enough for a further move, and for the state to be saved.
    produce(kafka, topic, (130, 40), &mut [&mut *rate], |_| Ok(false))?;
    let moves = rate.moves();
    println!("replicas: {moves:?}");
    let reached = moves.last().copied().unwrap_or_default();
    ensure!((5..=12).contains(&reached), "{moves:?}");
    ensure!(moves.len() <= before + MAX_MOVES, "too many: {moves:?}");
    Ok(moves)
}

fn a_step_up_takes_two_moves_and_a_killed_daemon_changes_nothing(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("policy")?;
    let topic = unique("orders");
    kafka.create_topic(&topic, PARTITIONS)?;
    let options = Options {
        interval: "3s",
        state: json!({"file": testbed.folder("state")?.join("state.json")}),
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let clusters = (kafka, plane);
    let of_rate = ("rate", "1000");
    let mut rate = Scaled::start(testbed, clusters, &namespace, &topic, of_rate)?;
    let moves = step_up(&daemon, kafka, &namespace, &topic, &mut rate)?;

    daemon.process.signal("KILL")?;
    drop((daemon, api));
    let started = Instant::now();
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let clusters = (kafka, &daemon);
    ensure_kept(clusters, &namespace, &topic, (started, &moves), &mut rate)?;
    ensure!(rate.moves() == moves, "{:?} after {moves:?}", rate.moves());
    Ok(())
}

/// The standby has never read the group. From its first value on, it serves the number of the leader that was killed.
fn a_leader_killed_with_a_standby_changes_nothing(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("standby")?;
    let topic = unique("orders");
    kafka.create_topic(&topic, PARTITIONS)?;
    leader::allow(plane, &namespace)?;
    leader::allow_state(plane, &namespace)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let options = Options {
        interval: "3s",
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        state: json!({"config_map": "state"}),
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let start = || {
        let tls =
            json!({"tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}});
        let watched = json!({"namespaces": [namespace]});
        Daemon::start(testbed, &options, tls, watched, Some(&kubeconfig))
    };
    let first = start()?;
    poll_until(Duration::from_secs(60), "the first to lead", || {
        let metrics = first.metrics()?;
        let leads = metrics.lines().any(|line| line == "lagwise_leader 1");
        ensure!(leads, "it does not");
        Ok(())
    })?;
    let second = start()?;
    // The API server sends requests to the standby, which forwards them while the first daemon leads.
    let api = plane.register_api(&namespace, "lagwise", second.api_port, &certificate.ca_pem)?;
    api.wait_available(Duration::from_secs(60))?;
    let clusters = (kafka, plane);
    let of_rate = ("rate", "1000");
    let mut rate = Scaled::start(testbed, clusters, &namespace, &topic, of_rate)?;
    let moves = step_up(&first, kafka, &namespace, &topic, &mut rate)?;

    let killed = Instant::now();
    first.process.signal("KILL")?;
    let clusters = (kafka, &second);
    ensure_kept(clusters, &namespace, &topic, (killed, &moves), &mut rate)?;
    ensure!(rate.moves() == moves, "{:?} after {moves:?}", rate.moves());
    Ok(())
}

/// Ensures that the next daemon serves the number of the one that was killed, from its first value on. Prints its
/// values with the time since `since`.
fn ensure_kept(
    (kafka, daemon): (&KafkaCluster, &Daemon),
    namespace: &str,
    topic: &str,
    (since, moves): (Instant, &[i32]),
    rate: &mut Scaled,
) -> Result<()> {
    let mut values: Vec<(Duration, String)> = Vec::new();
    produce(kafka, topic, (130, 75), &mut [rate], |_| {
        if let Some(value) = served_value(daemon, namespace, "rate")?
            && values.last().is_none_or(|(_, last)| *last != value)
        {
            values.push((since.elapsed(), value));
        }
        Ok(false)
    })?;
    for (after, value) in &values {
        println!("after {after:.1?}: {value}");
    }
    let reached = moves.last().copied().unwrap_or_default();
    let expected = format!(" {reached}.000");
    let is_kept = |line: &str| line.contains("rule=\"rate\"") && line.ends_with(&expected);
    ensure!(!values.is_empty(), "it serves nothing");
    ensure!(
        values.iter().all(|(_, line)| is_kept(line)),
        "{values:?} after {moves:?}"
    );
    Ok(())
}

/// Prints and returns how often both groups have rebalanced since these epochs.
fn print_rebalances(
    kafka: &KafkaCluster,
    [rate, lag]: [&Scaled; 2],
    begun: (u32, u32),
) -> Result<(u32, u32)> {
    let counts = (
        rate.rebalances(kafka)? - begun.0,
        lag.rebalances(kafka)? - begun.1,
    );
    for (one, count) in [(rate, counts.0), (lag, counts.1)] {
        println!(
            "{}: {count} rebalances, replicas {:?}",
            one.name,
            one.moves()
        );
    }
    Ok(counts)
}

fn rate_rebalances_less_than_lag_under_the_same_load(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("policies")?;
    let topic = unique("orders");
    kafka.create_topic(&topic, PARTITIONS)?;
    let options = Options {
        interval: "1s",
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let clusters = (kafka, plane);
    // Both HPAs have the same behavior, without stabilization.
    let mut rate = Scaled::start(testbed, clusters, &namespace, &topic, ("rate", "20"))?;
    let mut lag = Scaled::start(testbed, clusters, &namespace, &topic, ("lag", "20"))?;
    produce(kafka, &topic, (20, 180), &mut [&mut rate, &mut lag], |_| {
        until_served(&daemon, &namespace, "rate")
    })?;
    ensure!(until_served(&daemon, &namespace, "rate")?, "not served");
    let begun = (rate.rebalances(kafka)?, lag.rebalances(kafka)?);
    // A long step, a pause, a short peak, and then a low rate, until the policy has stepped down.
    for (what, load) in [
        ("before the step", (20, 30)),
        ("step", (130, 180)),
        ("pause", (20, 60)),
        ("flash", (130, 60)),
    ] {
        let before = rate.moves().len();
        let both = &mut [&mut rate, &mut lag];
        produce(kafka, &topic, load, both, |_| Ok(false))?;
        let moves = rate.moves();
        println!("{what}: replicas by rate {moves:?}");
        ensure!(moves.len() <= before + MAX_MOVES, "{what}: {moves:?}");
        let needed = load.0.div_ceil(usize::try_from(CAPACITY)?);
        let reached = usize::try_from(rate.series.now())?;
        ensure!(reached >= needed, "{what}: {reached} of {needed} replicas");
    }
    print_rebalances(kafka, [&rate, &lag], begun)?;
    let highest = rate.moves().into_iter().max().unwrap_or_default();
    let before = rate.moves().len();
    let both = &mut [&mut rate, &mut lag];
    produce(kafka, &topic, (20, 1000), both, |scaled| {
        let mut scaled = scaled.iter();
        Ok(scaled.any(|one| one.name == "rate" && one.series.now() < highest))
    })?;
    let moves = rate.moves();
    ensure!(moves.len() <= before + MAX_MOVES, "drain: {moves:?}");
    let counts = print_rebalances(kafka, [&rate, &lag], begun)?;
    let metrics = daemon.metrics()?;
    let of_drains = metrics
        .lines()
        .filter(|line| line.starts_with("lagwise_target_") && line.contains("_drain"));
    of_drains.for_each(|line| println!("{line}"));
    ensure!(
        counts.0 * 3 <= counts.1,
        "{} against {}",
        counts.0,
        counts.1
    );
    // The next step down would be worth its rebalances ten minutes or more later.
    ensure!(moves.last() < Some(&highest), "{moves:?}");
    Ok(())
}
