//! The snapshot: everything known at one time, immutable. The external metrics API, Prometheus, `status`,
//! `explain` and the reconciler all read the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evaluation::idle::IdleSince;
use super::evaluation::{Evaluations, EvaluationsAt, ServingPolicy};
use super::findings::Finding;
use super::targets::Targets;
use super::targets::budgets::BudgetExceeded;
use super::units::newtypes::{ClusterName, Moment};
use crate::model::lag::cluster_snapshot::ClusterSnapshot;

/// Everything known about all Kafka clusters and targets.
#[derive(Clone, Debug, Default)]
pub struct LagSnapshot {
    /// Counts up with every publication.
    pub sequence: u64,
    /// The leader's term in which it was made. It must not be used in another term. 0 without leader
    /// election.
    pub term: u64,
    pub targets: Arc<Targets>,
    /// The readings of each Kafka cluster.
    pub clusters: BTreeMap<ClusterName, Arc<ClusterSnapshot>>,
    /// The evaluation of each target.
    pub evaluations: Arc<Evaluations>,
    /// Time since which HPAs that may be scaled to zero have had no demand.
    pub idle: Arc<IdleSince>,
    /// Findings as of the last whole sweep. Those about targets alone are in [`Targets::findings`].
    pub findings: Arc<BTreeSet<Finding>>,
    /// The budgets of partitions that were exceeded in the last whole sweep, each with the number of groups that are
    /// not read for that reason. Those of HPAs are in [`Targets::exceeded_budgets`].
    pub unread_partitions: Arc<BTreeMap<BudgetExceeded, usize>>,
}

impl LagSnapshot {
    /// Evaluates every target by this policy.
    #[must_use]
    pub fn evaluated(self, policy: &ServingPolicy) -> Self {
        let none = Arc::new(Evaluations::new(policy.clone()));
        Self {
            evaluations: none.next(&self.clusters, &self.targets, std::iter::empty()),
            ..self
        }
    }

    /// The evaluations as of `now`.
    #[must_use]
    pub fn at<'a>(&'a self, now: &'a Moment) -> EvaluationsAt<'a> {
        EvaluationsAt::new(&self.evaluations, &self.idle, now)
    }

    /// All findings, also those about targets alone.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.targets.findings().chain(&*self.findings)
    }

    /// Whether every cluster has been swept once, with any result. `false` before the poller has published
    /// anything, when there are no clusters yet.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        let mut clusters = self.clusters.values();
        !self.clusters.is_empty() && clusters.all(|cluster| cluster.sweep.is_some())
    }
}
