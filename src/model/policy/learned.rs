//! Learned state and decisions of the policy, which are kept over a restart and a change of leader.

/// Seconds in which a factor on the hold falls by half.
const HOLD_FACTOR_HALF_LIFE: f64 = 2.0 * 3600.0;
/// Maximum factor on the hold.
const MAX_HOLD_FACTOR: f64 = 8.0;
/// Half-life of a remembered burst, in seconds.
pub(super) const BURST_HALF_LIFE: f64 = 19.0 * 3600.0;
/// Time of arrivals that the long mean covers, in seconds.
const MEAN_SPAN: f64 = 19.0 * 3600.0;
/// Seconds in which the recent and the best lower bound of the capacity fall by half.
const RECENT_FLOOR_HALF_LIFE: f64 = 80.0 * 60.0;
const BEST_FLOOR_HALF_LIFE: f64 = 19.0 * 3600.0;
/// Seconds after a block in which the length of the next one falls by half.
const BLOCK_HALF_LIFE: f64 = 19.0 * 3600.0;
/// Minimum time for which an ineffective step up blocks the next one.
pub(super) const MIN_BLOCK_SECONDS: f64 = 3600.0;

/// A number that decays exponentially. Its half-life is an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DecayingValue {
    /// The value at `at`.
    pub value: f64,
    /// Time in seconds on the timeline of the readings.
    pub at: f64,
}

impl DecayingValue {
    /// The value at `now`.
    fn at(self, now: f64, half_life: f64) -> f64 {
        self.value * (-(now - self.at).max(0.0) / half_life).exp2()
    }

    /// Replaces the value, unless the decayed one is larger.
    fn raise(&mut self, value: f64, now: f64, half_life: f64) {
        if value >= self.at(now, half_life) {
            *self = Self { value, at: now };
        }
    }
}

/// The last change of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastChange {
    /// Time in seconds on the timeline of the readings.
    pub at: f64,
    /// The output before.
    pub from: u32,
    /// The output after.
    pub to: u32,
    /// For a step down: how long the requirement had been lower, in seconds.
    pub held: f64,
    /// Whether it was a step down to find out the capacity, or a step back.
    pub is_trial: bool,
}

/// The last step up, and what is to be seen of it yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpTrial {
    /// Time in seconds on the timeline of the readings.
    pub at: f64,
    /// The output before.
    pub from: u32,
    /// The output after.
    pub to: u32,
    /// Arrivals, capacity of a member and consumption at the time, messages per second.
    pub arrivals: f64,
    pub capacity: f64,
    pub consumed: f64,
    /// The expected increase of the consumption, in messages per second: no more than is needed, because a hot
    /// partition gains less than its new members could process.
    pub expected: f64,
    /// Whether the group is expected to reach that many members.
    pub is_awaited: bool,
    /// When it was last looked at, in seconds on the timeline of the readings.
    pub seen: f64,
    /// Whether the time until it does is learned: not if something other than pods that start keeps members away.
    pub is_timed: bool,
    /// Whether its effect has been checked, or is not to be.
    pub is_judged: bool,
}

/// Learned state of a policy about a group. All times are seconds on the timeline of the readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedPolicy {
    /// The last output.
    pub output: Option<u32>,
    /// Median capacity of the members, messages per second.
    pub capacity: Option<f64>,
    /// Samples of the capacity.
    pub capacity_samples: u32,
    /// Highest throughput of a member, which is a lower bound of its capacity; half-life 80 min.
    pub recent_floor: DecayingValue,
    /// The same with a half-life of 19 h, for groups that were never busy.
    pub best_floor: DecayingValue,
    /// Usual time between two commits in seconds.
    pub commit_interval: Option<f64>,
    /// Longest usual time between two commits in seconds.
    pub longest_commit_gap: Option<f64>,
    /// Seconds from a higher output until the group has that many members.
    pub reaction: f64,
    /// Seconds that a rebalance stops the group.
    pub pause: f64,
    /// Factor on the hold after steps down that were undone.
    pub hold_factor: DecayingValue,
    /// The largest recent burst, in messages: those that would be late even with all replicas, counted from when the
    /// replicas were there.
    pub burst: DecayingValue,
    /// Mean arrivals of the last hours, in messages per second.
    pub mean_arrivals: f64,
    /// Until when steps up are blocked, because the last one did not help.
    pub blocked_until: f64,
    /// Length of the next such block in seconds, if it began when that one ends; it doubles each time.
    pub block_length: f64,
    /// Messages per second that arrived and were consumed when the block began. 20 % more of either end it.
    pub blocked_rate: f64,
    pub blocked_consumption: f64,
    /// Probes that had to be undone: steps down to find out the capacity.
    pub failed_probes: u32,
    /// The last change.
    pub last_change: Option<LastChange>,
    /// The last step up.
    pub trial: Option<UpTrial>,
    /// When the output was last needed, or the policy began.
    pub last_needed: f64,
    /// When the policy began.
    pub began: f64,
}

impl Default for LearnedPolicy {
    fn default() -> Self {
        Self {
            output: None,
            capacity: None,
            capacity_samples: 0,
            recent_floor: DecayingValue::default(),
            best_floor: DecayingValue::default(),
            commit_interval: None,
            longest_commit_gap: None,
            reaction: 50.0,
            pause: 6.0,
            hold_factor: DecayingValue {
                value: 1.0,
                at: 0.0,
            },
            burst: DecayingValue::default(),
            mean_arrivals: 0.0,
            blocked_until: 0.0,
            block_length: MIN_BLOCK_SECONDS,
            blocked_rate: 0.0,
            blocked_consumption: 0.0,
            failed_probes: 0,
            last_change: None,
            trial: None,
            last_needed: 0.0,
            began: 0.0,
        }
    }
}

impl LearnedPolicy {
    /// Factor on the hold, at least 1.
    pub(super) fn hold_factor(&self, now: f64) -> f64 {
        self.hold_factor.at(now, HOLD_FACTOR_HALF_LIFE).max(1.0)
    }

    pub(super) fn double_hold(&mut self, now: f64) {
        let value = (2.0 * self.hold_factor(now)).min(MAX_HOLD_FACTOR);
        self.hold_factor = DecayingValue { value, at: now };
    }

    /// The burst to be ready for; 0 if there was none.
    pub(super) fn burst(&self, now: f64) -> f64 {
        self.burst.at(now, BURST_HALF_LIFE)
    }

    pub(super) fn remember_burst(&mut self, messages: f64, now: f64) {
        self.burst.raise(messages, now, BURST_HALF_LIFE);
    }

    /// Records the messages that arrived within the last `elapsed` seconds. In the first [`MEAN_SPAN`], all seconds
    /// count equally.
    pub(super) fn average_arrivals(&mut self, messages: f64, elapsed: f64, now: f64) {
        if elapsed > 0.0 {
            let span = (now - self.began).min(MEAN_SPAN).max(elapsed);
            self.mean_arrivals += (messages / elapsed - self.mean_arrivals) * elapsed / span;
        }
    }

    /// The recent lower bound of the capacity; 0 if there is none.
    pub(super) fn recent_floor(&self, now: f64) -> f64 {
        self.recent_floor.at(now, RECENT_FLOOR_HALF_LIFE)
    }

    /// The best lower bound of the capacity; 0 if there is none.
    pub(super) fn best_floor(&self, now: f64) -> f64 {
        self.best_floor.at(now, BEST_FLOOR_HALF_LIFE)
    }

    pub(super) fn raise_floors(&mut self, floor: f64, now: f64) {
        self.recent_floor.raise(floor, now, RECENT_FLOOR_HALF_LIFE);
        self.best_floor.raise(floor, now, BEST_FLOOR_HALF_LIFE);
    }

    /// Factor on the time between two probes, after some that had to be undone.
    pub(super) fn probe_factor(&self) -> f64 {
        f64::from(self.failed_probes.min(4)).exp2()
    }

    /// Blocks steps up, twice as long as the last time if that is not long ago.
    pub(super) fn block(&mut self, rate: f64, consumption: f64, now: f64) {
        let length = DecayingValue {
            value: self.block_length,
            at: self.blocked_until,
        };
        let length = length.at(now, BLOCK_HALF_LIFE).max(MIN_BLOCK_SECONDS);
        self.blocked_until = now + length;
        self.block_length = (length * 2.0).min(8.0 * MIN_BLOCK_SECONDS);
        self.blocked_rate = rate;
        self.blocked_consumption = consumption;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_over_a_longer_break_is_that_of_the_break() {
        let mut learned = LearnedPolicy::default();
        learned.average_arrivals(10.0, 10.0, 10.0);
        assert!((learned.mean_arrivals - 1.0).abs() < 1e-9);
        // Longer than the span of the mean, as after a weekend without a complete reading.
        let now = 4.0 * MEAN_SPAN;
        learned.average_arrivals(now / 2.0, now, now);
        assert!(
            (learned.mean_arrivals - 0.5).abs() < 1e-9,
            "{}",
            learned.mean_arrivals
        );
    }

    #[test]
    fn blocks_double_and_become_shorter_again() {
        let mut learned = LearnedPolicy::default();
        let mut length_at = |now: f64| {
            learned.block(100.0, 50.0, now);
            learned.blocked_until - now
        };
        let (first, second) = (length_at(0.0), length_at(MIN_BLOCK_SECONDS));
        assert!((first - MIN_BLOCK_SECONDS).abs() < 1.0, "{first}");
        assert!((second - 2.0 * MIN_BLOCK_SECONDS).abs() < 1.0, "{second}");
        let after_a_week = length_at(7.0 * 24.0 * 3600.0);
        assert!(
            (after_a_week - MIN_BLOCK_SECONDS).abs() < 1.0,
            "{after_a_week}"
        );
    }
}
