//! Results of a simulation as a table and for machines.

use serde::Serialize;

use crate::cli::Output;
use crate::cli::text_table::{TableColumn, TextTable};
use crate::simulate::benchmark::SweepResult;
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::Scenario;
use crate::simulate::score::{CostWeights, RunScore};

/// What a simulation found.
#[derive(Debug, Serialize)]
pub(super) struct SimulationReport {
    first_seed: u64,
    seeds: u64,
    weights: CostWeights,
    /// Each policy in each scenario, as means over the seeds.
    runs: Vec<PolicyScore>,
    /// Each policy, as means over the scenarios.
    means: Vec<PolicyScore>,
}

/// Scores of one policy.
#[derive(Debug, Serialize)]
struct PolicyScore {
    policy: String,
    /// Absent for the mean over all scenarios.
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<String>,
    /// The cost J.
    cost: f64,
    #[serde(flatten)]
    score: RunScore,
}

impl PolicyScore {
    fn new(policy: &SimulatedPolicy, scenario: Option<&Scenario>, score: RunScore) -> Self {
        Self {
            policy: policy.name(),
            scenario: scenario.map(|scenario| scenario.name.to_string()),
            cost: score.cost(CostWeights::default()),
            score,
        }
    }
}

impl SimulationReport {
    pub(super) fn new(
        scenarios: &[Scenario],
        policies: &[SimulatedPolicy],
        result: &SweepResult,
        first_seed: u64,
        seeds: u64,
    ) -> Self {
        let mut runs = Vec::new();
        for (policy, scores) in policies.iter().zip(&result.scores) {
            let scores = scenarios.iter().zip(scores);
            runs.extend(
                scores.map(|(scenario, score)| PolicyScore::new(policy, Some(scenario), *score)),
            );
        }
        let means = policies.iter().zip(result.means());
        let means = means.map(|(policy, score)| PolicyScore::new(policy, None, score));
        Self {
            first_seed,
            seeds,
            weights: CostWeights::default(),
            runs,
            means: means.collect(),
        }
    }

    fn scenario_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            let name = run.scenario.as_deref().unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The columns of scores.
fn columns(first: TableColumn) -> [TableColumn; 9] {
    [
        first,
        TableColumn::number("COST"),
        TableColumn::number("REPLICAS"),
        TableColumn::number("LATE"),
        TableColumn::number("CHANGES"),
        TableColumn::number("REBALANCES"),
        TableColumn::number("REVERSALS"),
        TableColumn::number("MAX AGE"),
        TableColumn::number("RECOVERY"),
    ]
}

fn cells(name: &str, of: &PolicyScore) -> [String; 9] {
    let score = &of.score;
    [
        name.to_owned(),
        format!("{:.1}", of.cost),
        format!("{:.1} %", score.cost_percent),
        format!("{:.2} %", score.late_percent),
        format!("{:.1}", score.scale_changes),
        format!("{:.1}", score.rebalances),
        format!("{:.1}", score.reversals),
        format!("{:.0} s", score.max_age),
        format!("{:.0} s", score.recovery),
    ]
}

/// The policies by their mean over the scenarios, and the costs in each scenario if there are several.
pub(super) fn render_report(report: &SimulationReport) -> String {
    let names = report.scenario_names();
    let mut table = TextTable::new(columns(TableColumn::text("POLICY")));
    for mean in &report.means {
        table.add_row(cells(&mean.policy, mean));
    }
    let over = match names.as_slice() {
        [only] => format!("scenario {only}"),
        several => format!("mean of {} scenarios", several.len()),
    };
    let seeds = match report.seeds {
        1 => format!("seed {}", report.first_seed),
        seeds => format!("mean of {seeds} seeds"),
    };
    let mut text = format!("{over}, {seeds}\n{}", table.render());
    if names.len() > 1 {
        text.push_str("\ncost in each scenario\n");
        text.push_str(&render_costs(report, &names));
    }
    text
}

/// A row for each scenario, with the costs of each policy.
fn render_costs(report: &SimulationReport, names: &[&str]) -> String {
    let mut table = TextTable::new([
        TableColumn::text("SCENARIO"),
        TableColumn::text("LOWEST COST"),
        TableColumn::text("OTHERS, ASCENDING"),
    ]);
    for name in names {
        let runs = report.runs.iter();
        let mut runs: Vec<_> = runs
            .filter(|run| run.scenario.as_deref() == Some(*name))
            .collect();
        runs.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let mut costs = runs
            .iter()
            .map(|run| format!("{} {:.1}", run.policy, run.cost));
        let lowest = costs.next().unwrap_or_default();
        let others: Vec<String> = costs.collect();
        table.add_row([(*name).to_owned(), lowest, others.join(", ")]);
    }
    table.render()
}

/// What each rule is worth: the cost without it.
pub(super) fn render_ablation(report: &SimulationReport) -> String {
    let mut table = TextTable::new([
        TableColumn::text("POLICY"),
        TableColumn::number("COST"),
        TableColumn::number("WORTH"),
        TableColumn::number("REPLICAS"),
        TableColumn::number("LATE"),
        TableColumn::number("CHANGES"),
        TableColumn::number("REBALANCES"),
    ]);
    let whole = report.means.first().map_or(0.0, |mean| mean.cost);
    for mean in &report.means {
        table.add_row([
            mean.policy.clone(),
            format!("{:.1}", mean.cost),
            format!("{:+.1}", mean.cost - whole),
            format!("{:.1} %", mean.score.cost_percent),
            format!("{:.2} %", mean.score.late_percent),
            format!("{:.1}", mean.score.scale_changes),
            format!("{:.1}", mean.score.rebalances),
        ]);
    }
    table.render()
}

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
