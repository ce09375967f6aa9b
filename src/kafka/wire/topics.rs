//! TopicCatalog and their leaders, from `Metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::broker::Broker;
use super::cluster::few;
use super::cursor::Malformed;
use super::responses::{self, TopicEntry};
use super::versions::ApiVersions;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::{TopicId, TopicName};

/// Who leads a partition, and since which election (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionLeader {
    pub(super) node: i32,
    pub(super) epoch: i32,
}

/// A topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) id: Option<TopicId>,
    /// By partition; `None` where nobody leads it.
    pub(super) leaders: Vec<Option<PartitionLeader>>,
}

/// What is known of a topic, and since when.
type CatalogState = (Instant, Result<Arc<Topic>, Fault>);

/// The cluster's brokers, and some of its topics.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicCatalog {
    pub(super) fetched: Option<Instant>,
    pub(super) nodes: BTreeMap<i32, Address>,
    all: BTreeMap<TopicName, CatalogState>,
}

impl TopicCatalog {
    pub(super) fn topic(&self, name: &TopicName) -> Result<&Arc<Topic>, Fault> {
        match self.all.get(name) {
            Some((_, Ok(topic))) => Ok(topic),
            Some((_, Err(fault))) => Err(*fault),
            None => Err(Fault::TopicMissing),
        }
    }

    /// The name as it is kept already, so that columns share it.
    pub(super) fn name(&self, name: &str) -> TopicName {
        self.all
            .get_key_value(name)
            .map_or_else(|| TopicName::from(name), |(kept, _)| kept.clone())
    }

    pub(super) fn partitions(&self, name: &TopicName) -> usize {
        self.topic(name).map_or(0, |topic| topic.leaders.len())
    }

    /// When the topic was asked about.
    pub(super) fn age(&self, name: &TopicName) -> Option<Instant> {
        self.all.get(name).map(|(at, _)| *at)
    }

    /// A topic that was asked for is missing, unless the answer names it.
    pub(super) fn missing(&mut self, name: &TopicName, asked: Instant) {
        if !self.all.contains_key(name) {
            self.all
                .insert(name.clone(), (asked, Err(Fault::TopicMissing)));
        }
    }

    /// Only the brokers of these.
    pub(super) fn without_topics(&self) -> TopicCatalog {
        TopicCatalog {
            nodes: self.nodes.clone(),
            ..TopicCatalog::default()
        }
    }

    /// Takes over what the older one knows and this one does not, up to an age.
    pub(super) fn keep_from(&mut self, older: &TopicCatalog, age: Duration) {
        for (name, known) in &older.all {
            if known.0.elapsed() < age && !self.all.contains_key(name) {
                self.all.insert(name.clone(), known.clone());
            }
        }
    }
}

/// Asks about these topics. Below version 4 a question for a name may create the topic, so there
/// all are asked for.
pub(super) async fn ask(
    broker: &Broker,
    wanted: &BTreeSet<TopicName>,
    deadline: Instant,
) -> Result<(i16, Bytes), Fault> {
    let version = broker.versions(deadline).await?.of(ApiVersions::Metadata)?;
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
    let body = broker
        .ask(ApiVersions::Metadata, version, &request, deadline)
        .await?;
    Ok((version, body))
}

/// Reads the answer.
pub(super) fn read(body: &[u8], version: i16, asked: Instant) -> Result<TopicCatalog, Malformed> {
    let found = responses::metadata(body, version)?;
    let mut nodes = BTreeMap::new();
    for broker in &found.brokers {
        if let Some(address) = Address::advertised(broker.host, broker.port)
            && few(&nodes)
        {
            nodes.insert(broker.id, address);
        }
    }
    let all = found.topics.iter().filter_map(|entry| {
        let name = TopicName::from(entry.name?);
        Some((name, (asked, topic(entry).map(Arc::new))))
    });
    Ok(TopicCatalog {
        fetched: Some(asked),
        nodes,
        all: all.collect(),
    })
}

fn topic(entry: &TopicEntry<'_>) -> Result<Topic, Fault> {
    match entry.code {
        // A partition without a leader is the partition's trouble.
        codes::NONE | codes::LEADER_NOT_AVAILABLE => {}
        codes::UNKNOWN_TOPIC_OR_PARTITION => return Err(Fault::TopicMissing),
        code => return Err(codes::fault_of(i32::from(code))),
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
    Ok(Topic {
        // All zeros where the broker has none.
        id: entry.id.filter(|id| *id != [0; 16]).map(TopicId),
        leaders,
    })
}
