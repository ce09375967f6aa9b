//! Sweeps as tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{OffsetSource, PolledCluster, Sweeps};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::lag::assembly::Scope;
use crate::model::units::newtypes::Moment;

/// A source that its owner keeps a hold on.
impl<S: OffsetSource> OffsetSource for Arc<S> {
    fn observe(
        &self,
        plan: SweepPlan,
        deadline: Instant,
    ) -> impl Future<Output = Observation> + Send {
        S::observe(self, plan, deadline)
    }
}

/// Spawns a sweep of the groups that were not in the plan before. Plans are in the order of groups.
pub(super) fn spawn_new<S: OffsetSource>(
    sweeps: &mut Sweeps,
    cluster: &PolledCluster<S>,
    mut plan: SweepPlan,
    before: Option<&SweepPlan>,
    deadline: Duration,
) {
    let known = before
        .map(|plan| plan.groups.as_slice())
        .unwrap_or_default();
    plan.groups.retain(|group| {
        let place = known.binary_search_by(|before| before.group.cmp(&group.group));
        place.ok().and_then(|place| known.get(place)) != Some(group)
    });
    if !plan.groups.is_empty() {
        spawn(sweeps, cluster, plan, Scope::Some, deadline);
    }
}

/// Spawns a sweep.
pub(super) fn spawn<S: OffsetSource>(
    sweeps: &mut Sweeps,
    cluster: &PolledCluster<S>,
    mut plan: SweepPlan,
    scope: Scope,
    deadline: Duration,
) {
    cluster.history.add_forgotten_topics(&mut plan.groups);
    let source = Arc::clone(&cluster.source);
    // Which of two sweeps has the later plan is told by this, not by when their threads begin:
    // the later one may be the first to get going.
    let planned = Moment::now();
    let deadline = planned.monotonic + deadline;
    sweeps.spawn(async move {
        let mut observation = source.observe(plan, deadline).await;
        observation.started = planned;
        (observation, scope)
    });
}
