//! Policies on lag that others use.

use super::scaler::{total_end, total_lag};
use crate::model::keda::arithmetic::even_divisor;
use crate::model::policy::reading::GroupReading;

/// KEDA's `ensureEvenDistributionOfPartitions`: lag / threshold, raised to a divisor of the partitions.
#[derive(Clone, Copy, Debug)]
pub struct KedaEven {
    threshold: u32,
}

impl KedaEven {
    #[must_use]
    pub fn new(threshold: u32) -> Self {
        Self { threshold }
    }

    /// The metric: the lag, raised to what makes the HPA choose that divisor.
    pub(super) fn observe(&self, reading: &GroupReading<'_>) -> Option<u64> {
        let lag = i64::try_from(total_lag(reading)?).unwrap_or(i64::MAX);
        let partitions = u64::from(reading.ceiling);
        let divisor = even_divisor(lag, partitions, i64::from(self.threshold));
        Some(divisor * u64::from(self.threshold))
    }
}

/// Divisors of the partitions by the time to drain: one up if the lag would not be gone within a minute, one down after
/// ten minutes in which fewer would do.
#[derive(Clone, Copy, Debug, Default)]
pub struct DivisorPolicy {
    output: Option<u32>,
    last: Option<(f64, u64, u64)>,
    arrivals: f64,
    /// Best consumption per replica.
    capacity: f64,
    changed: f64,
    enough_since: Option<f64>,
}

const COOL_DOWN: f64 = 120.0;
const DOWN_AFTER: f64 = 600.0;
const DRAIN: f64 = 60.0;
/// Weight of a new rate.
const WEIGHT: f64 = 0.1;

impl DivisorPolicy {
    pub(super) fn observe(&mut self, reading: &GroupReading<'_>) -> Option<u32> {
        let now = reading.at.as_secs_f64();
        let output = *self.output.get_or_insert(reading.status_replicas.max(1));
        let Some(lag) = total_lag(reading) else {
            return self.output;
        };
        let end = total_end(reading);
        let consumed = end.saturating_sub(lag);
        if let Some((at, last_end, last_consumed)) = self.last
            && now > at
        {
            let rate =
                |from: u64, to: u64| super::numbers::to_float(to.saturating_sub(from)) / (now - at);
            self.arrivals += WEIGHT * (rate(last_end, end) - self.arrivals);
            let members = f64::from(reading.members.max(1));
            let each = rate(last_consumed, consumed) / members;
            if reading.is_stable && each > self.capacity {
                self.capacity += WEIGHT * (each - self.capacity);
            }
        }
        self.last = Some((now, end, consumed));
        let divisors = || (1..=reading.ceiling).filter(|n| reading.ceiling.is_multiple_of(*n));
        let lag = super::numbers::to_float(lag);
        let needed = self.arrivals + (lag - self.arrivals * 10.0).max(0.0) / DRAIN;
        let carries = |n: u32| f64::from(n) * self.capacity.max(1e-9) >= needed;
        let lower = divisors().rev_find(output);
        let is_enough = lower.is_some_and(|n| f64::from(n) * self.capacity * 0.8 >= needed);
        if !is_enough {
            self.enough_since = None;
        }
        let enough_since = *self.enough_since.get_or_insert(now);
        if now - self.changed < COOL_DOWN {
            return self.output;
        }
        let next = if !carries(output) {
            divisors().find(|n| *n > output)
        } else if is_enough && now - enough_since >= DOWN_AFTER {
            lower
        } else {
            None
        };
        if let Some(next) = next {
            self.output = Some(next);
            self.changed = now;
            self.enough_since = None;
        }
        self.output
    }
}

trait LastBelow {
    fn rev_find(self, below: u32) -> Option<u32>;
}

impl<I: Iterator<Item = u32>> LastBelow for I {
    fn rev_find(self, below: u32) -> Option<u32> {
        self.filter(|n| *n < below).last()
    }
}
