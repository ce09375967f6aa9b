//! Operations of tests on a Kafka cluster: topics, records, committed offsets, and Kafka's own tools.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::KafkaCluster;
use super::poll::poll_until;

/// How long one request may take while brokers come and go.
pub(super) const REQUEST: Duration = Duration::from_secs(20);
/// Records in flight at once while producing.
const BATCH: usize = 10_000;

/// One line of `kafka-consumer-groups --describe`; `None` where the tool prints `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DescribedPartition {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) committed_offset: Option<i64>,
    pub(crate) log_end_offset: Option<i64>,
    pub(crate) lag: Option<i64>,
    pub(crate) consumer_id: Option<String>,
}

impl KafkaCluster {
    /// Creates a topic with a replica on every broker, and waits until all its partitions have leaders.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.create_topics(&[topic], partitions)
    }

    /// As [`Self::create_topic`], for many at once.
    pub(crate) fn create_topics(&self, topics: &[&str], partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        // -1 is the broker's own default, which is a copy on each.
        let new: Vec<_> = topics
            .iter()
            .map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)))
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST))
            .operation_timeout(Some(REQUEST));
        for created in blocking(admin.create_topics(&new, &options))?? {
            created.map_err(|(topic, error)| anyhow!("creating topic {topic}: {error}"))?;
        }
        topics
            .iter()
            .try_for_each(|topic| self.wait_for_leaders(topic, partitions))
    }

    /// Deletes a topic and waits until no broker lists it.
    pub(crate) fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        for deleted in blocking(admin.delete_topics(
            &[topic],
            &AdminOptions::new().request_timeout(Some(REQUEST)),
        ))?? {
            deleted.map_err(|(topic, error)| anyhow!("deleting topic {topic}: {error}"))?;
        }
        poll_until(REQUEST, &format!("topic {topic} to be gone"), || {
            ensure!(
                !self.topics()?.iter().any(|name| name == topic),
                "it is still listed"
            );
            Ok(())
        })
    }

    /// The names of all topics. A request for all topics creates none, unlike a request for one by its name.
    pub(crate) fn topics(&self) -> Result<Vec<String>> {
        let client: BaseConsumer = self.client_config().create()?;
        let metadata = client.fetch_metadata(None, REQUEST)?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .collect())
    }

    /// Waits until every partition of the topic has a leader.
    pub(crate) fn wait_for_leaders(&self, topic: &str, partitions: i32) -> Result<()> {
        let client: BaseConsumer = self.client_config().create()?;
        poll_until(
            REQUEST,
            &format!("{topic} to have {partitions} partitions with leaders"),
            || {
                let metadata = client.fetch_metadata(Some(topic), REQUEST)?;
                let found = metadata.topics().first().context("no metadata")?;
                let led = found
                    .partitions()
                    .iter()
                    .filter(|partition| partition.leader() >= 0 && partition.error().is_none());
                let led = led.count();
                ensure!(i32::try_from(led)? == partitions, "{led} have leaders");
                Ok(())
            },
        )
    }

    /// Writes `records` small records to one partition and waits until all are acknowledged.
    pub(crate) fn produce(&self, topic: &str, partition: i32, records: usize) -> Result<()> {
        self.produce_to(topic, &[(partition, records)])
    }

    /// Writes this number of records to each of these partitions, and waits until all are acknowledged.
    pub(crate) fn produce_to(&self, topic: &str, counts: &[(i32, usize)]) -> Result<()> {
        let producer: FutureProducer = self.client_config().set("linger.ms", "5").create()?;
        let each = counts
            .iter()
            .flat_map(|&(partition, records)| std::iter::repeat_n(partition, records));
        let each: Vec<i32> = each.collect();
        for batch in each.chunks(BATCH) {
            let mut sent = Vec::with_capacity(batch.len());
            for &partition in batch {
                let record = FutureRecord::<(), _>::to(topic)
                    .partition(partition)
                    .payload("a record of the testbed");
                sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
            }
            for delivered in blocking(join_all(sent))? {
                delivered
                    .context("the producer is gone")?
                    .map_err(|(error, _)| anyhow!("producing to {topic}: {error}"))?;
            }
        }
        producer.flush(REQUEST)?;
        Ok(())
    }

    /// Commits these (partition, offset) pairs for a group that has no members.
    pub(crate) fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let client = self.group_client(group)?;
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        poll_until(
            REQUEST,
            &format!("group {group} to take its offsets"),
            || client.commit(&list, CommitMode::Sync).context("committing"),
        )
    }

    /// Committed offset of the group on each partition of the topic, in order; `None` where there is none.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>> {
        let client = self.group_client(group)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        let committed = client.committed_offsets(list, REQUEST)?;
        Ok(committed
            .elements()
            .iter()
            .map(|element| element.offset().to_raw().filter(|offset| *offset >= 0))
            .collect())
    }

    /// The end of the log (high watermark) of each partition of the topic, in order.
    pub(crate) fn end_offsets(&self, topic: &str) -> Result<Vec<i64>> {
        let client: BaseConsumer = self.client_config().create()?;
        (0..self.partitions(topic)?)
            .map(|partition| Ok(client.fetch_watermarks(topic, partition, REQUEST)?.1))
            .collect()
    }

    /// `kafka-consumer-groups --describe` for these groups, in the order (group, topic, partition).
    pub(crate) fn describe_groups(&self, groups: &[&str]) -> Result<Vec<DescribedPartition>> {
        let mut args = vec!["--describe"];
        for group in groups {
            args.extend(["--group", group]);
        }
        let printed = self.consumer_groups_tool(&args)?;
        let rows = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut described = rows
            .filter(|fields| fields.len() >= 7 && fields[0] != "GROUP" && fields[2] != "-")
            .map(|fields| {
                parse_described(&fields)
                    .with_context(|| format!("reading {fields:?} of the tool's table"))
            })
            .collect::<Result<Vec<_>>>()?;
        described.sort();
        Ok(described)
    }

    /// Runs Kafka's own `kafka-consumer-groups` on this cluster.
    pub(crate) fn consumer_groups_tool(&self, args: &[&str]) -> Result<String> {
        self.tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            args,
        )
    }

    /// Runs Kafka's own `kafka-topics` on this cluster.
    pub(crate) fn topics_tool(&self, args: &[&str]) -> Result<String> {
        self.tool("org.apache.kafka.tools.TopicCommand", args)
    }

    /// Changes the quotas of the clients with this ID.
    pub(crate) fn quota(&self, client_id: &str, change: &[&str]) -> Result<()> {
        let mut args = vec![
            "--alter",
            "--entity-type",
            "clients",
            "--entity-name",
            client_id,
        ];
        args.extend(change);
        self.tool("kafka.admin.ConfigCommand", &args).map(drop)
    }

    /// Runs one of Kafka's own tools by its main class, with `--bootstrap-server` given.
    pub(crate) fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let bootstrap = self.bootstrap();
        let mut all = vec!["--bootstrap-server", bootstrap.as_str()];
        all.extend(args);
        self.java(class, &all)
    }

    /// The number of partitions of an existing topic.
    fn partitions(&self, topic: &str) -> Result<i32> {
        let client: BaseConsumer = self.client_config().create()?;
        let metadata = client.fetch_metadata(Some(topic), REQUEST)?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        ensure!(count > 0, "topic {topic} does not exist");
        Ok(i32::try_from(count)?)
    }

    /// A client with the group's ID that never joins the group.
    fn group_client(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.client_config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        Ok(config.create()?)
    }
}

/// GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID ...
fn parse_described(fields: &[&str]) -> Result<DescribedPartition> {
    let number = |text: &str| {
        if text == "-" {
            Ok(None)
        } else {
            text.parse().map(Some)
        }
    };
    Ok(DescribedPartition {
        group: fields[0].to_owned(),
        topic: fields[1].to_owned(),
        partition: fields[2].parse()?,
        committed_offset: number(fields[3])?,
        log_end_offset: number(fields[4])?,
        lag: number(fields[5])?,
        consumer_id: Some(fields[6].to_owned()).filter(|id| id != "-"),
    })
}

/// Runs a future of the Kafka client to completion. The client's own threads complete it, so any runtime works.
pub(crate) fn blocking<F: Future + Send>(future: F) -> Result<F::Output>
where
    F::Output: Send,
{
    // On a separate thread, because the caller may be inside a runtime, which must not be blocked.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| -> Result<F::Output> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(future))
        });
        waiting
            .join()
            .map_err(|_| anyhow!("the Kafka client panicked"))?
    })
}
