//! What keeps a cluster from answering, as its clients report it, in words that stay the same for as
//! long as the cause does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::units::newtypes::Moment;

/// How long a kind of error is held against a cluster after it was last seen: longer than
/// librdkafka keeps quiet about an error that repeats.
const REMEMBERED: Duration = Duration::from_secs(90);

/// What a cluster's clients have said of their connections. Shared by the clients' callbacks and
/// the sweeps of one source, and by nothing else.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    seen: Vec<SeenFault>,
    current: Option<ConnectionFault>,
}

#[derive(Debug)]
struct SeenFault {
    kind: Fault,
    reason: Arc<str>,
    last: Instant,
}

/// Lower explains more: a refused login says why brokers seem unreachable, not the reverse.
pub(super) fn rank(kind: Fault) -> u8 {
    match kind {
        Fault::Login => 0,
        Fault::Tls => 1,
        Fault::NameResolution => 2,
        Fault::Unreachable => 3,
        _ => 4,
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, HealthState> {
        // A panic while it was held left at worst one report out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client reported an error on a connection.
    pub(super) fn report(&self, kind: Fault, reason: &str, now: Instant) {
        if rank(kind) > rank(Fault::Unreachable) {
            return;
        }
        let mut state = self.state();
        match state.seen.iter_mut().find(|seen| seen.kind == kind) {
            Some(seen) => seen.last = now,
            None => state.seen.push(SeenFault {
                kind,
                reason: reason.into(),
                last: now,
            }),
        }
    }

    /// The cluster answered.
    pub(super) fn answered(&self) {
        *self.state() = HealthState::default();
    }

    /// What keeps the cluster from answering, as of the last sweep that asked it something.
    pub(super) fn current(&self) -> Option<ConnectionFault> {
        self.state().current.clone()
    }

    /// What keeps the cluster from answering after a sweep in which it was silent or not; `None`
    /// where it was asked nothing, which changes nothing.
    pub(super) fn after_sweep(
        &self,
        is_silent: Option<bool>,
        asked: &str,
    ) -> Option<ConnectionFault> {
        match is_silent {
            Some(true) => Some(self.silent(asked, Moment::now())),
            Some(false) => {
                self.answered();
                None
            }
            None => self.current(),
        }
    }

    /// The cluster did not answer: why, in the same words for as long as the cause is the same.
    pub(super) fn silent(&self, asked: &str, now: Moment) -> ConnectionFault {
        let mut state = self.state();
        state
            .seen
            .retain(|seen| now.monotonic.saturating_duration_since(seen.last) < REMEMBERED);
        let cause = state.seen.iter().min_by_key(|seen| rank(seen.kind));
        let (kind, reason) = match (cause, &state.current) {
            (Some(seen), _) => (seen.kind, Arc::clone(&seen.reason)),
            // That nothing was heard is no news where a cause is known.
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
    fn a_cause_keeps_its_words_and_the_better_one_wins() {
        let (health, start) = (Health::default(), Moment::now());
        let later = |seconds| Moment {
            monotonic: start.monotonic + Duration::from_secs(seconds),
            ..start
        };
        assert_eq!(
            health.silent("k:1", start).reason.as_ref(),
            "no answer from k:1"
        );
        health.report(Fault::Unreachable, "a: refused", start.monotonic);
        let first = health.silent("k:1", start);
        assert_eq!(
            (first.kind, first.reason.as_ref()),
            (Fault::Unreachable, "a: refused")
        );
        health.report(Fault::Unreachable, "b: refused", later(1).monotonic);
        assert_eq!(health.silent("k:1", later(1)), first);
        health.report(Fault::Login, "a: wrong password", later(2).monotonic);
        assert_eq!(health.silent("k:1", later(2)).kind, Fault::Login);
        health.report(Fault::Unreachable, "b: refused", later(99).monotonic);
        assert_eq!(health.silent("k:1", later(100)).kind, Fault::Unreachable);
        health.answered();
        assert_eq!(health.silent("k:1", later(101)).kind, Fault::NoAnswer);
    }
}
