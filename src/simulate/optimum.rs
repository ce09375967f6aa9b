//! The fluid optimum: approximately the lowest cost that any policy could have, as a reference for policies.
//!
//! A dynamic programme finds the cheapest schedule of replicas with all arrivals known in advance. Its group is simpler
//! than the simulated one, and in each respect cheaper: messages are a fluid in one queue, so no partition is behind
//! the others; consumers start at once; a rebalance has its price, but stops no consumer. Replicas change every 15 s at
//! most, as with an HPA. Costs between the backlogs of a grid are interpolated, so the result is an estimate of a lower
//! bound.

use serde::Serialize;

use super::arrivals::Arrivals;
use super::numbers::{index, to_float, whole};
use super::scenario::Scenario;
use crate::model::policy::scaling_totals::CostWeights;

/// Seconds between two times at which the replicas may change.
pub(super) const SLOT: u32 = 15;

/// Parts of a slot in which messages are late or not.
const PARTS: u32 = 5;

/// Steps of the grid of backlogs that are one slot of one consumer apart, and the growth of those beyond.
const FINE_STEPS: usize = 64;
const GROWTH: f64 = 1.1;

/// Scores of the fluid optimum. What depends on single messages is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FluidOptimum {
    pub cost: f64,
    pub cost_percent: f64,
    pub late_percent: f64,
    pub scale_changes: f64,
}

impl FluidOptimum {
    /// Mean of several; all zero if there are none.
    #[must_use]
    pub fn mean<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let count = all.clone().map(|_| 1.0).sum::<f64>().max(1.0);
        let mean = |of: fn(&Self) -> f64| all.clone().map(of).sum::<f64>() / count;
        Self {
            cost: mean(|it| it.cost),
            cost_percent: mean(|it| it.cost_percent),
            late_percent: mean(|it| it.late_percent),
            scale_changes: mean(|it| it.scale_changes),
        }
    }
}

/// The fluid optimum with its schedule.
#[derive(Clone, Debug, Default)]
pub struct FluidSchedule {
    pub optimum: FluidOptimum,
    /// The replicas in each slot of 15 seconds.
    pub replicas: Vec<u32>,
}

/// Finds the fluid optimum of a run.
#[must_use]
pub fn fluid_optimum(
    scenario: &Scenario,
    arrivals: &Arrivals,
    weights: CostWeights,
) -> FluidSchedule {
    let fluid = Fluid::new(scenario, arrivals, weights);
    let values = fluid.values();
    fluid.follow(&values)
}

struct Fluid<'a> {
    scenario: &'a Scenario,
    /// Messages that arrived before each second.
    before: Vec<f64>,
    /// Backlogs, ascending from 0.
    grid: Vec<f64>,
    slots: u32,
    most: u32,
    /// Price of one replica for a slot, of a late message, and of a change.
    replica: f64,
    late: f64,
    change: f64,
}

/// What happens in a slot.
#[derive(Clone, Copy, Debug)]
struct SlotOutcome {
    backlog: f64,
    late: f64,
}

impl<'a> Fluid<'a> {
    fn new(scenario: &'a Scenario, arrivals: &Arrivals, weights: CostWeights) -> Self {
        let mut before = vec![0.0];
        let mut sum = 0.0;
        for second in 0..scenario.duration {
            let row = arrivals.at(second).iter().enumerate();
            // Stuck partitions do not count.
            let counted = row.filter(|(partition, _)| !scenario.is_poisoned(second, *partition));
            sum += to_float(counted.map(|(_, messages)| u64::from(*messages)).sum());
            before.push(sum);
        }
        let mut grid: Vec<f64> = (0..FINE_STEPS)
            .map(|step| {
                f64::from(u32::try_from(step).unwrap_or(0)) * scenario.capacity * f64::from(SLOT)
            })
            .collect();
        while let Some(last) = grid.last().copied().filter(|last| *last < sum) {
            grid.push((last * GROWTH).max(last + 1.0));
        }
        let most = scenario.partitions.max(1);
        let whole_time = f64::from(scenario.duration.max(1)) * f64::from(most);
        Self {
            scenario,
            before,
            grid,
            slots: scenario.duration.div_ceil(SLOT),
            most,
            replica: 100.0 * f64::from(SLOT) / whole_time,
            late: weights.late * 100.0 / sum.max(1.0),
            change: weights.rebalance,
        }
    }

    fn arrived(&self, second: u32) -> f64 {
        let last = self.before.last().copied().unwrap_or(0.0);
        self.before.get(index(second)).copied().unwrap_or(last)
    }

    /// Messages that arrived before a time in seconds.
    fn arrived_before(&self, time: f64) -> f64 {
        if time <= 0.0 {
            return 0.0;
        }
        let second = whole(time);
        let (low, high) = (self.arrived(second), self.arrived(second + 1));
        low + (high - low) * time.fract()
    }

    /// Messages that this number of consumers could process in a slot.
    fn service(&self, slot: u32, replicas: u32) -> f64 {
        let seconds = slot * SLOT..((slot + 1) * SLOT).min(self.scenario.duration);
        let all = f64::from(replicas.min(self.scenario.partitions_at(slot * SLOT)))
            * self.scenario.capacity;
        let at = |second| {
            let limit = self
                .scenario
                .downstream_limit(second)
                .unwrap_or(f64::INFINITY);
            match self.scenario.is_out(second) {
                true => 0.0,
                false => limit.min(all * self.scenario.capacity_factor(second)),
            }
        };
        seconds.map(at).sum()
    }

    /// A slot that begins with a backlog and has this service.
    fn pass(&self, slot: u32, backlog: f64, service: f64) -> SlotOutcome {
        let (start, end) = (slot * SLOT, (slot + 1) * SLOT);
        let grown = backlog + self.arrived(end) - self.arrived(start);
        let served = grown.min(service);
        let first = self.arrived(start) - backlog;
        let mut late = 0.0;
        for part in 0..PARTS {
            let middle = (f64::from(part) + 0.5) / f64::from(PARTS);
            let time = f64::from(start) + middle * f64::from(SLOT);
            if self.arrived_before(time - f64::from(self.scenario.slo)) > first + served * middle {
                late += served / f64::from(PARTS);
            }
        }
        SlotOutcome {
            backlog: grown - served,
            late,
        }
    }

    /// Messages of a backlog at the end that are late.
    fn late_at_end(&self, backlog: f64) -> f64 {
        let end = self.scenario.duration;
        let old = self.arrived_before(f64::from(end) - f64::from(self.scenario.slo));
        (old - (self.arrived(end) - backlog)).clamp(0.0, backlog)
    }

    /// The cost from the beginning of each slot on, by backlog and by the replicas that there are: for slot, backlog
    /// and number of replicas less one.
    fn values(&self) -> Vec<Vec<Vec<f64>>> {
        let (slots, most) = (index(self.slots), index(self.most));
        let end = self
            .grid
            .iter()
            .map(|backlog| vec![self.late * self.late_at_end(*backlog); most]);
        let mut values = vec![Vec::new(); slots + 1];
        if let Some(last) = values.last_mut() {
            *last = end.collect();
        }
        for slot in (0..self.slots).rev() {
            let after = values
                .get(index(slot) + 1)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let services: Vec<f64> = (1..=self.most)
                .map(|replicas| self.service(slot, replicas))
                .collect();
            let of_backlog = |backlog: &f64| {
                let kept: Vec<f64> = (0..most)
                    .zip(&services)
                    .map(|(place, service)| self.kept(slot, *backlog, place, *service, after))
                    .collect();
                let changed = kept.iter().copied().fold(f64::INFINITY, f64::min) + self.change;
                kept.into_iter().map(|kept| kept.min(changed)).collect()
            };
            let found = self.grid.iter().map(of_backlog).collect();
            if let Some(value) = values.get_mut(index(slot)) {
                *value = found;
            }
        }
        values
    }

    /// The cost from a slot on with these replicas in it.
    fn kept(&self, slot: u32, backlog: f64, place: usize, service: f64, after: &[Vec<f64>]) -> f64 {
        let outcome = self.pass(slot, backlog, service);
        let replicas = to_float(u64::try_from(place + 1).unwrap_or(u64::MAX));
        let rest = self.interpolate(after, outcome.backlog, place);
        self.replica * replicas + self.late * outcome.late + rest
    }

    /// The cost of a backlog between those of the grid.
    fn interpolate(&self, values: &[Vec<f64>], backlog: f64, place: usize) -> f64 {
        let above = self.grid.partition_point(|level| *level < backlog);
        let at = |level: usize| values.get(level).and_then(|all| all.get(place)).copied();
        let high = at(above.min(self.grid.len() - 1)).unwrap_or(0.0);
        let Some((low, bottom, top)) = above
            .checked_sub(1)
            .and_then(|below| Some((at(below)?, self.grid.get(below)?, self.grid.get(above)?)))
        else {
            return high;
        };
        low + (high - low) * (backlog - bottom) / (top - bottom)
    }

    /// Follows the cheapest schedule.
    fn follow(&self, values: &[Vec<Vec<f64>>]) -> FluidSchedule {
        let mut replicas = self.scenario.first_replicas().clamp(1, self.most);
        let (mut backlog, mut late, mut changes, mut sum) = (0.0, 0.0, 0.0, 0.0);
        let mut schedule = Vec::with_capacity(index(self.slots));
        for slot in 0..self.slots {
            let after = values
                .get(index(slot) + 1)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let cost = |number: u32| {
                let change = if number == replicas { 0.0 } else { self.change };
                change
                    + self.kept(
                        slot,
                        backlog,
                        index(number - 1),
                        self.service(slot, number),
                        after,
                    )
            };
            let best = (1..=self.most).min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
            let best = best
                .filter(|best| cost(*best) < cost(replicas))
                .unwrap_or(replicas);
            if best != replicas {
                changes += 1.0;
                replicas = best;
            }
            schedule.push(replicas);
            let outcome = self.pass(slot, backlog, self.service(slot, replicas));
            backlog = outcome.backlog;
            late += outcome.late;
            sum += f64::from(replicas);
        }
        late += self.late_at_end(backlog);
        let total = self.arrived(self.scenario.duration).max(1.0);
        let optimum = FluidOptimum {
            cost: self.replica * sum + self.late * late + self.change * changes,
            cost_percent: self.replica * sum,
            late_percent: 100.0 * late / total,
            scale_changes: changes,
        };
        FluidSchedule {
            optimum,
            replicas: schedule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::benchmark::{compared_policies, with_slo};
    use crate::simulate::engine::run;
    use crate::simulate::generated::generate_scenarios;
    use crate::simulate::outcome::RunOptions;
    use crate::simulate::scenario::{RatePart, StartReplicas};

    fn optimum(scenario: &Scenario) -> FluidOptimum {
        let arrivals = Arrivals::for_run(scenario, 1);
        fluid_optimum(scenario, &arrivals, CostWeights::default()).optimum
    }

    #[test]
    fn the_optimum_of_a_constant_rate_is_constant() {
        let scenario = Scenario {
            duration: 3600,
            start_replicas: StartReplicas::Count(5),
            ..Scenario::new("a", "", vec![RatePart::Constant(490.0)])
        };
        let found = optimum(&scenario);
        // Five of 24, except in the last minute, whose messages need not be processed.
        assert!((20.0..=20.9).contains(&found.cost_percent), "{found:?}");
        assert!(
            found.late_percent < 0.5 && found.scale_changes <= 4.0,
            "{found:?}"
        );
    }

    #[test]
    fn late_messages_are_cheaper_than_many_replicas_for_a_moment_only() {
        let pulse = |seconds| {
            let from = 1000.0;
            let until = from + seconds;
            let part = RatePart::Pulse {
                rate: 2000.0,
                from,
                until,
                ramp: 1.0,
            };
            Scenario {
                duration: 3600,
                start_replicas: StartReplicas::One,
                ..Scenario::new("a", "", vec![RatePart::Constant(50.0), part])
            }
        };
        let found = optimum(&pulse(300.0));
        assert!(
            found.late_percent < 1.0 && found.scale_changes >= 2.0,
            "{found:?}"
        );
        let blind = Scenario {
            outage: Some((900, 1600)),
            ..pulse(300.0)
        };
        assert!(optimum(&blind).late_percent > 70.0, "{found:?}");
    }

    /// No policy may be cheaper, up to the error of the interpolation.
    #[test]
    fn no_policy_beats_it() {
        for seed in 0..3 {
            let scenario = Scenario {
                duration: 3600,
                ..generate_scenarios(seed, 1).remove(0)
            };
            let least = optimum(&scenario).cost;
            let arrivals = Arrivals::for_run(&scenario, 1);
            for policy in [0, 5, 10].map(|place| compared_policies()[place]) {
                let simulated = with_slo(&policy, &scenario);
                let score = run(&scenario, &simulated, 1, &arrivals, &RunOptions::default()).score;
                let cost = score.cost(CostWeights::default());
                assert!(
                    cost > least - 0.5,
                    "seed {seed}, {}: {cost} {least}",
                    policy.name()
                );
            }
        }
    }
}
