//! Brokers are killed and restarted while records are written and read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{Scene, is_whole};
use crate::sources::{Sources, plan};
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// Timeout until everything is known again after the broker has started.
const RECOVERY: Duration = Duration::from_secs(20);

/// One broker, with the groups it coordinates and the partitions it leads.
pub(crate) fn a_coordinator_is_killed_and_comes_back(testbed: &Testbed) -> Result<()> {
    restarts(testbed, &[3])
}

/// Every broker, one after the other.
pub(crate) fn each_broker_is_killed_in_turn(testbed: &Testbed) -> Result<()> {
    restarts(testbed, &[1, 2, 3])
}

fn restarts(testbed: &Testbed, brokers: &[usize]) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let scene = Scene::set_up(kafka)?;
    let (topic, group) = (unique("live"), unique("live"));
    kafka.create_topic(&topic, 3)?;
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: group.clone(),
        topic: topic.clone(),
        per_second: 50,
        properties: Vec::new(),
    };
    let mut fleet = ConsumerFleet::new(&testbed.folder("live")?, options);
    fleet.scale_to(2)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce_until(kafka, &topic, &done));
        let outcome = brokers
            .iter()
            .try_for_each(|broker| restart(kafka, &scene, *broker, &group, &topic));
        done.store(true, Ordering::Release);
        let produced = producing
            .join()
            .map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        outcome.and(produced)
    })
}

fn restart(
    kafka: &KafkaCluster,
    scene: &Scene,
    broker: usize,
    group: &str,
    topic: &str,
) -> Result<()> {
    let mut sources = Sources::new(kafka)?;
    let mut moving = Moving::new(kafka, group, topic)?;
    poll_until(RECOVERY, "all of it before", || {
        sources.expect(&scene.plan, &scene.truth)
    })?;
    poll_until(RECOVERY, "the live group to be read", || moving.sweep())?;

    kafka.stop_broker(broker)?;
    let own = &scene.at[broker - 1];
    let without = |what: &str| format!("broker {broker}: {what}");
    // Until its groups have another coordinator: that they do is the cluster's work, that we find it is ours.
    let killed = Instant::now();
    poll_until(
        Duration::from_secs(40),
        &without("its group to be found"),
        || {
            let seen = scene.sweep(&mut sources)?;
            scene.others_are_fresh(&sources, broker)?;
            let _ = moving.sweep();
            moving.is_sound()?;
            for (client, seen) in seen {
                ensure!(
                    seen.contains(&format!("{} {}: 4 4", own.group, own.topic)),
                    "{client:?} sees\n{seen}"
                );
            }
            Ok(())
        },
    )?;
    println!(
        "broker {broker}: its group was found elsewhere after {:.1?}",
        killed.elapsed()
    );
    let coordinator = kafka.coordinator(&own.group)?;
    ensure!(coordinator != broker, "the coordinator did not move");
    for _ in 0..2 {
        scene.sweep(&mut sources)?;
        scene.others_are_fresh(&sources, broker)?;
    }

    kafka.start_broker(broker)?;
    let back = Instant::now();
    poll_until(RECOVERY, &without("all of it again"), || {
        for (client, seen) in scene.sweep(&mut sources)? {
            ensure!(is_whole(&seen), "{client:?} sees\n{seen}");
        }
        moving.sweep()
    })?;
    println!(
        "broker {broker}: all was known {:.1?} after its return",
        back.elapsed()
    );
    // Leaders and coordinators move back, while all brokers run.
    kafka.elect_preferred_leaders()?;
    poll_until(RECOVERY, &without("all of it where it was"), || {
        for (client, seen) in scene.sweep(&mut sources)? {
            ensure!(is_whole(&seen), "{client:?} sees\n{seen}");
        }
        scene.others_are_fresh(&sources, broker)?;
        moving.sweep()
    })?;
    moving.is_sound()
}

/// A group with a live consumer, and the state of the clients about it.
struct Moving {
    sources: Sources,
    group: String,
    topic: String,
    /// For each client, the last commits and ends of each partition: neither ever goes back.
    last: Vec<Vec<(i64, i64)>>,
    wrong: Option<String>,
}

impl Moving {
    fn new(kafka: &KafkaCluster, group: &str, topic: &str) -> Result<Self> {
        let sources = Sources::new(kafka)?;
        Ok(Self {
            last: vec![vec![(0, 0); 3]; sources.each.len()],
            sources,
            group: group.to_owned(),
            topic: topic.to_owned(),
            wrong: None,
        })
    }

    /// Sweeps once; an incomplete reading is an error.
    fn sweep(&mut self) -> Result<()> {
        let plan = plan(&self.group, &[&self.topic]);
        let mut faults = Vec::new();
        for ((client, observation), last) in
            self.sources.sweep(&plan)?.into_iter().zip(&mut self.last)
        {
            let committed = observation.groups[0]
                .committed
                .as_ref()
                .ok()
                .and_then(|topics| topics.get(self.topic.as_str()));
            let ends = observation.topics.get(self.topic.as_str());
            let (Some(committed), Some(Ok(offsets))) = (committed, ends) else {
                faults.push(format!("{client:?}: {observation:?}"));
                continue;
            };
            for (partition, last) in last.iter_mut().enumerate() {
                let (commit, end) = (committed.get(partition), offsets.ends.get(partition));
                let (Some(Ok(commit)), Some(Ok(end))) = (commit, end) else {
                    faults.push(format!("{client:?}: {observation:?}"));
                    continue;
                };
                let now = (commit.map_or(0, |commit| commit.0), end.0);
                // Records that all in-sync replicas acknowledged are never lost, and commits only grow. Commits are
                // read before ends, so none is beyond its end.
                if now.0 < last.0 || now.1 < last.1 || now.0 > now.1 {
                    self.wrong = Some(format!("{client:?}: {last:?}, then {now:?}"));
                }
                *last = now;
            }
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    fn is_sound(&self) -> Result<()> {
        match &self.wrong {
            Some(wrong) => anyhow::bail!("{} on {}: {wrong}", self.group, self.topic),
            None => Ok(()),
        }
    }
}

/// Writes to all partitions until it is stopped. The client retries what fails while a broker is down.
fn produce_until(kafka: &KafkaCluster, topic: &str, done: &AtomicBool) -> Result<()> {
    let producer: BaseProducer = kafka.client_config().set("acks", "all").create()?;
    let mut next = 0;
    while !done.load(Ordering::Acquire) {
        let record = BaseRecord::<(), _>::to(topic)
            .partition(next % 3)
            .payload("x");
        // A full queue while nothing can be sent is no failure.
        let _ = producer.send(record);
        next += 1;
        producer.poll(Duration::from_millis(10));
    }
    // The broker that came back may take its time on a busy machine; nothing is concluded from how long.
    producer.flush(Duration::from_secs(120)).context("flushing")
}
