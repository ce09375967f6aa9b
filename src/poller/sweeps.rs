//! Sweeps in progress, each in a separate task.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};

use super::OffsetSource;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::lag::assembly::Scope;
use crate::model::units::newtypes::{ClusterName, Moment};

/// Maximum number of partial sweeps of one Kafka cluster at a time. Every change of an HPA may cause one, and a slow
/// cluster makes each of them slow.
pub(super) const MAX_PARTIAL_SWEEPS: usize = 4;

/// Lets the owner of a source share it with the sweeps.
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
pub struct PlannedSweep {
    pub cluster: ClusterName,
    pub plan: SweepPlan,
    pub scope: Scope,
}

/// The clients of the clusters and the sweeps that they make.
#[derive(Debug)]
pub(super) struct Sweeps<S> {
    sources: BTreeMap<ClusterName, Arc<S>>,
    /// The longest time that a sweep may take.
    deadline: Duration,
    running: JoinSet<FinishedSweep>,
    /// The clusters with a whole sweep in progress.
    whole: BTreeSet<ClusterName>,
    /// Number of partial sweeps of each cluster that are in progress.
    partial: BTreeMap<ClusterName, usize>,
}

/// Observation of a sweep, and whether the sweep was whole or partial.
pub(super) type FinishedSweep = (Observation, Scope);

impl<S: OffsetSource> Sweeps<S> {
    pub(super) fn new(sources: Vec<(ClusterName, S)>, deadline: Duration) -> Self {
        let sources = sources.into_iter();
        Self {
            sources: sources.map(|(name, s)| (name, Arc::new(s))).collect(),
            deadline,
            running: JoinSet::new(),
            whole: BTreeSet::new(),
            partial: BTreeMap::new(),
        }
    }

    /// The clusters with a whole sweep in progress. At most one runs at a time, so a slow cluster is swept less often.
    pub(super) fn sweeping(&self) -> BTreeSet<ClusterName> {
        self.whole.clone()
    }

    /// The clusters for which no further partial sweep may start, because [`MAX_PARTIAL_SWEEPS`] are running.
    pub(super) fn busy(&self) -> BTreeSet<ClusterName> {
        let busy = self.partial.iter();
        let busy = busy.filter(|(_, count)| **count >= MAX_PARTIAL_SWEEPS);
        busy.map(|(cluster, _)| cluster.clone()).collect()
    }

    /// Starts these sweeps. Their time is counted from when they were `due`.
    pub(super) fn start(&mut self, sweeps: Vec<PlannedSweep>, due: Instant) {
        for sweep in sweeps {
            let PlannedSweep {
                cluster,
                plan,
                scope,
            } = sweep;
            let Some(source) = self.sources.get(&cluster).map(Arc::clone) else {
                continue;
            };
            match scope {
                Scope::Whole => {
                    self.whole.insert(cluster);
                }
                Scope::Partial => {
                    let count = self.partial.entry(cluster).or_default();
                    *count = count.saturating_add(1);
                }
            }
            // Order sweeps by the time of their plans: the task of a later sweep may run first.
            let planned = Moment::now();
            let deadline = due + self.deadline;
            self.running.spawn(async move {
                let mut observation = source.observe(plan, deadline).await;
                observation.started = planned;
                (observation, scope)
            });
        }
    }

    /// Waits for the next sweep to end; `None` if none is in progress.
    pub(super) async fn next(&mut self) -> Option<Result<FinishedSweep, JoinError>> {
        let done = self.running.join_next().await?;
        Some(self.finish(done))
    }

    /// The sweeps that have ended by now.
    ///
    /// # Errors
    /// One of them panicked.
    pub(super) fn take_finished(&mut self) -> Result<Vec<FinishedSweep>, JoinError> {
        let mut finished = Vec::new();
        while let Some(done) = self.running.try_join_next() {
            finished.push(self.finish(done)?);
        }
        Ok(finished)
    }

    fn finish(
        &mut self,
        done: Result<FinishedSweep, JoinError>,
    ) -> Result<FinishedSweep, JoinError> {
        match &done {
            Ok((observation, Scope::Whole)) => {
                self.whole.remove(&observation.cluster);
            }
            Ok((observation, Scope::Partial)) => {
                if let Some(count) = self.partial.get_mut(&observation.cluster) {
                    *count = count.saturating_sub(1);
                }
            }
            // The error ends the poller.
            Err(_) => {}
        }
        done
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }
}
