//! Evaluation of one consumer group for one query: the topics that count, their lag, and the replica
//! ceiling. This is the only place that adds up readings to lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::series_match::{covers, select_topics, unknown_reason};
use super::{Ceiling, topic_selection};
use crate::model::hpa::selector::Selector;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, TopicLag};
use crate::model::targets::WatchKey;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::{ClusterName, Lag, Moment, TopicName};

/// Latest snapshot of every Kafka cluster.
pub type Clusters = BTreeMap<ClusterName, Arc<ClusterSnapshot>>;

/// Evaluation of one consumer group for one query.
#[derive(Clone, Debug)]
pub struct GroupEvaluation {
    /// The group and its settings.
    pub query: Arc<GroupQuery>,
    /// Snapshot of the group; `None` until the topics that the query asks for have been read.
    pub group: Option<Arc<GroupSnapshot>>,
    /// The topics that count, sorted by name.
    pub topics: Vec<TopicReading>,
    /// Sum over the topics, or why it is unknown.
    pub measure: Result<GroupMeasure, Unmeasured>,
}

/// A topic that counts.
#[derive(Clone, Debug)]
pub struct TopicReading {
    pub topic: TopicName,
    /// The reading that is served until it is stale; `None` until one is complete.
    pub reading: Option<Arc<TopicLag>>,
}

/// Sum over a group's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMeasure {
    /// Lag for scaling.
    pub lag: Lag,
    /// Replica ceiling.
    pub ceiling: Ceiling,
    /// Number of partitions that count.
    pub partitions: u32,
    /// Whether the group never ran on any of the topics.
    pub never_ran: bool,
}

/// Why a group has no measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// The topics that count are unknown, or none counts.
    NoTopics(NoValueReason),
    /// A topic that counts was never read completely.
    NoReading(NoValueReason),
}

impl Unmeasured {
    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &NoValueReason {
        match self {
            Self::NoTopics(reason) | Self::NoReading(reason) => reason,
        }
    }
}

impl TopicReading {
    /// Whether there is no reading, or it is too old to be served.
    #[must_use]
    pub fn is_unusable(&self, now: &Moment, max_staleness: Duration) -> bool {
        let mut reading = self.reading.iter();
        reading.all(|reading| now.since(&reading.read) > max_staleness)
    }
}

impl GroupEvaluation {
    /// Evaluates a group for a selector.
    #[must_use]
    pub fn new(selector: &Selector, query: Arc<GroupQuery>, clusters: &Clusters) -> Self {
        let found = find_group(clusters, &query.key);
        Self::from_reading(selector, query, found)
    }

    /// Evaluates the reading of a group for a selector; `None` until the topics of the query have been read.
    pub(super) fn from_reading(
        selector: &Selector,
        query: Arc<GroupQuery>,
        found: Option<FoundGroup<'_>>,
    ) -> Self {
        let Some((cluster, group)) = found else {
            let unread = vec![(*query.key).clone()];
            return Self {
                query,
                group: None,
                topics: Vec::new(),
                measure: Err(Unmeasured::NoTopics(NoValueReason::NotYetRead(unread))),
            };
        };
        let filter = query.settings.partitions.as_ref();
        let (selected, checked) = select_topics(selector, &query, cluster, group);
        let topics: Vec<_> = selected
            .topics
            .iter()
            .map(|(topic, read)| TopicReading {
                topic: (*topic).clone(),
                reading: topic_selection::usable(read, filter).cloned(),
            })
            .collect();
        let measure = checked
            .map_err(Unmeasured::NoTopics)
            .and_then(|()| measure(&query, cluster, group, &topics));
        Self {
            group: Some(Arc::clone(group)),
            topics,
            measure,
            query,
        }
    }

    /// The topics whose readings decide the result, in order. A stale one makes the lag unknown before any
    /// later one does.
    pub(super) fn decisive_topics(&self) -> impl Iterator<Item = &TopicReading> {
        let count = match &self.measure {
            Ok(_) => self.topics.len(),
            Err(Unmeasured::NoReading(_)) => {
                let mut topics = self.topics.iter();
                topics.position(|t| t.reading.is_none()).unwrap_or(0)
            }
            Err(Unmeasured::NoTopics(_)) => 0,
        };
        self.topics.iter().take(count)
    }

    /// The measure, unless a reading is missing or stale.
    #[must_use]
    pub fn fresh_measure(&self, now: &Moment, max_staleness: Duration) -> Option<&GroupMeasure> {
        let measure = self.measure.as_ref().ok()?;
        let mut topics = self.topics.iter();
        topics
            .all(|topic| !topic.is_unusable(now, max_staleness))
            .then_some(measure)
    }

    /// Reason why the lag is unknown once the reading of a topic is stale.
    pub(super) fn stale_reason(&self, topic: &TopicName, clusters: &Clusters) -> NoValueReason {
        let key = &self.query.key;
        let cluster = clusters.get(&key.cluster);
        let read = self.group.as_ref().and_then(|g| g.topics.get(topic));
        match cluster.zip(read) {
            Some((cluster, read)) => unknown_reason(key, cluster, topic, read),
            None => NoValueReason::NotYetRead(vec![(**key).clone()]),
        }
    }

    /// Whether an evaluation of this reading would have the same result, which is so unless the group was
    /// read again: group snapshots are immutable. The caller must also compare the connection fault of the
    /// cluster, which refusals quote.
    pub(super) fn is_of(&self, found: Option<FoundGroup<'_>>) -> bool {
        match (&self.group, found) {
            (Some(before), Some((_, now))) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        }
    }

    /// Replica ceiling by the last complete readings of any age, since topics never lose partitions.
    pub(super) fn last_ceiling(&self) -> Option<Ceiling> {
        let group = self.group.as_ref()?;
        let filter = self.query.settings.partitions.as_ref();
        let works: Option<Vec<_>> = self
            .topics
            .iter()
            .map(|selected| {
                let complete = group.topics.get(&selected.topic)?.complete.as_ref()?;
                Some((&selected.topic, topic_selection::work(complete, filter)))
            })
            .collect();
        let works = works.filter(|works| works.iter().any(|(_, work)| work.partitions > 0))?;
        Some(Ceiling::new(&self.query, group, &works))
    }
}

/// A group and its cluster.
pub(super) type FoundGroup<'a> = (&'a ClusterSnapshot, &'a Arc<GroupSnapshot>);

/// Finds a group and its cluster; `None` until the topics of the key have been read.
pub(super) fn find_group<'a>(clusters: &'a Clusters, key: &WatchKey) -> Option<FoundGroup<'a>> {
    let cluster = clusters.get(&key.cluster)?;
    let group = cluster.groups.get(&key.group)?;
    covers(group, key).then_some((&**cluster, group))
}

/// Whether a group was read, with the topics of the key.
#[must_use]
pub fn is_read(clusters: &Clusters, key: &WatchKey) -> bool {
    find_group(clusters, key).is_some()
}

/// Adds up the topics of a group. A topic without a complete reading makes the sum unknown.
fn measure(
    query: &GroupQuery,
    cluster: &ClusterSnapshot,
    group: &GroupSnapshot,
    topics: &[TopicReading],
) -> Result<GroupMeasure, Unmeasured> {
    let filter = query.settings.partitions.as_ref();
    let mut lag = Lag::default();
    let mut works = Vec::with_capacity(topics.len());
    let mut never_ran = true;
    for TopicReading { topic, reading } in topics {
        let total = reading
            .as_deref()
            .and_then(|reading| Some((reading, topic_selection::total(reading, filter).ok()?)));
        let Some((reading, total)) = total else {
            let read = group.topics.get(topic);
            let reason = read.map(|read| unknown_reason(&query.key, cluster, topic, read));
            let reason =
                reason.unwrap_or_else(|| NoValueReason::NotYetRead(vec![(*query.key).clone()]));
            return Err(Unmeasured::NoReading(reason));
        };
        lag = lag.plus(total);
        works.push((topic, topic_selection::work(reading, filter)));
        never_ran &= topic_selection::never_ran(reading, filter);
    }
    let partitions = works
        .iter()
        .fold(0u32, |sum, (_, work)| sum.saturating_add(work.partitions));
    Ok(GroupMeasure {
        lag,
        ceiling: Ceiling::new(query, group, &works),
        partitions,
        never_ran,
    })
}
