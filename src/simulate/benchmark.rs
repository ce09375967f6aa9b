//! Sweeps over scenarios, policies and seeds.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::arrivals::Arrivals;
use super::engine::run;
use super::flink::{CapacitySource, FlinkSettings};
use super::outcome::RunOptions;
use super::scaler::SimulatedPolicy;
use super::scenario::Scenario;
use super::score::RunScore;
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

/// Runs all policies in all scenarios with all seeds, on this number of threads. `progress` is called with the number of
/// finished pairs of scenario and seed.
#[must_use]
pub fn sweep(
    scenarios: &[Scenario],
    policies: &[SimulatedPolicy],
    seeds: std::ops::Range<u64>,
    options: &RunOptions,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> SweepResult {
    let pairs: Vec<(usize, u64)> = (0..scenarios.len())
        .flat_map(|scenario| seeds.clone().map(move |seed| (scenario, seed)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let worker = || {
        let mut found = Vec::new();
        while let Some((scenario, seed)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(it) = scenarios.get(*scenario) else {
                break;
            };
            let arrivals = Arrivals::draw(it, *seed);
            for (policy, simulated) in policies.iter().enumerate() {
                let run = run(it, &with_slo(simulated, it), *seed, &arrivals, options);
                found.push((policy, *scenario, *seed, run.score));
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        found
    };
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        for handle in workers {
            match handle.join() {
                Ok(scores) => found.extend(scores),
                // Without its scores, the means would be wrong.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    // The order of the sums must not depend on the threads.
    found.sort_unstable_by_key(|(policy, scenario, seed, _)| (*policy, *scenario, *seed));
    let of = |policy: usize, scenario: usize| {
        let all = found
            .iter()
            .filter(|found| (found.0, found.1) == (policy, scenario));
        RunScore::mean(all.map(|(.., score)| score))
    };
    let scores = (0..policies.len())
        .map(|policy| {
            (0..scenarios.len())
                .map(|scenario| of(policy, scenario))
                .collect()
        })
        .collect();
    SweepResult { scores }
}

/// The policy with the objective of the scenario, if it is the rate policy.
fn with_slo(policy: &SimulatedPolicy, scenario: &Scenario) -> SimulatedPolicy {
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
