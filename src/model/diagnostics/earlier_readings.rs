//! Offsets and incidents of all groups at an earlier time, for comparison with later readings. Keeping whole snapshots
//! instead would take three times the memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::incidents::{IncidentKind, KnownIncidents};
use crate::model::evaluation::Clusters;
use crate::model::kafka::observation::TopicOffsets;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::lag::throughput::OffsetReading;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment, TopicName};

/// Offsets and incidents of the groups of every cluster.
#[derive(Clone, Debug, Default)]
pub struct EarlierReadings(BTreeMap<ClusterName, BTreeMap<GroupId, EarlierGroup>>);

/// Offsets and incidents of one group.
#[derive(Clone, Debug)]
pub struct EarlierGroup {
    is_stuck: bool,
    topics: TopicMap<EarlierTopic>,
}

#[derive(Clone, Debug)]
struct EarlierTopic {
    /// `None` if the last reading failed.
    offsets: Option<EarlierOffsets>,
    /// The partitions that had an incident. Usually none.
    incidents: Box<[(usize, IncidentKind)]>,
}

#[derive(Clone, Debug)]
struct EarlierOffsets {
    read: Moment,
    log: Arc<TopicOffsets>,
    committed: CommittedOffsets,
}

impl EarlierReadings {
    /// Copies the offsets and incidents of a snapshot.
    #[must_use]
    pub fn new(clusters: &Clusters) -> Self {
        let clusters = clusters.iter().map(|(name, cluster)| {
            let groups = cluster.groups.iter();
            let groups = groups.map(|(id, group)| (id.clone(), EarlierGroup::new(group)));
            (name.clone(), groups.collect())
        });
        Self(clusters.collect())
    }

    /// Whether anything of a cluster was read.
    #[must_use]
    pub fn has_cluster(&self, cluster: &ClusterName) -> bool {
        self.0.contains_key(cluster)
    }

    /// A group; `None` if it was not read.
    #[must_use]
    pub fn group(&self, cluster: &ClusterName, group: &GroupId) -> Option<&EarlierGroup> {
        self.0.get(cluster)?.get(group)
    }
}

impl EarlierGroup {
    fn new(group: &GroupSnapshot) -> Self {
        let topics = group.topics.iter();
        let topics = topics.map(|(name, topic)| (name.clone(), EarlierTopic::new(topic)));
        Self {
            is_stuck: group.stuck,
            topics: topics.collect(),
        }
    }

    /// The offsets of a topic; `None` if it is unknown or its last reading failed.
    #[must_use]
    pub fn offsets(&self, topic: &TopicName) -> Option<OffsetReading<'_>> {
        let offsets = self.topics.get(topic)?.offsets.as_ref()?;
        Some(OffsetReading {
            read: offsets.read,
            log: &offsets.log,
            committed: &offsets.committed,
        })
    }
}

impl EarlierTopic {
    fn new(topic: &GroupTopic) -> Self {
        let offsets = topic.latest.as_ref().ok().map(|lag| EarlierOffsets {
            read: lag.read,
            log: Arc::clone(&lag.offsets),
            committed: lag.committed.clone(),
        });
        // Few topics have an incident, so look for them only where a summary says that there is one.
        let readings = || topic.latest.iter().chain(&topic.complete);
        let has_trouble = |lag: &Arc<TopicLag>| lag.summary.has_trouble;
        let partitions = match readings().any(has_trouble) {
            true => readings().map(|lag| lag.lags.len()).max().unwrap_or(0),
            false => 0,
        };
        let kinds = (0..partitions).map(|partition| (partition, topic.incident_on(partition)));
        Self {
            offsets,
            incidents: kinds
                .filter_map(|(partition, kind)| Some((partition, kind?)))
                .collect(),
        }
    }
}

impl KnownIncidents for EarlierGroup {
    fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    fn incident_on(&self, topic: &TopicName, partition: usize) -> Option<IncidentKind> {
        let incidents = &self.topics.get(topic)?.incidents;
        let found = incidents.binary_search_by_key(&partition, |(partition, _)| *partition);
        incidents.get(found.ok()?).map(|(_, kind)| *kind)
    }
}
