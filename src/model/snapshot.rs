//! What is known at one moment, immutable. The external metrics API, Prometheus, `status`, `explain` and the
//! reconcilers all read one of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evaluation::idle::IdleSince;
use super::evaluation::{Evaluations, EvaluationsAt, ServingPolicy};
use super::findings::Finding;
use super::targets::Targets;
use super::units::newtypes::{ClusterName, Moment};
use crate::model::lag::cluster_snapshot::ClusterSnapshot;

/// Everything that is known, of every cluster.
#[derive(Clone, Debug, Default)]
pub struct LagSnapshot {
    /// Counts up with every publication.
    pub sequence: u64,
    /// The term of leadership in which it was made; in no other term may it be used. 0 where nobody is
    /// elected.
    pub term: u64,
    /// Who wants to know what.
    pub targets: Arc<Targets>,
    /// What was read, by cluster, in the order of names.
    pub clusters: BTreeMap<ClusterName, Arc<ClusterSnapshot>>,
    /// What the readings come to for each target.
    pub evaluations: Arc<Evaluations>,
    /// Since when HPAs that may be scaled to zero have had no demand.
    pub idle: Arc<IdleSince>,
    /// What a person should know, as of the last whole sweep; what the targets themselves say is in
    /// [`Targets::findings`].
    pub findings: Arc<BTreeSet<Finding>>,
}

impl LagSnapshot {
    /// The same with every target evaluated by this policy.
    #[must_use]
    pub fn evaluated(self, policy: &ServingPolicy) -> Self {
        let none = Arc::new(Evaluations::new(policy.clone()));
        Self {
            evaluations: none.next(&self.clusters, &self.targets, std::iter::empty()),
            ..self
        }
    }

    /// The evaluations as they read at `now`.
    #[must_use]
    pub fn at<'a>(&'a self, now: &'a Moment) -> EvaluationsAt<'a> {
        EvaluationsAt::new(&self.evaluations, &self.idle, now)
    }

    /// Everything that a person should know.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.targets.findings().chain(&*self.findings)
    }

    /// Whether every cluster has been swept once, whatever came of it. Before the poller has
    /// published anything there are no clusters, and none was.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        let mut clusters = self.clusters.values();
        !self.clusters.is_empty() && clusters.all(|cluster| cluster.sweep.is_some())
    }
}
