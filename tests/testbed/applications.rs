//! Share consumers and Kafka Streams applications, which only exist in Java, and the brokers that support them.

use std::path::Path;

use anyhow::Result;

use super::kafka::{KafkaCluster, KafkaOptions, Version};
use super::process::Process;
use super::unique;

/// One broker that speaks the protocols that its version has in preview.
pub(super) fn options() -> KafkaOptions {
    with_protocols(
        Version::Current,
        &[
            ("unstable.api.versions.enable", "true"),
            ("unstable.feature.versions.enable", "true"),
        ],
    )
}

/// One broker of Kafka 4.3, in which share groups are final.
pub(crate) fn newest() -> KafkaOptions {
    // A record that a test releases again and again is not to be archived.
    with_protocols(Version::V4_3, &[("group.share.delivery.count.limit", "10")])
}

fn with_protocols(version: Version, more: &[(&str, &str)]) -> KafkaOptions {
    let protocols = (
        "group.coordinator.rebalance.protocols",
        "classic,consumer,share,streams",
    );
    let properties = more.iter().chain([&protocols]);
    let features = ["share.version=1", "streams.version=1"];
    KafkaOptions {
        version,
        properties: properties
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        format: features
            .iter()
            .flat_map(|feature| ["--feature".to_owned(), (*feature).to_owned()])
            .collect(),
        ..KafkaOptions::default()
    }
}

impl KafkaCluster {
    /// Starts Kafka's own console consumer as a member of a share group: it acknowledges all records.
    pub(crate) fn start_share_consumer(&self, group: &str, topic: &str) -> Result<Process> {
        let mut command = self.java_command(&self.artifacts.kafka_jars, 128, "warn");
        command
            .arg("org.apache.kafka.tools.consumer.ConsoleShareConsumer")
            .args(["--bootstrap-server", &self.bootstrap()])
            .args(["--topic", topic, "--group", group]);
        Process::start(&unique("share-consumer"), self.folder(), &command)
    }

    /// Runs a member of a share group that accepts this number of records, releases those at these offsets, and leaves:
    /// `tests/testbed/kafka/Shares.java`.
    pub(crate) fn share(
        &self,
        group: &str,
        topic: &str,
        accepted: usize,
        released: &[i64],
    ) -> Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/kafka/Shares.java");
        let (bootstrap, accepted) = (self.bootstrap(), accepted.to_string());
        let released: Vec<_> = released.iter().map(i64::to_string).collect();
        let mut arguments = vec![bootstrap.as_str(), group, topic, &accepted];
        arguments.extend(released.iter().map(String::as_str));
        self.java_of(&self.jars, &source.to_string_lossy(), &arguments)
            .map(drop)
    }

    /// The lag of a share group by Kafka's own tool, of each partition that it lists, in order.
    pub(crate) fn share_lags(&self, group: &str) -> Result<Vec<(i32, i64)>> {
        let printed = self.java_of(
            &self.jars,
            "org.apache.kafka.tools.consumer.group.ShareGroupCommand",
            &[
                "--bootstrap-server",
                &self.bootstrap(),
                "--describe",
                "--group",
                group,
            ],
        )?;
        // GROUP TOPIC PARTITION START-OFFSET LAG
        let rows = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut lags = rows
            .filter(|fields| fields.len() >= 5 && fields[0] == group)
            .map(|fields| Ok((fields[2].parse()?, fields[4].parse()?)))
            .collect::<Result<Vec<_>>>()?;
        lags.sort_unstable();
        Ok(lags)
    }

    /// Starts a streams application that reads a topic: `tests/testbed/kafka/Repartition.java`. Its group is its id.
    pub(crate) fn start_streams(&self, application: &str, topic: &str) -> Result<Process> {
        let name = unique("streams");
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/kafka/Repartition.java");
        let mut command = self.java_command(&self.artifacts.kafka_jars, 256, "warn");
        command
            .arg(source)
            .args([&self.bootstrap(), application, topic])
            .arg(self.folder().join(&name));
        Process::start(&name, self.folder(), &command)
    }

    /// Starts this number of members of a group with Kafka's own client and one of its assignors:
    /// `tests/testbed/kafka/Members.java`.
    pub(crate) fn start_members(
        &self,
        group: &str,
        count: usize,
        assignor: &str,
        topics: &[&str],
    ) -> Result<Process> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/kafka/Members.java");
        let mut command = self.java_command(&self.artifacts.kafka_jars, 256, "warn");
        command
            .arg(source)
            .args([&self.bootstrap(), group, &count.to_string(), assignor])
            .args(topics);
        Process::start(&unique("members"), self.folder(), &command)
    }

    /// Start offsets of a share group, from Kafka's own tool, for each partition that it lists, in order.
    pub(crate) fn share_offsets(&self, group: &str) -> Result<Vec<(i32, Option<i64>)>> {
        let printed = self.tool(
            "org.apache.kafka.tools.consumer.group.ShareGroupCommand",
            &["--describe", "--group", group],
        )?;
        // GROUP TOPIC PARTITION START-OFFSET
        let rows = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut offsets = rows
            .filter(|fields| fields.len() >= 4 && fields[0] == group)
            .map(|fields| Ok((fields[2].parse()?, fields[3].parse().ok())))
            .collect::<Result<Vec<_>>>()?;
        offsets.sort_unstable();
        Ok(offsets)
    }
}
