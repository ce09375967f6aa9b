//! Says what is odd about groups and HPAs as they are: once, when it begins to be so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::model::decisions::scale_to_zero;
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::metric_evaluation::standings;
use crate::model::findings::Finding;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;
use crate::telemetry::FindingRaised;

/// How long a group may be without members while messages wait.
const MEMBERS_WITHIN: Duration = Duration::from_secs(120);

/// What has been told, and the rules by which requests are answered: what is odd about an answer is
/// told before anybody asks.
#[derive(Debug)]
pub(super) struct FindingsTracker {
    told: Arc<BTreeSet<Finding>>,
    rules: ServingPolicy,
}

impl FindingsTracker {
    pub(super) fn new(rules: ServingPolicy) -> Self {
        Self {
            told: Arc::default(),
            rules,
        }
    }

    /// Rules of a poller that was given none.
    pub(super) fn by_default(max_staleness: Duration) -> Self {
        Self::new(ServingPolicy {
            clamp: true,
            cap: crate::model::settings::cap_mode::CapMode::Advise,
            max_staleness,
            namespaces: Vec::new(),
        })
    }

    /// Since when HPAs that may be scaled to zero have had no work.
    pub(super) fn idle_since(&self, snapshot: &LagSnapshot) -> Arc<IdleSince> {
        let now = Moment::now();
        let sleepers = scale_to_zero::sleepers(snapshot, &now, &self.rules);
        if sleepers.is_empty() && snapshot.idle.is_empty() {
            return Arc::clone(&snapshot.idle);
        }
        Arc::new(scale_to_zero::idle_since(&snapshot.idle, &sleepers, &now))
    }

    /// What was odd as of the last sweep that was looked at.
    pub(super) fn told(&self) -> Arc<BTreeSet<Finding>> {
        Arc::clone(&self.told)
    }

    /// Finds what is odd now, and tells what of it was not before.
    pub(super) fn find(&mut self, snapshot: &LagSnapshot, hpas: &[Arc<HpaFacts>]) {
        let standings = standings(&snapshot.targets, snapshot, &Moment::now(), &self.rules);
        let looking = FindingOptions {
            cap: self.rules.cap,
            members_within: MEMBERS_WITHIN,
        };
        let found = findings(snapshot, &standings, hpas, looking);
        for finding in found.difference(&self.told) {
            FindingRaised(finding).emit();
        }
        if found != *self.told {
            self.told = Arc::new(found);
        }
    }
}
