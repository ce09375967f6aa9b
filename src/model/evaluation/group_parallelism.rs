//! Useful parallelism of every group over all topics that it reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Clusters;
use super::parallelism::Parallelism;
use super::topic_selection::whole_parallelism;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic};
use crate::model::lag::topic_summary::TopicWork;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::persistent_map::PersistentMap;

/// Useful parallelism of the groups of every cluster, where it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupParallelism(BTreeMap<ClusterName, ByGroup>);

type ByGroup = PersistentMap<GroupId, Parallelism>;

impl GroupParallelism {
    pub(super) fn get(&self, cluster: &ClusterName, group: &GroupId) -> Option<Parallelism> {
        self.0.get(cluster)?.get(group).copied()
    }

    /// Parallelism by the readings of `clusters`. Groups that were not read again since `before` keep theirs.
    pub(super) fn next(&self, before: &Clusters, clusters: &Clusters) -> Self {
        let clusters = clusters.iter().map(|(name, cluster)| {
            let by_group = match before.get(name).zip(self.0.get(name)) {
                Some((read, known)) => update(known, read, cluster),
                None => by_group(cluster),
            };
            (name.clone(), by_group)
        });
        Self(clusters.collect())
    }
}

fn by_group(cluster: &ClusterSnapshot) -> ByGroup {
    let groups = cluster.groups.iter();
    let known = groups.filter_map(|(id, group)| Some((id.clone(), whole_parallelism(group)?)));
    known.collect()
}

fn update(known: &ByGroup, before: &Arc<ClusterSnapshot>, after: &Arc<ClusterSnapshot>) -> ByGroup {
    let mut by_group = known.clone();
    if !Arc::ptr_eq(before, after) {
        ClusterSnapshot::diff_groups(before, after, |id, old, group| {
            if old
                .zip(group)
                .is_some_and(|(old, new)| has_same_work(old, new))
            {
                return;
            }
            match group.and_then(|group| whole_parallelism(group)) {
                Some(parallelism) if known.get(id) == Some(&parallelism) => {}
                Some(parallelism) => drop(by_group.insert(id.clone(), parallelism)),
                None => drop(by_group.remove(id)),
            }
        });
    }
    by_group
}

/// Whether two readings of a group are sure to have the same useful parallelism, as nearly always. It costs much less
/// than the parallelism itself.
fn has_same_work(before: &GroupSnapshot, after: &GroupSnapshot) -> bool {
    let has_same_description = match (&before.description, &after.description) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        (None, None) => true,
        _ => false,
    };
    let counts = |topic: &GroupTopic| {
        let summary = &topic.latest.as_ref().ok()?.summary;
        let TopicWork {
            partitions,
            committed,
            ..
        } = summary.work;
        Some((partitions, committed, summary.may_have_commits))
    };
    let mut topics = before.topics.iter().zip(&after.topics);
    has_same_description
        && Arc::ptr_eq(&before.remembered, &after.remembered)
        && before.topics.len() == after.topics.len()
        && topics.all(|((name, before), (other, after))| {
            let known = counts(before);
            name == other && known.is_some() && known == counts(after)
        })
}
