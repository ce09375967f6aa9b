//! The names of what can be simulated.

use serde::Serialize;

use crate::cli::Output;
use crate::cli::text_table::{TableColumn, TextTable};
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::Scenario;

#[derive(Serialize)]
struct SimulationNames {
    scenarios: Vec<ScenarioName>,
    policies: Vec<String>,
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
        policies: policies.iter().map(SimulatedPolicy::name).collect(),
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
        "{}\npolicies: {}\n",
        table.render(),
        names.policies.join(", ")
    ))
}
