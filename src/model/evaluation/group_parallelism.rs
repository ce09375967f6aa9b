//! Useful parallelism of every group over all topics that it reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Clusters;
use super::parallelism::Parallelism;
use super::topic_selection::whole_parallelism;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
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
        ClusterSnapshot::diff_groups(before, after, |id, _, group| {
            match group.and_then(|group| whole_parallelism(group)) {
                Some(parallelism) if known.get(id) == Some(&parallelism) => {}
                Some(parallelism) => drop(by_group.insert(id.clone(), parallelism)),
                None => drop(by_group.remove(id)),
            }
        });
    }
    by_group
}
