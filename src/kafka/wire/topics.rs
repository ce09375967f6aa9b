//! Topic and broker metadata, from `Metadata`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::broker::Broker;
use super::connection::ResponseLimit;
use super::cursor::Malformed;
use super::responses::{self, MetadataLimits, TopicEntry};
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::{TopicId, TopicName};

/// A partition's leader and its leader epoch (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionLeader {
    pub(super) node: i32,
    pub(super) epoch: i32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    pub(super) id: Option<TopicId>,
    /// By partition; `None` for a partition without a leader.
    pub(super) leaders: Vec<Option<PartitionLeader>>,
}

/// When a topic was fetched, and the result.
type CachedTopic = (Instant, Result<Arc<TopicMetadata>, Fault>);

/// The cluster's brokers and the topics fetched so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterMetadata {
    pub(super) fetched: Option<Instant>,
    pub(super) nodes: BTreeMap<i32, Address>,
    all: HashMap<TopicName, CachedTopic>,
}

impl ClusterMetadata {
    pub(super) fn topic(&self, name: &TopicName) -> Result<&Arc<TopicMetadata>, Fault> {
        match self.all.get(name) {
            Some((_, Ok(topic))) => Ok(topic),
            Some((_, Err(fault))) => Err(*fault),
            None => Err(Fault::TopicMissing),
        }
    }

    /// Returns the cached instance of a name, so that columns share one allocation.
    pub(super) fn intern(&self, name: &str) -> TopicName {
        self.all
            .get_key_value(name)
            .map_or_else(|| TopicName::from(name), |(kept, _)| kept.clone())
    }

    pub(super) fn partitions(&self, name: &TopicName) -> usize {
        self.topic(name).map_or(0, |topic| topic.leaders.len())
    }

    /// When the topic was fetched.
    pub(super) fn fetched_at(&self, name: &TopicName) -> Option<Instant> {
        self.all.get(name).map(|(at, _)| *at)
    }

    /// Marks a requested topic as missing, unless the response contained it.
    pub(super) fn insert_missing(&mut self, name: &TopicName, sent_at: Instant) {
        if !self.all.contains_key(name) {
            self.all
                .insert(name.clone(), (sent_at, Err(Fault::TopicMissing)));
        }
    }

    /// The brokers without any topics.
    pub(super) fn without_topics(&self) -> ClusterMetadata {
        ClusterMetadata {
            nodes: self.nodes.clone(),
            ..ClusterMetadata::default()
        }
    }

    /// Adds the topics of `older` that this metadata lacks, up to an age.
    pub(super) fn merge_older(&mut self, older: &ClusterMetadata, age: Duration) {
        for (name, topic) in &older.all {
            let (fetched_at, _) = topic;
            if fetched_at.elapsed() < age && !self.all.contains_key(name) {
                self.all.insert(name.clone(), topic.clone());
            }
        }
    }
}

/// Maximum number of brokers that are kept of a response.
pub(super) const MAX_BROKERS: usize = 1000;

/// Maximum number of partitions of a topic. One that has more is not read.
const MAX_PARTITIONS: usize = 100_000;

/// Maximum size of a response without its topics: brokers with their hosts and racks.
const MAX_BROKERS_BYTES: usize = 1024 * 1024;

/// Maximum size of a topic in a response: 60 bytes for each partition with three replicas.
const MAX_TOPIC_BYTES: usize = 60 * MAX_PARTITIONS;

/// Requests these topics. Below version 4 a request by name may create the topic, so all topics are
/// requested there.
pub(super) async fn request(
    broker: &Broker,
    wanted: &BTreeSet<TopicName>,
    deadline: Instant,
) -> Result<(i16, Bytes), Fault> {
    let version = broker
        .versions(deadline)
        .await?
        .highest_common(ApiKey::Metadata)?;
    let named = |name: &TopicName| {
        let name = StrBytes::from_string(name.as_str().to_owned());
        MetadataRequestTopic::default().with_name(Some(name.into()))
    };
    let request = match version {
        0 => MetadataRequest::default().with_topics(Some(Vec::new())),
        1..=3 => MetadataRequest::default().with_topics(None),
        _ => MetadataRequest::default()
            .with_topics(Some(wanted.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false),
    };
    let limit = match version {
        // All topics of the cluster.
        0..=3 => usize::MAX,
        _ => wanted
            .len()
            .saturating_mul(MAX_TOPIC_BYTES)
            .saturating_add(MAX_BROKERS_BYTES),
    };
    let body = broker
        .send_bounded_request(
            ApiKey::Metadata,
            version,
            &request,
            ResponseLimit::Expected(limit),
            deadline,
        )
        .await?;
    Ok((version, body))
}

/// Whether a topic is not one of Kafka's internal topics.
pub(super) fn is_user_topic(name: &str) -> bool {
    !name.starts_with("__")
}

/// A decoded response.
pub(super) struct DecodedMetadata {
    /// Error code of the whole response.
    pub(super) code: i16,
    pub(super) metadata: ClusterMetadata,
    /// Number of brokers that were left out.
    pub(super) omitted_brokers: usize,
}

/// Decodes the response, and keeps only the topics that were requested.
pub(super) fn decode(
    body: &[u8],
    version: i16,
    wanted: &BTreeSet<TopicName>,
    sent_at: Instant,
) -> Result<DecodedMetadata, Malformed> {
    let limits = MetadataLimits {
        is_wanted: &|name| wanted.contains(name),
        topics: wanted.len(),
        brokers: MAX_BROKERS,
        partitions: MAX_PARTITIONS,
    };
    let found = responses::metadata(body, version, limits)?;
    let mut nodes = BTreeMap::new();
    for broker in &found.brokers {
        if let Some(address) = Address::advertised(broker.host, broker.port) {
            nodes.insert(broker.id, address);
        }
    }
    let all = found.topics.iter().filter_map(|entry| {
        let name = TopicName::from(entry.name?);
        Some((name, (sent_at, topic(entry).map(Arc::new))))
    });
    let metadata = ClusterMetadata {
        fetched: Some(sent_at),
        nodes,
        all: all.collect(),
    };
    Ok(DecodedMetadata {
        code: found.code,
        metadata,
        omitted_brokers: found.omitted_brokers,
    })
}

fn topic(entry: &TopicEntry<'_>) -> Result<TopicMetadata, Fault> {
    match entry.code {
        // A missing leader is a fault of its partition, not of the topic.
        codes::NONE | codes::LEADER_NOT_AVAILABLE => {}
        codes::UNKNOWN_TOPIC_OR_PARTITION => return Err(Fault::TopicMissing),
        code => return Err(codes::fault_of(i32::from(code))),
    }
    if entry.is_too_large {
        return Err(Fault::OverBudget);
    }
    if entry.partitions.is_empty() {
        return Err(Fault::TopicMissing);
    }
    let mut leaders = vec![None; entry.partitions.len()];
    for found in &entry.partitions {
        let slot = usize::try_from(found.partition)
            .ok()
            .and_then(|partition| leaders.get_mut(partition));
        if let Some(slot) = slot {
            let leader = PartitionLeader {
                node: found.leader,
                epoch: found.epoch,
            };
            *slot = (found.leader >= 0).then_some(leader);
        }
    }
    Ok(TopicMetadata {
        // Brokers without topic IDs send zeros.
        id: entry.id.filter(|id| *id != [0; 16]).map(TopicId),
        leaders,
    })
}
