//! The figures that the rate policy has to reach compared with the other policies, and whether it does.

use serde::Serialize;

use super::benchmark::{SweepResult, compared_policies};
use super::flink::CapacitySource;
use super::lag_policies::lag_grid;
use super::scaler::SimulatedPolicy;
use super::scenario::Scenario;
use super::score::RunScore;
use crate::model::policy::scaling_totals::CostWeights;

/// Maximum cost, absolute and in proportion to the cheapest other policy that knows only what Kafka shows.
const MAX_COST: f64 = 95.0;
const MAX_COST_RATIO: f64 = 0.9;
/// The same proportion of the costs with other weights.
const MAX_OTHER_WEIGHTS_RATIO: f64 = 1.0;
/// No policy with at most this part of the replicas of the static one may have fewer late messages.
const FEW_REPLICAS: f64 = 0.85;
/// Maximum share of the replicas of each compared HPA on lag that has at most this many times the late messages.
const MAX_REPLICA_RATIO: f64 = 0.85;
const COMPARABLE_LATE: f64 = 2.0;
/// The same for the HPAs of the grid, one of which may be the best one for these very scenarios.
const MAX_GRID_REPLICA_RATIO: f64 = 1.0;
/// Maximum number of changes in a run, and maximum ratio of rebalances to those of `lag-1000`.
const MAX_CHANGES: f64 = 6.0;
const MAX_REBALANCE_RATIO: f64 = 0.125;
/// In each scenario, the late messages may exceed those of the best other policy by this factor, or by this many
/// percent of all messages.
const WORST_LATE: (f64, f64) = (1.1, 1.0);
/// The scenario that is measured by its recovery in seconds instead: more arrives at once than any policy can foresee.
const JUDGED_BY_RECOVERY: (&str, f64) = ("dumps", 120.0);

/// A figure with its bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckedFigure {
    /// Description.
    pub figure: String,
    pub measured: f64,
    /// The largest value that is allowed; `None` if nothing can exceed it.
    pub bound: Option<f64>,
    /// The policy, with the weights if they are not the usual ones, or the scenario that the figure, or the bound,
    /// comes from.
    pub from: Option<String>,
    pub is_met: bool,
}

impl CheckedFigure {
    fn new(figure: &str, measured: f64, bound: Option<f64>, from: Option<String>) -> Self {
        Self {
            figure: figure.to_owned(),
            measured,
            bound,
            from,
            is_met: bound.is_none_or(|bound| measured <= bound),
        }
    }
}

/// The policies that [`JudgedSweep::check_all`] needs: the compared ones, and those of the grid that are not among
/// them.
#[must_use]
pub fn checked_policies() -> Vec<SimulatedPolicy> {
    let mut policies = compared_policies();
    for policy in lag_grid() {
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    policies
}

/// Runs of some scenarios with several policies, the first of which is checked.
#[derive(Clone, Copy, Debug)]
pub struct JudgedSweep<'a> {
    pub scenarios: &'a [Scenario],
    /// The compared policies, or for all figures those of [`checked_policies`].
    pub policies: &'a [SimulatedPolicy],
    pub result: &'a SweepResult,
}

impl JudgedSweep<'_> {
    /// All figures, for the built-in scenarios.
    #[must_use]
    pub fn check_all(&self) -> Vec<CheckedFigure> {
        let mut figures = self.check_costs();
        figures.extend([
            self.check_late_with_few_replicas(),
            self.check_replicas_of_lag(),
            self.check_replicas_of_grid(),
            CheckedFigure::new(
                "changes in a run",
                self.judged().scale_changes,
                Some(MAX_CHANGES),
                None,
            ),
            self.check_rebalances(),
            self.check_worst_scenario(),
        ]);
        figures.extend(self.check_recovery());
        figures
    }

    /// The figures about the cost, for any scenarios.
    #[must_use]
    pub fn check_costs(&self) -> Vec<CheckedFigure> {
        let judged = cost(&self.judged());
        let others = self.others(SimulatedPolicy::knows_only_kafka);
        let least = least_by(others, cost);
        let ratio = least.as_ref().map_or(f64::NAN, |(_, least)| judged / least);
        vec![
            CheckedFigure::new("cost", judged, Some(MAX_COST), None),
            CheckedFigure::new(
                "cost, in proportion to the cheapest other policy that knows only what Kafka shows",
                ratio,
                Some(MAX_COST_RATIO),
                least.map(|(name, _)| name),
            ),
            self.check_other_weights(),
        ]
    }

    /// The largest proportion of the costs with other weights.
    fn check_other_weights(&self) -> CheckedFigure {
        let judged = self.judged();
        let ratios = other_weights().into_iter().filter_map(|weights| {
            let others = self.others(SimulatedPolicy::knows_only_kafka);
            let (name, least) = least_by(others, |score| score.cost(weights))?;
            Some((judged.cost(weights) / least, name, weights))
        });
        let worst = ratios.max_by(|a, b| a.0.total_cmp(&b.0));
        CheckedFigure::new(
            "cost with a weight halved or doubled, in proportion to the cheapest other policy that knows only what Kafka shows",
            worst.as_ref().map_or(f64::NAN, |(ratio, ..)| *ratio),
            Some(MAX_OTHER_WEIGHTS_RATIO),
            worst.map(|(_, name, weights)| {
                let CostWeights { late, rebalance } = weights;
                format!("{name}, with {late} for late messages and {rebalance} for rebalances")
            }),
        )
    }

    fn check_late_with_few_replicas(&self) -> CheckedFigure {
        let all = self.others(|policy| *policy == SimulatedPolicy::Static);
        let most = least_by(all, |score| score.cost_percent);
        let most = most.map_or(0.0, |(_, percent)| FEW_REPLICAS * percent);
        let few = self.others(|_| true);
        let few = few.filter(|(_, score)| score.cost_percent <= most);
        let least = least_by(few, |score| score.late_percent);
        CheckedFigure::new(
            "late messages in percent, beside policies with at most 85 % of the replicas of static",
            self.judged().late_percent,
            least.as_ref().map(|(_, late)| *late),
            least.map(|(name, _)| name),
        )
    }

    fn check_replicas_of_lag(&self) -> CheckedFigure {
        let by_lag = self.others(|policy| matches!(policy, SimulatedPolicy::Lag { .. }));
        let (ratio, name) = self.largest_replica_ratio(by_lag);
        CheckedFigure::new(
            "replicas, in proportion to HPAs on lag with at most twice the late messages",
            ratio,
            Some(MAX_REPLICA_RATIO),
            name,
        )
    }

    fn check_replicas_of_grid(&self) -> CheckedFigure {
        let grid = lag_grid();
        let of_grid = self.means_of(|policy| grid.contains(policy));
        let (ratio, name) = self.largest_replica_ratio(of_grid);
        CheckedFigure::new(
            "replicas, in proportion to HPAs of lag-grid with at most twice the late messages",
            ratio,
            Some(MAX_GRID_REPLICA_RATIO),
            name,
        )
    }

    /// The largest proportion of replicas to those of a policy with comparable late messages, and its name. Zero if
    /// there is no such policy.
    fn largest_replica_ratio(
        &self,
        others: impl Iterator<Item = (String, RunScore)>,
    ) -> (f64, Option<String>) {
        let judged = self.judged();
        let comparable =
            others.filter(|(_, score)| score.late_percent <= COMPARABLE_LATE * judged.late_percent);
        match least_by(comparable, |score| score.replica_minutes) {
            Some((name, minutes)) => (judged.replica_minutes / minutes, Some(name)),
            None => (0.0, None),
        }
    }

    fn check_rebalances(&self) -> CheckedFigure {
        let by_lag = self.others(|policy| {
            matches!(
                policy,
                SimulatedPolicy::Lag {
                    threshold: 1000,
                    ..
                }
            )
        });
        let found = least_by(by_lag, |score| score.rebalances);
        let ratio = found.as_ref().map_or(f64::NAN, |(_, rebalances)| {
            self.judged().rebalances / rebalances
        });
        CheckedFigure::new(
            "rebalances, in proportion to an HPA on lag",
            ratio,
            Some(MAX_REBALANCE_RATIO),
            found.map(|(name, _)| name),
        )
    }

    /// The scenario in which the checked policy is furthest above the limit.
    fn check_worst_scenario(&self) -> CheckedFigure {
        let excess = |(_, late, allowed): &(usize, f64, f64)| late - allowed;
        let places = 0..self.scenarios.len();
        let is_judged = |place: &usize| {
            let scenario = self.scenarios.get(*place);
            scenario.is_some_and(|scenario| scenario.name != JUDGED_BY_RECOVERY.0)
        };
        let compared = compared_policies();
        let late = places.filter(is_judged).filter_map(|place| {
            let judged = self.score(0, place)?.late_percent;
            let others = self.policies.iter().enumerate().skip(1);
            let others = others.filter(|(_, policy)| {
                compared.contains(policy)
                    && policy.knows_only_kafka()
                    && **policy != SimulatedPolicy::Static
            });
            let best = others
                .filter_map(|(policy, _)| Some(self.score(policy, place)?.late_percent))
                .fold(f64::INFINITY, f64::min);
            let allowed = (WORST_LATE.0 * best).max(best + WORST_LATE.1);
            Some((place, judged, allowed))
        });
        let worst = late.max_by(|a, b| excess(a).total_cmp(&excess(b)));
        let name = worst.and_then(|(place, ..)| self.scenarios.get(place));
        CheckedFigure::new(
            "late messages in percent, in the scenario that is furthest above the best other policy",
            worst.map_or(0.0, |(_, late, _)| late),
            worst.map(|(.., allowed)| allowed),
            name.map(|scenario| scenario.name.to_string()),
        )
    }

    fn check_recovery(&self) -> Option<CheckedFigure> {
        let (name, bound) = JUDGED_BY_RECOVERY;
        let mut scenarios = self.scenarios.iter();
        let place = scenarios.position(|scenario| scenario.name == name)?;
        Some(CheckedFigure::new(
            "longest time in seconds in which some message is too old",
            self.score(0, place)?.recovery,
            Some(bound),
            Some(name.to_owned()),
        ))
    }

    fn score(&self, policy: usize, scenario: usize) -> Option<&RunScore> {
        self.result.scores.get(policy)?.get(scenario)
    }

    fn mean(&self, policy: usize) -> RunScore {
        let scores = self.result.scores.get(policy);
        RunScore::mean(scores.into_iter().flatten())
    }

    /// The means of the checked policy.
    fn judged(&self) -> RunScore {
        self.mean(0)
    }

    /// Names and means of the other compared policies of a kind.
    fn others(
        &self,
        is_of_kind: impl Fn(&SimulatedPolicy) -> bool,
    ) -> impl Iterator<Item = (String, RunScore)> {
        let compared = compared_policies();
        self.means_of(move |policy| compared.contains(policy) && is_of_kind(policy))
    }

    /// Names and means of all policies of a kind but the checked one.
    fn means_of(
        &self,
        is_of_kind: impl Fn(&SimulatedPolicy) -> bool,
    ) -> impl Iterator<Item = (String, RunScore)> {
        let others = self.policies.iter().enumerate().skip(1);
        let others = others.filter(move |(_, policy)| is_of_kind(policy));
        others.map(|(place, policy)| (policy.name(), self.mean(place)))
    }
}

impl SimulatedPolicy {
    /// Whether it knows nothing but what Kafka shows.
    #[must_use]
    pub fn knows_only_kafka(&self) -> bool {
        match self {
            Self::Flink(flink) => flink.capacity == CapacitySource::Observed,
            other => *other != Self::Clairvoyant,
        }
    }
}

/// The usual weights, each halved and doubled.
fn other_weights() -> [CostWeights; 4] {
    let usual = CostWeights::default();
    let late = |factor: f64| CostWeights {
        late: factor * usual.late,
        ..usual
    };
    let rebalance = |factor: f64| CostWeights {
        rebalance: factor * usual.rebalance,
        ..usual
    };
    [late(0.5), late(2.0), rebalance(0.5), rebalance(2.0)]
}

fn cost(score: &RunScore) -> f64 {
    score.cost(CostWeights::default())
}

/// The policy with the least value, and the value.
fn least_by(
    policies: impl Iterator<Item = (String, RunScore)>,
    value: impl Fn(&RunScore) -> f64,
) -> Option<(String, f64)> {
    let values = policies.map(|(name, score)| (name, value(&score)));
    values.min_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::builtin::builtin_scenarios;

    /// Scores by policy, the same in both scenarios except for the late messages of the checked policy in the first.
    fn check(
        judged: RunScore,
        late_in_dumps: f64,
        others: fn(&str) -> RunScore,
    ) -> Vec<CheckedFigure> {
        let scenarios: Vec<Scenario> = builtin_scenarios()
            .into_iter()
            .filter(|scenario| ["dumps", "step"].contains(&&*scenario.name))
            .collect();
        let policies = checked_policies();
        let scores = policies.iter().enumerate().map(|(place, policy)| {
            let of = |scenario: &Scenario| match (place, &*scenario.name) {
                (0, "dumps") => RunScore {
                    late_percent: late_in_dumps,
                    ..judged
                },
                (0, _) => judged,
                _ => others(&policy.name()),
            };
            scenarios.iter().map(of).collect()
        });
        let result = SweepResult {
            scores: scores.collect(),
        };
        let sweep = JudgedSweep {
            scenarios: &scenarios,
            policies: &policies,
            result: &result,
        };
        sweep.check_all()
    }

    fn score(replicas: f64, late: f64, rebalances: f64) -> RunScore {
        RunScore {
            late_percent: late,
            replica_minutes: 10.0 * replicas,
            cost_percent: replicas,
            scale_changes: rebalances,
            rebalances,
            recovery: 100.0,
            ..RunScore::default()
        }
    }

    fn others(name: &str) -> RunScore {
        match name {
            "static" => score(100.0, 0.0, 0.0),
            "lag-1000" => score(70.0, 8.0, 80.0),
            "lag-200" => score(80.0, 4.0, 50.0),
            "flink-given-tuned" => score(60.0, 2.0, 0.0),
            _ => score(90.0, 3.0, 10.0),
        }
    }

    fn missed(figures: &[CheckedFigure]) -> Vec<usize> {
        let missed = figures.iter().enumerate();
        let missed = missed.filter(|(_, figure)| !figure.is_met);
        missed.map(|(place, _)| place).collect()
    }

    #[test]
    fn each_figure_has_its_bound() {
        for (judged, late_in_dumps, expected) in [
            (score(60.0, 1.0, 5.0), 1.0, vec![]),
            // A cost of 100 compared with 100 of static.
            (score(95.0, 1.0, 0.0), 1.0, vec![0, 1, 2]),
            // The policy that is given the capacity counts here only.
            (score(60.0, 2.5, 5.0), 2.5, vec![3]),
            (score(69.0, 2.0, 5.0), 2.0, vec![4]),
            (score(60.0, 1.0, 10.5), 1.0, vec![6, 7]),
            // 3 % is the best of the others, so 4 % are allowed.
            (score(40.0, 4.1, 5.0), 0.0, vec![3, 8]),
            // Dumps are measured by their recovery.
            (score(60.0, 0.0, 5.0), 3.9, vec![]),
        ] {
            let figures = check(judged, late_in_dumps, others);
            assert_eq!(missed(&figures), expected, "{judged:?} {figures:#?}");
        }
        let slow = RunScore {
            recovery: 121.0,
            ..score(60.0, 1.0, 5.0)
        };
        assert_eq!(missed(&check(slow, 1.0, others)), [9]);
    }

    /// One HPA of the grid beats the checked policy in everything.
    fn others_with_a_good_hpa(name: &str) -> RunScore {
        match name {
            "lag-2000-900s" => score(50.0, 0.5, 1.0),
            other => others(other),
        }
    }

    #[test]
    fn the_grid_counts_for_replicas_only() {
        let figures = check(score(60.0, 1.0, 5.0), 1.0, others_with_a_good_hpa);
        assert_eq!(missed(&figures), [5], "{figures:#?}");
        let grid = &figures[5];
        assert_eq!(grid.measured, 60.0 / 50.0);
        assert_eq!(grid.from.as_deref(), Some("lag-2000-900s"));
    }

    #[test]
    fn each_weight_is_halved_and_doubled() {
        let weights = other_weights().map(|weights| (weights.late, weights.rebalance));
        assert_eq!(weights, [(2.5, 0.2), (10.0, 0.2), (5.0, 0.1), (5.0, 0.4)]);
        for (judged, measured, late, rebalance) in [
            (score(90.0, 1.1, 0.0), 1.01, 10.0, 0.2),
            (score(80.0, 0.0, 60.0), 1.04, 5.0, 0.4),
        ] {
            let figures = check(judged, judged.late_percent, others);
            let figure = &figures[2];
            assert!((figure.measured - measured).abs() < 1e-9, "{figure:?}");
            assert!(!figure.is_met);
            let from =
                format!("static, with {late} for late messages and {rebalance} for rebalances");
            assert_eq!(figure.from, Some(from));
        }
    }

    #[test]
    fn the_policies_are_the_compared_ones_and_the_rest_of_the_grid() {
        let policies = checked_policies();
        assert_eq!(policies[..11], compared_policies()[..]);
        // lag-100, lag-200 and lag-1000 are in both.
        assert_eq!(policies.len(), 11 + 35 - 3);
        let grid = lag_grid();
        assert!(grid.iter().all(|policy| policies.contains(policy)));
    }

    #[test]
    fn each_bound_names_its_source() {
        let figures = check(score(60.0, 1.0, 5.0), 1.0, others);
        let from: Vec<_> = figures
            .iter()
            .map(|figure| figure.from.as_deref())
            .collect();
        let expected = [
            None,
            Some("static"),
            Some("static, with 10 for late messages and 0.2 for rebalances"),
            Some("flink-given-tuned"),
            // No HPA on lag has at most 2 % of late messages.
            None,
            None,
            None,
            Some("lag-1000"),
            Some("step"),
            Some("dumps"),
        ];
        assert_eq!(from, expected);
    }
}
