//! Results of a simulation as a table and for machines.

use std::time::Duration;

use serde::Serialize;

use crate::cli::text_table::{TableColumn, TextTable};
use crate::model::policy::scaling_totals::CostWeights;
use crate::model::units::short_duration::short_duration;
use crate::simulate::benchmark::{ForesightResult, SweepResult};
use crate::simulate::optimum::FluidOptimum;
use crate::simulate::replay::{CapacityBasis, RecordedOutcome, ReplaySummary};
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::Scenario;
use crate::simulate::score::RunScore;

/// Name of what really happened, in the list of policies.
const RECORDED: &str = "recorded";

/// Result of a simulation.
#[derive(Debug, Serialize)]
pub(super) struct SimulationReport {
    first_seed: u64,
    seeds: u64,
    /// The fluid optimum, as mean and for each scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    optimum: Option<OptimumScores>,
    /// The trace that was replayed, and what really happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<ReplaySummary>,
    weights: CostWeights,
    /// Each policy in each scenario, as means over the seeds.
    runs: Vec<PolicyScore>,
    /// Each policy, as means over the scenarios.
    means: Vec<PolicyScore>,
}

/// Lower bound of the costs, and the costs of a schedule that knows all arrivals.
#[derive(Debug, Serialize)]
struct OptimumScores {
    mean: FluidOptimum,
    clairvoyant: PolicyScore,
    scenarios: Vec<ScenarioOptimum>,
}

#[derive(Debug, Serialize)]
struct ScenarioOptimum {
    scenario: String,
    #[serde(flatten)]
    optimum: FluidOptimum,
    clairvoyant: PolicyScore,
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
            optimum: None,
            trace: None,
            weights: CostWeights::default(),
            runs,
            means: means.collect(),
        }
    }

    /// Adds what each scenario allows if all arrivals are known.
    pub(super) fn set_foresight(&mut self, scenarios: &[Scenario], found: &[ForesightResult]) {
        let policy = &SimulatedPolicy::Clairvoyant;
        let each = scenarios.iter().zip(found);
        let each = each.map(|(scenario, found)| ScenarioOptimum {
            scenario: scenario.name.to_string(),
            optimum: found.optimum,
            clairvoyant: PolicyScore::new(policy, Some(scenario), found.clairvoyant),
        });
        let mean = RunScore::mean(found.iter().map(|found| &found.clairvoyant));
        self.optimum = Some(OptimumScores {
            mean: FluidOptimum::mean(found.iter().map(|found| &found.optimum)),
            clairvoyant: PolicyScore::new(policy, None, mean),
            scenarios: each.collect(),
        });
    }

    /// Scenarios and seeds.
    pub(super) fn title(&self) -> String {
        let over = match self.scenario_names().as_slice() {
            [_] if self.trace.is_some() => "trace".to_owned(),
            [only] => format!("scenario {only}"),
            several => format!("mean of {} scenarios", several.len()),
        };
        match self.seeds {
            1 => format!("{over}, seed {}", self.first_seed),
            seeds => format!("{over}, mean of {seeds} seeds"),
        }
    }

    pub(super) fn first_seed(&self) -> u64 {
        self.first_seed
    }

    /// A header, what really happened, and the policies by their mean over the scenarios.
    pub(super) fn score_rows(&self) -> Vec<Vec<String>> {
        // Without the optimum there are no columns for the additional cost of a policy.
        let regrets = |cost: Option<f64>| {
            self.optimum.as_ref().map(|optimum| {
                [optimum.mean.cost, optimum.clairvoyant.cost].map(|least| {
                    cost.map_or_else(String::new, |cost| format!("{:+.1}", cost - least))
                })
            })
        };
        let header = std::iter::once("POLICY").chain(SCORES);
        let header = header.chain(self.optimum.iter().flat_map(|_| REGRETS));
        let mut rows: Vec<Vec<String>> = vec![header.map(str::to_owned).collect()];
        let mut add = |cells: [String; 9], cost: Option<f64>| {
            let regrets = regrets(cost).into_iter().flatten();
            rows.push(cells.into_iter().chain(regrets).collect());
        };
        if let Some(trace) = &self.trace {
            let cost = trace.recorded.whole.map(|score| score.cost(self.weights));
            add(recorded_cells(&trace.recorded), cost);
        }
        if let Some(optimum) = &self.optimum {
            add(optimum_cells(&optimum.mean), None);
            let clairvoyant = &optimum.clairvoyant;
            add(
                cells(&clairvoyant.policy, clairvoyant),
                Some(clairvoyant.cost),
            );
        }
        for mean in &self.means {
            add(cells(&mean.policy, mean), Some(mean.cost));
        }
        rows
    }

    /// A header, and the cost of each policy in each scenario.
    pub(super) fn cost_rows(&self) -> Vec<Vec<String>> {
        let policies = self.means.iter().map(|mean| mean.policy.clone());
        let mut rows = vec![
            std::iter::once("SCENARIO".to_owned())
                .chain(policies)
                .collect(),
        ];
        for name in self.scenario_names() {
            let costs = self.runs_of(name).map(|run| format!("{:.1}", run.cost));
            rows.push(std::iter::once(name.to_owned()).chain(costs).collect());
        }
        rows
    }

    /// The scores of the policies as means, and, marked, of the references: what really happened, and the clairvoyant
    /// schedule.
    pub(super) fn mean_scores(&self) -> impl Iterator<Item = (&str, RunScore, bool)> {
        let recorded = self.trace.iter().filter_map(|trace| trace.recorded.whole);
        let recorded = recorded.map(|score| (RECORDED, score, true));
        let foresight = self.optimum.iter().map(|optimum| &optimum.clairvoyant);
        let foresight = foresight.map(|score| (score.policy.as_str(), score.score, true));
        let means = self.means.iter();
        let references = recorded.chain(foresight);
        references.chain(means.map(|mean| (mean.policy.as_str(), mean.score, false)))
    }

    /// The policies in a scenario, in their order.
    fn runs_of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a PolicyScore> {
        let runs = self.runs.iter();
        runs.filter(move |run| run.scenario.as_deref() == Some(scenario))
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

/// The columns of scores after the policy.
const SCORES: [&str; 8] = [
    "COST",
    "REPLICAS",
    "LATE",
    "CHANGES",
    "REBALANCES",
    "REVERSALS",
    "MAX AGE",
    "RECOVERY",
];

/// The columns of a policy's additional cost over the fluid optimum and the clairvoyant schedule.
const REGRETS: [&str; 2] = ["REGRET", "OVER CLAIRVOYANT"];

fn cells(name: &str, of: &PolicyScore) -> [String; 9] {
    score_cells(name, of.cost, &of.score)
}

fn score_cells(name: &str, cost: f64, score: &RunScore) -> [String; 9] {
    [
        name.to_owned(),
        format!("{cost:.1}"),
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
    let mut columns = vec![TableColumn::text("POLICY")];
    columns.extend(SCORES.map(TableColumn::number));
    let regrets = report.optimum.iter().flat_map(|_| REGRETS);
    columns.extend(regrets.map(TableColumn::number));
    let mut table = TextTable::new(columns);
    for row in report.score_rows().into_iter().skip(1) {
        table.add_row(row);
    }
    let mut text = format!("{}\n{}", report.title(), table.render());
    if let Some(trace) = &report.trace {
        text.push_str(&describe_trace(trace));
    }
    if report.scenario_names().len() > 1 {
        text.push_str("\ncost in each scenario\n");
        text.push_str(&render_costs(report));
    }
    text
}

/// The row of what really happened.
fn recorded_cells(recorded: &RecordedOutcome) -> [String; 9] {
    if let Some(score) = recorded.whole {
        let cost = score.cost(CostWeights::default());
        return score_cells(RECORDED, cost, &score);
    }
    let unknown = || "unknown".to_owned();
    [
        RECORDED.to_owned(),
        unknown(),
        unknown(),
        format!("{:.2} %", recorded.late_percent),
        unknown(),
        unknown(),
        unknown(),
        format!("{:.0} s", recorded.max_age),
        format!("{:.0} s", recorded.recovery),
    ]
}

/// The row of the fluid optimum, of which single messages are not known.
fn optimum_cells(optimum: &FluidOptimum) -> [String; 9] {
    [
        "optimum".to_owned(),
        format!("{:.1}", optimum.cost),
        format!("{:.1} %", optimum.cost_percent),
        format!("{:.2} %", optimum.late_percent),
        format!("{:.1}", optimum.scale_changes),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ]
}

/// The basis of a replay's figures.
pub(super) fn describe_trace(trace: &ReplaySummary) -> String {
    let capacity = trace.capacity.messages_per_second;
    let basis = match trace.capacity.basis {
        CapacityBasis::Given => "as given",
        CapacityBasis::Measured => "measured while the group was behind",
        CapacityBasis::LowerBound => "at least",
    };
    let mut text = format!(
        "\ngroup {}: {} messages in {}, {} samples; a consumer processes {capacity:.1} per second ({basis})\n",
        trace.group,
        trace.messages,
        short_duration(Duration::from_secs(u64::from(trace.seconds))),
        trace.samples,
    );
    for note in &trace.notes {
        text += &format!("note: {note}\n");
    }
    text
}

/// A row for each scenario, with the costs of each policy.
fn render_costs(report: &SimulationReport) -> String {
    let mut table = TextTable::new([
        TableColumn::text("SCENARIO"),
        TableColumn::text("LOWEST COST"),
        TableColumn::text("OTHERS, ASCENDING"),
    ]);
    for name in report.scenario_names() {
        let mut runs: Vec<_> = report.runs_of(name).collect();
        runs.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let mut costs = runs
            .iter()
            .map(|run| format!("{} {:.1}", run.policy, run.cost));
        let lowest = costs.next().unwrap_or_default();
        let others: Vec<String> = costs.collect();
        table.add_row([name.to_owned(), lowest, others.join(", ")]);
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
