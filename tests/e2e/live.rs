//! A live group: every reading while records are written and consumed lies within the possible bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lagwise::model::kafka::sweep_plan::SweepPlan;
use lagwise::model::lag::cluster_snapshot::TopicLag;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use crate::Test;
use crate::sources::{Sources, plan};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, is_full_tier, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "live::every_reading_of_a_live_group_is_consistent",
    every_reading_of_a_live_group_is_consistent,
)];

const PARTITIONS: usize = 6;

/// Time between the starts of two sweeps.
const EVERY: Duration = Duration::from_millis(200);

/// Time between two changes of the number of members.
const MEMBERS_CHANGE: Duration = Duration::from_secs(8);

/// A number for each partition, which only grows.
#[derive(Debug, Default)]
struct Column([AtomicI64; PARTITIONS]);

impl Column {
    fn reach(&self, partition: i32, offset: i64) {
        if let Some(slot) = usize::try_from(partition).ok().and_then(|p| self.0.get(p)) {
            slot.fetch_max(offset, Ordering::SeqCst);
        }
    }

    fn now(&self) -> [i64; PARTITIONS] {
        std::array::from_fn(|p| self.0[p].load(Ordering::SeqCst))
    }
}

/// Bounds of the log ends and committed offsets.
#[derive(Debug, Default)]
struct Truth {
    /// Before a record is handed to the producer.
    sent: Column,
    /// After its broker has it.
    acknowledged: Column,
    /// Before a position can be committed.
    processed: Column,
    /// After a commit was taken.
    committed: Column,
    over: AtomicBool,
}

/// Producer context that records which records the brokers have.
struct Acknowledging(Arc<Truth>);

impl ClientContext for Acknowledging {}

impl ProducerContext for Acknowledging {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if let Ok(record) = delivered {
            let end = record.offset() + 1;
            self.0.acknowledged.reach(record.partition(), end);
        }
    }
}

/// Writes bursts of records to all partitions until stopped.
fn produce(kafka: &KafkaCluster, topic: &str, truth: &Arc<Truth>) -> Result<()> {
    let mut config = kafka.client_config();
    // Without duplicates, so that the number of sent records bounds the log end.
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "5");
    let producer: ThreadedProducer<Acknowledging> =
        config.create_with_context(Acknowledging(Arc::clone(truth)))?;
    let mut sent = [0_i64; PARTITIONS];
    let mut next = Instant::now();
    while !truth.over.load(Ordering::SeqCst) {
        let partition = fastrand::usize(..PARTITIONS);
        for _ in 0..fastrand::usize(1..60) {
            sent[partition] += 1;
            let number = i32::try_from(partition)?;
            truth.sent.reach(number, sent[partition]);
            let record = BaseRecord::<(), _>::to(topic)
                .partition(number)
                .payload("x");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        // At a pace of bursts, some of which come together.
        next += Duration::from_millis(fastrand::u64(0..30));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(producer.flush(Duration::from_secs(30))?)
}

/// Runs a member that reads, processes and commits until `leave` is set.
fn consume(
    kafka: &KafkaCluster,
    group: &str,
    topic: &str,
    truth: &Truth,
    leave: &AtomicBool,
) -> Result<()> {
    let mut config = kafka.client_config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[topic])?;
    while !leave.load(Ordering::SeqCst) {
        let mut list = TopicPartitionList::new();
        for _ in 0..fastrand::usize(1..80) {
            // A rebalance shows as an error; revoked partitions are not committed below.
            let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else {
                break;
            };
            let next = record.offset() + 1;
            truth.processed.reach(record.partition(), next);
            let offset = Offset::Offset(next);
            if let Some(mut known) = list.find_partition(topic, record.partition()) {
                known.set_offset(offset)?;
            } else {
                list.add_partition_offset(topic, record.partition(), offset)?;
            }
        }
        if list.count() > 0 && consumer.commit(&list, CommitMode::Sync).is_ok() {
            for element in list.elements() {
                if let Offset::Offset(next) = element.offset() {
                    truth.committed.reach(element.partition(), next);
                }
            }
        }
    }
    Ok(())
}

/// A member and the flag that makes it leave.
struct MemberThread<'scope> {
    leave: Arc<AtomicBool>,
    thread: std::thread::ScopedJoinHandle<'scope, Result<()>>,
}

fn every_reading_of_a_live_group_is_consistent(testbed: &Testbed) -> Result<()> {
    let full = is_full_tier();
    let lasts = Duration::from_secs(if full { 120 } else { 30 });
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("live"), unique("live"));
    kafka.create_topic(&topic, i32::try_from(PARTITIONS)?)?;
    let truth = Arc::new(Truth::default());
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(kafka, &topic, &truth));
        let join = || {
            let leave = Arc::new(AtomicBool::new(false));
            let is_leaving = Arc::clone(&leave);
            let (group, topic, truth) = (&group, &topic, &truth);
            MemberThread {
                leave,
                thread: scope.spawn(move || consume(kafka, group, topic, truth, &is_leaving)),
            }
        };
        let mut members: VecDeque<_> = (0..2).map(|_| join()).collect();
        let mut swept = Ok(());
        let mut sweeps = 0_u32;
        let mut spread = 0_i64;
        let begun = poll_until(
            Duration::from_secs(60),
            "a commit on every partition",
            || {
                let committed = truth.committed.now();
                ensure!(committed.iter().all(|c| *c > 0), "{committed:?}");
                Ok(())
            },
        );
        if begun.is_ok() {
            swept = (|| {
                let mut sources = Sources::new(kafka)?;
                let plan = plan(&group, &[&topic]);
                let end = Instant::now() + lasts;
                let mut change = Instant::now() + MEMBERS_CHANGE;
                while Instant::now() < end {
                    let next = Instant::now() + EVERY;
                    spread = spread.max(sweep(&mut sources, &plan, &topic, &truth)?);
                    sweeps += 1;
                    if Instant::now() >= change {
                        change += MEMBERS_CHANGE;
                        if members.len() < 4 && fastrand::bool() || members.len() < 2 {
                            members.push_back(join());
                        } else if let Some(member) = members.pop_front() {
                            member.leave.store(true, Ordering::SeqCst);
                            finished(member.thread.join())?;
                        }
                    }
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                anyhow::Ok(())
            })();
        }
        truth.over.store(true, Ordering::SeqCst);
        for member in &members {
            member.leave.store(true, Ordering::SeqCst);
        }
        for member in members {
            finished(member.thread.join())?;
        }
        finished(producer.join())?;
        begun?;
        swept?;
        println!(
            "{sweeps} sweeps with each client, {} records, bounds at most {spread} apart",
            truth.acknowledged.now().iter().sum::<i64>()
        );
        ensure!(sweeps > 20, "only {sweeps} sweeps");
        Ok(())
    })
}

fn finished(joined: std::thread::Result<Result<()>>) -> Result<()> {
    joined.map_err(|_| anyhow!("a thread of the test panicked"))?
}

/// Sweeps once with every client. Returns the largest distance between the bounds.
fn sweep(sources: &mut Sources, plan: &SweepPlan, topic: &str, truth: &Truth) -> Result<i64> {
    let mut widest = 0;
    for place in 0..sources.each.len() {
        let (acknowledged, committed) = (truth.acknowledged.now(), truth.committed.now());
        let client = sources.each[place].client;
        let (known, _) = sources.sweep_with(place, plan)?;
        let (sent, processed) = (truth.sent.now(), truth.processed.now());
        let reading = known
            .groups
            .values()
            .find_map(|group| group.topics.get(topic))
            .context("no reading")?;
        let lag: &TopicLag = reading
            .latest
            .as_ref()
            .map_err(|fault| anyhow!("{client:?}: {fault}"))?;
        for p in 0..PARTITIONS {
            let read = lag.lags[p].map_err(|fault| anyhow!("{client:?}: {topic}/{p}: {fault}"))?;
            let read = i64::try_from(read.for_scaling().0)?;
            let (least, most) = (acknowledged[p] - processed[p], sent[p] - committed[p]);
            ensure!(
                (least..=most).contains(&read),
                "{client:?}: {topic}/{p}: lag {read} is not in {least}..={most} (acknowledged {}, processed {}, sent {}, committed {})",
                acknowledged[p],
                processed[p],
                sent[p],
                committed[p],
            );
            widest = widest.max(most - least);
        }
    }
    Ok(widest)
}
