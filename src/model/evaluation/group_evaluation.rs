//! Evaluation of one consumer group for one query: the topics that count, their lag, and the replica
//! ceiling. This is the only place that adds up readings to lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Ceiling;
use super::series_match::{covers, select_topics, unknown_reason};
use super::topic_selection::{self, Positions};
use crate::model::hpa::selector::Selector;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, TopicLag};
use crate::model::targets::WatchKey;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::{ClusterName, Lag, Moment, TopicName};
use crate::model::units::partition_filter::PartitionFilter;

/// Latest snapshot of every Kafka cluster.
pub type Clusters = BTreeMap<ClusterName, Arc<ClusterSnapshot>>;

/// Evaluation of one consumer group for one query.
#[derive(Clone, Debug)]
pub struct GroupEvaluation {
    /// The group and its settings.
    pub query: Arc<GroupQuery>,
    /// Snapshot of the group; `None` until the topics of the query have been read.
    pub group: Option<Arc<GroupSnapshot>>,
    selected: Positions,
    /// Sum over the topics, or why it is unknown.
    pub measure: Result<GroupMeasure, Unmeasured>,
}

/// A topic that counts.
#[derive(Clone, Copy, Debug)]
pub struct TopicReading<'a> {
    pub topic: &'a TopicName,
    /// All that was read of it.
    pub read: &'a GroupTopic,
    /// The reading that is served until it is stale; `None` until one is complete.
    pub reading: Option<&'a TopicLag>,
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
    #[must_use]
    pub fn reason(&self) -> &NoValueReason {
        match self {
            Self::NoTopics(reason) | Self::NoReading(reason) => reason,
        }
    }
}

impl TopicReading<'_> {
    /// Whether there is no reading, or it is too old to be served.
    #[must_use]
    pub fn is_unusable(&self, now: &Moment, max_staleness: Duration) -> bool {
        self.reading
            .is_none_or(|reading| now.since(&reading.read) > max_staleness)
    }
}

impl GroupEvaluation {
    /// Evaluates a group for a selector.
    #[must_use]
    pub fn new(selector: &Selector, query: Arc<GroupQuery>, clusters: &Clusters) -> Self {
        let found = find_group(clusters, &query.key);
        Self::from_reading(selector, query, found, None)
    }

    /// Evaluates the reading of a group for a selector; `None` until the topics of the query have been read. `before`
    /// is the evaluation of an earlier reading for the same query.
    pub(super) fn from_reading(
        selector: &Selector,
        query: Arc<GroupQuery>,
        found: Option<FoundGroup<'_>>,
        before: Option<&Self>,
    ) -> Self {
        let Some((cluster, group)) = found else {
            let unread = vec![(*query.key).clone()];
            return Self {
                query,
                group: None,
                selected: Positions::default(),
                measure: Err(Unmeasured::NoTopics(NoValueReason::NotYetRead(unread))),
            };
        };
        let (selected, checked) = match before.and_then(|before| before.lasting_selection(group)) {
            Some(selected) => (selected, Ok(())),
            None => {
                let (selected, checked) = select_topics(selector, &query, cluster, group);
                (selected.positions(group), checked)
            }
        };
        let measure = checked
            .map_err(Unmeasured::NoTopics)
            .and_then(|()| measure(&query, cluster, group, &selected));
        Self {
            group: Some(Arc::clone(group)),
            selected,
            measure,
            query,
        }
    }

    /// The topics that count in the next reading of the group, if they are sure to be the same: the selector chooses
    /// among named topics by their names alone.
    fn lasting_selection(&self, group: &GroupSnapshot) -> Option<Positions> {
        let are_named = !self.query.key.topics.is_empty();
        let is_known = !matches!(self.measure, Err(Unmeasured::NoTopics(_)));
        let before = self.group.as_ref().filter(|_| are_named && is_known)?;
        let is_same = before.topics.keys().eq(group.topics.keys());
        is_same.then(|| self.selected.clone())
    }

    /// The topics that count, sorted by name.
    pub fn topics(&self) -> impl Iterator<Item = TopicReading<'_>> {
        let group = self.group.as_deref();
        group.into_iter().flat_map(|group| {
            let filter = self.query.settings.partitions.as_ref();
            readings(group, &self.selected, filter)
        })
    }

    /// The topics whose readings decide the result, in order. A stale one makes the lag unknown before any
    /// later one does.
    pub(super) fn decisive_topics(&self) -> impl Iterator<Item = TopicReading<'_>> {
        let count = match &self.measure {
            Ok(_) => self.selected.len(),
            Err(Unmeasured::NoReading(_)) => {
                let mut topics = self.topics();
                topics.position(|t| t.reading.is_none()).unwrap_or(0)
            }
            Err(Unmeasured::NoTopics(_)) => 0,
        };
        self.topics().take(count)
    }

    /// The measure, unless a reading is missing or stale.
    #[must_use]
    pub fn fresh_measure(&self, now: &Moment, max_staleness: Duration) -> Option<&GroupMeasure> {
        let measure = self.measure.as_ref().ok()?;
        let mut topics = self.topics();
        topics
            .all(|topic| !topic.is_unusable(now, max_staleness))
            .then_some(measure)
    }

    /// Reason why the lag is unknown once the reading of a topic is stale.
    pub(super) fn stale_reason(
        &self,
        topic: TopicReading<'_>,
        clusters: &Clusters,
    ) -> NoValueReason {
        let key = &self.query.key;
        match clusters.get(&key.cluster) {
            Some(cluster) => unknown_reason(key, cluster, topic.topic, topic.read),
            None => NoValueReason::NotYetRead(vec![(**key).clone()]),
        }
    }

    /// Whether this is the evaluation of `found`. Then another evaluation would have the same result, because group
    /// snapshots are immutable. The caller must also compare the connection fault of the cluster, which is part of
    /// the reason for an unknown lag.
    pub(super) fn is_evaluation_of(&self, found: Option<FoundGroup<'_>>) -> bool {
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
            .topics()
            .map(|selected| {
                let complete = selected.read.complete.as_ref()?;
                let summary = topic_selection::summary(complete, filter);
                Some((selected.topic, summary.work))
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

/// The readings of the topics at these positions among those of a group.
fn readings<'a>(
    group: &'a GroupSnapshot,
    selected: &'a Positions,
    filter: Option<&'a PartitionFilter>,
) -> impl Iterator<Item = TopicReading<'a>> {
    let topics = selected.iter();
    let topics = topics.filter_map(|index| group.topics.get_index(index));
    topics.map(move |(topic, read)| TopicReading {
        topic,
        read,
        reading: topic_selection::usable(read, filter),
    })
}

/// Adds up topics of a group. A topic without a complete reading makes the sum unknown.
fn measure(
    query: &GroupQuery,
    cluster: &ClusterSnapshot,
    group: &GroupSnapshot,
    selected: &Positions,
) -> Result<GroupMeasure, Unmeasured> {
    let filter = query.settings.partitions.as_ref();
    let mut lag = Lag::default();
    let mut works: SmallVec<[_; 4]> = SmallVec::new();
    let mut never_ran = true;
    for TopicReading {
        topic,
        read,
        reading,
    } in readings(group, selected, filter)
    {
        let summary = reading.map(|reading| topic_selection::summary(reading, filter));
        let Some((summary, total)) = summary.and_then(|s| Some((s, s.total.ok()?))) else {
            let reason = unknown_reason(&query.key, cluster, topic, read);
            return Err(Unmeasured::NoReading(reason));
        };
        lag = lag.plus(total);
        works.push((topic, summary.work));
        never_ran &= summary.never_ran;
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
