//! Totals of scaling over some time, and their cost.

use serde::{Deserialize, Serialize};

use super::settings::DAMAGE_PRICE;

/// Weights of the cost: percent of all replicas + `late` x percent of late messages + `rebalance` x rebalances in the
/// duration [`COST_PERIOD`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CostWeights {
    pub late: f64,
    pub rebalance: f64,
}

impl Default for CostWeights {
    fn default() -> Self {
        Self {
            late: DAMAGE_PRICE,
            rebalance: 0.2,
        }
    }
}

/// Seconds in which a rebalance costs its weight: the duration of the built-in scenarios.
pub const COST_PERIOD: f64 = 10_800.0;

/// Totals of scaling over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScalingTotals {
    /// Replicas times minutes.
    pub replica_minutes: f64,
    /// Changes of the number of replicas, each of which is at least one rebalance.
    pub changes: u32,
    /// Messages processed.
    pub messages: f64,
    /// Messages that were older than the objective when they were processed.
    pub late_messages: f64,
}

impl ScalingTotals {
    /// Part of the messages that was late; `None` without messages.
    #[must_use]
    pub fn late_share(&self) -> Option<f64> {
        (self.messages > 0.0).then(|| self.late_messages / self.messages)
    }

    /// Percent of what `all` replicas would have been in these seconds.
    #[must_use]
    pub fn replica_percent(&self, all: u32, seconds: f64) -> f64 {
        100.0 * self.replica_minutes / (f64::from(all.max(1)) * seconds.max(1.0) / 60.0)
    }

    /// The cost of these seconds, with one rebalance for each change. Without messages none is late.
    #[must_use]
    pub fn cost(&self, all: u32, seconds: f64, weights: CostWeights) -> f64 {
        let late = 100.0 * self.late_share().unwrap_or(0.0);
        let changes = f64::from(self.changes) * COST_PERIOD / seconds.max(1.0);
        self.replica_percent(all, seconds) + weights.late * late + weights.rebalance * changes
    }

    /// Adds some seconds with the number of replicas and of messages processed in them.
    pub(super) fn add(&mut self, replicas: u32, seconds: f64, messages: f64, is_late: bool) {
        self.replica_minutes += f64::from(replicas) * seconds / 60.0;
        self.messages += messages;
        if is_late {
            self.late_messages += messages;
        }
    }

    /// The totals of two spans of time.
    #[must_use]
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            replica_minutes: self.replica_minutes + other.replica_minutes,
            changes: self.changes.saturating_add(other.changes),
            messages: self.messages + other.messages,
            late_messages: self.late_messages + other.late_messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_sum_of_replicas_late_messages_and_changes() {
        let totals = |replica_minutes, changes, late_messages| ScalingTotals {
            replica_minutes,
            changes,
            messages: 1000.0,
            late_messages,
        };
        // Six hours with up to 10 replicas.
        let seconds = 2.0 * COST_PERIOD;
        for (totals, expected) in [
            (totals(3600.0, 0, 0.0), 100.0),
            (totals(1800.0, 0, 0.0), 50.0),
            (totals(0.0, 0, 10.0), 5.0),
            (totals(0.0, 10, 0.0), 1.0),
            (totals(900.0, 20, 100.0), 25.0 + 2.0 + 50.0),
            (ScalingTotals::default(), 0.0),
        ] {
            let cost = totals.cost(10, seconds, CostWeights::default());
            assert!((cost - expected).abs() < 1e-9, "{totals:?}: {cost}");
        }
    }
}
