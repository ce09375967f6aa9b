//! The simulator and the rate policy: how long the built-in scenarios take, and whether the policy reaches the figures
//! that it is meant to reach.
//!
//! `cargo bench --bench simulate`
//!
//! Fails if the 16 built-in scenarios, with 10 seeds and 6 policies that know only what Kafka shows, take a minute or
//! longer on two threads, or if a figure of `lagwise simulate --check --seeds 10` is missed.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark prints for whoever runs it"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lagwise::simulate::acceptance::{CheckedFigure, JudgedSweep, checked_policies};
use lagwise::simulate::benchmark::{compared_policies, sweep};
use lagwise::simulate::builtin::builtin_scenarios;
use lagwise::simulate::generated::{HELD_OUT_SEED, generate_scenarios};
use lagwise::simulate::outcome::RunOptions;
use lagwise::simulate::scaler::SimulatedPolicy;
use lagwise::simulate::scenario::Scenario;

const SEEDS: u64 = 10;
const THREADS: usize = 2;

/// Number of policies whose runs are timed, and the time that they may take.
const TIMED_POLICIES: usize = 6;
const MAX_TIME: Duration = Duration::from_secs(60);

/// Number of generated scenarios, as in `lagwise simulate`.
const GENERATED: u32 = 12;

/// Times the built-in scenarios. Returns whether that was quick enough.
fn is_quick(scenarios: &[Scenario]) -> bool {
    let policies: Vec<SimulatedPolicy> = compared_policies()
        .into_iter()
        .filter(SimulatedPolicy::knows_only_kafka)
        .take(TIMED_POLICIES)
        .collect();
    let begun = Instant::now();
    let options = RunOptions::default();
    let result = sweep(scenarios, &policies, 0..SEEDS, &options, THREADS, &|_| {});
    let took = begun.elapsed();
    let is_quick = took < MAX_TIME && result.scores.len() == TIMED_POLICIES;
    let verdict = if is_quick {
        "within the bound"
    } else {
        "TOO MUCH"
    };
    println!(
        "{} scenarios, {SEEDS} seeds, {} policies: {:.1} s of {} s  {verdict}",
        scenarios.len(),
        policies.len(),
        took.as_secs_f64(),
        MAX_TIME.as_secs()
    );
    is_quick
}

/// The figures of a set of scenarios.
fn figures(
    scenarios: &[Scenario],
    policies: &[SimulatedPolicy],
    check: fn(&JudgedSweep<'_>) -> Vec<CheckedFigure>,
) -> Vec<CheckedFigure> {
    let options = RunOptions::default();
    let result = sweep(scenarios, policies, 0..SEEDS, &options, THREADS, &|_| {});
    check(&JudgedSweep {
        scenarios,
        policies,
        result: &result,
    })
}

fn main() -> ExitCode {
    let builtin = builtin_scenarios();
    let mut is_met = is_quick(&builtin);
    let mut found = figures(&builtin, &checked_policies(), |judged| judged.check_all());
    let generated = generate_scenarios(HELD_OUT_SEED, GENERATED);
    found.extend(figures(&generated, &compared_policies(), |judged| {
        judged.check_costs()
    }));
    for figure in &found {
        let bound = figure
            .bound
            .map_or("any".to_owned(), |bound| format!("{bound:.3}"));
        let verdict = if figure.is_met { "met" } else { "MISSED" };
        let from = figure.from.as_deref().unwrap_or_default();
        println!(
            "{:>9.3} of {bound:>9}  {verdict:<6}  {} {from}",
            figure.measured, figure.figure
        );
    }
    is_met &= found.iter().all(|figure| figure.is_met);
    match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
