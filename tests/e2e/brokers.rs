//! Brokers hang, die and restart, one after the other. Partitions and groups of the other brokers are still read, those
//! of the broker are unknown and never wrong. Each broker is read again within two polls, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::{ClientKind, ClientSettings, KafkaSource};
use lagwise::model::kafka::observation::Observation;
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::model::units::newtypes::Offset;
use lagwise::poller::OffsetSource;
use tokio::runtime::Runtime;

use crate::Test;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// Long scenarios.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "brokers::each_broker_hangs_fails_and_recovers",
    each_broker_hangs_fails_and_recovers,
)];

/// From one sweep's start to the next one's, and how long one may take.
const POLL: Duration = Duration::from_secs(2);

/// Topics of one partition, each with a replica on one broker only, so that they are unavailable without that broker.
const TOPICS: usize = 9;

struct Watch<'a> {
    kafka: &'a KafkaCluster,
    runtime: &'a Runtime,
    source: KafkaSource,
    plan: SweepPlan,
}

/// Result of one sweep: number of groups with the correct lag, and with unknown lag.
#[derive(Debug)]
struct Seen {
    right: usize,
    unknown: usize,
}

impl Watch<'_> {
    /// One sweep. A wrong number, or a missing one, is an error.
    fn sweep(&self) -> Result<Seen> {
        let deadline = Instant::now() + POLL;
        let observation = self
            .runtime
            .block_on(self.source.observe(self.plan.clone(), deadline));
        ensure!(
            // That it ends, and not seconds late: two busy cores may be late by themselves.
            Instant::now() < deadline + POLL,
            "it took longer than its deadline"
        );
        let mut seen = Seen {
            right: 0,
            unknown: 0,
        };
        for (i, group) in observation.groups.iter().enumerate() {
            match reading(
                &observation,
                i,
                group.plan.topics.first().context("no topic")?.as_str(),
            ) {
                Some((committed, end)) => {
                    assert_eq!(
                        (committed, end),
                        (1, i64::try_from(i % TOPICS)? + 2),
                        "of group {i}"
                    );
                    seen.right += 1;
                }
                None => seen.unknown += 1,
            }
        }
        Ok(seen)
    }

    /// Waits until Kafka has recovered: every topic has a leader, every group a coordinator.
    fn is_back(&self) -> Result<()> {
        for plan in &self.plan.groups {
            let topic = plan.topics.first().context("no topic")?.as_str();
            self.kafka.wait_for_leaders(topic, 1)?;
            poll_until(Duration::from_secs(60), "the group's coordinator", || {
                let committed = self.kafka.committed(plan.group.as_str(), topic)?;
                ensure!(committed == [Some(1)], "{committed:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sweeps at the poll interval until everything is correct again, within this number of polls.
    fn recovers(&self, polls: usize) -> Result<()> {
        for _ in 0..polls {
            let next = Instant::now() + POLL;
            let seen = self.sweep()?;
            if seen.unknown == 0 {
                return Ok(());
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let seen = self.sweep()?;
        ensure!(seen.unknown == 0, "after {polls} polls: {seen:?}");
        Ok(())
    }
}

/// A group's commit and the log's end, where both are known.
fn reading(observation: &Observation, group: usize, topic: &str) -> Option<(i64, i64)> {
    let committed = observation.groups[group].committed.as_ref().ok()?;
    let Ok(Some(Offset(committed))) = committed.get(topic)?.get(0)? else {
        return None;
    };
    let ends = &observation.topics.get(topic)?.as_ref().ok()?.ends;
    let Offset(end) = (*ends.first()?).ok()?;
    Some((committed, end))
}

fn each_broker_hangs_fails_and_recovers(testbed: &Testbed) -> Result<()> {
    let options = KafkaOptions {
        brokers: 3,
        properties: vec![("default.replication.factor".into(), "1".into())],
        ..KafkaOptions::default()
    };
    let kafka = testbed.start_kafka("brokers", &options)?;
    let topics: Vec<_> = (0..TOPICS).map(|_| unique("orders")).collect();
    for (i, topic) in topics.iter().enumerate() {
        // One copy, on one broker.
        let assignment = (i % 3 + 1).to_string();
        let args = [
            "--create",
            "--topic",
            topic,
            "--replica-assignment",
            &assignment,
        ];
        kafka.topics_tool(&args)?;
        kafka.wait_for_leaders(topic, 1)?;
        kafka.produce(topic, 0, i + 2)?;
    }
    // Several to a topic, so that every broker coordinates some whose topics are elsewhere.
    let groups: Vec<_> = (0..TOPICS * 4).map(|_| unique("billing")).collect();
    let read_by = || groups.iter().zip(topics.iter().cycle());
    for (group, topic) in read_by() {
        kafka.commit(group, topic, &[(0, 1)])?;
    }
    let runtime = Runtime::new()?;
    let plan = |(group, topic): (&String, &String)| {
        GroupPlan::new(group.as_str(), [topic.as_str().into()].into())
    };
    let watch = Watch {
        kafka: &kafka,
        runtime: &runtime,
        source: KafkaSource::connect(ClientSettings {
            name: "main".into(),
            properties: [("bootstrap.servers".to_owned(), kafka.bootstrap())].into(),
            max_groups: 1,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client: ClientKind::Wire,
        })?,
        plan: SweepPlan {
            groups: read_by().map(plan).collect(),
            ..SweepPlan::default()
        },
    };
    watch.recovers(2).context("to begin with")?;
    for id in 1..=3 {
        hangs(&kafka, &watch, id).with_context(|| format!("broker {id} hangs"))?;
        dies(&kafka, &watch, id).with_context(|| format!("broker {id} dies"))?;
    }
    Ok(())
}

/// A broker that accepts and never answers.
fn hangs(kafka: &KafkaCluster, watch: &Watch<'_>, id: usize) -> Result<()> {
    kafka.signal_broker(id, "STOP")?;
    let mut last = None;
    for poll in 0..4 {
        let started = Instant::now();
        let seen = watch.sweep()?;
        println!(
            "broker {id} hangs, poll {poll}: {seen:?} in {:?}",
            started.elapsed()
        );
        last = Some(seen);
        std::thread::sleep(POLL.saturating_sub(started.elapsed()));
    }
    let seen = last.context("no sweep")?;
    ensure!(seen.right > 0, "no other broker's group was read");
    kafka.signal_broker(id, "CONT")?;
    watch.is_back()?;
    watch.recovers(2)
}

fn dies(kafka: &KafkaCluster, watch: &Watch<'_>, id: usize) -> Result<()> {
    kafka.stop_broker(id)?;
    for poll in 0..3 {
        let started = Instant::now();
        let seen = watch.sweep()?;
        println!(
            "broker {id} is dead, poll {poll}: {seen:?} in {:?}",
            started.elapsed()
        );
        ensure!(seen.unknown > 0, "its own topics were read");
        std::thread::sleep(POLL.saturating_sub(started.elapsed()));
    }
    kafka.start_broker(id)?;
    watch.is_back()?;
    watch.recovers(2)
}
