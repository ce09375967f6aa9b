//! Why a cluster does not answer, derived from its clients' connection errors. The reason keeps the
//! same words for as long as the cause is the same, so that it can be logged and compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::{BrokerFault, ConnectionFault, Fault};
use crate::model::units::newtypes::Moment;
use crate::model::units::untrusted_text::Printable;

/// Maximum age of a reported error that counts as a possible cause. Longer than librdkafka suppresses an error that
/// repeats.
const MAX_REPORT_AGE: Duration = Duration::from_secs(90);

/// Maximum number of brokers that are kept as unreachable: a broker may advertise any number of others.
const MAX_BROKERS: usize = 1_000;

/// Connection errors of one cluster's clients. Shared by the clients' callbacks and the sweeps of
/// one source only.
#[derive(Debug, Default)]
pub(super) struct ConnectionHealth(Mutex<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    seen: Vec<ReportedFault>,
    /// Errors by address, until the broker answers or was not needed for long.
    brokers: BTreeMap<Arc<str>, ReportedFault>,
    current: Option<ConnectionFault>,
}

#[derive(Debug)]
struct ReportedFault {
    kind: Fault,
    reason: Arc<str>,
    /// When it was last reported, or last made a needed broker unavailable.
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
        Fault::NoAnswer => 5,
        _ => 6,
    }
}

/// Name of a broker: its address, with control characters escaped and a bounded length, because brokers choose it.
fn broker_key(address: &str) -> Arc<str> {
    Printable::message(address).to_string().into()
}

impl ConnectionHealth {
    fn state(&self) -> MutexGuard<'_, HealthState> {
        // A panic while it was locked can at worst have lost one report.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an error on a connection.
    pub(super) fn report(&self, kind: Fault, reason: &str, now: Instant) {
        if cause_rank(kind) > cause_rank(Fault::NoAnswer) {
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

    /// Records that a broker cannot be reached. `reason` begins with its address.
    pub(super) fn report_broker(&self, address: &str, kind: Fault, reason: &str, now: Instant) {
        self.report(kind, reason, now);
        let mut state = self.state();
        let address = broker_key(address);
        let is_full = state.brokers.len() >= MAX_BROKERS;
        match state.brokers.get_mut(&address) {
            Some(known) if known.kind == kind => known.last = now,
            None if is_full => {}
            _ => {
                let reported = ReportedFault {
                    kind,
                    reason: Printable::message(reason).to_string().into(),
                    last: now,
                };
                state.brokers.insert(address, reported);
            }
        }
    }

    /// Records that a broker which cannot be reached is needed.
    pub(super) fn need_broker(&self, address: &str, now: Instant) {
        if let Some(known) = self.state().brokers.get_mut(&broker_key(address)) {
            known.last = now;
        }
    }

    /// Forgets the error of a broker: it answered, or is not needed any more.
    pub(super) fn forget_broker(&self, address: &str) {
        self.state().brokers.remove(&broker_key(address));
    }

    /// Forgets the errors of all brokers, because the client starts again from the bootstrap servers.
    pub(super) fn forget_brokers(&self) {
        self.state().brokers.clear();
    }

    /// The brokers that cannot be reached and were needed within the time that a report counts, or
    /// since `sweep` began.
    pub(super) fn unreachable_brokers(
        &self,
        now: Instant,
        sweep: Option<Instant>,
    ) -> Vec<BrokerFault> {
        let mut state = self.state();
        state
            .brokers
            .retain(|_, seen| now.saturating_duration_since(seen.last) < MAX_REPORT_AGE);
        let is_needed = |seen: &ReportedFault| sweep.is_none_or(|started| seen.last >= started);
        let fault = |(address, seen): (&Arc<str>, &ReportedFault)| BrokerFault {
            address: Arc::clone(address),
            kind: seen.kind,
            reason: Arc::clone(&seen.reason),
        };
        let needed = state.brokers.iter().filter(|(_, seen)| is_needed(seen));
        needed.map(fault).collect()
    }

    /// Forgets the errors that explain a silent cluster: it answered.
    pub(super) fn record_answer(&self) {
        let mut state = self.state();
        state.seen.clear();
        state.current = None;
    }

    /// The connection problem as of the last sweep that sent a request to the cluster.
    pub(super) fn current(&self) -> Option<ConnectionFault> {
        self.state().current.clone()
    }

    /// Records the outcome of a sweep and returns the connection problem, if any. `is_silent` is
    /// `None` for a sweep without requests, which changes nothing.
    pub(super) fn record_sweep(
        &self,
        is_silent: Option<bool>,
        peers: &str,
    ) -> Option<ConnectionFault> {
        match is_silent {
            Some(true) => Some(self.record_silence(peers, Moment::now())),
            Some(false) => {
                self.record_answer();
                None
            }
            None => self.current(),
        }
    }

    /// Records that the cluster did not answer, and returns the most likely cause.
    pub(super) fn record_silence(&self, peers: &str, now: Moment) -> ConnectionFault {
        let mut state = self.state();
        state
            .seen
            .retain(|seen| now.monotonic.saturating_duration_since(seen.last) < MAX_REPORT_AGE);
        let unexplained: Arc<str> = format!("no answer from {peers}").into();
        let cause = state.seen.iter().min_by_key(|seen| cause_rank(seen.kind));
        let (kind, reason) = match (cause, &state.current) {
            // A known cause explains the silence better than that there is no answer.
            (None, Some(current)) => return current.clone(),
            (Some(seen), Some(current))
                if seen.kind == Fault::NoAnswer && current.kind != seen.kind =>
            {
                return current.clone();
            }
            (Some(seen), _) => (seen.kind, Arc::clone(&seen.reason)),
            (None, None) => (Fault::NoAnswer, Arc::clone(&unexplained)),
        };
        match &state.current {
            Some(current) if current.kind == kind && current.reason != unexplained => {
                current.clone()
            }
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
    fn brokers_are_unreachable_until_they_answer_or_are_not_tried_any_more() {
        let (health, start) = (ConnectionHealth::default(), Instant::now());
        let known = |seconds| {
            let now = start + Duration::from_secs(seconds);
            let brokers = health.unreachable_brokers(now, None);
            let shown = brokers
                .iter()
                .map(|b| format!("{} {}", b.kind.label(), b.reason));
            shown.collect::<Vec<_>>()
        };
        let report = |address: &str, kind, seconds| {
            let reason = format!("{address}: {}", Fault::label(kind));
            health.report_broker(address, kind, &reason, start + Duration::from_secs(seconds));
        };
        report("a:1", Fault::Unreachable, 0);
        report("b:1", Fault::NameResolution, 0);
        // An answer of another broker changes nothing.
        health.record_answer();
        assert_eq!(
            known(1),
            [
                "unreachable a:1: unreachable",
                "name_resolution b:1: name_resolution"
            ]
        );
        report("a:1", Fault::Tls, 50);
        assert_eq!(known(89).len(), 2);
        assert_eq!(known(90), ["tls a:1: tls"]);
        // Brokers that were needed since a sweep began include this one only if it was needed again.
        let sweep = start + Duration::from_secs(60);
        assert_eq!(health.unreachable_brokers(sweep, Some(sweep)), []);
        health.need_broker("a:1", sweep);
        health.need_broker("unknown:1", sweep);
        assert_eq!(health.unreachable_brokers(sweep, Some(sweep)).len(), 1);
        health.forget_broker("a:1");
        assert_eq!(known(91), Vec::<String>::new());
        for number in 0..MAX_BROKERS + 5 {
            report(&format!("c{number}:1"), Fault::Unreachable, 92);
        }
        assert_eq!(known(93).len(), MAX_BROKERS);
        health.forget_brokers();
        assert_eq!(known(93).len(), 0);
    }

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
        health.report(Fault::NoAnswer, "a: sends nothing", start.monotonic);
        for _ in 0..2 {
            let silent = health.record_silence("k:1", start);
            assert_eq!(silent.kind, Fault::NoAnswer);
            assert_eq!(silent.reason.as_ref(), "a: sends nothing");
        }
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
