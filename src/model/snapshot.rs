//! What is known at one moment, immutable: all answers, metrics and decisions read one of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evaluation::idle::IdleSince;
use super::findings::Finding;
use super::targets::Targets;
use super::units::newtypes::ClusterName;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;

/// Everything that is known, of every cluster.
#[derive(Clone, Debug, Default)]
pub struct LagSnapshot {
    /// Counts up with every publication.
    pub sequence: u64,
    /// The term of leadership that it was made in: in no other does it answer for anything. 0 where
    /// nobody is elected.
    pub term: u64,
    /// Who wants to know what.
    pub targets: Arc<Targets>,
    /// By cluster, in the order of names.
    pub clusters: BTreeMap<ClusterName, Arc<ClusterSnapshot>>,
    /// Since when HPAs that may be scaled to zero have had no work.
    pub idle: Arc<IdleSince>,
    /// What a person should know, as of the last whole sweep; what the targets themselves say is in
    /// [`Targets::findings`].
    pub findings: Arc<BTreeSet<Finding>>,
}

impl LagSnapshot {
    /// Everything that a person should know.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.targets.findings.iter().chain(&*self.findings)
    }

    /// Whether every cluster has been swept once, whatever came of it. Before the poller has
    /// published anything there are no clusters, and none was.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        let mut clusters = self.clusters.values();
        !self.clusters.is_empty() && clusters.all(|cluster| cluster.sweep.is_some())
    }
}
