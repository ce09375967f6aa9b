//! Saved form of the learned state of a policy: numbers in a fixed order. Times are in seconds before the saving; -1
//! means unknown.

use super::learned::{DecayingValue, LastChange, LearnedPolicy, MIN_BLOCK_SECONDS};
use crate::model::lag::history::saved_policy::SavedNumbers;

/// Version of the saved form: the one this build writes, and the only one it reads.
const VERSION: u32 = 2;

/// Numbers without those of the last change, and with them.
const NUMBERS: usize = 23;
const WITH_CHANGE: usize = 28;

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
        let has_all = [NUMBERS, WITH_CHANGE].contains(&hundredths.len());
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
        let last_change = (hundredths.len() == WITH_CHANGE).then(|| LastChange {
            at: past(23),
            from: count(24),
            to: count(25),
            held: amount(26),
            is_trial: get(27) > 0.5,
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
            ..LearnedPolicy::default()
        }
    }

    #[test]
    fn learned_state_is_saved_and_loaded() {
        let without = LearnedPolicy {
            last_change: None,
            output: None,
            ..learned()
        };
        for learned in [learned(), without] {
            let text = serde_json::to_string(&learned.save(6000.0)).unwrap();
            assert!(text.len() < 250, "{text}");
            let read = serde_json::from_str(&text).unwrap();
            assert_eq!(LearnedPolicy::restore(&read, 6000.0, 7000.0), Some(learned));
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
