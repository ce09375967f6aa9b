//! Caches the cluster's topics and their leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::metadata::MetadataTopic;

use super::client::{OffsetConsumer, code_of};
use super::faults::fault_of;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// How long metadata is used before it is fetched again.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The leader of each partition, if any.
pub(super) type Leaders = Vec<Option<i32>>;

/// The topics of a cluster at one time.
#[derive(Debug)]
pub(super) struct TopicLeaders {
    fetched: Instant,
    all: BTreeMap<TopicName, Result<Leaders, Fault>>,
}

impl TopicLeaders {
    pub(super) fn leaders(&self, topic: &str) -> Result<&Leaders, Fault> {
        match self.all.get(topic) {
            Some(Ok(leaders)) => Ok(leaders),
            Some(Err(fault)) => Err(*fault),
            None => Err(Fault::TopicMissing),
        }
    }

    /// Topics with this many partitions.
    #[cfg(test)]
    pub(super) fn fixed(topics: &[(&str, usize)]) -> Self {
        let topics = topics.iter();
        let leaders = |partitions: usize| Ok(vec![Some(1); partitions]);
        Self {
            fetched: Instant::now(),
            all: topics
                .map(|(name, count)| (TopicName::from(*name), leaders(*count)))
                .collect(),
        }
    }

    /// Names of readable topics, without Kafka's internal ones.
    pub(super) fn names(&self) -> impl Iterator<Item = &TopicName> {
        let readable = self
            .all
            .iter()
            .filter(|(name, leaders)| leaders.is_ok() && !name.as_str().starts_with("__"));
        readable.map(|(name, _)| name)
    }
}

/// Caches [`TopicLeaders`].
#[derive(Debug, Default)]
pub(super) struct TopicCache(Mutex<Option<Arc<TopicLeaders>>>);

impl TopicCache {
    /// Returns the topics, fetched again if the cached ones are old or lack one of `wanted`, and
    /// whether they were fetched. Blocks until the deadline at most.
    pub(super) fn current(
        &self,
        client: &OffsetConsumer,
        wanted: &BTreeSet<&TopicName>,
        deadline: Instant,
    ) -> Result<(Arc<TopicLeaders>, bool), Fault> {
        let kept = self.lock().clone();
        if let Some(topics) = kept
            && topics.fetched.elapsed() < MAX_AGE
            && wanted.iter().all(|topic| topics.all.contains_key(*topic))
        {
            return Ok((topics, false));
        }
        let topics = Arc::new(fetch(client, wanted, deadline)?);
        *self.lock() = Some(Arc::clone(&topics));
        Ok((topics, true))
    }

    /// Makes the next sweep fetch metadata again, because a leader moved.
    pub(super) fn invalidate(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<TopicLeaders>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fetch(
    client: &OffsetConsumer,
    wanted: &BTreeSet<&TopicName>,
    deadline: Instant,
) -> Result<TopicLeaders, Fault> {
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
        if !is_valid_name(topic.as_str()) {
            // librdkafka returns no topic handle for an invalid name, and `rdkafka` panics on that.
            all.insert((*topic).clone(), Err(Fault::TopicMissing));
        } else if !all.contains_key(*topic) {
            // The list of all topics omits those that the login may not see; only a request by name
            // distinguishes a forbidden topic from a missing one. With allow.auto.create.topics off
            // it creates nothing.
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
    Ok(TopicLeaders { fetched, all })
}

/// Whether this is a valid topic name by Kafka's rules.
fn is_valid_name(name: &str) -> bool {
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
            // An invalid topic name.
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
