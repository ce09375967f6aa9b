//! Transactions, deletion and compaction of records.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::KafkaCluster;
use super::poll::poll_until;
use super::topics::{REQUEST, blocking};
use super::unique;

/// An open transaction. When dropped, it stays open until its timeout.
pub(crate) struct Transaction(BaseProducer);

impl KafkaCluster {
    /// Moves the log start of these partitions to these offsets.
    pub(crate) fn delete_records(&self, topic: &str, before: &[(i32, i64)]) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in before {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        let deleted = blocking(admin.delete_records(&list, &AdminOptions::new()))??;
        for element in deleted.elements() {
            element.error().map_err(|error| {
                anyhow!(
                    "deleting records of {topic}/{}: {error}",
                    element.partition()
                )
            })?;
        }
        Ok(())
    }

    /// Writes one record for each of these keys to partition 0 and waits until all are acknowledged.
    pub(crate) fn produce_keys(&self, topic: &str, keys: &[&str]) -> Result<()> {
        let producer: BaseProducer = self.client_config().create()?;
        for key in keys {
            let record = BaseRecord::to(topic).partition(0).key(*key).payload("x");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(REQUEST)?;
        Ok(())
    }

    /// Writes this number of records to a partition in one batch, so that a reader of the log end sees none or all of
    /// them.
    pub(crate) fn produce_batch(&self, topic: &str, partition: i32, records: usize) -> Result<()> {
        let mut config = self.client_config();
        // Until they are flushed they wait for one another.
        let producer: BaseProducer = config.set("linger.ms", "60000").create()?;
        for _ in 0..records {
            let record = BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload("x");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(REQUEST)?;
        Ok(())
    }

    /// Writes one record for each of these ages to a partition, in their order, and waits until all are acknowledged.
    pub(crate) fn produce_at(&self, topic: &str, partition: i32, ages: &[Duration]) -> Result<()> {
        let producer: BaseProducer = self.client_config().create()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        for age in ages {
            let record = BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload("x")
                .timestamp(i64::try_from(now.saturating_sub(*age).as_millis())?);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(REQUEST)?;
        Ok(())
    }

    /// Creates a topic of one partition in which compaction has removed records from the start. Returns its log end.
    pub(crate) fn compacted_topic(&self) -> Result<(String, i64)> {
        let topic = unique("compacted");
        let settings = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("segment.ms", "100"),
            ("max.compaction.lag.ms", "100"),
        ];
        self.create_topic_with(&topic, 1, &settings)?;
        self.produce_keys(&topic, &["a", "b", "a", "b", "a", "b"])?;
        // The segment that is written to is never compacted, and a new one begins with a record that is late enough.
        let mut written = 6;
        poll_until(Duration::from_secs(60), "the topic to be compacted", || {
            self.produce_keys(&topic, &["c"])?;
            written += 1;
            let left = self.offsets_left(&topic)?;
            ensure!(!left.contains(&0) && !left.contains(&2), "left: {left:?}");
            Ok(())
        })?;
        Ok((topic, written))
    }

    /// The offsets of the records that are left in partition 0 of the topic.
    pub(crate) fn offsets_left(&self, topic: &str) -> Result<Vec<i64>> {
        let mut config = self.client_config();
        config
            .set("group.id", unique("reader"))
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let mut offsets = Vec::new();
        loop {
            match consumer.poll(REQUEST).context("no record and no end")? {
                Ok(record) => offsets.push(rdkafka::Message::offset(&record)),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return Ok(offsets),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins a transaction.
    pub(crate) fn begin_transaction(&self) -> Result<Transaction> {
        let mut config = self.client_config();
        config
            .set("transactional.id", unique("transaction"))
            .set("transaction.timeout.ms", "60000");
        let producer: BaseProducer = config.create()?;
        producer.init_transactions(REQUEST)?;
        producer.begin_transaction()?;
        Ok(Transaction(producer))
    }
}

impl Transaction {
    /// Writes this number of records to one partition, and waits until the broker has them.
    pub(crate) fn produce(&self, topic: &str, partition: i32, records: usize) -> Result<()> {
        for _ in 0..records {
            let record = BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload("x");
            self.0.send(record).map_err(|(error, _)| error)?;
        }
        self.0.flush(REQUEST)?;
        Ok(())
    }

    /// Commits the group's offset in the transaction.
    pub(crate) fn commit_offset(
        &self,
        kafka: &KafkaCluster,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> Result<()> {
        let member: BaseConsumer = kafka.client_config().set("group.id", group).create()?;
        let metadata = member.group_metadata().context("no group metadata")?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset))?;
        self.0
            .send_offsets_to_transaction(&list, &metadata, REQUEST)?;
        Ok(())
    }

    pub(crate) fn commit(self) -> Result<()> {
        Ok(self.0.commit_transaction(Duration::from_secs(30))?)
    }

    pub(crate) fn abort(self) -> Result<()> {
        Ok(self.0.abort_transaction(Duration::from_secs(30))?)
    }
}
