//! Incidents: problems with a group's lag that begin between two snapshots of a cluster.

use std::fmt;

use crate::model::kafka::fault::Fault;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, TopicLag};
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Partition, TopicName};

/// A problem with a group's lag that began with the latest reading. `Display` gives the subject and the problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LagIncident {
    pub cluster: ClusterName,
    pub group: GroupId,
    /// `None` where the whole group is affected.
    pub topic: Option<TopicName>,
    pub kind: IncidentKind,
    /// The first of the affected partitions.
    pub first_partition: Partition,
    /// How many partitions of the topic are affected.
    pub partitions: usize,
    /// Messages that retention deleted before the group read them, on all affected partitions.
    pub lost: Lag,
}

impl fmt::Display for LagIncident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, group, .. } = self;
        write!(f, "group {group:?} on Kafka cluster {cluster:?}")?;
        if let Some(topic) = &self.topic {
            write!(f, ", topic {topic:?}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// Kind of an incident. `Display` is a sentence without names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IncidentKind {
    OffsetsLost,
    TopicRecreated,
    CommitsVanished,
    /// Some partitions are stuck while the group progresses on others, or while their log grows.
    PartitionsStuck,
    /// Every partition with lag is stuck.
    GroupStuck,
}

impl IncidentKind {
    pub const ALL: [IncidentKind; 5] = [
        IncidentKind::OffsetsLost,
        IncidentKind::TopicRecreated,
        IncidentKind::CommitsVanished,
        IncidentKind::PartitionsStuck,
        IncidentKind::GroupStuck,
    ];

    /// The name in metric labels and log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            IncidentKind::OffsetsLost => "lost",
            IncidentKind::TopicRecreated => "replaced",
            IncidentKind::CommitsVanished => "forgotten",
            IncidentKind::PartitionsStuck => "stuck",
            IncidentKind::GroupStuck => "group_stuck",
        }
    }

    /// The reason of a Kubernetes event, in camel case.
    #[must_use]
    pub fn event_reason(self) -> &'static str {
        match self {
            IncidentKind::OffsetsLost => "OffsetsLost",
            IncidentKind::TopicRecreated => "TopicRecreated",
            IncidentKind::CommitsVanished => "CommitsVanished",
            IncidentKind::PartitionsStuck => "PartitionsStuck",
            IncidentKind::GroupStuck => "GroupStuck",
        }
    }

    /// Whether it is published as an event on the HPAs that scale on the group. A problem of single partitions
    /// is only logged.
    #[must_use]
    pub fn concerns_hpas(self) -> bool {
        self != IncidentKind::PartitionsStuck
    }

    fn on_partition(reading: &TopicLag, partition: usize) -> Option<Self> {
        match reading.lags.get(partition)? {
            Ok(PartitionLag::Lost(_)) => Some(IncidentKind::OffsetsLost),
            Ok(PartitionLag::Stuck { .. }) => Some(IncidentKind::PartitionsStuck),
            Err(Fault::LogReplaced | Fault::CommitBeyondEnd) => Some(IncidentKind::TopicRecreated),
            Ok(_) if reading.is_forgotten_on(partition) => Some(IncidentKind::CommitsVanished),
            _ => None,
        }
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IncidentKind::OffsetsLost => {
                "retention deleted messages before the group read them; speed up the consumers or keep messages longer"
            }
            IncidentKind::TopicRecreated => {
                "the topic was recreated or truncated, and lag is unknown until the group commits again"
            }
            IncidentKind::CommitsVanished => {
                "the committed offsets were deleted or expired, and lag is measured from the last known ones"
            }
            IncidentKind::PartitionsStuck => {
                "the group makes no progress on these partitions, while it does on others or their log grows; look for a message that fails again and again"
            }
            IncidentKind::GroupStuck => {
                "the group makes no progress on any partition with lag; look at the consumers' logs"
            }
        })
    }
}

/// Incidents of a group at an earlier time.
pub trait KnownIncidents {
    /// Whether the whole group was stuck.
    fn is_stuck(&self) -> bool;

    /// The incident of a partition.
    fn incident_on(&self, topic: &TopicName, partition: usize) -> Option<IncidentKind>;
}

impl KnownIncidents for GroupSnapshot {
    fn is_stuck(&self) -> bool {
        self.stuck
    }

    fn incident_on(&self, topic: &TopicName, partition: usize) -> Option<IncidentKind> {
        self.topics.get(topic)?.incident_on(partition)
    }
}

impl GroupTopic {
    /// The incident of a partition: by the latest reading if that knows the partition, otherwise by the last complete
    /// one.
    pub(super) fn incident_on(&self, partition: usize) -> Option<IncidentKind> {
        let incident_in = |reading: &TopicLag| IncidentKind::on_partition(reading, partition);
        let latest = self.latest.as_deref().ok();
        let kind = latest.and_then(incident_in);
        let is_known = |reading: &TopicLag| reading.lags.get(partition).is_some_and(Result::is_ok);
        if kind.is_some() || latest.is_some_and(is_known) {
            return kind;
        }
        incident_in(self.complete.as_deref()?)
    }
}

/// Finds the incidents that began between two snapshots of a cluster.
#[must_use]
pub fn detect_incidents(
    cluster: &ClusterName,
    before: &ClusterSnapshot,
    after: &ClusterSnapshot,
) -> Vec<LagIncident> {
    let mut incidents = Vec::new();
    ClusterSnapshot::diff_groups(before, after, |id, known, group| {
        if let Some(group) = group {
            let known = known.map(|known| &**known);
            detect_in_group((cluster, id), known, group, &mut incidents);
        }
    });
    incidents
}

/// Adds the incidents of a group that began since something was `known` of it.
pub(super) fn detect_in_group(
    id: (&ClusterName, &GroupId),
    known: Option<&impl KnownIncidents>,
    after: &GroupSnapshot,
    incidents: &mut Vec<LagIncident>,
) {
    for (topic, read) in after.counted_topics() {
        let Ok(lag) = &read.latest else {
            continue;
        };
        if !lag.summary.has_trouble {
            continue;
        }
        let known = |partition| known.and_then(|known| known.incident_on(topic, partition));
        detect_in_topic(id, topic, known, lag, incidents);
    }
    if after.stuck && known.is_none_or(|known| !known.is_stuck()) {
        incidents.push(LagIncident {
            cluster: id.0.clone(),
            group: id.1.clone(),
            topic: None,
            kind: IncidentKind::GroupStuck,
            first_partition: 0,
            partitions: 0,
            lost: Lag(0),
        });
    }
}

/// Adds one incident per kind, however many partitions of the topic it began on.
fn detect_in_topic(
    (cluster, group): (&ClusterName, &GroupId),
    topic: &TopicName,
    known: impl Fn(usize) -> Option<IncidentKind>,
    after: &TopicLag,
    incidents: &mut Vec<LagIncident>,
) {
    let first_of_topic = incidents.len();
    for index in 0..after.lags.len() {
        let Some(kind) = IncidentKind::on_partition(after, index) else {
            continue;
        };
        if known(index) == Some(kind) {
            continue;
        }
        let lost = after.lost(index).unwrap_or_default();
        let of_topic = incidents.get_mut(first_of_topic..).unwrap_or_default();
        if let Some(incident) = of_topic.iter_mut().find(|i| i.kind == kind) {
            incident.partitions = incident.partitions.saturating_add(1);
            incident.lost = incident.lost.plus(lost);
            continue;
        }
        incidents.push(LagIncident {
            cluster: cluster.clone(),
            group: group.clone(),
            topic: Some(topic.clone()),
            kind,
            first_partition: Partition::try_from(index).unwrap_or(Partition::MAX),
            partitions: 1,
            lost,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures;
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    #[test]
    fn detects_each_occurrence_of_an_incident_once() {
        let mut history = ClusterHistory::default();
        let mut before = Arc::default();
        let mut detect = |seconds, rows: &[fixtures::PartitionReading]| {
            let read = fixtures::read(Duration::from_secs(seconds), "g", "t", rows);
            let after = history.apply(read, Scope::Whole);
            let found = detect_incidents(&"main".into(), &before, &after);
            before = after;
            let one = |i: &LagIncident| (i.kind, i.lost.0, i.first_partition, i.partitions);
            found.iter().map(one).collect::<Vec<_>>()
        };
        let rows = |at, commit: Option<i64>| [(at, Ok(Some(5)), Ok(50)), (at, Ok(commit), Ok(50))];
        assert_eq!(detect(0, &rows(0, Some(9))), []);
        let lost = (IncidentKind::OffsetsLost, 26, 0, 2);
        assert_eq!(detect(5, &rows(20, Some(9))), [lost]);
        assert_eq!(detect(10, &rows(20, Some(9))), []);
        let vanished = (IncidentKind::CommitsVanished, 0, 1, 1);
        assert_eq!(detect(15, &rows(20, None)), [vanished]);
        let unknown = (0, Ok(Some(5)), Err(Fault::LeaderUnknown));
        assert_eq!(detect(20, &[unknown, rows(20, None)[1]]), []);
        let recreated = (IncidentKind::TopicRecreated, 0, 1, 1);
        assert_eq!(detect(25, &rows(20, Some(60))), [recreated]);
        assert_eq!(detect(30, &rows(20, Some(60))), []);
    }

    #[test]
    fn a_topic_that_the_group_has_left_has_no_incidents() {
        for (reads, expected) in [("t", 1), ("other", 0)] {
            let mut history = ClusterHistory::default();
            let mut read = |seconds, start| {
                let rows = [(start, Ok(Some(5)), Ok(50))];
                let mut read = fixtures::read(Duration::from_secs(seconds), "g", "t", &rows);
                let group = &mut read.groups[0];
                group.plan = GroupPlan::new("g", Default::default());
                group.description = Ok(Arc::new(fixtures::member_of(reads)));
                history.apply(read, Scope::Whole)
            };
            let (before, after) = (read(0, 0), read(5, 20));
            let found = detect_incidents(&"main".into(), &before, &after);
            assert_eq!(found.len(), expected, "{reads}: {found:?}");
        }
    }
}
