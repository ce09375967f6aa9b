//! The sweeps under way, each a task.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};

use super::OffsetSource;
use crate::model::kafka::observation::{GroupObservation, Observation};
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::lag::assembly::Scope;
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

/// A sweep that is due.
#[derive(Debug)]
pub(super) enum PlannedSweep {
    /// Of all groups. Those of the second plan are over budget: they are reported as such without being read.
    Whole(SweepPlan, Vec<GroupPlan>),
    /// Of the groups that are new, while all others are being read.
    Some(SweepPlan),
}

/// The clients of the clusters and the sweeps that they make.
#[derive(Debug)]
pub(super) struct Sweeps<S> {
    sources: BTreeMap<ClusterName, Arc<S>>,
    /// The longest time that a sweep may take.
    deadline: Duration,
    running: JoinSet<(Observation, Scope)>,
    /// The clusters of which all groups are being read.
    whole: BTreeSet<ClusterName>,
}

impl<S: OffsetSource> Sweeps<S> {
    pub(super) fn new(sources: Vec<(ClusterName, S)>, deadline: Duration) -> Self {
        let sources = sources.into_iter();
        Self {
            sources: sources.map(|(name, s)| (name, Arc::new(s))).collect(),
            deadline,
            running: JoinSet::new(),
            whole: BTreeSet::new(),
        }
    }

    /// The clusters of which all groups are being read. At most one such sweep runs at a time: a slow cluster is swept
    /// less often.
    pub(super) fn sweeping(&self) -> BTreeSet<ClusterName> {
        self.whole.clone()
    }

    pub(super) fn start_all(&mut self, planned: Vec<(ClusterName, PlannedSweep)>) {
        for (cluster, sweep) in planned {
            match sweep {
                PlannedSweep::Whole(plan, over_budget) => {
                    self.whole.insert(cluster.clone());
                    self.start(&cluster, plan, over_budget, Scope::Whole);
                }
                PlannedSweep::Some(plan) => self.start_new(vec![(cluster, plan)]),
            }
        }
    }

    /// Reads what is new in the plans at once, so that no request waits for the next tick.
    pub(super) fn start_new(&mut self, new: Vec<(ClusterName, SweepPlan)>) {
        for (cluster, plan) in new {
            if !plan.groups.is_empty() {
                self.start(&cluster, plan, Vec::new(), Scope::Some);
            }
        }
    }

    fn start(
        &mut self,
        cluster: &ClusterName,
        plan: SweepPlan,
        over_budget: Vec<GroupPlan>,
        scope: Scope,
    ) {
        let Some(source) = self.sources.get(cluster).map(Arc::clone) else {
            return;
        };
        // The order of two sweeps is that of their plans, not of their tasks: the later one may run first.
        let planned = Moment::now();
        let deadline = planned.monotonic + self.deadline;
        self.running.spawn(async move {
            let mut observation = source.observe(plan, deadline).await;
            observation.started = planned;
            let over_budget = over_budget.into_iter().map(GroupObservation::over_budget);
            observation.groups.extend(over_budget);
            (observation, scope)
        });
    }

    /// Waits for the next sweep to end; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<(Observation, Scope), JoinError>> {
        let done = self.running.join_next().await?;
        if let Ok((observation, Scope::Whole)) = &done {
            self.whole.remove(&observation.cluster);
        }
        Some(done)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }
}
