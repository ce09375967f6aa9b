//! Sweeps over scenarios, policies and seeds.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::arrivals::Arrivals;
use super::clairvoyant::clairvoyant_score;
use super::engine::run;
use super::flink::{CapacitySource, FlinkSettings};
use super::optimum::{FluidOptimum, fluid_optimum};
use super::outcome::RunOptions;
use super::scaler::SimulatedPolicy;
use super::scenario::Scenario;
use super::score::RunScore;
use crate::model::policy::scaling_totals::CostWeights;
use crate::model::policy::settings::{PolicyRule, RatePolicySettings};

/// Scores of each policy in each scenario, as means over the seeds.
#[derive(Clone, Debug)]
pub struct SweepResult {
    /// By policy, then by scenario.
    pub scores: Vec<Vec<RunScore>>,
}

impl SweepResult {
    /// Mean over the scenarios, for each policy.
    #[must_use]
    pub fn means(&self) -> Vec<RunScore> {
        self.scores.iter().map(RunScore::mean).collect()
    }
}

/// Runs all policies in all scenarios with all seeds, on this number of threads. `progress` is called with the number
/// of finished pairs of scenario and seed.
#[must_use]
pub fn sweep(
    scenarios: &[Scenario],
    policies: &[SimulatedPolicy],
    seeds: std::ops::Range<u64>,
    options: &RunOptions,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> SweepResult {
    let pairs = pairs(scenarios, seeds);
    let done = AtomicUsize::new(0);
    let found = in_parallel(&pairs, threads, |(scenario, seed)| {
        let it = scenarios.get(*scenario)?;
        let arrivals = Arrivals::for_run(it, *seed);
        let scores = policies.iter().enumerate().map(|(policy, simulated)| {
            let run = run(it, &with_slo(simulated, it), *seed, &arrivals, options);
            (policy, *scenario, *seed, run.score)
        });
        let scores: Vec<_> = scores.collect();
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        Some(scores)
    });
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    // The order of the sums must not depend on the threads.
    found.sort_unstable_by_key(|(policy, scenario, seed, _)| (*policy, *scenario, *seed));
    let mean_score = |policy: usize, scenario: usize| {
        let all = found
            .iter()
            .filter(|found| (found.0, found.1) == (policy, scenario));
        RunScore::mean(all.map(|(.., score)| score))
    };
    let scores = (0..policies.len())
        .map(|policy| {
            (0..scenarios.len())
                .map(|scenario| mean_score(policy, scenario))
                .collect()
        })
        .collect();
    SweepResult { scores }
}

/// The best results in a scenario if all arrivals are known in advance.
#[derive(Clone, Copy, Debug)]
pub struct ForesightResult {
    pub optimum: FluidOptimum,
    pub clairvoyant: RunScore,
}

/// Finds the fluid optimum and the clairvoyant schedule of each scenario, as means over the seeds, on this number of
/// threads.
#[must_use]
pub fn find_foresight(
    scenarios: &[Scenario],
    seeds: std::ops::Range<u64>,
    threads: usize,
) -> Vec<ForesightResult> {
    let pairs = pairs(scenarios, seeds);
    let mut found = in_parallel(&pairs, threads, |(place, seed)| {
        let scenario = scenarios.get(*place)?;
        let arrivals = Arrivals::for_run(scenario, *seed);
        let schedule = fluid_optimum(scenario, &arrivals, CostWeights::default());
        let clairvoyant = clairvoyant_score(scenario, *seed, &arrivals, &schedule);
        Some((*place, *seed, schedule.optimum, clairvoyant))
    });
    found.sort_unstable_by_key(|(place, seed, ..)| (*place, *seed));
    let mean = |place| {
        let of_scenario = found.iter().filter(move |found| found.0 == place);
        let optima = of_scenario.clone().map(|(_, _, optimum, _)| optimum);
        ForesightResult {
            optimum: FluidOptimum::mean(optima),
            clairvoyant: RunScore::mean(of_scenario.map(|(.., score)| score)),
        }
    };
    (0..scenarios.len()).map(mean).collect()
}

/// Each scenario with each seed.
fn pairs(scenarios: &[Scenario], seeds: std::ops::Range<u64>) -> Vec<(usize, u64)> {
    let places = 0..scenarios.len();
    places
        .flat_map(|scenario| seeds.clone().map(move |seed| (scenario, seed)))
        .collect()
}

/// Processes each item on this number of threads. The results have no order.
fn in_parallel<I: Sync, R: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Option<R> + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut found = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(work(item));
        }
        found
    };
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        for handle in workers {
            match handle.join() {
                Ok(results) => found.extend(results),
                // Without its results, the means would be wrong.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    found
}

/// The policy with the objective of the scenario, if it is the rate policy.
#[must_use]
pub fn with_slo(policy: &SimulatedPolicy, scenario: &Scenario) -> SimulatedPolicy {
    match policy {
        SimulatedPolicy::Rate(settings) => SimulatedPolicy::Rate(RatePolicySettings {
            slo: std::time::Duration::from_secs(u64::from(scenario.slo)),
            ..*settings
        }),
        other => *other,
    }
}

/// The policies that are compared: the rate policy first.
#[must_use]
pub fn compared_policies() -> Vec<SimulatedPolicy> {
    let lag = |threshold, window_seconds| SimulatedPolicy::Lag {
        threshold,
        window_seconds,
    };
    let flink = |settings: fn(CapacitySource) -> FlinkSettings, source| {
        SimulatedPolicy::Flink(settings(source))
    };
    vec![
        SimulatedPolicy::Rate(RatePolicySettings::default()),
        flink(FlinkSettings::tuned, CapacitySource::Given),
        flink(FlinkSettings::tuned, CapacitySource::Observed),
        flink(FlinkSettings::defaults, CapacitySource::Observed),
        lag(100, None),
        lag(200, None),
        lag(1000, None),
        lag(200, Some(3600)),
        SimulatedPolicy::KedaEven { threshold: 100 },
        SimulatedPolicy::Divisors,
        SimulatedPolicy::Static,
    ]
}

/// The rate policy, and the rate policy without each of its rules.
#[must_use]
pub fn ablated_policies() -> Vec<SimulatedPolicy> {
    let without = |without| {
        SimulatedPolicy::Rate(RatePolicySettings {
            without,
            ..RatePolicySettings::default()
        })
    };
    let mut policies = vec![without(None)];
    policies.extend(PolicyRule::ALL.map(|rule| without(Some(rule))));
    policies
}
