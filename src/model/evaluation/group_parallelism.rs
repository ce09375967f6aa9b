//! Useful parallelism of every group over all topics that it reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Clusters;
use super::parallelism::Parallelism;
use super::topic_selection::whole_parallelism;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// Useful parallelism of the groups of every cluster, where it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupParallelism(BTreeMap<ClusterName, Arc<ByGroup>>);

type ByGroup = BTreeMap<GroupId, Parallelism>;

impl GroupParallelism {
    pub(super) fn get(&self, cluster: &ClusterName, group: &GroupId) -> Option<Parallelism> {
        self.0.get(cluster)?.get(group).copied()
    }

    /// Parallelism by the readings of `clusters`. Groups that were not read again since `before` keep theirs.
    pub(super) fn next(&self, before: &Clusters, clusters: &Clusters) -> Self {
        let clusters = clusters.iter().map(|(name, cluster)| {
            let before = before.get(name).zip(self.0.get(name));
            let by_group = match before {
                Some((read, known)) if Arc::ptr_eq(read, cluster) => Arc::clone(known),
                _ => Arc::new(by_group(cluster, before)),
            };
            (name.clone(), by_group)
        });
        Self(clusters.collect())
    }
}

fn by_group(
    cluster: &ClusterSnapshot,
    before: Option<(&Arc<ClusterSnapshot>, &Arc<ByGroup>)>,
) -> ByGroup {
    let groups = cluster.groups.iter();
    let parallelism = groups.filter_map(|(id, group)| {
        let unchanged = before.filter(|(read, _)| {
            let read = read.groups.get(id);
            read.is_some_and(|read| Arc::ptr_eq(read, group))
        });
        let parallelism = match unchanged {
            Some((_, known)) => known.get(id).copied(),
            None => whole_parallelism(group),
        };
        Some((id.clone(), parallelism?))
    });
    parallelism.collect()
}
