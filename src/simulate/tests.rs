//! What holds for every run.

use super::arrivals::Arrivals;
use super::benchmark::{ablated_policies, compared_policies, sweep, with_slo};
use super::builtin::{builtin_scenarios, variant_scenarios};
use super::engine::run;
use super::generated::{HELD_OUT_SEED, generate_scenarios};
use super::outcome::RunOptions;
use super::scaler::SimulatedPolicy;
use super::scenario::{RatePart, Scenario, StartReplicas};
use crate::model::hpa::controller::HpaSpec;
use crate::model::policy::decision::RateDecision;
use crate::model::policy::drain::DrainCalibration;
use crate::model::policy::scaling_totals::CostWeights;

fn short(rate: f64) -> Scenario {
    Scenario {
        duration: 1200,
        start_replicas: StartReplicas::Half,
        ..Scenario::new("short", "", vec![RatePart::Constant(rate)])
    }
}

fn score(scenario: &Scenario, policy: &SimulatedPolicy) -> super::score::RunScore {
    let arrivals = Arrivals::draw(scenario, 1);
    run(scenario, policy, 1, &arrivals, &RunOptions::default()).score
}

#[test]
fn names_are_unique() {
    let mut scenarios = builtin_scenarios();
    assert_eq!(scenarios.len(), 16);
    scenarios.extend(variant_scenarios());
    scenarios.extend(generate_scenarios(HELD_OUT_SEED, 12));
    let mut names: Vec<String> = scenarios.iter().map(|it| it.name.to_string()).collect();
    names.extend(compared_policies().iter().map(SimulatedPolicy::name));
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(ablated_policies().len(), 12);
}

#[test]
fn generated_scenarios_depend_on_the_seed_only() {
    assert_eq!(generate_scenarios(3, 5), generate_scenarios(3, 5));
    assert_ne!(generate_scenarios(3, 5), generate_scenarios(4, 5));
}

#[test]
fn all_replicas_process_a_load_below_the_capacity_in_time() {
    let score = score(&short(1200.0), &SimulatedPolicy::Static);
    assert_eq!(score.late_percent, 0.0);
    // It starts with all replicas.
    assert_eq!(score.cost_percent, 100.0);
    assert_eq!(score.rebalances, 0.0);
}

#[test]
fn messages_above_the_capacity_are_late() {
    let score = score(&short(4800.0), &SimulatedPolicy::Static);
    // Half of the messages are processed, and the age grows by half a second per second.
    assert!(score.late_percent > 80.0, "{score:?}");
    assert!((score.max_age - 600.0).abs() < 30.0, "{score:?}");
}

#[test]
fn an_outage_makes_its_messages_late() {
    let scenario = Scenario {
        outage: Some((100, 400)),
        ..short(600.0)
    };
    let score = score(&scenario, &SimulatedPolicy::Static);
    // All of the 300 s except the last one, and those that arrive until the backlog is drained.
    assert!((25.0..40.0).contains(&score.late_percent), "{score:?}");
    assert!((score.max_age - 300.0).abs() < 10.0, "{score:?}");
}

#[test]
fn stuck_partitions_are_not_late() {
    let scenario = Scenario {
        poison: Some(100),
        ..short(600.0)
    };
    assert_eq!(score(&scenario, &SimulatedPolicy::Static).late_percent, 0.0);
}

#[test]
fn a_named_default_window_changes_nothing() {
    let scenario = Scenario {
        duration: 1800,
        ..builtin_scenarios().remove(3)
    };
    let [default, named, short] = [None, Some(300), Some(0)].map(|window_seconds| {
        let policy = SimulatedPolicy::Lag {
            threshold: 200,
            window_seconds,
        };
        score(&scenario, &policy)
    });
    assert_eq!(named, default);
    assert_ne!(short, default);
}

#[test]
fn lag_per_replica_needs_more_rebalances_than_rates() {
    let scenario = &builtin_scenarios()[3];
    let lag = SimulatedPolicy::Lag {
        threshold: 200,
        window_seconds: None,
    };
    let (rate, lag) = (
        score(scenario, &compared_policies()[0]),
        score(scenario, &lag),
    );
    assert!(rate.rebalances * 3.0 < lag.rebalances, "{rate:?} {lag:?}");
    assert!(
        rate.late_percent <= lag.late_percent + 0.1,
        "{rate:?} {lag:?}"
    );
}

#[test]
fn a_step_up_that_helps_only_a_hot_partition_is_kept() {
    let scenarios = builtin_scenarios();
    let hot = scenarios.iter().find(|it| it.name == "hot-partition");
    let [rate, least] = [compared_policies()[0], SimulatedPolicy::Static]
        .map(|policy| score(hot.unwrap(), &policy).late_percent);
    assert!(rate < least + 1.0, "{rate} {least}");
}

#[test]
fn a_step_up_that_does_not_help_is_taken_back() {
    let scenarios = builtin_scenarios();
    let limited = scenarios.iter().find(|it| it.name == "downstream");
    let score = score(limited.unwrap(), &compared_policies()[0]);
    assert!(score.cost_percent < 50.0, "{score:?}");
    assert!(score.late_percent < 37.0, "{score:?}");
}

#[test]
fn threads_do_not_change_the_result() {
    let scenarios = [short(500.0), short(900.0)];
    let policies = &compared_policies()[..1];
    let result = |threads| {
        sweep(
            &scenarios,
            policies,
            0..3,
            &RunOptions::default(),
            threads,
            &|_| {},
        )
        .scores
    };
    assert_eq!(result(1), result(3));
}

#[test]
fn the_timeline_shows_every_poll_and_decision() {
    let scenario = short(500.0);
    let arrivals = Arrivals::draw(&scenario, 1);
    let options = RunOptions {
        has_timeline: true,
        ..RunOptions::default()
    };
    let timeline = run(&scenario, &compared_policies()[0], 1, &arrivals, &options)
        .records
        .timeline;
    assert_eq!(timeline.len(), 240);
    assert!(timeline.iter().all(|entry| entry.decision.is_some()));
    let text = serde_json::to_string(&timeline[200]).unwrap();
    assert!(text.contains("\"rule\":"), "{text}");
}

#[test]
fn a_step_takes_at_most_two_moves_however_often_the_group_is_polled() {
    for (poll, capacity) in [(1, 30.0), (2, 45.0), (5, 30.0), (10, 25.0), (1, 100.0)] {
        let pulse = RatePart::Pulse {
            rate: 3.7 * capacity,
            from: 300.0,
            until: 600.0,
            ramp: 0.5,
        };
        let scenario = Scenario {
            duration: 480,
            partitions: 12,
            capacity,
            start_up: (3, 6),
            poll,
            ..Scenario::new("step", "", vec![RatePart::Constant(0.6 * capacity), pulse])
        };
        let arrivals = Arrivals::draw(&scenario, 1);
        let options = RunOptions {
            has_timeline: true,
            ..RunOptions::default()
        };
        let run = run(&scenario, &compared_policies()[0], 1, &arrivals, &options);
        let decisions = run.records.timeline.iter();
        let moves: Vec<u32> = decisions
            .filter_map(|entry| entry.decision.as_ref())
            .filter(|decision| decision.replicas != decision.before)
            .map(|decision| decision.replicas)
            .collect();
        assert!(
            (1..=2).contains(&moves.len()),
            "{moves:?} with a poll each {poll} s"
        );
    }
}

/// The last decision of the rate policy in a scenario, its cost, and that of all replicas.
fn judge_against_static(scenario: &Scenario) -> (RateDecision, f64, f64) {
    let arrivals = Arrivals::draw(scenario, 1);
    let options = RunOptions {
        has_timeline: true,
        ..RunOptions::default()
    };
    let [mut rate, all] = [compared_policies()[0], SimulatedPolicy::Static].map(|policy| {
        run(
            scenario,
            &with_slo(&policy, scenario),
            1,
            &arrivals,
            &options,
        )
    });
    let decisions = rate.records.timeline.drain(..).rev();
    let decision = decisions.filter_map(|entry| entry.decision).next().unwrap();
    let weights = CostWeights::default();
    (decision, rate.score.cost(weights), all.score.cost(weights))
}

#[test]
fn the_policy_notices_where_all_replicas_are_cheaper() {
    let mut scenarios = builtin_scenarios();
    scenarios.extend(variant_scenarios());
    let is_tried = |scenario: &Scenario| match scenario.name.split_once('/') {
        Some((_, variant)) => ["slow-start", "uneven-pods"].contains(&variant),
        // One takes long. Late messages of a dump do not count.
        None => !["wide", "dumps"].contains(&&*scenario.name),
    };
    let (mut judged, mut wrong) = (Vec::new(), Vec::new());
    for scenario in scenarios.iter().filter(|scenario| is_tried(scenario)) {
        let (decision, rate, all) = judge_against_static(scenario);
        let compared = decision.against_all.unwrap();
        let line = format!(
            "{}: {rate:.1} and {all:.1}, by the policy {:.1?}",
            scenario.name,
            compared.costs()
        );
        // Where it makes a difference.
        if (rate - all).abs() > 15.0 && compared.is_all_cheaper != (rate > all) {
            wrong.push(line.clone());
        }
        judged.push((line, compared.is_all_cheaper));
    }
    assert!(wrong.is_empty(), "{wrong:#?} of {judged:#?}");
    assert!(
        judged.iter().any(|(_, is_cheaper)| *is_cheaper),
        "{judged:#?}"
    );
}

#[test]
fn dumps_that_are_soon_processed_are_not_held_against_the_policy() {
    let scenarios = builtin_scenarios();
    let dumps = scenarios.iter().find(|it| it.name == "dumps").unwrap();
    let (decision, rate, all) = judge_against_static(dumps);
    let compared = decision.against_all.unwrap();
    assert!(rate > all, "{rate} {all}");
    assert!(!compared.is_all_cheaper, "{compared:?}");
}

#[test]
fn backlogs_last_as_long_as_expected() {
    let scenarios = builtin_scenarios();
    let drains = [
        ("outage", 0.0),
        ("outage", 0.3),
        ("dumps", 0.0),
        ("downstream", 0.0),
    ];
    let drains = drains.map(|(name, capacity_spread)| {
        let scenario = scenarios.iter().find(|it| it.name == name).unwrap();
        let scenario = Scenario {
            capacity_spread,
            ..scenario.clone()
        };
        judge_against_static(&scenario).0.drain
    });
    // A backlog that hardly shrinks makes small errors of the capacity large.
    let is_good = |drain: DrainCalibration| {
        (drain.expected - drain.actual).abs() < 0.25 * drain.actual && drain.mean_error < 0.25
    };
    let are_good = drains.iter().all(|drain| drain.is_none_or(is_good));
    let are_judged = drains[..2].iter().all(Option::is_some);
    assert!(are_good && are_judged, "{drains:#?}");
}

#[test]
fn the_rate_policy_stays_within_the_replicas_of_the_hpa() {
    let policy = &compared_policies()[0];
    // More than the partitions have no work; the policy never wants zero.
    for (min, max, expected) in [
        (6, 8, 6..=8),
        (1, 4, 1..=4),
        (20, 100, 20..=24),
        (0, 3, 1..=3),
    ] {
        let options = RunOptions {
            has_timeline: true,
            hpa: Some(HpaSpec {
                min,
                max,
                ..policy.hpa(24)
            }),
            ..RunOptions::default()
        };
        for rate in [10.0, 1200.0] {
            let scenario = short(rate);
            let arrivals = Arrivals::draw(&scenario, 1);
            let timeline = run(&scenario, policy, 1, &arrivals, &options)
                .records
                .timeline;
            let wanted = timeline.into_iter().filter_map(|entry| entry.decision);
            let wanted = Vec::from_iter(wanted.map(|decision| decision.replicas));
            assert!(!wanted.is_empty());
            assert!(
                wanted.iter().all(|replicas| expected.contains(replicas)),
                "{min} to {max}: {wanted:?}"
            );
        }
    }
}
