//! The ceilings that may be enforced: those of HPAs whose metrics were all read in the last sweep.

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

/// The complete read of an HPA. One with a metric that is unknown, or was not read in its cluster's last sweep, has
/// none: that metric might allow more replicas.
#[must_use]
pub fn complete_read(evaluations: EvaluationsAt<'_>, hpa: &HpaKey) -> Option<CompleteRead> {
    let reads = evaluations.targets_of(hpa).map(|(target, evaluation)| {
        let value = evaluations.value(&evaluation.metric).ok()?;
        let is_current = is_current(&value, target, evaluations.clusters());
        is_current.then_some(CompleteRead {
            ceiling: value.ceiling?.replicas,
            at: value.read.monotonic,
        })
    });
    // `None` if one of them is.
    let joined = reads.reduce(|a, b| {
        a.zip(b).map(|(a, b)| CompleteRead {
            ceiling: a.ceiling.max(b.ceiling),
            at: a.at.min(b.at),
        })
    });
    joined.flatten()
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
