//! Message rates for people: how many messages are written to topics, and how many a group consumes.
//!
//! The daemon averages them over a minute, for each group and topic; `lagwise lag` compares two readings. The rate
//! policy (`model::policy`) does not use them: it measures over 20, 60 and 180 seconds, and without stuck partitions.

use std::time::Duration;

use crate::model::units::newtypes::Lag;
use crate::model::units::single_precision::narrow;

/// Messages per second, on one partition or on several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MessageRates {
    /// Growth of the log ends.
    pub produced: f64,
    /// Growth of the committed offsets.
    pub consumed: f64,
}

impl MessageRates {
    /// Rates of messages that were written and consumed in this time, which is not zero.
    #[allow(
        clippy::cast_precision_loss,
        reason = "rates for people need few digits"
    )]
    pub(super) fn new(produced: Lag, consumed: Lag, elapsed: Duration) -> Self {
        let per_second = |messages: Lag| messages.0 as f64 / elapsed.as_secs_f64();
        Self {
            produced: per_second(produced),
            consumed: per_second(consumed),
        }
    }

    /// Adds rates of several topics or partitions; `None` if there are none, or one is unknown.
    pub fn sum(mut rates: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let first = rates.next()??;
        rates.try_fold(first, |sum, rates| Some(sum.plus(rates?)))
    }

    /// Adds the rates of other partitions.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            produced: self.produced + other.produced,
            consumed: self.consumed + other.consumed,
        }
    }

    /// Change of the lag in messages per second: negative while the group catches up.
    #[must_use]
    pub fn lag_velocity(self) -> f64 {
        self.produced - self.consumed
    }

    /// Time until this lag is 0 at these rates; `None` if it does not shrink by a message a minute: an average only
    /// approaches 0 after the last messages.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a time for people needs few digits"
    )]
    pub fn time_to_drain(self, lag: Lag) -> Option<Duration> {
        if lag == Lag(0) {
            return Some(Duration::ZERO);
        }
        let shrinkage = -self.lag_velocity();
        let is_shrinking = shrinkage * f64::from(AVERAGED_OVER) >= 1.0;
        let seconds = is_shrinking.then(|| lag.0 as f64 / shrinkage)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Time over which rates are averaged, in seconds: so long that commits every few seconds do not show.
const AVERAGED_OVER: f32 = 60.0;

/// Average of the rates of a group on a topic. Small, because there is one for each group and topic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RateAverage {
    produced: f32,
    consumed: f32,
    /// Seconds over which these are averaged; 0 while they are unknown.
    averaged: f32,
}

impl RateAverage {
    /// Adds the messages that were produced and consumed since. In the first minute, all seconds count equally.
    pub(super) fn with_messages(self, (produced, consumed): (Lag, Lag), elapsed: Duration) -> Self {
        if elapsed.is_zero() {
            return self;
        }
        let rates = MessageRates::new(produced, consumed, elapsed);
        let elapsed = elapsed.as_secs_f32();
        let averaged = (self.averaged + elapsed).min(AVERAGED_OVER);
        let weight = (elapsed / averaged).min(1.0);
        let average = |before: f32, rate: f64| before + (narrow(rate) - before) * weight;
        Self {
            produced: average(self.produced, rates.produced),
            consumed: average(self.consumed, rates.consumed),
            averaged,
        }
    }

    /// The rates; `None` while unknown.
    pub(super) fn rates(self) -> Option<MessageRates> {
        (self.averaged > 0.0).then(|| MessageRates {
            produced: self.produced.into(),
            consumed: self.consumed.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Averages these numbers of messages, each in five seconds.
    fn averaged(messages: impl Iterator<Item = (u64, u64)>) -> RateAverage {
        let step = Duration::from_secs(5);
        messages.fold(RateAverage::default(), |before, (produced, consumed)| {
            before.with_messages((Lag(produced), Lag(consumed)), step)
        })
    }

    #[test]
    fn an_idle_group_drains_nothing() {
        // 100 messages per second are caught up, and then nothing happens, but for an end of a transaction.
        let busy = std::iter::repeat_n((0, 500), 60);
        for minutes in [10, 20, 60] {
            let idle = std::iter::repeat_n((0, 0), 12 * minutes);
            let rates = averaged(busy.clone().chain(idle)).rates().unwrap();
            assert_eq!(rates.time_to_drain(Lag(1)), None, "{minutes} {rates:?}");
        }
        let busy = averaged(busy).rates().unwrap();
        assert_eq!(busy.time_to_drain(Lag(1000)).unwrap().as_secs(), 10);
    }

    #[test]
    fn commits_every_other_reading_do_not_show_in_the_rates() {
        let bursts = (0..60).map(|step| (50, if step % 2 == 0 { 0 } else { 120 }));
        let velocity = averaged(bursts).rates().unwrap().lag_velocity();
        assert!((velocity + 2.0).abs() < 1.2, "{velocity}");
        let first = averaged([(50, 0), (50, 120)].into_iter()).rates().unwrap();
        assert!((first.consumed - 12.0).abs() < 1e-3);
    }

    #[test]
    fn old_rates_are_forgotten() {
        let many = std::iter::repeat_n((500, 0), 100);
        let none = std::iter::repeat_n((0, 0), 60);
        let rate = averaged(many.chain(none)).rates().unwrap().produced;
        assert!((0.0..1.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_long_time_between_two_readings_replaces_the_rates() {
        let before = averaged(std::iter::repeat_n((500, 500), 20));
        let hour = Duration::from_secs(3600);
        let after = before.with_messages((Lag(3600), Lag(0)), hour);
        let expected = MessageRates {
            produced: 1.0,
            consumed: 0.0,
        };
        assert_eq!(after.rates(), Some(expected));
        let same = after.with_messages((Lag(0), Lag(0)), Duration::ZERO);
        assert_eq!(same, after, "no time has passed");
    }

    #[test]
    fn a_lag_that_does_not_shrink_has_no_time_to_drain() {
        for (produced, consumed, lag, expected) in [
            (10.0, 20.0, 200, Some(20)),
            (10.0, 10.0, 200, None),
            (20.0, 10.0, 200, None),
            (20.0, 10.0, 0, Some(0)),
        ] {
            let rates = MessageRates { produced, consumed };
            let expected = expected.map(Duration::from_secs);
            assert_eq!(rates.time_to_drain(Lag(lag)), expected);
        }
    }

    #[test]
    fn a_sum_needs_the_rates_of_every_topic() {
        let rates = |produced, consumed| Some(MessageRates { produced, consumed });
        let sum = |all: &[Option<MessageRates>]| MessageRates::sum(all.iter().copied());
        assert_eq!(sum(&[rates(1.0, 2.0), rates(3.0, 4.0)]), rates(4.0, 6.0));
        assert_eq!(sum(&[rates(1.0, 2.0), None]), None);
        assert_eq!(sum(&[None, rates(1.0, 2.0)]), None);
        assert_eq!(sum(&[]), None);
    }
}
