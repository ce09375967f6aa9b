//! State of one HPA between passes, and whether it needs a pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MAX_BACKOFF;
use super::event_publisher::EventPublisher;
use super::pass::{CapWrite, PassReport};
use super::retry::RetryState;
use super::zero_state::{READ_INTERVAL, ZeroState};
use crate::k8s::api_error::ApiError;
use crate::model::decisions::cap::{
    CapGoal, CapTarget, CeilingHysteresis, FieldOwner, HpaFields, LastSeen, WriteBackoff,
};
use crate::model::decisions::enforceable::CompleteRead;
use crate::model::decisions::fencing::is_managed;
use crate::model::decisions::forbidden_write::ForbiddenWrite;
use crate::model::decisions::scale_to_zero::{ZeroAction, ZeroCandidate};
use crate::model::diagnostics::hpa_events::EventReason;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::Finding;
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::cap::{CapFailed, CapFought, CapOwnerUnknown, CapWritten};
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::zero::{ScaledToZero, WakeUp, ZeroFailed};

/// One HPA.
#[derive(Debug, Default)]
pub(super) struct HpaState {
    /// The HPA as the watch last showed it.
    pub(super) facts: Arc<HpaFacts>,
    /// Whether the HPA has to carry the term of this leader.
    pub(super) is_managed: bool,
    /// The term that it carries; 0 if it is not known to carry one.
    pub(super) written_term: u64,
    /// Retry of the write of the term.
    pub(super) term_retry: RetryState,
    pub(super) cap: CapState,
    pub(super) zero: ZeroState,
}

/// State of one HPA for the cap.
#[derive(Debug, Default)]
pub(super) struct CapState {
    /// The target decided after the last sweep; `None` to change nothing.
    pub(super) target: Option<CapTarget>,
    /// `maxReplicas` as it was last seen, to distinguish a user's write from lagwise's own.
    pub(super) last_seen: Option<LastSeen>,
    pub(super) hysteresis: CeilingHysteresis,
    pub(super) backoff: WriteBackoff,
    pub(super) retry: RetryState,
    /// Failures of the lookup of the component that records the user's `maxReplicas`, as last logged for this HPA.
    pub(super) lookup_failures: FailureLog<ApiError>,
    /// The API server's answer, if the last attempt failed because of a missing right.
    pub(super) forbidden: Option<String>,
}

/// Priority of an HPA in the queue of passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Demand waits for a workload at zero replicas.
    Wake,
    /// Everything else.
    Normal,
}

impl Urgency {
    pub(super) const ALL: [Self; 2] = [Self::Wake, Self::Normal];
}

impl HpaState {
    /// Updates the state with the HPA as the watch shows it, its demand for scale to zero, the time for which it has
    /// been idle, and whether the ledger has a record for it. A new HPA object of the same name starts with a new
    /// state. Returns whether lagwise has or may have something to write for the HPA. Only then the caller keeps the
    /// state.
    pub(super) fn update(
        &mut self,
        hpa: &Arc<HpaFacts>,
        policy: &ServingPolicy,
        candidate: Option<ZeroCandidate>,
        idle: Option<Duration>,
        is_recorded: bool,
    ) -> bool {
        if self.facts.uid != hpa.uid {
            *self = Self::default();
        }
        self.facts = Arc::clone(hpa);
        self.is_managed = is_managed(hpa, policy, is_recorded);
        if !self.is_managed {
            // It may lose the annotation. When lagwise manages the HPA again, it writes the term again.
            self.written_term = 0;
        }
        let is_zero_relevant = self.zero.update(hpa, candidate, idle, is_recorded);
        is_zero_relevant || self.is_managed || self.cap.is_relevant(hpa, policy.cap_mode(hpa))
    }

    /// Whether the HPA has something to do, and how soon. `owner` is the component that records the user's
    /// `maxReplicas`; the cap waits until that is known.
    pub(super) fn urgency(
        &self,
        term: u64,
        owner: Option<FieldOwner>,
        now: Instant,
    ) -> Option<Urgency> {
        if self.zero.is_due(&self.facts, now) {
            return Some(if self.zero.is_pressing() {
                Urgency::Wake
            } else {
                Urgency::Normal
            });
        }
        let needs_term = term > 0 && self.is_managed && self.written_term != term;
        let is_due = needs_term && self.term_retry.may_start(now)
            || self.cap.goal(&self.facts, owner, now).is_some();
        is_due.then_some(Urgency::Normal)
    }

    /// The findings about missing rights for the settings of the HPA.
    pub(super) fn forbidden_writes(&self) -> impl Iterator<Item = Finding> {
        let finding = |write: ForbiddenWrite, reason: &Option<String>| {
            let reason = reason.as_deref()?;
            Some(write.finding(&self.facts, reason))
        };
        let cap = finding(ForbiddenWrite::Cap, &self.cap.forbidden);
        let zero = finding(ForbiddenWrite::Zero, &self.zero.forbidden);
        cap.into_iter().chain(zero)
    }

    /// Whether a failed write has to be retried.
    pub(super) fn is_failing(&self) -> bool {
        let all = [&self.term_retry, &self.cap.retry, &self.zero.retry];
        all.into_iter().any(RetryState::is_failing)
    }
}

/// Records the results of passes.
impl HpaState {
    pub(super) fn record_cap(
        &mut self,
        report: &PassReport,
        key: &HpaKey,
        events: &mut EventPublisher,
    ) {
        let write = match &report.cap {
            // That something changed meanwhile is no failure: the next snapshot decides again from a new read.
            None | Some(Err(ApiError::Changed)) => return,
            Some(Err(error)) => {
                let now = Instant::now();
                note_forbidden(&mut self.cap.forbidden, error);
                let retry = &mut self.cap.retry;
                let new_reason = retry.record_failure(error.clone(), MAX_BACKOFF, now);
                CapFailed {
                    hpa: key,
                    new_reason,
                }
                .emit();
                return;
            }
            Some(Ok(write)) => write,
        };
        self.cap.retry.record_success();
        self.cap.forbidden = None;
        let Some(write) = write else {
            return;
        };
        let ceiling = match write.goal.target {
            CapTarget::Hold(ceiling) => Some(ceiling),
            CapTarget::Release => None,
        };
        if self.cap.record_write(write, Instant::now()) {
            CapFought { hpa: key }.emit();
            events.record(key, EventReason::CapFought);
        }
        CapWritten { hpa: key, ceiling }.emit();
        let user = write.before.user_max(write.goal.last_seen);
        let rule = ceiling.and_then(|ceiling| events.ceiling_rule(key, ceiling));
        let about = EventReason::about_cap(ceiling, write.before, write.after, user, rule);
        if let Some(reason) = about {
            events.record(key, reason);
        }
    }

    pub(super) fn record_zero(
        &mut self,
        report: &PassReport,
        key: &HpaKey,
        events: &mut EventPublisher,
    ) {
        let Some(report) = &report.zero else {
            return;
        };
        let now = Instant::now();
        self.zero.record_pass(report, now);
        match report.done {
            Some(ZeroAction::Zero) => {
                ScaledToZero { hpa: key }.emit();
                events.record(key, EventReason::ScaledToZero);
            }
            Some(ZeroAction::Wake(replicas)) => {
                WakeUp { hpa: key, replicas }.emit();
                events.record(key, EventReason::Woken(replicas));
            }
            Some(ZeroAction::Keep | ZeroAction::RemoveAnnotation) | None => {}
        }
        match report.error.clone() {
            None => {
                self.zero.retry.record_success();
                self.zero.forbidden = None;
            }
            Some(ApiError::Changed) => {}
            Some(error) => {
                // Errors of the ledger have a separate finding.
                if report.refusal.is_none() {
                    note_forbidden(&mut self.zero.forbidden, &error);
                }
                let new_reason = self.zero.retry.record_failure(error, READ_INTERVAL, now);
                ZeroFailed {
                    hpa: key,
                    new_reason,
                }
                .emit();
            }
        }
    }
}

/// Notes the answer of the API server if a right is missing. A failure for another reason says nothing about rights.
fn note_forbidden(noted: &mut Option<String>, error: &ApiError) {
    if let ApiError::Forbidden(reason) = error {
        *noted = Some(reason.clone());
    }
}

impl CapState {
    fn is_relevant(&self, hpa: &HpaFacts, mode: CapMode) -> bool {
        let fields = HpaFields::of(hpa);
        // The field may still have the cap's value although a user removed all annotations of lagwise.
        let is_owed =
            || self.last_seen.is_some() && fields.to_last_seen(self.last_seen).is_capped();
        is_enforced(hpa, mode) || fields.is_annotated() || is_owed()
    }

    /// Updates the target of the cap from the HPA's complete read in the last sweep.
    pub(super) fn decide(&mut self, hpa: &HpaFacts, mode: CapMode, read: Option<CompleteRead>) {
        if !self.is_relevant(hpa, mode) {
            *self = Self::default();
            return;
        }
        let fields = HpaFields::of(hpa);
        self.last_seen = Some(fields.to_last_seen(self.last_seen));
        self.target = if is_enforced(hpa, mode) {
            let ceiling = self.hysteresis.next(read, fields.ceiling);
            ceiling.map(CapTarget::Hold)
        } else {
            Some(CapTarget::Release)
        };
    }

    /// The next write of the cap, if there is one and it may be tried.
    pub(super) fn goal(
        &self,
        hpa: &HpaFacts,
        owner: Option<FieldOwner>,
        now: Instant,
    ) -> Option<CapGoal> {
        let goal = CapGoal {
            target: self.target?,
            last_seen: self.last_seen,
            owner: owner?,
            was_refused: self.retry.is_failing(),
        };
        let may = self.backoff.allows(now) && self.retry.may_start(now);
        (may && !goal.patch(HpaFields::of(hpa)).is_empty()).then_some(goal)
    }

    /// Logs that the cap cannot be written until it is known who records the user's `maxReplicas`. This is no failed
    /// attempt at the HPA: that the API server has refused one stays as it is.
    pub(super) fn record_lookup_failure(&mut self, key: &HpaKey, error: &ApiError) {
        // That the term has ended is no failure.
        if self.target.is_none() || *error == ApiError::Changed {
            return;
        }
        note_forbidden(&mut self.forbidden, error);
        if let Some(reason) = self.lookup_failures.record_failure(error.clone()) {
            CapOwnerUnknown { hpa: key, reason }.emit();
        }
    }

    /// Records that the field owner, who records the user's `maxReplicas`, is known again.
    pub(super) fn record_lookup_success(&mut self) {
        if self.lookup_failures.record_success().is_some() {
            self.forbidden = None;
        }
    }

    /// Records a write. Returns whether it shows for the first time that another writer keeps undoing the
    /// writes.
    pub(super) fn record_write(&mut self, write: &CapWrite, now: Instant) -> bool {
        self.last_seen = Some(write.after.to_last_seen(write.goal.last_seen));
        let before = self.backoff.is_contested();
        self.backoff.record_write(now);
        self.backoff.is_contested() && !before
    }
}

/// Whether the cap is enforced. An HPA without a metric of lagwise has no ceiling.
fn is_enforced(hpa: &HpaFacts, mode: CapMode) -> bool {
    mode == CapMode::Enforce && has_lagwise_metric(hpa)
}
