//! Selects the parts of a snapshot that have series: the groups of HPAs and the configuration, and only some of these
//! by partition.

use std::collections::BTreeMap;

use super::sample::Labels;
use super::{in_cluster, topic_labels};
use crate::model::kafka::observation::TopicOffsets;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// The groups that have series. Groups of requests alone have none: otherwise the callers of the API would determine
/// the number of series.
pub(super) struct ExportedGroups<'a> {
    groups: Vec<ExportedGroup<'a>>,
    /// Group-partitions without separate series.
    pub(super) omitted_partitions: u64,
}

/// A group that has series, except of topics that do not count for it.
#[derive(Clone, Copy)]
pub(super) struct ExportedGroup<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) id: &'a GroupId,
    pub(super) group: &'a GroupSnapshot,
    /// Whether its partitions have separate series.
    has_partitions: bool,
}

impl<'a> ExportedGroup<'a> {
    pub(super) fn topics(&self) -> impl Iterator<Item = (&'a TopicName, &'a GroupTopic)> + use<'a> {
        let group = self.group;
        group.counted_topics()
    }
}

impl<'a> ExportedGroups<'a> {
    pub(super) fn new(snapshot: &'a LagSnapshot) -> Self {
        let groups = snapshot.clusters.iter().flat_map(|(cluster, read)| {
            let groups = read.groups.iter();
            groups.map(move |(id, group)| ExportedGroup {
                cluster,
                id,
                group,
                has_partitions: true,
            })
        });
        let mut groups: Vec<_> = groups
            .filter(|it| !is_only_requested(&snapshot.targets, it.cluster, it.id))
            .collect();
        let budget = snapshot.targets.budgets().partition_series;
        let omitted_partitions = omit_partitions(&mut groups, budget);
        Self {
            groups,
            omitted_partitions,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ExportedGroup<'a>> {
        self.groups.iter()
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (Labels, &'a GroupTopic)> {
        self.groups.iter().flat_map(|group| {
            let topics = group.topics();
            topics.map(|(topic, read)| (topic_labels(group.cluster, group.id, topic), read))
        })
    }

    /// The latest reading of each group on each topic, where there is one.
    pub(super) fn latest(&self) -> impl Iterator<Item = (Labels, &'a TopicLag)> {
        latest_of(self.groups.iter())
    }

    /// As [`latest`](Self::latest), of the groups whose partitions have separate series.
    pub(super) fn latest_with_partitions(&self) -> impl Iterator<Item = (Labels, &'a TopicLag)> {
        latest_of(self.groups.iter().filter(|group| group.has_partitions))
    }

    /// The topics in the latest readings of the groups, each from the newest reading, and whether their partitions have
    /// separate series. Not the list of the cluster, which keeps the last known offsets of a topic through an outage.
    pub(super) fn topics_read(&self) -> Vec<(Labels, &'a TopicOffsets, bool)> {
        let mut newest: BTreeMap<(&ClusterName, &TopicName), (&TopicLag, bool)> = BTreeMap::new();
        for group in &self.groups {
            for (topic, read) in group.topics() {
                let Ok(lag) = &read.latest else {
                    continue;
                };
                let known = newest.entry((group.cluster, topic)).or_insert((lag, false));
                if lag.read.monotonic > known.0.read.monotonic {
                    known.0 = lag;
                }
                known.1 |= group.has_partitions;
            }
        }
        let topics = newest.into_iter();
        let topics = topics.map(|((cluster, topic), (lag, has_partitions))| {
            let labels = in_cluster(cluster).with("topic", topic.as_str());
            (labels, &*lag.offsets, has_partitions)
        });
        topics.collect()
    }
}

fn latest_of<'g, 'a: 'g>(
    groups: impl Iterator<Item = &'g ExportedGroup<'a>>,
) -> impl Iterator<Item = (Labels, &'a TopicLag)> {
    groups.flat_map(|group| {
        let topics = group.topics();
        topics.filter_map(|(topic, read)| {
            let lag = read.latest.as_ref().ok()?;
            Some((topic_labels(group.cluster, group.id, topic), &**lag))
        })
    })
}

/// Whether only requests use a group. A group without any target was removed just now, and does not count as one.
pub(super) fn is_only_requested(targets: &Targets, cluster: &ClusterName, id: &GroupId) -> bool {
    let asked = targets.group(cluster, id);
    asked.is_some_and(|asked| asked.targets().is_empty())
}

/// Decides which groups have series of their partitions: those with the fewest partitions first, within the budget, so
/// that most groups have them and the choice stays the same. Returns the number of partitions without series.
fn omit_partitions(groups: &mut [ExportedGroup<'_>], budget: u64) -> u64 {
    let mut sizes: Vec<_> = groups.iter().map(partitions).zip(0usize..).collect();
    sizes.sort_unstable();
    let (mut used, mut omitted) = (0u64, 0u64);
    for (size, index) in sizes {
        let with = used.saturating_add(size);
        if with <= budget {
            used = with;
        } else if let Some(group) = groups.get_mut(index) {
            group.has_partitions = false;
            omitted = omitted.saturating_add(size);
        }
    }
    omitted
}

/// Partitions of all topics of a group, as last known.
fn partitions(group: &ExportedGroup<'_>) -> u64 {
    let topics = group.topics().map(|(_, topic)| topic);
    let lags = topics.filter_map(|topic| topic.latest.as_ref().ok().or(topic.complete.as_ref()));
    lags.map(|lag| u64::from(lag.partitions()))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures;
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::lag::assembly::Scope;

    #[test]
    fn a_topic_that_the_group_has_left_has_no_series() {
        for (reads, expected) in [("t", 1), ("other", 0)] {
            let rows = [(0, Ok(Some(5)), Ok(50))];
            let mut read = fixtures::read(Duration::ZERO, "g", "t", &rows);
            read.groups[0].plan = GroupPlan::new("g", BTreeSet::new());
            read.groups[0].description = Ok(Arc::new(fixtures::member_of(reads)));
            let snapshot = fixtures::evaluated(&[], [read], Scope::Whole);
            let exported = ExportedGroups::new(&snapshot);
            let found = [
                exported.topics().count(),
                exported.latest().count(),
                exported.latest_with_partitions().count(),
                exported.topics_read().len(),
            ];
            assert_eq!(found, [expected; 4], "{reads}");
        }
    }
}
