//! Options and outcome of a run, and what is counted during one.

use serde::Serialize;

use super::numbers::to_float;
use super::partitions::AgeCounter;
use super::scenario::Scenario;
use super::score::{REVERSAL_WITHIN, RunScore};
use crate::model::hpa::controller::HpaSpec;
use crate::model::policy::decision::RateDecision;

/// What happened in one poll interval of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// Seconds since the beginning.
    pub second: u32,
    /// Pods, those that start included.
    pub replicas: u32,
    pub members: u32,
    pub partitions: u32,
    /// Age of the oldest unprocessed message in seconds, stuck partitions excepted.
    pub age: u32,
    /// Messages that arrived and that were processed in this second.
    pub arrivals: u64,
    pub processed: u64,
    /// The decision of the rate policy, if there was one.
    pub decision: Option<RateDecision>,
}

/// Result of a run.
#[derive(Clone, Debug)]
pub struct SimulatedRun {
    pub score: RunScore,
    /// One entry for each poll, if they were asked for.
    pub timeline: Vec<TimelineEntry>,
}

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Whether to record the timeline.
    pub has_timeline: bool,
    /// An HPA whose limits and `behavior` are used instead of the policy's own.
    pub hpa: Option<HpaSpec>,
}

/// What is counted during a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RunTally {
    replica_seconds: u64,
    scale_changes: u32,
    reversals: u32,
    /// When the last change was, and whether it was up.
    last_change: Option<(u32, bool)>,
    late_since: Option<u32>,
    longest_late: u32,
}

impl RunTally {
    /// Counts a second with so many pods, in which the oldest message is late or not.
    pub(super) fn count_second(&mut self, now: u32, pods: u32, is_late: bool) {
        self.replica_seconds += u64::from(pods);
        match (is_late, self.late_since) {
            (true, None) => self.late_since = Some(now),
            (false, Some(since)) => {
                self.longest_late = self.longest_late.max(now - since);
                self.late_since = None;
            }
            _ => {}
        }
    }

    /// Counts a change of `spec.replicas`.
    pub(super) fn count_change(&mut self, now: u32, is_up: bool) {
        self.scale_changes += 1;
        if let Some((at, was_up)) = self.last_change
            && was_up != is_up
            && now - at <= REVERSAL_WITHIN
        {
            self.reversals += 1;
        }
        self.last_change = Some((now, is_up));
    }

    /// The scores of the run.
    pub(super) fn score(
        mut self,
        scenario: &Scenario,
        ages: &AgeCounter,
        rebalances: u32,
    ) -> RunScore {
        let end = scenario.duration;
        if let Some(since) = self.late_since {
            self.longest_late = self.longest_late.max(end - since);
        }
        let replica_seconds = to_float(self.replica_seconds);
        let whole_time = f64::from(end) * f64::from(scenario.partitions);
        RunScore {
            late_percent: 100.0 * to_float(ages.late) / to_float(ages.processed.max(1)),
            replica_minutes: replica_seconds / 60.0,
            cost_percent: 100.0 * replica_seconds / whole_time.max(1.0),
            scale_changes: f64::from(self.scale_changes),
            rebalances: f64::from(rebalances),
            reversals: f64::from(self.reversals),
            max_age: f64::from(ages.oldest),
            recovery: f64::from(self.longest_late),
        }
    }
}
