//! What the reconciler remembers of one HPA between passes, and whether the HPA has something to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LONGEST_PAUSE;
use super::event_publisher::EventPublisher;
use super::pass::{CapWrite, PassReport, ZeroInput, ZeroReport};
use super::retry::Attempts;
use crate::k8s::api_error::ApiError;
use crate::model::decisions::cap::{
    CapGoal, CapTarget, CeilingHysteresis, FieldOwner, HpaFields, LastSeen, WriteBackoff,
};
use crate::model::decisions::enforceable::CompleteRead;
use crate::model::decisions::fencing::is_managed;
use crate::model::decisions::scale_to_zero::{Demand, ZeroAction, ZeroCandidate};
use crate::model::decisions::zero_ledger::ZeroRefusal;
use crate::model::diagnostics::hpa_events::EventReason;
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::facts::{
    HpaFacts, has_lagwise_metric, has_zero_mark, other_external_metric, scales_to_zero_natively,
};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::cap::{CapFailed, CapFought, CapWritten};
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::zero::{ScaledToZero, WakeUp, ZeroFailed};

/// How often a workload is looked at that has no demand. Also the longest pause after a failed look.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// One HPA.
#[derive(Debug, Default)]
pub(super) struct HpaState {
    /// The HPA as the watch last showed it.
    pub(super) facts: Arc<HpaFacts>,
    /// Whether the HPA has to carry the term of this leader.
    pub(super) is_managed: bool,
    /// The term that it carries; 0 if it is not known to carry one.
    pub(super) written_term: u64,
    /// Attempts to write the term.
    pub(super) term_attempts: Attempts,
    pub(super) cap: CapState,
    pub(super) zero: ZeroState,
}

/// What is remembered for the cap.
#[derive(Debug, Default)]
pub(super) struct CapState {
    /// What the last sweep asked for; `None` to leave everything as it is.
    pub(super) target: Option<CapTarget>,
    /// `maxReplicas` as it was last seen, to tell a user's write from lagwise's own.
    pub(super) last_seen: Option<LastSeen>,
    pub(super) hysteresis: CeilingHysteresis,
    pub(super) backoff: WriteBackoff,
    pub(super) attempts: Attempts,
    /// Why it is not known which component records the user's `maxReplicas`, as last logged of this HPA.
    pub(super) lookup_failures: FailureLog<ApiError>,
}

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
    pub(super) attempts: Attempts,
}

/// How soon an HPA has to have its pass.
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
    /// Takes in the HPA as the watch shows it, what it asks of scale to zero, for how long it has been idle, and whether
    /// the ledger has a record for it. Another HPA of the same name starts anew. Returns whether lagwise has or may have
    /// something to write for it, so that it is to be remembered.
    pub(super) fn update(
        &mut self,
        hpa: &Arc<HpaFacts>,
        rules: &ServingPolicy,
        candidate: Option<ZeroCandidate>,
        idle: Option<Duration>,
        is_recorded: bool,
    ) -> bool {
        if self.facts.uid != hpa.uid {
            *self = Self::default();
        }
        self.facts = Arc::clone(hpa);
        self.is_managed = is_managed(hpa, rules, is_recorded);
        if !self.is_managed {
            // It may lose the annotation meanwhile: once lagwise manages it again, it gets the term again.
            self.written_term = 0;
        }
        let is_zero_relevant = self.zero.update(hpa, candidate, idle, is_recorded);
        is_zero_relevant || self.is_managed || self.cap.is_relevant(hpa, rules.cap_mode(hpa))
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
        let is_due = needs_term && self.term_attempts.may_start(now)
            || self.cap.goal(&self.facts, owner, now).is_some();
        is_due.then_some(Urgency::Normal)
    }

    /// Whether something failed that is to be tried again.
    pub(super) fn is_failing(&self) -> bool {
        let all = [&self.term_attempts, &self.cap.attempts, &self.zero.attempts];
        all.into_iter().any(Attempts::is_failing)
    }
}

/// What follows from a pass.
impl HpaState {
    pub(super) fn record_cap(
        &mut self,
        report: &PassReport,
        key: &HpaKey,
        events: &mut EventPublisher,
    ) {
        let write = match &report.cap {
            None => return,
            Some(Err(error)) => {
                let now = Instant::now();
                let attempts = &mut self.cap.attempts;
                if let Some(reason) = attempts.record_failure(error.clone(), LONGEST_PAUSE, now) {
                    CapFailed { hpa: key, reason }.emit();
                }
                return;
            }
            Some(Ok(write)) => write,
        };
        self.cap.attempts.record_success();
        let Some(write) = write else {
            return;
        };
        let ceiling = match write.goal.target {
            CapTarget::Hold(ceiling) => Some(ceiling),
            CapTarget::Release => None,
        };
        if self.cap.wrote(write, Instant::now()) {
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
            Some(ZeroAction::Keep | ZeroAction::Unmark) | None => {}
        }
        match report.error.clone() {
            None => self.zero.attempts.record_success(),
            Some(error) => {
                if let Some(reason) = self.zero.attempts.record_failure(error, LOOK_EVERY, now) {
                    ZeroFailed { hpa: key, reason }.emit();
                }
            }
        }
    }
}

impl CapState {
    fn is_relevant(&self, hpa: &HpaFacts, mode: CapMode) -> bool {
        let fields = HpaFields::of(hpa);
        // The field may still be what the cap has made it, though somebody took every mark away.
        let is_owed = || self.last_seen.is_some() && fields.seen(self.last_seen).is_capped();
        is_enforced(hpa, mode) || fields.is_marked() || is_owed()
    }

    /// Decides from the HPA's complete read in the last sweep what the cap wants.
    pub(super) fn decide(&mut self, hpa: &HpaFacts, mode: CapMode, read: Option<CompleteRead>) {
        if !self.is_relevant(hpa, mode) {
            *self = Self::default();
            return;
        }
        let fields = HpaFields::of(hpa);
        self.last_seen = Some(fields.seen(self.last_seen));
        self.target = if is_enforced(hpa, mode) {
            let ceiling = self.hysteresis.next(read, fields.ceiling);
            ceiling.map(CapTarget::Hold)
        } else {
            Some(CapTarget::Release)
        };
    }

    /// What the next pass has to write for the cap, if there is anything and it may be tried.
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
            was_refused: self.attempts.is_failing(),
        };
        let may = self.backoff.allows(now) && self.attempts.may_start(now);
        (may && !goal.patch(HpaFields::of(hpa)).is_empty()).then_some(goal)
    }

    /// Logs that the cap cannot be written until it is known who records the user's `maxReplicas`. This is no failed
    /// attempt at the HPA: that the API server has refused one stays as it is.
    pub(super) fn record_lookup_failure(&mut self, key: &HpaKey, error: &ApiError) {
        // That the term has ended is no failure.
        if self.target.is_none() || *error == ApiError::Changed {
            return;
        }
        if let Some(reason) = self.lookup_failures.record_failure(error.clone()) {
            CapFailed { hpa: key, reason }.emit();
        }
    }

    /// Takes in a write. Returns whether it shows that somebody keeps undoing what is written, if that
    /// is news.
    pub(super) fn wrote(&mut self, write: &CapWrite, now: Instant) -> bool {
        self.last_seen = Some(write.after.seen(write.goal.last_seen));
        let before = self.backoff.is_contested();
        self.backoff.wrote(now);
        self.backoff.is_contested() && !before
    }
}

impl ZeroState {
    /// Takes in what the HPA asks for and how long its workload has been idle. Returns whether scale to zero
    /// may write the HPA: not one that another controller owns.
    fn update(
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
    fn is_pressing(&self) -> bool {
        self.is_at_zero() && self.has_demand() && self.refusal.is_none()
    }

    /// Whether the workload has to be looked at now: at once if demand waits for it, else every
    /// [`LOOK_EVERY`].
    fn is_due(&self, hpa: &HpaFacts, now: Instant) -> bool {
        let is_at_zero = self.is_at_zero();
        let was_looked_at = self
            .looked_at
            .is_some_and(|looked_at| now.saturating_duration_since(looked_at) < LOOK_EVERY);
        if !self.attempts.may_start(now) {
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

/// Without a metric of lagwise's there is no ceiling, and never will be.
fn is_enforced(hpa: &HpaFacts, mode: CapMode) -> bool {
    mode == CapMode::Enforce && has_lagwise_metric(hpa)
}
