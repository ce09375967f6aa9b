//! Compares the policy with always running the maximum number of replicas.
//!
//! The group with all replicas is simulated in parallel with the real one: it gets the arrivals that were measured, and
//! processes them at the measured capacity. Where something else limits the real group, it limits the simulated one as
//! well.

use serde::{Deserialize, Serialize};

use super::fluid_group::FluidGroup;
use super::scaling_totals::{CostWeights, ScalingTotals};

/// Length of a window of totals in seconds. A comparison covers the current window and the previous one.
const WINDOW: f64 = 12.0 * 3600.0;
/// Seconds before the first comparison.
const COMPARED_AFTER: f64 = 3600.0;
/// Difference of the costs from which on all replicas count as cheaper, in percent of their own replica-minutes.
const MARGIN: f64 = 5.0;
/// Maximum time between two readings that counts.
const MAX_GAP_SECONDS: f64 = 60.0;
/// Seconds after the beginning of a dump in which late messages do not count against the policy. A dump is an arrival
/// of more messages at once than all replicas could process.
const DUMP_RECOVERY: f64 = 120.0;

/// The policy and always running all replicas, over the same time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StaticComparison {
    /// Seconds that were compared.
    pub seconds: f64,
    /// The number of all replicas, in members of the group.
    pub members: u32,
    /// Totals of the policy.
    pub policy: ScalingTotals,
    /// Totals if all replicas had run all the time.
    pub all: ScalingTotals,
    /// Whether all replicas would have cost less: late messages cost more than the policy saves.
    pub is_all_cheaper: bool,
}

impl StaticComparison {
    /// The costs of the policy and of all replicas.
    #[must_use]
    pub fn costs(&self) -> (f64, f64) {
        let cost = |totals: &ScalingTotals| {
            totals.cost(self.members, self.seconds, CostWeights::default())
        };
        (cost(&self.policy), cost(&self.all))
    }
}

/// Measurements of the group since the last reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupProgress {
    /// Replicas, with those that are starting.
    pub(super) replicas: u32,
    /// Messages per second that arrived, and that a member processes.
    pub(super) arrivals: f64,
    pub(super) capacity: f64,
    /// Messages processed, and whether they were older than the objective.
    pub(super) processed: f64,
    pub(super) is_late: bool,
    /// Unprocessed messages, and the age of the oldest of them in seconds.
    pub(super) backlog: f64,
    pub(super) age: f64,
    /// Whether late messages are not due to the policy: more replicas would not have helped, or a hold or others keep
    /// fewer than it says.
    pub(super) is_limited: bool,
    /// Whether there is a dump: more arrives at once than all replicas could process.
    pub(super) is_dump: bool,
    /// Whether the policy changed its number.
    pub(super) is_change: bool,
}

/// Totals of a window.
#[derive(Clone, Copy, Debug, Default)]
struct WindowTotals {
    seconds: f64,
    policy: ScalingTotals,
    all: ScalingTotals,
}

/// A simulated group with all replicas.
#[derive(Clone, Debug)]
pub(super) struct StaticGroup {
    group: FluidGroup,
    /// Time of the last reading, in seconds.
    last: f64,
    current: WindowTotals,
    previous: WindowTotals,
    is_all_cheaper: bool,
    /// Whether late messages are not due to the policy. Stays true until messages that became old meanwhile are
    /// processed.
    is_limited: bool,
    /// When the dump that is being processed began; `None` without one.
    dumped: Option<f64>,
}

impl StaticGroup {
    /// Begins at a reading, with the backlog that there is and the age of the oldest message in it.
    pub(super) fn begin(now: f64, all: u32, (backlog, age): (f64, f64)) -> Self {
        Self {
            group: FluidGroup {
                members: all.max(1),
                backlog,
                age,
            },
            last: now,
            current: WindowTotals::default(),
            previous: WindowTotals::default(),
            is_all_cheaper: false,
            is_limited: false,
            dumped: None,
        }
    }

    /// The number of all replicas.
    pub(super) fn members(&self) -> u32 {
        self.group.members
    }

    /// Records a reading. `slo` is the objective in seconds.
    pub(super) fn advance(&mut self, now: f64, progress: &GroupProgress, slo: f64) {
        let gap = (now - self.last).max(0.0);
        let elapsed = gap.min(MAX_GAP_SECONDS);
        self.last = now;
        let is_old = progress.age >= slo / 4.0;
        self.is_limited = progress.is_limited || self.is_limited && is_old;
        if progress.is_dump {
            self.dumped.get_or_insert(now);
        } else if !is_old {
            self.dumped = None;
        }
        let is_dumped = self.dumped.is_some_and(|at| now - at < DUMP_RECOVERY);
        // Of a longer gap only a part counts, on both sides.
        let part = if gap > elapsed { elapsed / gap } else { 1.0 };
        let processed = part * progress.processed;
        let (by_all, is_late_with_all) = if self.is_limited {
            (self.group.backlog, self.group.age) = (progress.backlog, progress.age);
            (processed, progress.is_late)
        } else {
            let (arrivals, capacity) = (progress.arrivals, progress.capacity);
            let by_all = self.group.advance((elapsed, elapsed), arrivals, capacity);
            (by_all.processed, by_all.age > slo)
        };
        let is_late = progress.is_late && (is_late_with_all || !is_dumped);
        if self.current.seconds >= WINDOW {
            self.previous = std::mem::take(&mut self.current);
        }
        let totals = &mut self.current;
        totals.seconds += elapsed;
        totals
            .policy
            .add(progress.replicas, elapsed, processed, is_late);
        totals
            .all
            .add(self.group.members, elapsed, by_all, is_late_with_all);
        if progress.is_change {
            totals.policy.changes = totals.policy.changes.saturating_add(1);
        }
    }

    /// The comparison; `None` before there was enough time.
    pub(super) fn compare(&mut self) -> Option<StaticComparison> {
        let (previous, current) = (&self.previous, &self.current);
        let seconds = previous.seconds + current.seconds;
        if seconds < COMPARED_AFTER {
            return None;
        }
        let mut found = StaticComparison {
            seconds,
            members: self.group.members,
            policy: previous.policy.plus(&current.policy),
            all: previous.all.plus(&current.all),
            is_all_cheaper: false,
        };
        let (policy, all) = found.costs();
        // The result stays until it is false by more than the margin.
        let margin = if self.is_all_cheaper { 0.0 } else { MARGIN };
        self.is_all_cheaper = policy > all + margin;
        found.is_all_cheaper = self.is_all_cheaper;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: f64 = 5.0;

    fn progress(replicas: u32, late_of_ten: u32) -> impl Fn(u32) -> GroupProgress {
        move |poll| GroupProgress {
            replicas,
            arrivals: 500.0,
            capacity: 100.0,
            processed: 2500.0,
            is_late: poll % 10 < late_of_ten,
            backlog: 0.0,
            age: 0.0,
            is_limited: false,
            is_dump: false,
            is_change: false,
        }
    }

    /// Compares after some hours of polls.
    fn compare(
        hours: u32,
        left: (f64, f64),
        progress: impl Fn(u32) -> GroupProgress,
    ) -> Option<StaticComparison> {
        let mut group = StaticGroup::begin(0.0, 10, left);
        let mut found = None;
        for poll in 1..=hours * 720 {
            group.advance(f64::from(poll) * POLL, &progress(poll), 60.0);
            found = group.compare();
        }
        found
    }

    #[test]
    fn late_messages_are_weighed_against_replicas() {
        for (replicas, late_of_ten, is_all_cheaper) in [
            // Half of the replicas are saved, and nothing is late.
            (5, 0, false),
            (10, 0, false),
            // 10 % of late messages cost as much as half of the replicas.
            (4, 1, false),
            (5, 2, true),
            (9, 1, true),
        ] {
            let found = compare(2, (0.0, 0.0), progress(replicas, late_of_ten)).unwrap();
            assert_eq!(found.is_all_cheaper, is_all_cheaper, "{found:?}");
            assert_eq!(found.all.late_messages, 0.0);
            assert!((found.seconds - 7200.0).abs() < 1e-6);
            assert!((found.all.replica_minutes - 1200.0).abs() < 1e-6);
        }
    }

    #[test]
    fn messages_late_even_with_all_replicas_do_not_count_against_the_policy() {
        let overloaded = |poll| GroupProgress {
            arrivals: 1500.0,
            ..progress(9, 9)(poll)
        };
        let limited = |poll| GroupProgress {
            is_limited: true,
            ..progress(5, 9)(poll)
        };
        let found = compare(2, (0.0, 0.0), overloaded).unwrap();
        assert!(found.all.late_share() > Some(0.9), "{found:?}");
        let found = compare(2, (0.0, 0.0), limited).unwrap();
        assert_eq!(found.all.late_share(), found.policy.late_share());
        for found in [
            compare(2, (0.0, 0.0), overloaded).unwrap(),
            compare(2, (0.0, 0.0), limited).unwrap(),
        ] {
            assert!(!found.is_all_cheaper, "{found:?}");
        }
    }

    #[test]
    fn dumps_are_not_held_against_the_policy_if_they_are_soon_processed() {
        // All replicas would process what arrives within 20 s of each hour in 50 s.
        let dumps = |late_for: u32| {
            move |poll: u32| {
                let after = poll % 720;
                let is_late = after < late_for;
                GroupProgress {
                    arrivals: if after < 4 { 2500.0 } else { 10.0 },
                    processed: if is_late { 5000.0 } else { 50.0 },
                    is_late,
                    age: if is_late { 70.0 } else { 0.0 },
                    is_dump: after < 4,
                    ..progress(5, 0)(poll)
                }
            }
        };
        for (late_for, is_all_cheaper) in [(20, false), (23, false), (60, true), (200, true)] {
            let found = compare(4, (0.0, 0.0), dumps(late_for)).unwrap();
            assert_eq!(found.all.late_messages, 0.0);
            assert_eq!(
                found.is_all_cheaper, is_all_cheaper,
                "{late_for}: {found:?}"
            );
        }
    }

    #[test]
    fn a_backlog_is_late_until_all_replicas_have_drained_it() {
        // 500 of 1,000 messages a second drain it, which takes 400 s; the last 60 s of arrivals are not late.
        let found = compare(1, (200_000.0, 400.0), progress(5, 0)).unwrap();
        let late = found.all.late_messages / 1000.0;
        assert!((320.0..=400.0).contains(&late), "{late}");
    }

    #[test]
    fn there_is_no_comparison_before_an_hour() {
        let mut group = StaticGroup::begin(0.0, 10, (0.0, 0.0));
        for poll in 1..720 {
            group.advance(f64::from(poll) * POLL, &progress(9, 5)(poll), 60.0);
            assert_eq!(group.compare(), None);
        }
        group.advance(3600.0, &progress(9, 5)(0), 60.0);
        assert!(group.compare().is_some_and(|found| found.is_all_cheaper));
    }

    #[test]
    fn the_comparison_ends_when_late_messages_are_long_ago() {
        let late_at_first = |poll: u32| progress(5, if poll < 1440 { 5 } else { 0 })(poll);
        assert!(
            compare(3, (0.0, 0.0), late_at_first)
                .unwrap()
                .is_all_cheaper
        );
        assert!(
            !compare(30, (0.0, 0.0), late_at_first)
                .unwrap()
                .is_all_cheaper
        );
    }

    #[test]
    fn a_gap_between_readings_counts_as_a_minute() {
        let mut group = StaticGroup::begin(0.0, 10, (0.0, 0.0));
        for day in 1..=60 {
            let of_a_day = GroupProgress {
                processed: 500.0 * 86_400.0,
                ..progress(5, 0)(day)
            };
            group.advance(f64::from(day) * 86_400.0, &of_a_day, 60.0);
        }
        let found = group.compare().unwrap();
        assert!((found.seconds - 3600.0).abs() < 1e-6, "{found:?}");
        let messages = [found.policy.messages, found.all.messages];
        assert!(
            messages.iter().all(|m| (m - 500.0 * 3600.0).abs() < 1.0),
            "{messages:?}"
        );
    }
}
