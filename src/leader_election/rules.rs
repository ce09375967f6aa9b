//! Who leads: the rules by which several daemons share one Lease, so that at most one of them believes
//! to lead at any time.
//!
//! Machines' wall clocks are never compared. Whoever does not hold the Lease measures on its own clock
//! for how long it has not changed, and takes it after its whole duration; whoever holds it stops
//! leading, on its own clock, after two thirds of that since it last asked for a renewal that was
//! granted. The third between the two is for clocks that run at different rates, and for a write that
//! is under way. (client-go's `leaderelection` follows the first rule, too.)

use std::time::{Duration, Instant};

/// What the Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` where it was given back.
    pub holder: Option<String>,
    /// How often it has changed hands: the number of the term.
    pub transitions: u32,
    /// When it was last renewed, by the holder's own clock: only whether it changes counts.
    pub renewed: Option<String>,
    /// For how long it holds unless it is renewed.
    pub duration: Duration,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRules {
    /// For how long the Lease holds unless it is renewed.
    pub duration: Duration,
}

impl LeaseRules {
    /// For how long a leader leads after it asked for a renewal that was granted.
    #[must_use]
    pub fn term(self) -> Duration {
        parts(self.duration, 2, 3)
    }

    /// The time between two attempts.
    #[must_use]
    pub fn retry(self) -> Duration {
        parts(self.duration, 2, 15)
    }
}

/// `some` of `all` parts of it.
fn parts(duration: Duration, some: u32, all: u32) -> Duration {
    let whole = duration.saturating_mul(some);
    whole.checked_div(all).unwrap_or(whole)
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Hold it, as this term: take it, or renew it.
    Hold {
        /// The term's number.
        term: u32,
    },
    /// Somebody else holds it.
    Wait,
}

/// One who would lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    me: String,
    seen: Option<(Record, Instant)>,
}

impl Candidate {
    /// Known by this name, which no other has, nor had before.
    #[must_use]
    pub fn new(me: String) -> Self {
        Self { me, seen: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.me
    }

    /// Takes in what the Lease was found to say at `now`; `None` where there is no Lease.
    pub fn see(&mut self, record: Option<Record>, now: Instant) {
        let is_known = |seen: &(Record, Instant)| record.as_ref() == Some(&seen.0);
        if !self.seen.as_ref().is_some_and(is_known) {
            self.seen = record.map(|record| (record, now));
        }
    }

    /// What to do at `now`.
    #[must_use]
    pub fn turn(&self, now: Instant) -> Turn {
        let Some((record, since)) = &self.seen else {
            return Turn::Hold { term: 1 };
        };
        let next = Turn::Hold {
            term: record.transitions.saturating_add(1),
        };
        match &record.holder {
            None => next,
            Some(holder) if *holder == self.me => Turn::Hold {
                term: record.transitions,
            },
            Some(_) if now.saturating_duration_since(*since) >= record.duration => next,
            Some(_) => Turn::Wait,
        }
    }

    /// How long after `now` the Lease of somebody else is over unless it is renewed; `None` where nobody
    /// else holds it.
    #[must_use]
    pub fn over_in(&self, now: Instant) -> Option<Duration> {
        let (record, since) = self.seen.as_ref()?;
        let holder = record.holder.as_deref()?;
        let left = record
            .duration
            .saturating_sub(now.saturating_duration_since(*since));
        (holder != self.me).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: LeaseRules = LeaseRules {
        duration: Duration::from_secs(15),
    };

    fn held(holder: Option<&str>, transitions: u32, renewed: &str) -> Record {
        Record {
            holder: holder.map(str::to_owned),
            transitions,
            renewed: Some(renewed.to_owned()),
            duration: RULES.duration,
        }
    }

    #[test]
    fn when_the_lease_of_another_is_over() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut candidate = Candidate::new("me".into());
        assert_eq!(candidate.over_in(start), None);
        candidate.see(Some(held(Some("other"), 3, "1")), start);
        assert_eq!(candidate.over_in(start + 4 * second), Some(11 * second));
        assert_eq!(candidate.over_in(start + 20 * second), Some(Duration::ZERO));
        candidate.see(Some(held(Some("other"), 3, "2")), start + 4 * second);
        assert_eq!(candidate.over_in(start + 4 * second), Some(15 * second));
        for holder in [None, Some("me")] {
            candidate.see(Some(held(holder, 4, "3")), start);
            assert_eq!(candidate.over_in(start), None, "{holder:?}");
        }
    }

    #[test]
    fn who_may_hold_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut me = Candidate::new("me".into());
        me.see(None, at(0));
        assert_eq!(me.turn(at(0)), Turn::Hold { term: 1 });
        me.see(Some(held(Some("me"), 1, "a")), at(1));
        assert_eq!(me.turn(at(100)), Turn::Hold { term: 1 });
        me.see(Some(held(Some("other"), 2, "b")), at(100));
        assert_eq!(me.turn(at(114)), Turn::Wait);
        // A renewal begins the time anew, whatever its own clock says.
        me.see(Some(held(Some("other"), 2, "1970")), at(114));
        assert_eq!(me.turn(at(128)), Turn::Wait);
        assert_eq!(me.turn(at(129)), Turn::Hold { term: 3 });
        me.see(Some(held(None, 3, "d")), at(130));
        assert_eq!(me.turn(at(130)), Turn::Hold { term: 4 });
    }

    #[test]
    fn the_times_are_those_that_are_usual() {
        assert_eq!(RULES.term(), Duration::from_secs(10));
        assert_eq!(RULES.retry(), Duration::from_secs(2));
    }

    /// A daemon among others, in true milliseconds; its clock runs at its own rate.
    #[derive(Clone, Debug)]
    struct Daemon {
        candidate: Candidate,
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
                candidate: Candidate::new(format!("daemon-{i}")),
                rate: *rate,
                version: 0,
                until: None,
                paused_until: 0,
            }).collect();
            let (mut lease, mut version, mut time) = (None::<Record>, 0u64, 0u64);
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
                daemon.candidate.see(lease.clone(), now);
                daemon.version = version;
                if let Turn::Hold { term } = daemon.candidate.turn(now) {
                    // The request is on its way for as long as the pause, and nobody knows where.
                    let asked = now;
                    if fate == 0 {
                        daemon.paused_until = time + pause;
                        continue;
                    }
                    let taken = lease.as_ref().is_none_or(|l| l.transitions != term);
                    if taken {
                        terms.push(term);
                    }
                    let record = Record { duration: RULES.duration, ..held(Some(daemon.candidate.name()), term, &turn.to_string()) };
                    lease = Some(record.clone());
                    version += 1;
                    if fate == 1 {
                        // Granted, and the answer is lost.
                        daemon.paused_until = time + pause;
                        continue;
                    }
                    daemon.candidate.see(Some(record), now);
                    daemon.until = Some(asked + RULES.term());
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
