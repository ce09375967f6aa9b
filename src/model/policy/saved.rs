//! Saved form of the learned state of a policy: numbers in a fixed order. Times are in seconds before the saving; -1
//! means unknown.

use super::learned::{DecayingValue, LastChange, LearnedPolicy, MIN_BLOCK_SECONDS, UpTrial};
use crate::model::lag::history::saved_policy::SavedNumbers;

/// Version of the saved form: the one this build writes, and the only one it reads.
const VERSION: u32 = 2;

/// Numbers without those of the last change, with them, and with those of the last step up as well.
const NUMBERS: usize = 23;
const WITH_CHANGE: usize = 28;
const WITH_TRIAL: usize = 36;

impl LearnedPolicy {
    /// The saved form at `saved`, in seconds on the timeline of the readings.
    #[must_use]
    pub fn save(&self, saved: f64) -> SavedNumbers {
        let ago = |at: f64| saved - at;
        let mut numbers = vec![
            self.output.map_or(-1.0, f64::from),
            self.capacity.unwrap_or(-1.0),
            f64::from(self.capacity_samples),
            self.recent_floor.value,
            ago(self.recent_floor.at),
            self.best_floor.value,
            ago(self.best_floor.at),
            self.commit_interval.unwrap_or(-1.0),
            self.longest_commit_gap.unwrap_or(-1.0),
            self.reaction,
            self.pause,
            self.hold_factor.value,
            ago(self.hold_factor.at),
            self.burst.value,
            ago(self.burst.at),
            ago(self.blocked_until),
            self.block_length,
            self.blocked_rate,
            self.blocked_consumption,
            f64::from(self.failed_probes),
            ago(self.last_needed),
            ago(self.began),
            self.mean_arrivals,
        ];
        if let Some(last) = self.last_change {
            let trial = if last.is_trial { 1.0 } else { 0.0 };
            let counts = [f64::from(last.from), f64::from(last.to)];
            numbers.extend([ago(last.at), counts[0], counts[1], last.held, trial]);
        }
        // A step up that nothing more is to be seen of matters no longer. Each is a change as well. Its effect cannot be
        // checked after a restart, so what that needs is left out.
        if let Some(trial) = self
            .trial
            .filter(|trial| trial.is_awaited || !trial.is_judged)
            && self.last_change.is_some()
        {
            numbers.extend([
                ago(trial.at),
                f64::from(trial.from),
                f64::from(trial.to),
                trial.arrivals,
                trial.capacity,
                ago(trial.seen),
                if trial.is_awaited { 1.0 } else { 0.0 },
                if trial.is_timed { 1.0 } else { 0.0 },
            ]);
        }
        SavedNumbers {
            version: VERSION,
            hundredths: numbers.into_iter().map(to_hundredths).collect(),
        }
    }

    /// The learned state, for use at `now`, which is later than `saved` unless the clock was set back; then all of it
    /// counts as learned just now. `None` if it is of another version.
    #[must_use]
    pub fn restore(numbers: &SavedNumbers, saved: f64, now: f64) -> Option<Self> {
        let SavedNumbers {
            version,
            hundredths,
        } = numbers;
        let has_all = [NUMBERS, WITH_CHANGE, WITH_TRIAL].contains(&hundredths.len());
        if *version != VERSION || !has_all {
            return None;
        }
        let base = saved.min(now);
        let get = |place: usize| hundredths.get(place).copied().map_or(0.0, from_hundredths);
        let known = |place: usize| Some(get(place)).filter(|number| *number >= 0.0);
        let amount = |place: usize| get(place).max(0.0);
        let at = |place: usize| base - get(place);
        let past = |place: usize| at(place).min(now);
        let count = |place: usize| super::policy_time::to_counter(get(place));
        let decaying = |place: usize| DecayingValue {
            value: amount(place),
            at: past(place.saturating_add(1)),
        };
        let output = known(0).map(super::policy_time::to_counter);
        let last_change = (hundredths.len() >= WITH_CHANGE).then(|| LastChange {
            at: past(23),
            from: count(24),
            to: count(25),
            held: amount(26),
            is_trial: get(27) > 0.5,
        });
        let trial = (hundredths.len() == WITH_TRIAL).then(|| UpTrial {
            at: past(28),
            from: count(29),
            to: count(30),
            arrivals: amount(31),
            capacity: amount(32),
            consumed: 0.0,
            expected: 0.0,
            seen: past(33),
            is_awaited: get(34) > 0.5,
            is_timed: get(35) > 0.5,
            is_judged: true,
        });
        Some(Self {
            output: output.filter(|output| *output > 0),
            capacity: known(1).filter(|capacity| *capacity > 0.0),
            capacity_samples: count(2),
            recent_floor: decaying(3),
            best_floor: decaying(5),
            commit_interval: known(7),
            longest_commit_gap: known(8),
            reaction: get(9).clamp(0.0, 900.0),
            pause: get(10).clamp(0.0, 120.0),
            hold_factor: decaying(11),
            burst: decaying(13),
            blocked_until: at(15).min(now + 8.0 * MIN_BLOCK_SECONDS),
            block_length: get(16).clamp(MIN_BLOCK_SECONDS, 8.0 * MIN_BLOCK_SECONDS),
            blocked_rate: amount(17),
            blocked_consumption: amount(18),
            failed_probes: count(19),
            last_needed: past(20),
            began: past(21).max(0.0),
            mean_arrivals: amount(22),
            last_change,
            trial,
        })
    }
}

/// A number as hundredths. Saturating.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast of a floating-point number saturates"
)]
fn to_hundredths(number: f64) -> i64 {
    (number * 100.0).round() as i64
}

#[allow(
    clippy::cast_precision_loss,
    reason = "estimates need no more than 53 bits"
)]
fn from_hundredths(hundredths: i64) -> f64 {
    hundredths as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> LearnedPolicy {
        LearnedPolicy {
            output: Some(6),
            capacity: Some(101.25),
            capacity_samples: 7,
            recent_floor: DecayingValue {
                value: 80.5,
                at: 5900.0,
            },
            commit_interval: Some(5.0),
            blocked_until: 9000.0,
            began: 1000.0,
            last_needed: 5000.0,
            mean_arrivals: 120.5,
            last_change: Some(LastChange {
                at: 5500.0,
                from: 8,
                to: 6,
                held: 420.0,
                is_trial: false,
            }),
            trial: Some(UpTrial {
                at: 5400.0,
                from: 4,
                to: 8,
                arrivals: 310.5,
                capacity: 101.25,
                consumed: 0.0,
                expected: 0.0,
                seen: 5990.0,
                is_awaited: true,
                is_timed: true,
                is_judged: true,
            }),
            ..LearnedPolicy::default()
        }
    }

    #[test]
    fn learned_state_is_saved_and_loaded() {
        let without = LearnedPolicy {
            last_change: None,
            trial: None,
            output: None,
            ..learned()
        };
        let all = [
            learned(),
            without,
            LearnedPolicy {
                trial: None,
                ..learned()
            },
        ];
        for learned in all {
            let text = serde_json::to_string(&learned.save(6000.0)).unwrap();
            assert!(text.len() < 300, "{text}");
            let read = serde_json::from_str(&text).unwrap();
            assert_eq!(LearnedPolicy::restore(&read, 6000.0, 7000.0), Some(learned));
        }
    }

    #[test]
    fn what_the_check_of_a_step_up_needs_is_not_saved() {
        for (is_awaited, is_judged, is_saved) in [
            (true, false, true),
            (true, true, true),
            (false, false, true),
            (false, true, false),
        ] {
            let mut learned = learned();
            let trial = learned.trial.map(|trial| UpTrial {
                consumed: 290.0,
                expected: 50.25,
                is_awaited,
                is_timed: is_awaited,
                is_judged,
                ..trial
            });
            learned.trial = trial;
            let restored = LearnedPolicy::restore(&learned.save(6000.0), 6000.0, 7000.0).unwrap();
            let expected = trial.filter(|_| is_saved).map(|trial| UpTrial {
                consumed: 0.0,
                expected: 0.0,
                is_judged: true,
                ..trial
            });
            assert_eq!(restored.trial, expected);
            assert_eq!(restored.last_change, learned.last_change);
        }
    }

    #[test]
    fn a_clock_set_back_puts_no_time_into_the_future() {
        let saved = learned().save(6000.0);
        let restored = LearnedPolicy::restore(&saved, 6000.0, 5500.0).unwrap();
        assert!((restored.last_needed - 4500.0).abs() < 1e-6);
        assert!((restored.blocked_until - 8500.0).abs() < 1e-6);
    }

    #[test]
    fn numbers_out_of_range_are_brought_into_it() {
        let good = learned().save(6000.0);
        let changed = |place: usize, number: i64| {
            let mut saved = good.clone();
            saved.hundredths[place] = number;
            LearnedPolicy::restore(&saved, 6000.0, 7000.0).unwrap()
        };
        assert_eq!(changed(0, 0).output, None);
        assert_eq!(changed(1, -500).capacity, None);
        assert!((changed(10, i64::MAX).pause - 120.0).abs() < 1e-9);
        assert!(changed(20, i64::MIN).last_needed <= 7000.0);
    }

    #[test]
    fn other_versions_and_lengths_are_not_restored() {
        let good = learned().save(6000.0);
        let mut short = good.clone();
        short.hundredths.pop();
        let other = SavedNumbers { version: 1, ..good };
        for saved in [short, other] {
            assert_eq!(LearnedPolicy::restore(&saved, 6000.0, 7000.0), None);
        }
    }
}
