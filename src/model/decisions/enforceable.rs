//! The ceilings that may be enforced: those of HPAs of which everything was read in the last sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{MetricValue, ServingPolicy, answer};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Target;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;

/// A complete read of every metric of ours on an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompleteRead {
    /// The largest ceiling of these metrics.
    pub ceiling: Limit,
    /// When the oldest reading in it was made.
    pub at: Instant,
}

/// The complete reads of the HPAs that are `wanted`. One of which any metric is unknown, or was not
/// read in its cluster's last sweep, has none: it might have allowed more.
#[must_use]
pub fn complete_reads(
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
    wanted: impl Fn(&HpaKey) -> bool,
) -> BTreeMap<HpaKey, CompleteRead> {
    let mut all: BTreeMap<HpaKey, Option<CompleteRead>> = BTreeMap::new();
    for target in &snapshot.targets.all {
        let Some((namespace, name, question)) = MetricQuery::of(target) else {
            continue;
        };
        let hpa = HpaKey::new(Arc::clone(namespace), Arc::clone(name));
        if !wanted(&hpa) {
            continue;
        }
        let answered = answer(&question, snapshot, now, rules).ok();
        let current = answered.filter(|answer| is_current(answer, target, snapshot));
        let own = current.and_then(|answer| {
            let ceiling = answer.ceiling?.replicas;
            let at = answer.read.monotonic;
            Some(CompleteRead { ceiling, at })
        });
        all.entry(hpa)
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

/// Whether the answer is as of its cluster's last sweep. One that is served on while a broker is
/// down says nothing of now.
pub(super) fn is_current(answer: &MetricValue, target: &Target, snapshot: &LagSnapshot) -> bool {
    let cluster = snapshot.clusters.get(&target.interest.cluster);
    let sweep = cluster.and_then(|cluster| cluster.sweep);
    sweep.is_some_and(|sweep| answer.read.monotonic >= sweep.started.monotonic)
}

#[cfg(test)]
mod tests;
