//! Placement: topics with explicit replicas, leaders of partitions, and coordinators of groups.

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kafka::KafkaCluster;
use super::poll::poll_until;
use super::topics::{REQUEST, blocking};
use super::unique;

/// The topic in which Kafka keeps the groups' offsets.
const OFFSETS: &str = "__consumer_offsets";

impl KafkaCluster {
    /// Creates a topic whose partitions have one copy each, on these brokers.
    pub(crate) fn create_topic_on(&self, topic: &str, brokers: &[i32]) -> Result<()> {
        let copies: Vec<[i32; 1]> = brokers.iter().map(|id| [*id]).collect();
        let copies: Vec<&[i32]> = copies.iter().map(<[i32; 1]>::as_slice).collect();
        let partitions = i32::try_from(brokers.len())?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Variable(&copies));
        // A single copy is all there is.
        self.create(new.set("min.insync.replicas", "1"))?;
        self.wait_for_leaders(topic, partitions)
    }

    /// Creates a topic with a copy on every broker and these settings.
    pub(crate) fn create_topic_with(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        self.create(new)?;
        self.wait_for_leaders(topic, partitions)
    }

    fn create(&self, new: NewTopic<'_>) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST));
        for created in blocking(admin.create_topics([&new], &options))?? {
            created.map_err(|(topic, error)| anyhow!("creating topic {topic}: {error}"))?;
        }
        Ok(())
    }

    /// Adds partitions until the topic has this number, and waits until they have leaders.
    pub(crate) fn grow_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let new = NewPartitions::new(topic, usize::try_from(partitions)?);
        for grown in blocking(admin.create_partitions([&new], &AdminOptions::new()))?? {
            grown.map_err(|(topic, error)| anyhow!("growing topic {topic}: {error}"))?;
        }
        self.wait_for_leaders(topic, partitions)
    }

    /// The broker that leads each partition of the topic, in order; `None` where none does.
    pub(crate) fn leaders(&self, topic: &str) -> Result<Vec<Option<usize>>> {
        let client: BaseConsumer = self.client_config().create()?;
        let metadata = client.fetch_metadata(Some(topic), REQUEST)?;
        let found = metadata.topics().first().context("no metadata")?;
        let mut leaders: Vec<_> = found
            .partitions()
            .iter()
            .map(|partition| (partition.id(), usize::try_from(partition.leader()).ok()))
            .collect();
        leaders.sort_unstable();
        Ok(leaders.into_iter().map(|(_, leader)| leader).collect())
    }

    /// The broker that coordinates the group.
    pub(crate) fn coordinator(&self, group: &str) -> Result<usize> {
        let leaders = self.leaders(OFFSETS)?;
        ensure!(!leaders.is_empty(), "no group has committed anything yet");
        leaders[coordinating_partition(group, leaders.len())]
            .with_context(|| format!("group {group} has no coordinator at present"))
    }

    /// A new group name whose coordinator is this broker.
    pub(crate) fn group_on(&self, broker: usize) -> Result<String> {
        // The first commit of any group creates the topic.
        if !self.topics()?.iter().any(|topic| topic == OFFSETS) {
            let topic = unique("first");
            self.create_topic(&topic, 1)?;
            self.commit(&unique("first"), &topic, &[(0, 0)])?;
        }
        let leaders = poll_until(3 * REQUEST, "the broker to coordinate groups", || {
            let leaders = self.leaders(OFFSETS)?;
            ensure!(
                !leaders.is_empty() && leaders.iter().all(Option::is_some),
                "{leaders:?}"
            );
            if !leaders.contains(&Some(broker)) {
                // An earlier test killed it, so other brokers lead its partitions.
                self.elect_preferred_leaders()?;
                bail!("broker {broker} coordinates none: {leaders:?}");
            }
            Ok(leaders)
        })?;
        loop {
            let group = unique("group");
            if leaders[coordinating_partition(&group, leaders.len())] == Some(broker) {
                return Ok(group);
            }
        }
    }

    /// Elects the preferred leader of every partition.
    pub(crate) fn elect_preferred_leaders(&self) -> Result<()> {
        self.tool(
            "org.apache.kafka.tools.LeaderElectionCommand",
            &["--election-type", "preferred", "--all-topic-partitions"],
        )
        .map(drop)
    }
}

/// The partition of the offsets topic that a group belongs to: Java's hash of its name.
fn coordinating_partition(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka takes the one number without a positive counterpart for 0.
    let hash = hash.checked_abs().unwrap_or(0);
    usize::try_from(hash).unwrap_or(0) % partitions
}
