//! A consumer within the test process, which can be configured to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::testbed::kafka::KafkaCluster;

/// Behaviour of a consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerBehaviour {
    /// Whether it joins the group.
    pub(crate) subscribe: bool,
    /// The partitions that it assigns to itself if it does not join.
    pub(crate) assign: Vec<i32>,
    pub(crate) commits: bool,
    /// Where it begins without a commit.
    pub(crate) latest: bool,
    /// The partition and offset beyond which it does not commit.
    pub(crate) poison: Option<(i32, i64)>,
}

/// A consumer on a thread.
pub(crate) struct Worker {
    leave: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Worker {
    /// A member that reads everything and commits.
    pub(crate) fn subscribe(
        kafka: &KafkaCluster,
        group: &str,
        topics: &[&str],
        properties: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start(kafka, group, topics, properties, |behaviour| {
            behaviour.subscribe = true;
        })
    }

    /// A consumer with this behaviour.
    pub(crate) fn start(
        kafka: &KafkaCluster,
        group: &str,
        topics: &[&str],
        properties: &[(&str, &str)],
        change: impl FnOnce(&mut WorkerBehaviour),
    ) -> Result<Self> {
        let mut behaviour = WorkerBehaviour {
            commits: true,
            ..WorkerBehaviour::default()
        };
        change(&mut behaviour);
        let mut config = kafka.client_config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set(
                "auto.offset.reset",
                if behaviour.latest {
                    "latest"
                } else {
                    "earliest"
                },
            )
            .set("fetch.wait.max.ms", "50");
        if !properties.contains(&("group.protocol", "consumer")) {
            // With the consumer protocol this is up to the broker.
            config
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "1000");
        }
        for (key, value) in properties {
            config.set(*key, *value);
        }
        let consumer: BaseConsumer = config.create()?;
        if behaviour.subscribe {
            consumer.subscribe(topics)?;
        } else {
            let mut list = TopicPartitionList::new();
            for topic in topics {
                for &partition in &behaviour.assign {
                    list.add_partition_offset(topic, partition, Offset::Stored)?;
                }
            }
            consumer.assign(&list)?;
        }
        let leave = Arc::new(AtomicBool::new(false));
        let is_leaving = Arc::clone(&leave);
        let thread = std::thread::spawn(move || work(&consumer, &behaviour, &is_leaving));
        Ok(Self { leave, thread })
    }

    /// Leaves the group in order.
    pub(crate) fn leave(self) -> Result<()> {
        self.leave.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .map_err(|_| anyhow!("a worker panicked"))?
    }
}

fn work(consumer: &BaseConsumer, behaviour: &WorkerBehaviour, leave: &AtomicBool) -> Result<()> {
    while !leave.load(Ordering::SeqCst) {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let (partition, offset) = (record.partition(), record.offset());
        if behaviour.poison == Some((partition, offset)) {
            let mut list = TopicPartitionList::new();
            list.add_partition(record.topic(), partition);
            consumer.pause(&list)?;
            continue;
        }
        if behaviour.commits {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(record.topic(), partition, Offset::Offset(offset + 1))?;
            // After a rebalance the partition may belong to another member, which continues from the last commit.
            let _ = consumer.commit(&list, CommitMode::Sync);
        }
    }
    Ok(())
}
