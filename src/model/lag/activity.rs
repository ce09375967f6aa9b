//! Activity of a consumer group: messages written to its topics, messages that it consumes, commits and rebalances.
//!
//! These rates are for people. The rate policy measures its own, over several windows and without stuck partitions.

use std::time::Duration;

use crate::model::units::newtypes::Lag;

/// Time over which rates are averaged, in seconds: so long that commits every few seconds do not show.
const AVERAGED_OVER: f32 = 60.0;

/// Activity of a group as of its last reading. Small, because there is one for each group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupActivity {
    /// Messages per second that were written to its topics, and that it consumed.
    produced: f32,
    consumed: f32,
    /// Seconds over which these are averaged; 0 while they are unknown.
    averaged: f32,
    /// In seconds; `None` before a committed offset was seen to move.
    since_commit: Option<u32>,
    rebalances: u32,
}

impl GroupActivity {
    /// Activity without rates.
    #[must_use]
    pub fn new(since_commit: Option<Duration>, rebalances: u32) -> Self {
        let seconds = |since: Duration| u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
        Self {
            since_commit: since_commit.map(seconds),
            rebalances,
            ..Self::default()
        }
    }

    /// Adds rates: those of `before`, averaged with the messages that were produced and consumed since. In the first
    /// minute, all seconds count equally.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "rates for people need few digits"
    )]
    pub fn with_messages(
        self,
        before: Self,
        (produced, consumed): (Lag, Lag),
        elapsed: Duration,
    ) -> Self {
        let elapsed = elapsed.as_secs_f32();
        if elapsed <= 0.0 {
            return Self {
                since_commit: self.since_commit,
                rebalances: self.rebalances,
                ..before
            };
        }
        let averaged = (before.averaged + elapsed).min(AVERAGED_OVER);
        let weight = (elapsed / averaged).min(1.0);
        let average =
            |rate: f32, messages: Lag| rate + (messages.0 as f32 / elapsed - rate) * weight;
        Self {
            produced: average(before.produced, produced),
            consumed: average(before.consumed, consumed),
            averaged,
            ..self
        }
    }

    /// Messages per second that are written to its topics; `None` while unknown.
    #[must_use]
    pub fn produced_per_second(&self) -> Option<f64> {
        self.known(self.produced)
    }

    /// Messages per second that it consumes, as its commits show; `None` while unknown.
    #[must_use]
    pub fn consumed_per_second(&self) -> Option<f64> {
        self.known(self.consumed)
    }

    fn known(&self, rate: f32) -> Option<f64> {
        (self.averaged > 0.0).then(|| rate.into())
    }

    /// Change of the lag in messages per second: negative while the group catches up; `None` while unknown.
    #[must_use]
    pub fn lag_velocity(&self) -> Option<f64> {
        Some(self.produced_per_second()? - self.consumed_per_second()?)
    }

    /// Time until this lag is 0 at these rates; `None` if they are unknown, or the lag does not shrink.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a time for people needs few digits"
    )]
    pub fn time_to_drain(&self, lag: Lag) -> Option<Duration> {
        let velocity = self.lag_velocity()?;
        if lag == Lag(0) {
            return Some(Duration::ZERO);
        }
        let seconds = (velocity < 0.0).then(|| lag.0 as f64 / -velocity)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Time since one of its committed offsets last moved; `None` before one was seen to move.
    #[must_use]
    pub fn since_commit(&self) -> Option<Duration> {
        let seconds = self.since_commit?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// Rebalances that were seen.
    #[must_use]
    pub fn rebalances(&self) -> u32 {
        self.rebalances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Averages these numbers of messages, each in five seconds.
    fn averaged(messages: impl Iterator<Item = (u64, u64)>) -> GroupActivity {
        let step = Duration::from_secs(5);
        messages.fold(GroupActivity::default(), |before, (produced, consumed)| {
            let messages = (Lag(produced), Lag(consumed));
            GroupActivity::new(None, 0).with_messages(before, messages, step)
        })
    }

    #[test]
    fn commits_every_other_reading_do_not_show_in_the_rates() {
        let bursts = (0..60).map(|step| (50, if step % 2 == 0 { 0 } else { 120 }));
        let activity = averaged(bursts);
        let velocity = activity.lag_velocity().unwrap();
        assert!((velocity + 2.0).abs() < 1.2, "{velocity}");
        let first = averaged([(50, 0), (50, 120)].into_iter());
        assert!((first.consumed_per_second().unwrap() - 12.0).abs() < 1e-3);
    }

    #[test]
    fn old_rates_are_forgotten() {
        let many = std::iter::repeat_n((500, 0), 100);
        let none = std::iter::repeat_n((0, 0), 60);
        let rate = averaged(many.chain(none)).produced_per_second().unwrap();
        assert!((0.0..1.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_lag_that_does_not_shrink_has_no_time_to_drain() {
        for (produced, consumed, lag, expected) in [
            (50, 100, 200, Some(20)),
            (50, 50, 200, None),
            (100, 50, 200, None),
            (100, 50, 0, Some(0)),
        ] {
            let activity = averaged(std::iter::once((produced, consumed)));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(activity.time_to_drain(Lag(lag)), expected);
        }
        assert_eq!(GroupActivity::default().time_to_drain(Lag(0)), None);
    }

    #[test]
    fn a_long_time_between_two_readings_replaces_the_rates() {
        let before = averaged(std::iter::repeat_n((500, 500), 20));
        let hour = Duration::from_secs(3600);
        let after = GroupActivity::new(None, 0).with_messages(before, (Lag(3600), Lag(0)), hour);
        assert_eq!(after.produced_per_second(), Some(1.0));
        assert_eq!(after.consumed_per_second(), Some(0.0));
    }
}
