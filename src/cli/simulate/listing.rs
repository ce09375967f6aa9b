//! The names of what can be simulated.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::Output;
use crate::cli::text_table::{TableColumn, TextTable};
use crate::simulate::lag_policies::{LAG_FORM, LAG_GRID, MAX_WINDOW_SECONDS, lag_grid};
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::Scenario;

#[derive(Serialize)]
struct SimulationNames {
    scenarios: Vec<ScenarioName>,
    policies: Vec<String>,
    /// Sets of policies, with the names of their members.
    policy_sets: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Serialize)]
struct ScenarioName {
    name: String,
    about: String,
}

/// The names for `--scenario` and `--policy`.
pub(super) fn list_scenarios(
    output: Output,
    scenarios: &[Scenario],
    policies: &[SimulatedPolicy],
) -> anyhow::Result<String> {
    let names = SimulationNames {
        scenarios: scenarios
            .iter()
            .map(|scenario| ScenarioName {
                name: scenario.name.to_string(),
                about: scenario.about.to_string(),
            })
            .collect(),
        policies: names_of(policies),
        policy_sets: BTreeMap::from([(LAG_GRID, names_of(&lag_grid()))]),
    };
    if let Some(text) = output.serialize(&names)? {
        return Ok(text);
    }
    let mut table = TextTable::new([
        TableColumn::text("SCENARIO"),
        TableColumn::text("MESSAGES PER SECOND"),
    ]);
    for scenario in &names.scenarios {
        table.add_row([scenario.name.clone(), scenario.about.clone()]);
    }
    Ok(format!(
        "{}\npolicies: {}\n\
         set of policies: {LAG_GRID} ({})\n\
         HPAs on lag: {LAG_FORM}, with any target and a stabilization window of 0 to {MAX_WINDOW_SECONDS} seconds\n",
        table.render(),
        names.policies.join(", "),
        names_of(&lag_grid()).join(", "),
    ))
}

fn names_of(policies: &[SimulatedPolicy]) -> Vec<String> {
    policies.iter().map(SimulatedPolicy::name).collect()
}
