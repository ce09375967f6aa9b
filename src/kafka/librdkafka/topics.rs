//! The cluster's topics and their leaders, kept for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::metadata::MetadataTopic;

use super::client::{LibrdkafkaClient, code_of};
use super::faults::fault_of;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// How long metadata is used without asking again.
const LASTS: Duration = Duration::from_secs(10);

/// A topic's partitions, each with the broker that leads it where one does.
pub(super) type Leaders = Vec<Option<i32>>;

/// The topics of a cluster as of one moment.
#[derive(Debug)]
pub(super) struct TopicReader {
    fetched: Instant,
    all: BTreeMap<TopicName, Result<Leaders, Fault>>,
}

impl TopicReader {
    pub(super) fn leaders(&self, topic: &str) -> Result<&Leaders, Fault> {
        match self.all.get(topic) {
            Some(Ok(leaders)) => Ok(leaders),
            Some(Err(fault)) => Err(*fault),
            None => Err(Fault::TopicMissing),
        }
    }

    /// Every topic that can be read, without Kafka's own.
    pub(super) fn names(&self) -> impl Iterator<Item = &TopicName> {
        let readable = self
            .all
            .iter()
            .filter(|(name, leaders)| leaders.is_ok() && !name.as_str().starts_with("__"));
        readable.map(|(name, _)| name)
    }
}

/// Keeps [`TopicReader`].
#[derive(Debug, Default)]
pub(super) struct TopicCache(Mutex<Option<Arc<TopicReader>>>);

impl TopicCache {
    /// The topics, asked anew when the kept ones are old or lack one of `wanted`, and whether they
    /// were. Blocks until the deadline at most.
    pub(super) fn current(
        &self,
        client: &LibrdkafkaClient,
        wanted: &BTreeSet<&TopicName>,
        deadline: Instant,
    ) -> Result<(Arc<TopicReader>, bool), Fault> {
        let kept = self.kept().clone();
        if let Some(topics) = kept
            && topics.fetched.elapsed() < LASTS
            && wanted.iter().all(|topic| topics.all.contains_key(*topic))
        {
            return Ok((topics, false));
        }
        let topics = Arc::new(fetch(client, wanted, deadline)?);
        *self.kept() = Some(Arc::clone(&topics));
        Ok((topics, true))
    }

    /// Has the next sweep ask anew: a leader has moved.
    pub(super) fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Arc<TopicReader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fetch(
    client: &LibrdkafkaClient,
    wanted: &BTreeSet<&TopicName>,
    deadline: Instant,
) -> Result<TopicReader, Fault> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let fetched = Instant::now();
    let found = client
        .fetch_metadata(None, left())
        .map_err(|error| fault_of(code_of(&error)))?;
    let mut all: BTreeMap<_, _> = found
        .topics()
        .iter()
        .map(|topic| (TopicName::from(topic.name()), leaders(topic)))
        .collect();
    for topic in wanted {
        if !may_exist(topic.as_str()) {
            // librdkafka makes no topic of such a name, on which the crate that wraps it panics.
            all.insert((*topic).clone(), Err(Fault::TopicMissing));
        } else if !all.contains_key(*topic) {
            // The list of all topics leaves out those that the login may not see; only asking by
            // name tells a forbidden topic from a missing one. With allow.auto.create.topics off,
            // that creates nothing.
            let named = client.fetch_metadata(Some(topic.as_str()), left());
            let result = match &named {
                Ok(metadata) => metadata
                    .topics()
                    .first()
                    .map_or(Err(Fault::TopicMissing), leaders),
                Err(error) => Err(fault_of(code_of(error))),
            };
            all.insert((*topic).clone(), result);
        }
    }
    Ok(TopicReader { fetched, all })
}

/// Whether a topic can have this name at all, by Kafka's own rule.
fn may_exist(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".."
}

fn leaders(topic: &MetadataTopic) -> Result<Leaders, Fault> {
    use rdkafka::types::RDKafkaRespErr as Code;
    match topic.error() {
        None | Some(Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => {}
        Some(
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            // A name that no topic can have.
            | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        ) => return Err(Fault::TopicMissing),
        Some(code) => return Err(fault_of(code as i32)),
    }
    let known = topic.partitions();
    if known.is_empty() {
        return Err(Fault::TopicMissing);
    }
    let mut leaders = vec![None; known.len()];
    for partition in known {
        let slot = usize::try_from(partition.id())
            .ok()
            .and_then(|id| leaders.get_mut(id));
        if let Some(slot) = slot {
            *slot = (partition.leader() >= 0).then(|| partition.leader());
        }
    }
    Ok(leaders)
}
