//! `lagwise simulate --check`: the figures that the rate policy has to reach, and those that it reaches.

use serde::Serialize;

use super::progress::ProgressLine;
use super::{GENERATED, SimulateArgs, seeds_end};
use crate::cli::text_table::{TableColumn, TextTable};
use crate::simulate::acceptance::{CheckedFigure, JudgedSweep, checked_policies};
use crate::simulate::benchmark::{compared_policies, sweep};
use crate::simulate::builtin::builtin_scenarios;
use crate::simulate::generated::{HELD_OUT_SEED, generate_scenarios};
use crate::simulate::outcome::RunOptions;
use crate::simulate::scenario::Scenario;

/// The figures of a set of scenarios.
#[derive(Debug, Serialize)]
struct CheckedSet {
    scenarios: &'static str,
    #[serde(flatten)]
    figure: CheckedFigure,
}

/// Checks all figures. Returns the text, and whether each is within its bound.
pub(super) fn check(
    args: &SimulateArgs,
    progress: &ProgressLine,
) -> anyhow::Result<(String, bool)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seeds = args.seed..seeds_end(args)?;
    let mut sets = [
        ("builtin", builtin_scenarios()),
        ("generated", generate_scenarios(HELD_OUT_SEED, GENERATED)),
    ];
    for (_, scenarios) in &mut sets {
        args.set_start_replicas(scenarios);
    }
    let runs = |scenarios: &Vec<Scenario>| {
        let count = u64::try_from(scenarios.len()).unwrap_or(u64::MAX);
        args.seeds.saturating_mul(count)
    };
    let total: u64 = sets.iter().map(|(_, scenarios)| runs(scenarios)).sum();
    let mut before = 0u64;
    let mut found = Vec::new();
    for (name, scenarios) in &sets {
        let done = |done: usize| {
            let done = u64::try_from(done).unwrap_or(u64::MAX);
            progress.show(done.saturating_add(before), total);
        };
        // Nothing was tuned on generated scenarios, so only the most important figures are required of them. These do
        // not need the grid.
        let has_all_figures = *name == "builtin";
        let policies = match has_all_figures {
            true => checked_policies(),
            false => compared_policies(),
        };
        let options = RunOptions::default();
        let result = sweep(
            scenarios,
            &policies,
            seeds.clone(),
            &options,
            threads,
            &done,
        );
        before = before.saturating_add(runs(scenarios));
        let judged = JudgedSweep {
            scenarios,
            policies: &policies,
            result: &result,
        };
        let figures = match has_all_figures {
            true => judged.check_all(),
            false => judged.check_costs(),
        };
        found.extend(figures.into_iter().map(|figure| CheckedSet {
            scenarios: name,
            figure,
        }));
    }
    progress.clear();
    let is_met = found.iter().all(|set| set.figure.is_met);
    let text = match args.output.serialize(&found)? {
        Some(text) => text,
        None => render(&found),
    };
    Ok((text, is_met))
}

fn render(found: &[CheckedSet]) -> String {
    let mut table = TextTable::new([
        TableColumn::text("SCENARIOS"),
        TableColumn::number("MEASURED"),
        TableColumn::number("AT MOST"),
        TableColumn::text(""),
        TableColumn::text("FIGURE"),
        TableColumn::text("FROM"),
    ]);
    for CheckedSet { scenarios, figure } in found {
        let bound = figure.bound.map(|bound| format!("{bound:.3}"));
        table.add_row([
            (*scenarios).to_owned(),
            format!("{:.3}", figure.measured),
            bound.unwrap_or_else(|| "none".to_owned()),
            if figure.is_met { "met" } else { "missed" }.to_owned(),
            figure.figure.clone(),
            figure.from.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
