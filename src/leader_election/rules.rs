//! The rules by which several daemons share one Lease, so that at most one leads at any time.
//!
//! Wall clocks of machines are never compared. A daemon that does not hold the Lease measures on its
//! own monotonic clock for how long the Lease has not changed, and takes it after the Lease's duration.
//! The holder stops leading, on its own clock, two thirds of the duration after it sent the last renewal
//! that was granted. The third in between allows for clocks that run at different rates and for a write
//! under way. client-go's `leaderelection` follows the first rule, too.

use std::time::{Duration, Instant};

use crate::model::units::lease::MAX_LEASE_DURATION;

/// The fields of the Lease on which the rules depend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The holder's identity; `None` if it was released.
    pub holder: Option<String>,
    /// How often it has changed hands, which is the number of the term.
    pub transitions: u32,
    /// The holder's wall clock when it last renewed the Lease. Compared for equality only.
    pub renewed: Option<String>,
    /// How long the Lease is valid unless it is renewed.
    pub duration: Duration,
    /// The host and port of the holder's external metrics API, if it published them.
    pub address: Option<String>,
}

impl LeaseRecord {
    /// How long another daemon respects it after its last change. Bounded: otherwise a user who may write the Lease
    /// could keep every daemon from leading for decades, without any error.
    #[must_use]
    pub fn validity(&self) -> Duration {
        self.duration.min(MAX_LEASE_DURATION)
    }
}

/// Durations derived from the Lease's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRules {
    /// For how long the Lease is valid unless it is renewed.
    pub duration: Duration,
}

impl LeaseRules {
    /// For how long a leader leads after it sent a renewal that was granted.
    #[must_use]
    pub fn term(self) -> Duration {
        fraction(self.duration, 2, 3)
    }

    /// The time between two attempts to take or renew the Lease.
    #[must_use]
    pub fn retry(self) -> Duration {
        fraction(self.duration, 2, 15)
    }
}

/// A fraction of a duration.
fn fraction(duration: Duration, numerator: u32, denominator: u32) -> Duration {
    let product = duration.saturating_mul(numerator);
    product.checked_div(denominator).unwrap_or(product)
}

/// What to do with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Take or renew it, as this term.
    Hold {
        /// The term's number.
        term: u32,
    },
    /// Another daemon holds it.
    Wait,
}

/// A daemon that takes part in the election, and its observations of the Lease.
#[derive(Clone, Debug)]
pub struct LeaseCandidate {
    identity: String,
    seen: Option<(LeaseRecord, Instant)>,
}

impl LeaseCandidate {
    /// A daemon with this identity, which no other daemon has or ever had.
    #[must_use]
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
        }
    }

    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Records the Lease as it was read at `now`; `None` if there is none.
    pub fn observe(&mut self, record: Option<LeaseRecord>, now: Instant) {
        let is_known = |seen: &(LeaseRecord, Instant)| record.as_ref() == Some(&seen.0);
        if !self.seen.as_ref().is_some_and(is_known) {
            self.seen = record.map(|record| (record, now));
        }
    }

    /// Decides what to do at `now`.
    #[must_use]
    pub fn decide(&self, now: Instant) -> LeaseAction {
        let Some((record, since)) = &self.seen else {
            return LeaseAction::Hold { term: 1 };
        };
        let next = LeaseAction::Hold {
            term: record.transitions.saturating_add(1),
        };
        match &record.holder {
            None => next,
            Some(holder) if *holder == self.identity => LeaseAction::Hold {
                term: record.transitions,
            },
            Some(_) if now.saturating_duration_since(*since) >= record.validity() => next,
            Some(_) => LeaseAction::Wait,
        }
    }

    /// How long after `now` the Lease of another daemon expires unless it is renewed; `None` if no other
    /// holds it.
    #[must_use]
    pub fn expires_in(&self, now: Instant) -> Option<Duration> {
        let (record, since) = self.seen.as_ref()?;
        let holder = record.holder.as_deref()?;
        let left = record
            .validity()
            .saturating_sub(now.saturating_duration_since(*since));
        (holder != self.identity).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: LeaseRules = LeaseRules {
        duration: Duration::from_secs(15),
    };

    fn held(holder: Option<&str>, transitions: u32, renewed: &str) -> LeaseRecord {
        LeaseRecord {
            holder: holder.map(str::to_owned),
            transitions,
            renewed: Some(renewed.to_owned()),
            duration: RULES.duration,
            address: None,
        }
    }

    #[test]
    fn lease_of_another_expires() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut candidate = LeaseCandidate::new("me".into());
        assert_eq!(candidate.expires_in(start), None);
        candidate.observe(Some(held(Some("other"), 3, "1")), start);
        assert_eq!(candidate.expires_in(start + 4 * second), Some(11 * second));
        assert_eq!(
            candidate.expires_in(start + 20 * second),
            Some(Duration::ZERO)
        );
        candidate.observe(Some(held(Some("other"), 3, "2")), start + 4 * second);
        assert_eq!(candidate.expires_in(start + 4 * second), Some(15 * second));
        for holder in [None, Some("me")] {
            candidate.observe(Some(held(holder, 4, "3")), start);
            assert_eq!(candidate.expires_in(start), None, "{holder:?}");
        }
    }

    #[test]
    fn takes_over_a_lease_of_decades_after_the_longest_duration() {
        let start = Instant::now();
        for seconds in [301, 1 << 31, u64::MAX] {
            let mut candidate = LeaseCandidate::new("me".into());
            let lease = LeaseRecord {
                duration: Duration::from_secs(seconds),
                ..held(Some("other"), 7, "1")
            };
            candidate.observe(Some(lease), start);
            let expired = start + MAX_LEASE_DURATION;
            assert_eq!(candidate.expires_in(start), Some(MAX_LEASE_DURATION));
            assert_eq!(candidate.decide(start), LeaseAction::Wait);
            assert_eq!(candidate.decide(expired), LeaseAction::Hold { term: 8 });
        }
    }

    #[test]
    fn decides_who_may_hold_the_lease() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut me = LeaseCandidate::new("me".into());
        me.observe(None, at(0));
        assert_eq!(me.decide(at(0)), LeaseAction::Hold { term: 1 });
        me.observe(Some(held(Some("me"), 1, "a")), at(1));
        assert_eq!(me.decide(at(100)), LeaseAction::Hold { term: 1 });
        me.observe(Some(held(Some("other"), 2, "b")), at(100));
        assert_eq!(me.decide(at(114)), LeaseAction::Wait);
        // A renewal restarts the time, whatever its own clock says.
        me.observe(Some(held(Some("other"), 2, "1970")), at(114));
        assert_eq!(me.decide(at(128)), LeaseAction::Wait);
        assert_eq!(me.decide(at(129)), LeaseAction::Hold { term: 3 });
        me.observe(Some(held(None, 3, "d")), at(130));
        assert_eq!(me.decide(at(130)), LeaseAction::Hold { term: 4 });
    }

    #[test]
    fn default_durations_match_kubernetes() {
        assert_eq!(RULES.term(), Duration::from_secs(10));
        assert_eq!(RULES.retry(), Duration::from_secs(2));
    }

    /// A daemon among others, in true milliseconds; its clock runs at its own rate.
    #[derive(Clone, Debug)]
    struct Daemon {
        candidate: LeaseCandidate,
        /// Thousandths of a true millisecond that pass on its clock in one.
        rate: u64,
        /// The version that it has read, and until when it believes to lead, on its own clock.
        version: u64,
        until: Option<Instant>,
        paused_until: u64,
    }

    proptest! {
        /// Daemons whose clocks run up to a tenth too fast or too slow, with pauses at any point and
        /// writes that are lost on the way there or back.
        #[test]
        fn never_do_two_lead_at_once(
            rates in proptest::collection::vec(900u64..1100, 2..4),
            turns in proptest::collection::vec((0usize..4, 0u64..4000, 0u8..10, 0u64..40_000), 1..400),
        ) {
            let start = Instant::now();
            let mut daemons: Vec<Daemon> = rates.iter().enumerate().map(|(i, rate)| Daemon {
                candidate: LeaseCandidate::new(format!("daemon-{i}")),
                rate: *rate,
                version: 0,
                until: None,
                paused_until: 0,
            }).collect();
            let (mut lease, mut version, mut time) = (None::<LeaseRecord>, 0u64, 0u64);
            let mut terms = Vec::new();
            for (turn, (who, passes, fate, pause)) in turns.into_iter().enumerate() {
                time += passes;
                let count = daemons.len();
                let daemon = &mut daemons[who % count];
                if daemon.paused_until > time {
                    continue;
                }
                let clock = |at: u64, rate: u64| start + Duration::from_micros(at * rate);
                let now = clock(time, daemon.rate);
                daemon.candidate.observe(lease.clone(), now);
                daemon.version = version;
                if let LeaseAction::Hold { term } = daemon.candidate.decide(now) {
                    // The request takes as long as the pause. Until then its outcome is unknown.
                    let requested_at = now;
                    if fate == 0 {
                        daemon.paused_until = time + pause;
                        continue;
                    }
                    let taken = lease.as_ref().is_none_or(|l| l.transitions != term);
                    if taken {
                        terms.push(term);
                    }
                    let record = LeaseRecord { duration: RULES.duration, ..held(Some(daemon.candidate.identity()), term, &turn.to_string()) };
                    lease = Some(record.clone());
                    version += 1;
                    if fate == 1 {
                        // The request succeeds, and the response is lost.
                        daemon.paused_until = time + pause;
                        continue;
                    }
                    daemon.candidate.observe(Some(record), now);
                    daemon.until = Some(requested_at + RULES.term());
                    if fate == 2 {
                        daemon.paused_until = time + pause;
                    }
                }
                let leading = daemons.iter().filter(|d| {
                    d.until.is_some_and(|until| clock(time, d.rate) < until)
                });
                prop_assert!(leading.count() <= 1);
            }
            prop_assert!(terms.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", terms);
        }
    }
}
