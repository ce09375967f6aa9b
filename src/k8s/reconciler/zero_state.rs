//! What the reconciler remembers of a workload for scale to zero, and when it looks at the workload.

use std::time::{Duration, Instant};

use super::pass::{ZeroInput, ZeroReport};
use super::retry::RetryState;
use crate::k8s::api_error::ApiError;
use crate::model::decisions::scale_to_zero::{Demand, ZeroAction, ZeroCandidate};
use crate::model::decisions::zero_ledger::ZeroRefusal;
use crate::model::hpa::facts::{
    HpaFacts, has_zero_mark, other_external_metric, scales_to_zero_natively,
};

/// How often a workload is looked at that has no demand. Also the longest pause after a failed look.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is remembered for scale to zero.
#[derive(Debug, Default)]
pub(super) struct ZeroState {
    known: ZeroInput,
    /// Whether the ledger has a record for the HPA.
    is_recorded: bool,
    /// Whether the HPA has the mark, which is removed once the workload runs.
    is_marked: bool,
    looked_at: Option<Instant>,
    /// Why it was not scaled to zero or not woken at the last look, although that may be expected.
    pub(super) refusal: Option<ZeroRefusal>,
    /// The API server's answer, if the last attempt failed for a missing right.
    pub(super) forbidden: Option<String>,
    pub(super) retry: RetryState,
}

impl ZeroState {
    /// Takes in what the HPA asks for and how long its workload has been idle. Returns whether scale to zero
    /// may write the HPA: not one that another controller owns.
    pub(super) fn update(
        &mut self,
        hpa: &HpaFacts,
        candidate: Option<ZeroCandidate>,
        idle: Option<Duration>,
        is_recorded: bool,
    ) -> bool {
        let wants = candidate.is_some() || is_recorded;
        if !wants {
            *self = Self::default();
            return false;
        }
        if hpa.controller.is_some() {
            // A record that it still has is looked into, at the pace of other HPAs: the pauses stay.
            self.known = ZeroInput::default();
            self.is_recorded = is_recorded;
            return false;
        }
        // Nobody asks for a metric of others at zero replicas, so such a workload is not put to zero.
        self.known.candidate = candidate.filter(|_| other_external_metric(hpa).is_none());
        self.known.idle = idle;
        self.is_recorded = is_recorded;
        self.is_marked = has_zero_mark(hpa);
        true
    }

    /// Whether the workload is at zero replicas by lagwise's doing.
    fn is_at_zero(&self) -> bool {
        self.is_recorded || self.known.zeroed_at.is_some()
    }

    fn has_demand(&self) -> bool {
        let demand = self.known.candidate.map(|candidate| candidate.demand);
        matches!(demand, Some(Demand::Waiting(_) | Demand::NeverRan))
    }

    /// Whether demand waits for what may be woken.
    pub(super) fn is_pressing(&self) -> bool {
        self.is_at_zero() && self.has_demand() && self.refusal.is_none()
    }

    /// Whether the workload has to be looked at now: at once if demand waits for it, else every
    /// [`LOOK_EVERY`].
    pub(super) fn is_due(&self, hpa: &HpaFacts, now: Instant) -> bool {
        let is_at_zero = self.is_at_zero();
        let was_looked_at = self
            .looked_at
            .is_some_and(|looked_at| now.saturating_duration_since(looked_at) < LOOK_EVERY);
        if !self.retry.may_start(now) {
            return false;
        }
        match self.known.candidate {
            // What may not be woken is looked at less often.
            Some(_) if !scales_to_zero_natively(hpa) && self.has_demand() => {
                self.is_pressing() || (is_at_zero || self.is_marked) && !was_looked_at
            }
            // Also before the cooldown is over, so that a start by hand is seen as one.
            Some(_) if !scales_to_zero_natively(hpa) => {
                (is_at_zero || self.is_marked || self.known.idle.is_some()) && !was_looked_at
            }
            // Nobody asks for it any more, or the HPA goes to zero by itself.
            _ => is_at_zero && !was_looked_at,
        }
    }

    /// What the next pass needs in order to look at the workload, if it has to.
    pub(super) fn input(&mut self, hpa: &HpaFacts, now: Instant) -> Option<ZeroInput> {
        if !self.is_due(hpa, now) {
            return None;
        }
        self.looked_at = Some(now);
        Some(self.known)
    }

    /// Takes in what was seen and done.
    pub(super) fn record_pass(&mut self, report: &ZeroReport, now: Instant) {
        self.known.up_since = report.up_since;
        self.refusal.clone_from(&report.refusal);
        match report.done {
            Some(ZeroAction::Zero) => self.known.zeroed_at = Some(now),
            Some(ZeroAction::Wake(_) | ZeroAction::Unmark) => self.known.zeroed_at = None,
            Some(ZeroAction::Keep) | None => {}
        }
        // Somebody else's write is no failure: the next snapshot looks again at once.
        if report.error == Some(ApiError::Changed) {
            self.looked_at = None;
        }
    }
}
