//! What is to be read of a cluster, and the tasks that read it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{OffsetSource, Sweeps};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::targets::Targets;
use crate::model::units::newtypes::{ClusterName, Moment};

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

/// A Kafka cluster that is polled, and what is known of it.
#[derive(Debug)]
pub(super) struct PolledCluster<S> {
    pub(super) source: Arc<S>,
    pub(super) history: ClusterHistory,
    pub(super) latest: Arc<ClusterSnapshot>,
    pub(super) sweeping: bool,
    /// What is to be read of it.
    pub(super) plan: SweepPlan,
    /// Whether the plan is that of the present targets and of what is known of the groups.
    pub(super) is_planned: bool,
}

impl<S: OffsetSource> PolledCluster<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source: Arc::new(source),
            history: ClusterHistory::default(),
            latest: Arc::default(),
            sweeping: false,
            plan: SweepPlan::default(),
            is_planned: false,
        }
    }

    /// Brings the plan up to date and returns the groups of it that are new or read differently.
    pub(super) fn replan(&mut self, name: &ClusterName, targets: &Targets) -> SweepPlan {
        if self.is_planned {
            return SweepPlan::default();
        }
        self.is_planned = true;
        let before = std::mem::replace(
            &mut self.plan,
            targets.plan(name, self.latest.topics_read()),
        );
        // Both plans are in the order of groups.
        let is_new = |group: &&GroupPlan| {
            let place = before
                .groups
                .binary_search_by(|b| b.group.cmp(&group.group));
            place.ok().and_then(|place| before.groups.get(place)) != Some(*group)
        };
        SweepPlan {
            groups: self.plan.groups.iter().filter(is_new).cloned().collect(),
        }
    }

    /// Spawns a sweep of everything that is planned.
    pub(super) fn sweep_all(&self, sweeps: &mut Sweeps, deadline: Duration) {
        spawn(sweeps, self, self.plan.clone(), Scope::Whole, deadline);
    }

    /// Spawns a sweep of groups out of turn, if there are any.
    pub(super) fn sweep_new(&self, new: SweepPlan, sweeps: &mut Sweeps, deadline: Duration) {
        if !new.groups.is_empty() {
            spawn(sweeps, self, new, Scope::Some, deadline);
        }
    }
}

/// Spawns a sweep.
fn spawn<S: OffsetSource>(
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
