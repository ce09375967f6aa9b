//! The ceilings that may be enforced: those of HPAs whose metrics were all read in the last sweep.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{Clusters, EvaluationsAt, MetricValue};
use crate::model::targets::Target;
use crate::model::units::hpa_key::HpaKey;

/// A complete read of every metric of an HPA that lagwise serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompleteRead {
    /// The largest ceiling of these metrics.
    pub ceiling: Limit,
    /// Time of the oldest reading in it.
    pub at: Instant,
}

/// The complete reads of the HPAs for which `is_included` is true. An HPA with a metric that is unknown, or
/// was not read in its cluster's last sweep, has none: that metric might allow more replicas.
#[must_use]
pub fn complete_reads(
    evaluations: EvaluationsAt<'_>,
    is_included: impl Fn(&HpaKey) -> bool,
) -> BTreeMap<HpaKey, CompleteRead> {
    let mut all: BTreeMap<HpaKey, Option<CompleteRead>> = BTreeMap::new();
    for (target, evaluation) in evaluations.hpa_targets() {
        let Some(hpa) = target.hpa() else {
            continue;
        };
        if !is_included(hpa) {
            continue;
        }
        let value = evaluations.value(&evaluation.metric).ok();
        let current = value.filter(|value| is_current(value, target, evaluations.clusters()));
        let own = current.and_then(|value| {
            Some(CompleteRead {
                ceiling: value.ceiling?.replicas,
                at: value.read.monotonic,
            })
        });
        all.entry(hpa.clone())
            .and_modify(|so_far| {
                *so_far = so_far.zip(own).map(|(a, b)| CompleteRead {
                    ceiling: a.ceiling.max(b.ceiling),
                    at: a.at.min(b.at),
                });
            })
            .or_insert(own);
    }
    let known = all.into_iter();
    known.filter_map(|(hpa, read)| Some((hpa, read?))).collect()
}

/// Whether a value comes from the last sweep of its cluster. An older value, which is still served while a
/// broker is down, does not reflect the present lag.
pub(super) fn is_current(value: &MetricValue, target: &Target, clusters: &Clusters) -> bool {
    let cluster = clusters.get(&target.key.cluster);
    let sweep = cluster.and_then(|cluster| cluster.sweep);
    sweep.is_some_and(|sweep| value.read.monotonic >= sweep.started.monotonic)
}

#[cfg(test)]
mod tests;
