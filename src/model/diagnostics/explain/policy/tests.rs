//! The texts about a decision of the policy and about a hold.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::evaluation::policy_outcome::{HeldReplicas, RateUnavailable};
use crate::model::fixtures;
use crate::model::policy::decision::DownRequirement;
use crate::model::policy::requirement::{RateDemand, ReplicaCandidate};
use crate::model::policy::scaling_totals::ScalingTotals;

/// 2024-05-06T07:08:09Z.
const AT: f64 = 1_714_979_289.0;

fn requirement(candidates: &[(u32, f64, Option<f64>, bool)]) -> ReplicaRequirement {
    let demand = RateDemand {
        rate: 20.0,
        backlog: 120.0,
        utilisation: 0.9,
        catch_up: 180.0,
        pause: 5.0,
        capacity: 5.5,
    };
    let candidates: Vec<_> = candidates
        .iter()
        .map(|(replicas, needed, heaviest, is_enough)| ReplicaCandidate {
            replicas: *replicas,
            needed: *needed,
            capacity: 5.5 * f64::from(*replicas),
            heaviest: *heaviest,
            is_enough: *is_enough,
        })
        .collect();
    ReplicaRequirement {
        demand,
        replicas: candidates.last().unwrap().replicas,
        candidates,
    }
}

fn hold(reason: RateHoldReason, until: Option<f64>) -> RateHold {
    RateHold {
        reason,
        until,
        replicas: 3,
    }
}

fn totals(replica_minutes: f64, changes: u32, messages: f64, late_messages: f64) -> ScalingTotals {
    ScalingTotals {
        replica_minutes,
        changes,
        messages,
        late_messages,
    }
}

fn outcome(policy: ScalingPolicy) -> PolicyOutcome {
    let enough = requirement(&[(4, 20.0, Some(5.0), true)]);
    let decision = RateDecision {
        replicas: 6,
        before: 4,
        rule: RateRule::Up,
        terms: Some(RateTerms {
            arrivals_fast: 21.0,
            arrivals_expected: 21.0,
            arrivals_medium: 20.0,
            arrivals_slow: 19.5,
            consumption: 18.0,
            backlog: 120.0,
            age: 12.0,
            projected_age: 40.0,
            capacity: 5.5,
            is_capacity_known: true,
            members: 4,
            delay: 55.0,
            stuck_partitions: 1,
            hot_partition: Some(3),
            ..RateTerms::default()
        }),
        up: Some(requirement(&[
            (3, 26.0, None, false),
            (4, 26.0, None, false),
            (5, 26.0, Some(7.0), false),
            (6, 26.0, Some(5.0), true),
        ])),
        down: Some(DownRequirement {
            mean: enough.clone(),
            peak: enough,
        }),
        hold: Some(hold(RateHoldReason::HoldPrice, Some(AT))),
        against_all: Some(StaticComparison {
            seconds: 7200.0,
            members: 12,
            policy: totals(720.0, 2, 1000.0, 10.0),
            all: totals(1440.0, 0, 0.0, 0.0),
            is_all_cheaper: false,
        }),
        drain: Some(DrainCalibration {
            at: AT,
            expected: 90.0,
            actual: 121.0,
            count: 3,
            mean_error: 0.25,
        }),
    };
    PolicyOutcome {
        policy,
        rate: Some(RateOutcome {
            replicas: 3,
            decision: Arc::new(decision),
            threads: NonZeroU32::new(2).unwrap(),
            slo: Duration::from_secs(60),
            is_idle: false,
            totals: Some(RecommendationTotals {
                since: AT,
                rate: totals(90.0, 2, 100.0, 1.0),
                actual: totals(120.0, 7, 200.0, 5.0),
            }),
        }),
        unavailable: None,
        hold: None,
    }
}

#[test]
fn every_part_of_a_decision_has_a_sentence() {
    let outcome = outcome(ScalingPolicy::Recommend);
    assert_eq!(
        describe_policy(&outcome),
        "rate policy recommends 3 replicas: messages are or will be too old"
    );
    let mut lines = Vec::new();
    describe_decision(outcome.rate.as_ref().unwrap(), &mut lines);
    let expected = [
        "the numbers below are members, with 2 in each replica",
        "arrivals per second: 21.0 over 20 s, 20.0 over 60 s, 19.5 over 180 s; 18.0 are consumed",
        "capacity of a member: 5.5 per second (measured); members: 4",
        "backlog 120, the oldest message waits for 12 s; in 55 s, when a change would take effect, for 40 s; the objective is 60 s",
        "stuck partitions, left out: 1",
        "a partition gets more than one member processes: more partitions or a faster consumer help, more replicas do not",
        "a step up needs 6: 4 for 26 of 22 per second (too few), 5 for 26 of 28 per second (too few: the heaviest member would get 7), 6 for 26 of 33 per second (enough)",
        "enough at present: 4: 4 for 20 of 22 per second (enough)",
        "3 not yet until 2024-05-06T07:08:09Z: the saving is not worth a rebalance yet; more arrivals or older messages end it",
        "since 2024-05-06T07:08:09Z: 90 replica-minutes instead of 120, 2 changes instead of 7, late 1.00 % instead of 2.50 %",
        "over 2.0 h, the policy ran 50 % of the replicas that it may ask for, late 1.00 %; with all of them, late unknown: a cost of 56 instead of 100, at 5 for each percent of late messages and 0.2 for each change in 3 h",
        "the last backlog was expected to be gone after 90 s, and was after 121 s, at 2024-05-06T07:08:09Z; over 3 backlogs, the expected times were 25 % off on average",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_decision_without_a_judged_backlog_says_so() {
    let mut outcome = outcome(ScalingPolicy::Rate);
    let rate = outcome.rate.as_mut().unwrap();
    let decision = Arc::make_mut(&mut rate.decision);
    (decision.up, decision.down, decision.hold) = (None, None, None);
    (decision.drain, decision.against_all, rate.totals) = (None, None, None);
    let mut lines = Vec::new();
    describe_decision(rate, &mut lines);
    assert_eq!(lines.last().map(String::as_str), Some(UNCALIBRATED));
    assert_eq!(
        describe_policy(&outcome),
        "rate policy: 3 replicas: messages are or will be too old"
    );
}

#[test]
fn every_hold_says_what_ends_it() {
    for (reason, expected) in [
        (
            RateHoldReason::PodsStarting,
            "the pods of the last step up are starting; 15 % more arrivals end it",
        ),
        (
            RateHoldReason::IneffectiveUp,
            "a step up did not help; 20 % more arrivals or consumption end it",
        ),
        (
            RateHoldReason::Rebalancing,
            "the group is rebalancing; the end of the rebalance ends it",
        ),
        (
            RateHoldReason::HoldPrice,
            "the saving is not worth a rebalance yet; more arrivals or older messages end it",
        ),
        (
            RateHoldReason::Damage,
            "a burst made messages late, and with fewer replicas the next one would again; time ends it",
        ),
        (
            RateHoldReason::Age,
            "messages are too old to step down; younger messages end it",
        ),
        (
            RateHoldReason::NotSettled,
            "the members are not as many as the policy wants, or have changed within a minute; a group at rest ends it",
        ),
    ] {
        let text = describe_rate_hold(&hold(reason, None));
        assert_eq!(text, format!("3 not yet: {expected}"));
    }
}

#[test]
fn a_policy_without_a_number_says_why() {
    for (reason, expected) in [
        (
            RateUnavailable::OtherMetric,
            "it needs the metric kafka_desired_replicas",
        ),
        (
            RateUnavailable::SeveralHpas,
            "several HPAs have this metric",
        ),
        (
            RateUnavailable::SeveralGroups,
            "the metric sums several consumer groups",
        ),
        (
            RateUnavailable::NoOwners,
            "the members of the group are unknown, or do not own partitions (share groups, Kafka Streams)",
        ),
        (
            RateUnavailable::LaggingPartitions,
            "lagwise.dev/by is lagging",
        ),
        (
            RateUnavailable::Crowded,
            "the rate policy of another metric of the namespace already observes these partitions of the group",
        ),
        (
            RateUnavailable::NotObserved,
            "the group has not been observed for long enough: it needs 40 s in which messages are consumed",
        ),
    ] {
        let outcome = PolicyOutcome {
            rate: None,
            unavailable: Some(reason),
            ..outcome(ScalingPolicy::Rate)
        };
        let text = describe_policy(&outcome);
        let expected = format!("rate policy: no number, so the lag decides: {expected}");
        assert_eq!(text, expected);
    }
}

#[test]
fn tables_have_the_policy_and_the_hold_in_a_few_words() {
    let now = fixtures::at(Duration::ZERO);
    let without = |policy| PolicyOutcome {
        rate: None,
        ..outcome(policy)
    };
    let held = |replicas| PolicyOutcome {
        hold: Some(HeldReplicas {
            hold: "down until 2026-12-02T10:00:00Z".parse().unwrap(),
            replicas,
        }),
        ..without(ScalingPolicy::Lag)
    };
    for (outcome, expected) in [
        (without(ScalingPolicy::Lag), None),
        (without(ScalingPolicy::Rate), Some("no rate policy yet")),
        (outcome(ScalingPolicy::Rate), Some("up")),
        (outcome(ScalingPolicy::Recommend), Some("rate recommends 3")),
        (held(Some(4)), Some("hold: down until 2026-12-02T10:00:00Z")),
        (
            held(None),
            Some("hold: down until 2026-12-02T10:00:00Z (no number yet)"),
        ),
    ] {
        assert_eq!(summarize_policy(&outcome, &now).as_deref(), expected);
    }
}

#[test]
fn a_hold_says_what_it_keeps() {
    for (hold, replicas, expected) in [
        (
            "up",
            Some(1),
            "hold until lagwise.dev/hold is removed: at most 1 replica",
        ),
        (
            "down until 2026-12-02T10:00:00Z",
            Some(4),
            "hold until 2026-12-02T10:00:00Z: at least 4 replicas",
        ),
        (
            "both",
            Some(4),
            "hold until lagwise.dev/hold is removed: exactly 4 replicas",
        ),
        (
            "both",
            None,
            "hold until lagwise.dev/hold is removed: holds nothing yet, because neither the number to serve nor the replicas of the workload are known",
        ),
    ] {
        let held = HeldReplicas {
            hold: hold.parse().unwrap(),
            replicas,
        };
        assert_eq!(describe_hold(&held), expected);
    }
}

#[test]
fn says_why_a_step_up_is_not_for_the_arrivals_over_20_s() {
    let outcome = outcome(ScalingPolicy::Rate);
    let rate = outcome.rate.as_ref().unwrap();
    let terms = rate.decision.terms.unwrap();
    let lines = |expected: f64| {
        let mut lines = Vec::new();
        let terms = RateTerms {
            arrivals_expected: expected,
            ..terms
        };
        describe_terms(&terms, rate, &mut lines);
        lines.retain(|line| line.contains("has to carry"));
        lines.join("\n")
    };
    assert_eq!([lines(21.0), lines(19.5), lines(22.5)], ["", "", ""]);
    insta::assert_snapshot!([lines(95.0), lines(12.0)].join("\n"), @r"
    arrivals that a step up has to carry: 95.0 per second, the newest ones, because they rise
    arrivals that a step up has to carry: 12.0 per second, the highest over 60 s in the last 15 minutes, because arrivals over 20 s were as high before
    ");
}
