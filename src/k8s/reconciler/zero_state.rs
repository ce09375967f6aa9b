//! State of a workload for scale to zero, and when to read the workload.

use std::time::{Duration, Instant};

use super::pass::{ZeroInput, ZeroReport};
use super::retry::RetryState;
use crate::k8s::api_error::ApiError;
use crate::model::decisions::scale_to_zero::{Demand, ZeroAction, ZeroCandidate};
use crate::model::decisions::zero_ledger::ZeroRefusal;
use crate::model::hpa::facts::{
    HpaFacts, has_zeroed_annotation, other_external_metric, scales_to_zero_natively,
};

/// How often a workload without demand is read. Also the maximum backoff after a failed read.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(10);

/// State of one workload for scale to zero.
#[derive(Debug, Default)]
pub(super) struct ZeroState {
    known: ZeroInput,
    /// Whether the ledger has a record for the HPA.
    is_recorded: bool,
    /// Whether the HPA has the annotation `zeroed-since`, which is removed once the workload runs.
    is_annotated: bool,
    read_at: Option<Instant>,
    /// Why it was not scaled to zero or not woken when it was last read, although users may expect it.
    pub(super) refusal: Option<ZeroRefusal>,
    /// The API server's answer, if the last attempt failed because of a missing right.
    pub(super) forbidden: Option<String>,
    pub(super) retry: RetryState,
}

impl ZeroState {
    /// Updates the settings of the HPA and how long its workload has been idle. Returns whether scale to zero may write
    /// the HPA, which is not so if another controller owns it.
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
            // The times and the backoff stay, so that an HPA that still has a record is read no more often than others.
            self.known = ZeroInput::default();
            self.is_recorded = is_recorded;
            return false;
        }
        // At zero replicas the HPA controller reads no metrics of other servers, so such a workload is not scaled to
        // zero.
        self.known.candidate = candidate.filter(|_| other_external_metric(hpa).is_none());
        self.known.idle = idle;
        self.is_recorded = is_recorded;
        self.is_annotated = has_zeroed_annotation(hpa);
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

    /// Whether the workload has to be read now: at once if demand waits for it, otherwise every [`READ_INTERVAL`].
    pub(super) fn is_due(&self, hpa: &HpaFacts, now: Instant) -> bool {
        let is_at_zero = self.is_at_zero();
        let was_read = self
            .read_at
            .is_some_and(|read_at| now.saturating_duration_since(read_at) < READ_INTERVAL);
        if !self.retry.may_start(now) {
            return false;
        }
        match self.known.candidate {
            // A workload that must not be woken is read less often.
            Some(_) if !scales_to_zero_natively(hpa) && self.has_demand() => {
                self.is_pressing() || (is_at_zero || self.is_annotated) && !was_read
            }
            // Also before the cooldown is over, so that a start by hand is seen as one.
            Some(_) if !scales_to_zero_natively(hpa) => {
                (is_at_zero || self.is_annotated || self.known.idle.is_some()) && !was_read
            }
            // Scale to zero was turned off, or the HPA scales to zero natively.
            _ => is_at_zero && !was_read,
        }
    }

    /// Input of the next pass; `None` if it need not read the workload.
    pub(super) fn input(&mut self, hpa: &HpaFacts, now: Instant) -> Option<ZeroInput> {
        if !self.is_due(hpa, now) {
            return None;
        }
        self.read_at = Some(now);
        Some(self.known)
    }

    /// Records the outcome of a pass.
    pub(super) fn record_pass(&mut self, report: &ZeroReport, now: Instant) {
        self.known.up_since = report.up_since;
        self.refusal.clone_from(&report.refusal);
        match report.done {
            Some(ZeroAction::Zero) => self.known.zeroed_at = Some(now),
            Some(ZeroAction::Wake(_) | ZeroAction::RemoveAnnotation) => self.known.zeroed_at = None,
            Some(ZeroAction::Keep) | None => {}
        }
        // A conflict with another writer is not a failure, so the workload is read again with the next snapshot.
        if report.error == Some(ApiError::Changed) {
            self.read_at = None;
        }
    }
}
