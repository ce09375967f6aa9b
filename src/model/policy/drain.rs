//! Calibration: compares the expected and the actual time to drain a backlog.

use serde::{Deserialize, Serialize};

/// Minimum expected time that is judged: for shorter ones, the time between two polls would dominate.
const MIN_JUDGED_SECONDS: f64 = 60.0;
/// Maximum relative change of the arrivals with which a backlog is judged.
const MAX_ARRIVAL_CHANGE: f64 = 0.25;

/// The last backlog whose end was expected, and how good the expectations were so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainCalibration {
    /// When the last backlog was drained, in seconds on the timeline of the readings.
    pub at: f64,
    /// Expected time to drain it, in seconds.
    pub expected: f64,
    /// Seconds that it lasted.
    pub actual: f64,
    /// Backlogs that were judged.
    pub count: u32,
    /// Mean of the differences, as a part of the actual times.
    pub mean_error: f64,
}

/// The backlog at a reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainReading {
    pub(super) now: f64,
    /// Seconds until the backlog is drained by the estimates; `None` if it is not known, or grows.
    pub(super) expected: Option<f64>,
    pub(super) members: u32,
    /// Arrivals of the last minute, messages per second.
    pub(super) arrivals: f64,
    /// Whether the group has been at rest for long enough to expect anything.
    pub(super) is_settled: bool,
}

/// A backlog whose end is awaited.
#[derive(Clone, Copy, Debug)]
struct ExpectedDrain {
    at: f64,
    seconds: f64,
    members: u32,
    arrivals: f64,
}

/// Compares expected and actual drains.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainJudge {
    awaited: Option<ExpectedDrain>,
    judged: Option<DrainCalibration>,
}

impl DrainJudge {
    /// Records a reading.
    pub(super) fn observe(&mut self, reading: &DrainReading) {
        let DrainReading { now, expected, .. } = *reading;
        let Some(awaited) = self.awaited else {
            let seconds = expected.filter(|seconds| *seconds >= MIN_JUDGED_SECONDS);
            if reading.is_settled
                && let Some(seconds) = seconds
            {
                self.awaited = Some(ExpectedDrain {
                    at: now,
                    seconds,
                    members: reading.members,
                    arrivals: reading.arrivals,
                });
            }
            return;
        };
        let changed = (reading.arrivals - awaited.arrivals).abs();
        let is_other = !reading.is_settled
            || reading.members != awaited.members
            || changed > MAX_ARRIVAL_CHANGE * awaited.arrivals;
        if is_other {
            self.awaited = None;
        } else if expected == Some(0.0) {
            self.awaited = None;
            self.judge(awaited, now);
        }
    }

    /// Forgets the backlog that is awaited, because readings are missing.
    pub(super) fn interrupt(&mut self) {
        self.awaited = None;
    }

    /// Calibration so far; `None` before the first drain.
    pub(super) fn judged(&self) -> Option<DrainCalibration> {
        self.judged
    }

    fn judge(&mut self, awaited: ExpectedDrain, now: f64) {
        let actual = (now - awaited.at).max(1.0);
        let error = (awaited.seconds - actual).abs() / actual;
        let judged = self
            .judged
            .map_or((0, 0.0), |last| (last.count, last.mean_error));
        let (count_before, mean_before) = judged;
        let count = count_before.saturating_add(1);
        self.judged = Some(DrainCalibration {
            at: now,
            expected: awaited.seconds,
            actual,
            count,
            mean_error: mean_before + (error - mean_before) / f64::from(count),
        });
    }
}

/// Seconds until no member of a group has more backlog than what arrives in `residual` seconds, if each has a load of
/// arrivals per second and a backlog; `None` if one never will. `capacity` is that of the member at a place; without it
/// nothing is expected of a member that is behind.
pub(super) fn time_to_drain(
    loads: &[(f64, f64)],
    capacity: impl Fn(usize) -> Option<f64>,
    residual: f64,
) -> Option<f64> {
    let mut longest = 0.0f64;
    for (place, (arrivals, backlog)) in loads.iter().enumerate() {
        let left = backlog - arrivals * residual;
        if left <= 0.0 {
            continue;
        }
        let surplus = capacity(place)? - arrivals;
        if surplus <= 0.0 {
            return None;
        }
        longest = longest.max(left / surplus);
    }
    Some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_member_is_the_last() {
        for (loads, expected) in [
            (vec![], Some(0.0)),
            (vec![(50.0, 400.0)], Some(0.0)),
            (vec![(50.0, 5500.0)], Some(100.0)),
            (vec![(50.0, 5500.0), (80.0, 2800.0)], Some(100.0)),
            (vec![(50.0, 5500.0), (80.0, 4800.0)], Some(200.0)),
            (vec![(100.0, 5500.0)], None),
            (vec![(150.0, 100.0)], Some(0.0)),
        ] {
            let found = time_to_drain(&loads, |_| Some(100.0), 10.0);
            assert_eq!(found, expected, "{loads:?}");
        }
    }

    #[test]
    fn each_member_drains_its_backlog_at_its_own_capacity() {
        let loads = [(50.0, 5500.0), (50.0, 5500.0), (50.0, 400.0)];
        for (capacities, expected) in [
            ([Some(100.0), Some(100.0), Some(100.0)], Some(100.0)),
            ([Some(100.0), Some(75.0), Some(100.0)], Some(200.0)),
            ([Some(100.0), Some(150.0), Some(100.0)], Some(100.0)),
            ([Some(100.0), Some(40.0), Some(100.0)], None),
            ([Some(100.0), None, Some(100.0)], None),
            // The last one is not behind.
            ([Some(100.0), Some(100.0), None], Some(100.0)),
        ] {
            let found = time_to_drain(&loads, |place| capacities[place], 10.0);
            assert_eq!(found, expected, "{capacities:?}");
        }
    }

    fn reading(now: f64, expected: Option<f64>) -> DrainReading {
        DrainReading {
            now,
            expected,
            members: 4,
            arrivals: 200.0,
            is_settled: true,
        }
    }

    fn judged(readings: &[DrainReading]) -> Option<DrainCalibration> {
        let mut judge = DrainJudge::default();
        for reading in readings {
            judge.observe(reading);
        }
        judge.judged()
    }

    #[test]
    fn a_drain_is_judged_when_the_backlog_is_gone() {
        let all = [
            reading(0.0, Some(100.0)),
            // Later expectations do not count.
            reading(40.0, Some(90.0)),
            reading(80.0, None),
            reading(125.0, Some(0.0)),
            reading(130.0, Some(0.0)),
            reading(200.0, Some(80.0)),
            reading(280.0, Some(0.0)),
        ];
        assert_eq!(judged(&all[..3]), None);
        let first = judged(&all[..5]).unwrap();
        assert_eq!(
            (first.expected, first.actual, first.count),
            (100.0, 125.0, 1)
        );
        assert!((first.mean_error - 0.2).abs() < 1e-9);
        let second = judged(&all).unwrap();
        assert_eq!(
            (second.expected, second.actual, second.count),
            (80.0, 80.0, 2)
        );
        assert!((second.mean_error - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_drain_that_changed_on_the_way_is_not_judged() {
        let first = reading(0.0, Some(100.0));
        let middle = reading(50.0, Some(50.0));
        for changed in [
            DrainReading {
                members: 5,
                ..middle
            },
            DrainReading {
                arrivals: 251.0,
                ..middle
            },
            DrainReading {
                arrivals: 149.0,
                ..middle
            },
            DrainReading {
                is_settled: false,
                ..middle
            },
        ] {
            let end = DrainReading {
                now: 100.0,
                expected: Some(0.0),
                ..changed
            };
            assert_eq!(judged(&[first, changed, end]), None, "{changed:?}");
        }
        let same = DrainReading {
            arrivals: 240.0,
            ..middle
        };
        assert!(judged(&[first, same, reading(100.0, Some(0.0))]).is_some());
    }

    #[test]
    fn short_or_uncertain_drains_are_not_judged() {
        for first in [
            reading(0.0, Some(59.0)),
            reading(0.0, None),
            DrainReading {
                is_settled: false,
                ..reading(0.0, Some(100.0))
            },
        ] {
            assert_eq!(judged(&[first, reading(100.0, Some(0.0))]), None);
        }
        let mut judge = DrainJudge::default();
        judge.observe(&reading(0.0, Some(100.0)));
        judge.interrupt();
        judge.observe(&reading(100.0, Some(0.0)));
        assert_eq!(judge.judged(), None);
    }
}
