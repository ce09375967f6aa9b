//! The clairvoyant schedule: the results of a scaler that knows all arrivals in advance, in the simulated group.
//!
//! It is the schedule of the fluid optimum, with pods that start as early as they need to be members in time. That
//! schedule has no reserve for uneven partitions, rebalances and commits, so some reserves are tried, and the cheapest
//! run counts. It is a reference and no bound: a better schedule may exist.

use std::sync::Arc;

use super::arrivals::Arrivals;
use super::engine::run;
use super::numbers::{index, whole};
use super::optimum::{FluidSchedule, SLOT};
use super::outcome::RunOptions;
use super::scaler::SimulatedPolicy;
use super::scenario::Scenario;
use super::score::RunScore;
use crate::model::policy::scaling_totals::CostWeights;

/// Factors on the replicas of the fluid optimum.
const RESERVES: [f64; 4] = [1.0, 1.15, 1.3, 1.5];

/// Seconds that a rebalance takes, besides the start of the pod.
const REBALANCE: u32 = 10;

/// The cheapest run of the schedules with a reserve.
#[must_use]
pub fn clairvoyant_score(
    scenario: &Scenario,
    seed: u64,
    arrivals: &Arrivals,
    schedule: &FluidSchedule,
) -> RunScore {
    let runs = RESERVES.map(|reserve| {
        let options = RunOptions {
            schedule: Some(bring_forward(&schedule.replicas, reserve, scenario)),
            ..RunOptions::default()
        };
        let policy = SimulatedPolicy::Clairvoyant;
        run(scenario, &policy, seed, arrivals, &options).score
    });
    let cost = |score: &RunScore| score.cost(CostWeights::default());
    let cheapest = runs.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
    cheapest.unwrap_or_default()
}

/// The replicas to request in each slot, so that the replicas of the schedule are members in time.
fn bring_forward(replicas: &[u32], reserve: f64, scenario: &Scenario) -> Arc<[u32]> {
    // The HPA may take a slot to act.
    let lead = (scenario.start_up.1 + REBALANCE).div_ceil(SLOT) + 1;
    let asked = (0..replicas.len()).map(|slot| {
        let until = replicas.len().min(slot + index(lead) + 1);
        let needed = replicas.get(slot..until).unwrap_or_default();
        let most = needed.iter().copied().max().unwrap_or(1);
        share_evenly(whole((f64::from(most) * reserve).ceil()), scenario)
    });
    asked.collect()
}

/// The next number of replicas with which no member has more partitions than it must: one less would not relieve the
/// member with the most partitions.
fn share_evenly(replicas: u32, scenario: &Scenario) -> u32 {
    let partitions = scenario.partitions.max(1);
    let each = partitions / replicas.clamp(1, partitions);
    partitions.div_ceil(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_requested_ahead_by_their_start_time() {
        let scenario = Scenario {
            start_up: (10, 20),
            ..Scenario::new("a", "", Vec::new())
        };
        let replicas = [1, 1, 1, 1, 1, 4, 4, 2, 2, 2];
        for (reserve, expected) in [
            (1.0, [1, 1, 4, 4, 4, 4, 4, 2, 2, 2]),
            (1.3, [2, 2, 6, 6, 6, 6, 6, 3, 3, 3]),
        ] {
            assert_eq!(*bring_forward(&replicas, reserve, &scenario), expected);
        }
    }
}
