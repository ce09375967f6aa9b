//! Why a cluster does not answer, derived from its clients' connection errors. The reason keeps the
//! same words for as long as the cause is the same, so that it can be logged and compared.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::units::newtypes::Moment;
use crate::model::units::untrusted_text::Printable;

/// How long a reported error counts as a possible cause. Longer than librdkafka suppresses an error
/// that repeats.
const REPORT_MAX_AGE: Duration = Duration::from_secs(90);

/// Connection errors of one cluster's clients. Shared by the clients' callbacks and the sweeps of
/// one source only.
#[derive(Debug, Default)]
pub(super) struct ConnectionHealth(Mutex<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    seen: Vec<ReportedFault>,
    current: Option<ConnectionFault>,
}

#[derive(Debug)]
struct ReportedFault {
    kind: Fault,
    reason: Arc<str>,
    last: Instant,
}

/// Orders causes by how much they explain, best first: a refused login explains why brokers seem
/// unreachable, not the reverse.
pub(super) fn cause_rank(kind: Fault) -> u8 {
    match kind {
        Fault::Login => 0,
        Fault::HostNotAllowed => 1,
        Fault::Tls => 2,
        Fault::NameResolution => 3,
        Fault::Unreachable => 4,
        _ => 5,
    }
}

impl ConnectionHealth {
    fn state(&self) -> MutexGuard<'_, HealthState> {
        // A panic while it was locked can at worst have lost one report.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an error on a connection.
    pub(super) fn report(&self, kind: Fault, reason: &str, now: Instant) {
        if cause_rank(kind) > cause_rank(Fault::Unreachable) {
            return;
        }
        let mut state = self.state();
        match state.seen.iter_mut().find(|seen| seen.kind == kind) {
            Some(seen) => seen.last = now,
            None => state.seen.push(ReportedFault {
                kind,
                reason: Printable::message(reason).to_string().into(),
                last: now,
            }),
        }
    }

    /// Forgets all errors: the cluster answered.
    pub(super) fn record_answer(&self) {
        *self.state() = HealthState::default();
    }

    /// The connection problem as of the last sweep that asked the cluster something.
    pub(super) fn current(&self) -> Option<ConnectionFault> {
        self.state().current.clone()
    }

    /// Records the outcome of a sweep and returns the connection problem, if any. `is_silent` is
    /// `None` for a sweep that asked nothing, which changes nothing.
    pub(super) fn record_sweep(
        &self,
        is_silent: Option<bool>,
        asked: &str,
    ) -> Option<ConnectionFault> {
        match is_silent {
            Some(true) => Some(self.record_silence(asked, Moment::now())),
            Some(false) => {
                self.record_answer();
                None
            }
            None => self.current(),
        }
    }

    /// Records that the cluster did not answer, and returns the most likely cause.
    pub(super) fn record_silence(&self, asked: &str, now: Moment) -> ConnectionFault {
        let mut state = self.state();
        state
            .seen
            .retain(|seen| now.monotonic.saturating_duration_since(seen.last) < REPORT_MAX_AGE);
        let cause = state.seen.iter().min_by_key(|seen| cause_rank(seen.kind));
        let (kind, reason) = match (cause, &state.current) {
            (Some(seen), _) => (seen.kind, Arc::clone(&seen.reason)),
            // A known cause explains the silence better than "no answer".
            (None, Some(current)) => return current.clone(),
            (None, None) => (Fault::NoAnswer, format!("no answer from {asked}").into()),
        };
        match &state.current {
            Some(current) if current.kind == kind => current.clone(),
            before => {
                let since = before.as_ref().map_or(now, |fault| fault.since);
                let fault = ConnectionFault {
                    kind,
                    reason,
                    since,
                };
                state.current = Some(fault.clone());
                fault
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_keeps_its_text_and_the_more_specific_one_wins() {
        let (health, start) = (ConnectionHealth::default(), Moment::now());
        let later = |seconds| Moment {
            monotonic: start.monotonic + Duration::from_secs(seconds),
            ..start
        };
        assert_eq!(
            health.record_silence("k:1", start).reason.as_ref(),
            "no answer from k:1"
        );
        health.report(Fault::Unreachable, "a: refused", start.monotonic);
        let first = health.record_silence("k:1", start);
        assert_eq!(
            (first.kind, first.reason.as_ref()),
            (Fault::Unreachable, "a: refused")
        );
        health.report(Fault::Unreachable, "b: refused", later(1).monotonic);
        assert_eq!(health.record_silence("k:1", later(1)), first);
        health.report(Fault::Login, "a: wrong password", later(2).monotonic);
        assert_eq!(health.record_silence("k:1", later(2)).kind, Fault::Login);
        health.report(Fault::Unreachable, "b: refused", later(99).monotonic);
        assert_eq!(
            health.record_silence("k:1", later(100)).kind,
            Fault::Unreachable
        );
        health.record_answer();
        assert_eq!(
            health.record_silence("k:1", later(101)).kind,
            Fault::NoAnswer
        );
    }
}
