//! librdkafka's error codes and reasons -> faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::fault::{ConnectionFault, Fault};
use crate::model::types::Moment;

/// The fault for an error code: a broker's where positive, librdkafka's own where negative
/// (`rd_kafka_resp_err_t`; <https://kafka.apache.org/protocol#protocol_error_codes>).
pub(super) fn fault_of(code: i32) -> Fault {
    match code {
        -185 | 7 => Fault::NoAnswer,
        -195 | -187 | 8 | 13 => Fault::Unreachable,
        -169 | 58 => Fault::Login,
        -181 => Fault::Tls,
        -193 => Fault::NameResolution,
        5 | 6 | 72 | 74 | 75 | 76 | 78 => Fault::LeaderUnknown,
        -180 | 14 | 15 | 16 => Fault::CoordinatorUnavailable,
        -188 => Fault::TopicMissing,
        -190 | 3 => Fault::PartitionMissing,
        29 => Fault::TopicDenied,
        30 => Fault::GroupDenied,
        code => Fault::Code(code),
    }
}

/// How long a kind of error is held against a cluster after it was last seen: longer than
/// librdkafka keeps quiet about an error that repeats.
const REMEMBERED: Duration = Duration::from_secs(90);

/// What a cluster's clients have said of their connections. Shared by the clients' callbacks and
/// the sweeps of one source, and by nothing else.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    current: Option<ConnectionFault>,
}

#[derive(Debug)]
struct Seen {
    kind: Fault,
    reason: Arc<str>,
    last: Instant,
}

/// Lower explains more: a refused login says why brokers seem unreachable, not the reverse.
fn rank(kind: Fault) -> u8 {
    match kind {
        Fault::Login => 0,
        Fault::Tls => 1,
        Fault::NameResolution => 2,
        Fault::Unreachable => 3,
        _ => 4,
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left at worst one report out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client reported an error on a connection.
    pub(super) fn report(&self, code: i32, reason: &str, now: Instant) {
        let kind = fault_of(code);
        // "All brokers are down" repeats what each broker's own error said better.
        if rank(kind) > rank(Fault::Unreachable) || code == -187 {
            return;
        }
        let mut state = self.state();
        match state.seen.iter_mut().find(|seen| seen.kind == kind) {
            Some(seen) => seen.last = now,
            None => state.seen.push(Seen {
                kind,
                reason: plain(reason).into(),
                last: now,
            }),
        }
    }

    /// The cluster answered.
    pub(super) fn answered(&self) {
        *self.state() = State::default();
    }

    /// What keeps the cluster from answering, as of the last sweep that asked it something.
    pub(super) fn current(&self) -> Option<ConnectionFault> {
        self.state().current.clone()
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

/// A reason without what changes from one time to the next ("after 3ms in state CONNECT").
fn plain(reason: &str) -> &str {
    let end = reason.find(" (after ").unwrap_or(reason.len());
    reason.get(..end).unwrap_or(reason).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::Moment;

    #[test]
    fn reasons_lose_what_changes() {
        let given = "sasl_plaintext://k:9093/bootstrap: SASL authentication error: no (after 307ms in state AUTH_REQ, 5 identical error(s) suppressed)";
        assert_eq!(
            plain(given),
            "sasl_plaintext://k:9093/bootstrap: SASL authentication error: no"
        );
        assert_eq!(plain("as it is"), "as it is");
    }

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
        health.report(
            -195,
            "a: refused (after 1ms in state CONNECT)",
            start.monotonic,
        );
        let first = health.silent("k:1", start);
        assert_eq!(
            (first.kind, first.reason.as_ref()),
            (Fault::Unreachable, "a: refused")
        );
        health.report(
            -195,
            "b: refused (after 2ms in state CONNECT)",
            later(1).monotonic,
        );
        assert_eq!(health.silent("k:1", later(1)), first);
        health.report(-169, "a: wrong password", later(2).monotonic);
        assert_eq!(health.silent("k:1", later(2)).kind, Fault::Login);
        health.report(-195, "b: refused", later(99).monotonic);
        assert_eq!(health.silent("k:1", later(100)).kind, Fault::Unreachable);
        health.answered();
        assert_eq!(health.silent("k:1", later(101)).kind, Fault::NoAnswer);
    }

    #[test]
    fn every_code_is_a_fault() {
        for code in -300..200 {
            assert!(!fault_of(code).to_string().is_empty());
        }
    }
}
