//! Scores of a run.

use serde::Serialize;

use crate::model::policy::scaling_totals::CostWeights;

/// A change opposite to the one before is a reversal, if that was at most this number of seconds earlier.
pub const REVERSAL_WITHIN: u32 = 1800;

/// Scores of one run, or means of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RunScore {
    /// Messages that were older than the objective when they were processed, or at the end, in percent. Stuck
    /// partitions do not count.
    pub late_percent: f64,
    /// Replica-minutes, pods that start included.
    pub replica_minutes: f64,
    /// The same in percent of as many replicas as partitions.
    pub cost_percent: f64,
    pub scale_changes: f64,
    pub rebalances: f64,
    pub reversals: f64,
    /// Largest age of a message in seconds.
    pub max_age: f64,
    /// Longest time in seconds in which some unprocessed message was too old.
    pub recovery: f64,
}

impl RunScore {
    /// The cost J.
    #[must_use]
    pub fn cost(&self, weights: CostWeights) -> f64 {
        self.cost_percent + weights.late * self.late_percent + weights.rebalance * self.rebalances
    }

    /// Mean of several scores; all zero if there are none.
    #[must_use]
    pub fn mean<'a>(scores: impl IntoIterator<Item = &'a RunScore>) -> Self {
        let mut sum = Self::default();
        let mut count = 0.0f64;
        for score in scores {
            sum.late_percent += score.late_percent;
            sum.replica_minutes += score.replica_minutes;
            sum.cost_percent += score.cost_percent;
            sum.scale_changes += score.scale_changes;
            sum.rebalances += score.rebalances;
            sum.reversals += score.reversals;
            sum.max_age += score.max_age;
            sum.recovery += score.recovery;
            count += 1.0;
        }
        let part = |value: f64| value / count.max(1.0);
        Self {
            late_percent: part(sum.late_percent),
            replica_minutes: part(sum.replica_minutes),
            cost_percent: part(sum.cost_percent),
            scale_changes: part(sum.scale_changes),
            rebalances: part(sum.rebalances),
            reversals: part(sum.reversals),
            max_age: part(sum.max_age),
            recovery: part(sum.recovery),
        }
    }
}
