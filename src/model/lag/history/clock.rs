//! The timeline of the history.

use std::time::{Duration, SystemTime};

use crate::model::units::newtypes::Moment;

/// A point on the timeline, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::model) struct Now(pub(in crate::model) u64);

/// A point on the timeline in seconds, rounded up so that nothing appears to stand still for longer than
/// it has. Four bytes, because there is one for every group and partition. Valid until 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::model) struct Stamp(pub(in crate::model) u32);

impl Stamp {
    /// Time since this point; zero if it is in the future.
    pub(in crate::model) fn elapsed(self, now: Now) -> Duration {
        let then = u64::from(self.0).saturating_mul(1000);
        Duration::from_millis(now.0.saturating_sub(then))
    }
}

impl From<Now> for Stamp {
    fn from(now: Now) -> Self {
        Self(u32::try_from(now.0.div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

/// Wall-clock time at the first use, continued by the monotonic clock. Setting the clock makes nothing look
/// older or younger, and times saved before a restart are still comparable.
#[derive(Debug, Default)]
pub(in crate::model) struct Timeline(Option<Moment>);

impl Timeline {
    /// Converts a moment. The first one converted defines the offset between the two clocks.
    pub(in crate::model) fn at(&mut self, moment: &Moment) -> Now {
        let zero = self.0.get_or_insert(*moment);
        let wall = zero.wall.duration_since(SystemTime::UNIX_EPOCH);
        let passed = match moment.monotonic.checked_duration_since(zero.monotonic) {
            Some(after) => wall.unwrap_or_default().saturating_add(after),
            None => wall
                .unwrap_or_default()
                .saturating_sub(zero.monotonic.saturating_duration_since(moment.monotonic)),
        };
        Now(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn setting_the_wall_clock_does_not_move_the_timeline() {
        let (zero, second) = (Instant::now(), Duration::from_secs(1));
        let wall = SystemTime::UNIX_EPOCH + 1000 * second;
        let at = |monotonic, wall| Moment { monotonic, wall };
        let mut timeline = Timeline::default();
        assert_eq!(timeline.at(&at(zero + second, wall)), Now(1_000_000));
        let set_back = at(zero + 3 * second, SystemTime::UNIX_EPOCH);
        assert_eq!(timeline.at(&set_back), Now(1_002_000));
        assert_eq!(timeline.at(&at(zero, wall)), Now(999_000));
    }

    #[test]
    fn elapsed_time_is_never_overestimated() {
        let stamp = Stamp::from(Now(1_500));
        assert_eq!(stamp.elapsed(Now(1_900)), Duration::ZERO);
        assert_eq!(stamp.elapsed(Now(3_500)), Duration::from_millis(1_500));
    }
}
