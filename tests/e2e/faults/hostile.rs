//! A broker that answers with as much as it can: the daemon stays within the memory limit of the chart, and the lag of
//! another Kafka cluster stays correct and fresh.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::broker::{Attack, HostileBroker};
use super::iterations::age;
use crate::daemon::{Daemon, Options, cluster};
use crate::probes::Probes;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

#[path = "../../hostile/broker.rs"]
#[allow(dead_code, reason = "the test of the Kafka client uses the rest of it")]
mod broker;

/// Maximum memory of the daemon: the memory limit of the chart.
const MAX_MEMORY_KB: u64 = 256 * 1024;
const MIB: usize = 1024 * 1024;
/// Minimum number of bytes that an attack by many brokers sends, which are short: more than the ordinary responses of
/// one broker. All other attacks send at least a MiB.
const MIN_BROKERS_BYTES: usize = 100_000;
/// Groups without named topics, each with a coordinator of its own.
const GROUPS: usize = 16;
/// How long each attack lasts: the daemon reads metadata every ten seconds.
const ATTACK_DURATION: Duration = Duration::from_secs(14);
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const LAG: usize = 7;
/// Maximum age of a reading. It is served until it is eight seconds old.
const MAX_AGE_SECONDS: f64 = 8.0;

/// The longest responses that are read, and longer ones, which are refused by their length: metadata of these topics
/// may have 7 MB, and any response 32 MiB.
const ATTACKS: [(&str, Attack); 7] = [
    (
        "6 MiB of metadata",
        Attack::UnrequestedTopics { bytes: 6 * MIB },
    ),
    (
        "64 MiB of metadata",
        Attack::UnrequestedTopics { bytes: 64 * MIB },
    ),
    ("commits of 31 MiB", Attack::Commits { bytes: 31 * MIB }),
    (
        "commits of 31 MiB by 16 coordinators",
        Attack::EndlessCommits { bytes: 31 * MIB },
    ),
    (
        "a topic of 100,000 partitions",
        Attack::Partitions { count: 100_000 },
    ),
    (
        "a topic of 500,000 partitions",
        Attack::Partitions { count: 500_000 },
    ),
    ("3,000 brokers", Attack::Brokers { count: 3_000 }),
];

pub(crate) fn answers_leave_memory_and_time_to_others(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    kafka.produce_to(&topic, &[(0, LAG)])?;
    let broker = HostileBroker::start();
    let mut targets = vec![
        json!({"name": "main", "cluster": "main", "group": group, "topics": [topic]}),
        json!({"name": "named", "cluster": "hostile", "group": "g0", "topics": ["t"]}),
    ];
    // Group g7 is coordinated by broker 7.
    targets.extend((1..=GROUPS).map(|number| {
        let group = format!("g{number}");
        json!({"name": group, "cluster": "hostile", "group": group})
    }));
    let bootstrap = broker.bootstrap();
    let hostile = cluster("hostile", &[("bootstrap.servers", &bootstrap)]);
    let options = Options::main(&kafka.bootstrap());
    let options = Options {
        targets,
        clusters: [options.clusters.clone(), vec![hostile]].concat(),
        ..options
    };
    let daemon = Daemon::alone(testbed, &options)?;
    let of_main = format!("group={group},topic={topic},cluster=main");
    let of_hostile = "group=g0,topic=t,cluster=hostile";
    let both_are_read = || -> Result<()> {
        let lag = daemon.lag(&of_main)?;
        ensure!(lag == LAG as u64, "{lag}");
        let lag = daemon.lag(of_hostile)?;
        let expected = (broker::LOG_END - broker::COMMITTED).unsigned_abs();
        ensure!(lag == expected, "{lag} of the hostile one");
        Ok(())
    };
    poll_until(WAIT_TIMEOUT, "both to be read", both_are_read)?;
    for (what, attack) in ATTACKS {
        let (mut probes, mut oldest, cpu) = (Probes::default(), 0.0, daemon.process.cpu()?);
        let lines_before = daemon.process.log().lines().count();
        broker.behave(attack);
        let begun = Instant::now();
        while begun.elapsed() < ATTACK_DURATION {
            let lag = daemon.lag(&of_main).context(what)?;
            ensure!(lag == LAG as u64, "{what}: {lag}");
            let probe = Instant::now();
            let (code, body) = http_get(daemon.probe_port, "/livez")?;
            ensure!(code == 200, "{what}: {code}: {body}");
            probes.add(probe.elapsed());
            oldest = age(&daemon, &group)?.max(oldest);
            thread::sleep(Duration::from_millis(50));
        }
        let sent = broker.take_sent();
        let min_sent = match attack {
            Attack::Brokers { .. } => MIN_BROKERS_BYTES,
            _ => MIB,
        };
        let log = daemon.process.log();
        let is_refused = log
            .lines()
            .skip(lines_before)
            .any(|line| line.contains("over the limit"));
        ensure!(
            sent >= min_sent || is_refused,
            "{what}: only {sent} bytes were sent"
        );
        let sent = sent / MIB;
        let memory = daemon.process.memory("VmHWM")?;
        println!(
            "{what}: the broker sent {sent} MiB in {ATTACK_DURATION:?}; memory so far at most {memory} kB (limit \
             {MAX_MEMORY_KB} kB), {:.1} s of CPU; another cluster at most {oldest:.1} s old (limit {MAX_AGE_SECONDS} s); {probes}",
            (daemon.process.cpu()? - cpu).as_secs_f64(),
        );
        ensure!(memory < MAX_MEMORY_KB, "{what}: {memory} kB");
        ensure!(oldest < MAX_AGE_SECONDS, "{what}: {oldest} s old");
        probes.check().context(what)?;
    }
    // As soon as it behaves, it is read again.
    broker.behave(Attack::None);
    poll_until(WAIT_TIMEOUT, "both to be read again", both_are_read)?;
    ensure!(!daemon.process.log().contains("panicked"), "it panicked");
    Ok(())
}
