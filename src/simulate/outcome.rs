//! Options and outcome of a run, and the counters during one.

use std::sync::Arc;

use super::numbers::{index, to_float};
use super::optimum::SLOT;
use super::partitions::AgeCounter;
use super::records::RunRecords;
use super::scaler::SimulatedPolicy;
use super::scenario::Scenario;
use super::score::{REVERSAL_WITHIN, RunScore};
use crate::model::hpa::controller::HpaSpec;

/// Result of a run.
#[derive(Clone, Debug)]
pub struct SimulatedRun {
    pub score: RunScore,
    pub records: RunRecords,
}

#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Whether to record the timeline.
    pub has_timeline: bool,
    /// Whether to record what Kafka says at each poll.
    pub has_trace: bool,
    /// Whether to record the syncs of the HPA.
    pub has_syncs: bool,
    /// An HPA whose limits and `behavior` are used instead of the policy's own.
    pub hpa: Option<HpaSpec>,
    /// The replicas in each slot of the fluid optimum, for the clairvoyant schedule.
    pub schedule: Option<Arc<[u32]>>,
}

impl RunOptions {
    /// The replicas of the schedule at a time in seconds; `None` without one.
    pub(super) fn scheduled(&self, now: u32) -> Option<u32> {
        let schedule = self.schedule.as_ref()?;
        schedule.get(index(now / SLOT)).copied()
    }

    /// The HPA of a policy, for a workload with this number of partitions.
    #[must_use]
    pub fn hpa_of(&self, policy: &SimulatedPolicy, partitions: u32) -> HpaSpec {
        let mut spec = policy.hpa(partitions);
        if let Some(hpa) = &self.hpa {
            (spec.min, spec.max) = (hpa.min, hpa.max);
            spec.behavior.clone_from(&hpa.behavior);
        }
        spec
    }

    /// Minimum and maximum of the rate policy, for a workload with this number of partitions. The policy limits them to
    /// at least one replica, and to at most one for each partition.
    pub(super) fn rate_bounds(&self, partitions: u32) -> (u32, u32) {
        let hpa = self.hpa.as_ref();
        hpa.map_or((1, partitions), |hpa| (hpa.min, hpa.max))
    }
}

/// Counters during a run.
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
    /// Counts a second with this number of pods, in which the oldest message is late or not.
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
