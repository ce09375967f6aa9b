//! Incidents of all groups at an earlier time, for comparison with later readings. Keeping whole snapshots instead would
//! take much memory.

use std::collections::BTreeMap;

use super::incidents::{IncidentKind, KnownIncidents};
use crate::model::evaluation::Clusters;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic};
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// Incidents of the groups of every cluster. Groups without one are left out.
#[derive(Clone, Debug, Default)]
pub struct EarlierIncidents(BTreeMap<ClusterName, BTreeMap<GroupId, GroupIncidents>>);

/// Incidents of one group.
#[derive(Clone, Debug)]
pub struct GroupIncidents {
    is_stuck: bool,
    /// The partitions with an incident, of topics that have some.
    topics: TopicMap<PartitionIncidents>,
}

/// Partitions in ascending order, each with its incident.
type PartitionIncidents = Box<[(usize, IncidentKind)]>;

impl EarlierIncidents {
    /// Copies the incidents of a snapshot.
    #[must_use]
    pub fn new(clusters: &Clusters) -> Self {
        let clusters = clusters.iter().map(|(name, cluster)| {
            let groups = cluster.groups.iter();
            let groups =
                groups.filter_map(|(id, group)| Some((id.clone(), GroupIncidents::new(group)?)));
            (name.clone(), groups.collect())
        });
        Self(clusters.collect())
    }

    /// Whether anything of a cluster was read.
    #[must_use]
    pub fn has_cluster(&self, cluster: &ClusterName) -> bool {
        self.0.contains_key(cluster)
    }

    /// A group; `None` if it had no incident.
    #[must_use]
    pub fn group(&self, cluster: &ClusterName, group: &GroupId) -> Option<&GroupIncidents> {
        self.0.get(cluster)?.get(group)
    }
}

impl GroupIncidents {
    fn new(group: &GroupSnapshot) -> Option<Self> {
        let topics = group.topics.iter();
        let topics = topics.filter_map(|(name, topic)| Some((name.clone(), on_topic(topic)?)));
        let topics: TopicMap<_> = topics.collect();
        (group.stuck || !topics.is_empty()).then_some(Self {
            is_stuck: group.stuck,
            topics,
        })
    }
}

/// The incidents on a topic; `None` without any.
fn on_topic(topic: &GroupTopic) -> Option<PartitionIncidents> {
    // Few topics have an incident, so look for them only where a summary says that there may be one.
    let readings = || topic.latest.iter().chain(&topic.complete);
    if !readings().any(|lag| lag.summary.has_trouble) {
        return None;
    }
    let partitions = readings().map(|lag| lag.lags.len()).max().unwrap_or(0);
    let kinds = (0..partitions).map(|partition| (partition, topic.incident_on(partition)));
    let known: PartitionIncidents = kinds
        .filter_map(|(partition, kind)| Some((partition, kind?)))
        .collect();
    (!known.is_empty()).then_some(known)
}

impl KnownIncidents for GroupIncidents {
    fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    fn incident_on(&self, topic: &TopicName, partition: usize) -> Option<IncidentKind> {
        let incidents = self.topics.get(topic)?;
        let found = incidents.binary_search_by_key(&partition, |(partition, _)| *partition);
        incidents.get(found.ok()?).map(|(_, kind)| *kind)
    }
}
