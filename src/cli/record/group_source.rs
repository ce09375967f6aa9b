//! Sources of a recording: Kafka itself, or a daemon that already reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::RecordArgs;
use crate::cli::daemon_client::DaemonArgs;
use crate::cli::explain::fetch_explanation;
use crate::cli::kafka_args::cluster_names;
use crate::cli::kube_args::KubeArgs;
use crate::cli::lag::name_filter::NameFilter;
use crate::cli::lag::reading::{ClusterReader, ClusterReading, LagRequest};
use crate::cli::wrong_usage;
use crate::kafka::ClientSettings;
use crate::model::diagnostics::explain::{Explanation, TopicPart};
use crate::model::kafka::group::{GroupDescription, GroupState};
use crate::model::lag::cluster_snapshot::{GroupSnapshot, TopicLag};
use crate::model::units::newtypes::Offset;
use crate::simulate::trace::{MAX_TRACE_PARTITIONS, TracePosition, TraceSample};

/// One reading of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceSample {
    /// Without its time, which the trace file sets.
    pub(super) sample: TraceSample,
    /// How long ago Kafka was read.
    pub(super) milliseconds_ago: u64,
    /// Whether it comes from a daemon, which reads Kafka at its own interval.
    pub(super) is_delayed: bool,
    /// Why topics, partitions or members are missing; empty if none are.
    pub(super) missing: Vec<String>,
}

/// The source of a recording.
pub(super) enum GroupSource {
    Kafka(Box<KafkaGroup>),
    Daemon(Box<DaemonGroup>),
}

/// A group that is read from Kafka.
pub(super) struct KafkaGroup {
    reader: ClusterReader,
    cluster: String,
    group: String,
    request: LagRequest,
    timeout: Duration,
}

/// A group that a daemon reads.
pub(super) struct DaemonGroup {
    daemon: DaemonArgs,
    kube: KubeArgs,
    query: Vec<(&'static str, String)>,
    topics: NameFilter,
    cluster: String,
    timeout: Duration,
}

impl GroupSource {
    /// The source that the arguments select.
    ///
    /// # Errors
    /// Not exactly one Kafka cluster, or options that contradict each other.
    pub(super) fn new(args: &RecordArgs) -> anyhow::Result<Self> {
        if args.group.contains('*') {
            return Err(wrong_usage(format!(
                "--group {}: a trace has one group; name it without a pattern",
                args.group
            )));
        }
        if args.daemon.is_given() {
            if args.kafka.has_properties() {
                return Err(wrong_usage(
                    "-X has no effect with --daemon, which uses the daemon's connections; remove it, or read Kafka directly with --bootstrap",
                ));
            }
            if args.kafka.cluster.len() > 1 {
                return Err(wrong_usage(
                    "--cluster: a trace covers one group of one Kafka cluster; give --cluster once",
                ));
            }
            let cluster = args.kafka.cluster.first().cloned();
            let mut query = vec![("group", args.group.clone())];
            query.extend(cluster.clone().map(|name| ("cluster", name)));
            // A daemon accepts names only. With a pattern, request all topics and filter them here.
            if args.topic.iter().all(|topic| !topic.contains('*')) {
                query.extend(args.topic.iter().map(|topic| ("topic", topic.clone())));
            }
            return Ok(Self::Daemon(Box::new(DaemonGroup {
                daemon: args.daemon.clone(),
                kube: args.kube.clone(),
                query,
                topics: NameFilter::new(&args.topic),
                cluster: cluster.unwrap_or_default(),
                timeout: args.timeout,
            })));
        }
        let clusters = args.kafka.clusters()?;
        let [cluster] = clusters.as_slice() else {
            return Err(wrong_usage(format!(
                "--config has several Kafka clusters, and a trace covers one; add --cluster with one of: {}",
                cluster_names(&clusters)
            )));
        };
        Ok(Self::Kafka(Box::new(KafkaGroup {
            reader: ClusterReader::new(ClientSettings::from(cluster))
                .map_err(|error| args.kafka.setting_error(error))?,
            cluster: cluster.name.to_string(),
            group: args.group.clone(),
            request: LagRequest {
                groups: NameFilter::new(std::slice::from_ref(&args.group)),
                topics: NameFilter::new(&args.topic),
            },
            timeout: args.timeout,
        })))
    }

    /// Name of the Kafka cluster; known after the first reading.
    pub(super) fn cluster(&self) -> &str {
        match self {
            Self::Kafka(kafka) => &kafka.cluster,
            Self::Daemon(daemon) => &daemon.cluster,
        }
    }

    /// Reads the group.
    ///
    /// # Errors
    /// The group cannot be read, has no known offsets, or has too many partitions.
    pub(super) async fn read(&mut self) -> anyhow::Result<SourceSample> {
        let mut reading = match self {
            Self::Kafka(kafka) => kafka.read().await?,
            Self::Daemon(daemon) => daemon.read().await?,
        };
        if reading.sample.members.is_none() {
            let unknown = "the members of the group are unknown";
            reading.missing.push(unknown.to_owned());
        }
        let partitions: usize = reading.sample.topics.values().map(Vec::len).sum();
        ensure!(
            partitions <= MAX_TRACE_PARTITIONS,
            "the group has {partitions} partitions, and a trace at most {MAX_TRACE_PARTITIONS}; choose topics with --topic"
        );
        Ok(reading)
    }
}

impl KafkaGroup {
    async fn read(&mut self) -> anyhow::Result<SourceSample> {
        let reading = self.reader.read(&self.request, self.timeout).await?;
        sample_of_reading(&self.group, &self.request, &reading)
    }
}

/// Makes a sample from a reading of Kafka.
fn sample_of_reading(
    name: &str,
    request: &LagRequest,
    reading: &ClusterReading,
) -> anyhow::Result<SourceSample> {
    let unknown = || Vec::from_iter(reading.unknown.iter().cloned());
    let mut groups = reading.groups.iter();
    let Some((group, read)) = groups.next() else {
        bail!("{}", unknown().join("; "));
    };
    let topics = request.wanted_topics(group, read).into_iter();
    let topics: Vec<(String, &TopicLag)> = topics
        .filter_map(|(topic, read)| Some((topic.to_string(), read.latest.as_deref().ok()?)))
        .collect();
    let mut missing = unknown();
    missing.extend(topics.iter().filter_map(|(topic, lag)| {
        let fault = lag.first_fault()?;
        let cluster = &reading.cluster;
        Some(format!(
            "{cluster}: topic {topic}: partitions are unknown: {fault}"
        ))
    }));
    let sample = sample_of_group(read, topics.into_iter());
    if sample.topics.is_empty() {
        match reading.unknown.is_empty() {
            true => {
                bail!("group {name} has no committed offset; check its name and --topic")
            }
            false => bail!("{}", unknown().join("; ")),
        }
    }
    Ok(SourceSample {
        sample,
        milliseconds_ago: 0,
        is_delayed: false,
        missing,
    })
}

fn sample_of_group<'a>(
    read: &GroupSnapshot,
    topics: impl Iterator<Item = (String, &'a TopicLag)>,
) -> TraceSample {
    let description = read.description.as_deref().filter(|_| read.fault.is_none());
    let members = description.map(GroupDescription::member_count);
    TraceSample {
        at: 0,
        members: members.and_then(|members| u32::try_from(members).ok()),
        stable: description.map(|description| description.state != GroupState::Rebalancing),
        topics: topics.map(|(topic, lag)| (topic, positions(lag))).collect(),
    }
}

fn positions(lag: &TopicLag) -> Vec<TracePosition> {
    let end = |partition: usize| -> Option<Offset> { lag.offsets.ends.get(partition)?.ok() };
    let committed = |partition: usize| -> Option<Offset> { lag.committed.get(partition)?.ok()? };
    (0..lag.lags.len())
        .map(|partition| {
            (
                end(partition).map(|it| it.0),
                committed(partition).map(|it| it.0),
            )
        })
        .collect()
}

impl DaemonGroup {
    async fn read(&mut self) -> anyhow::Result<SourceSample> {
        let explanation =
            fetch_explanation(&self.daemon, &self.kube, &self.query, self.timeout).await?;
        let (cluster, read) = sample_of_explanation(&explanation, &self.topics)?;
        self.cluster = cluster;
        Ok(read)
    }
}

/// Makes a sample from what a daemon has read. Also returns the name of the Kafka cluster.
fn sample_of_explanation(
    explanation: &Explanation,
    topics: &NameFilter,
) -> anyhow::Result<(String, SourceSample)> {
    let mut groups = explanation.metrics.iter().flat_map(|metric| &metric.groups);
    let group = groups
        .next()
        .context("the daemon knows nothing of the group; check its name")?;
    let topics: Vec<&TopicPart> = group
        .topics
        .iter()
        .filter(|topic| topics.matches(topic.topic.as_str()))
        .collect();
    if let Some(topic) = topics.iter().find(|topic| topic.partitions_left_out > 0) {
        bail!(
            "topic {} has too many partitions for the response of a daemon; use --bootstrap or --config",
            topic.topic
        );
    }
    // For a topic whose latest reading is incomplete, the daemon shows an earlier reading, so leave it out.
    let complete = || topics.iter().filter(|topic| topic.incomplete.is_none());
    let mut known = BTreeMap::new();
    for topic in complete() {
        let size = topic
            .partitions
            .iter()
            .map(|part| part.partition.saturating_add(1))
            .max()
            .unwrap_or(0);
        ensure!(
            size <= MAX_TRACE_PARTITIONS,
            "topic {} has {size} partitions",
            topic.topic
        );
        let mut positions = vec![(None, None); size];
        for part in &topic.partitions {
            if let Some(position) = positions.get_mut(part.partition) {
                *position = (part.log_end_offset, part.committed_offset);
            }
        }
        if size > 0 {
            known.insert(topic.topic.to_string(), positions);
        }
    }
    if known.is_empty() {
        let of_topic = topics.iter().find_map(|topic| topic.incomplete.clone());
        let reason = group.unknown.clone().or(of_topic);
        bail!(
            "the daemon knows no offsets of group {}: {}",
            group.group,
            reason
                .as_deref()
                .unwrap_or("it has no committed offset on these topics; check the names")
        );
    }
    let missing = topics.iter().filter_map(|topic| {
        let reason = topic.incomplete.as_deref()?;
        Some(format!("topic {}: {reason}", topic.topic))
    });
    let seconds_ago = complete().filter_map(|topic| topic.read_seconds_ago).max();
    Ok((
        group.cluster.to_string(),
        SourceSample {
            sample: TraceSample {
                at: 0,
                members: group
                    .members
                    .and_then(|members| u32::try_from(members).ok()),
                // The daemon does not report the state of the group.
                stable: None,
                topics: known,
            },
            milliseconds_ago: seconds_ago.unwrap_or(0).saturating_mul(1000),
            is_delayed: true,
            missing: missing.collect(),
        },
    ))
}

#[cfg(test)]
mod tests;
