//! Findings about groups and HPAs as they are now, and the log line for each when it begins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::findings::Finding;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;
use crate::telemetry::FindingRaised;

/// How long a group may be without members while messages wait.
const MEMBERS_WITHIN: Duration = Duration::from_secs(120);

/// The findings as of the last whole sweep.
#[derive(Debug, Default)]
pub(super) struct FindingsTracker {
    latest: Arc<BTreeSet<Finding>>,
}

impl FindingsTracker {
    /// The findings as of the last whole sweep.
    pub(super) fn latest(&self) -> Arc<BTreeSet<Finding>> {
        Arc::clone(&self.latest)
    }

    /// Looks for findings in a snapshot and logs those that are new.
    pub(super) fn update(&mut self, snapshot: &LagSnapshot) {
        let now = Moment::now();
        let evaluations = snapshot.at(&now);
        let options = FindingOptions {
            cap: evaluations.policy().cap,
            members_within: MEMBERS_WITHIN,
        };
        let metrics = evaluations.hpa_metrics();
        let hpas: Vec<_> = snapshot.targets.facts().values().cloned().collect();
        let found = findings(&snapshot.evaluations, &metrics, &hpas, options);
        for finding in found.difference(&self.latest) {
            FindingRaised(finding).emit();
        }
        if found != *self.latest {
            self.latest = Arc::new(found);
        }
    }
}
