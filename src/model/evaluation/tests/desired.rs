//! `kafka_desired_replicas`: the same rules as of lag, with the division already made.

use proptest::prelude::*;

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::targets::Targets;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};

/// An HPA with the metric of desired replicas, and one with the same settings that divides lag itself.
fn both(annotations: &[(&str, &str)], per: &str) -> [HpaFacts; 2] {
    let lag = MetricTarget::AverageValue(Milli::parse(per).unwrap());
    let mut desired = hpa("desired", "group=g", MetricTarget::AverageValue(Milli::ONE));
    desired.metrics[0].name = DESIRED_METRIC.into();
    let mut all = annotations.to_vec();
    all.push(("lag-per-replica", per));
    [
        annotated(desired, &all),
        annotated(hpa("lag", "group=g", lag), annotations),
    ]
}

fn ask_for(
    metric: &str,
    snapshot: &LagSnapshot,
    policy: &ServingPolicy,
) -> Result<MetricValue, NoValueReason> {
    let selector = Selector::parse("group=g").unwrap();
    let question = MetricQuery {
        namespace: "shop",
        metric,
        selector: &selector,
    };
    let snapshot = snapshot.clone().evaluated(policy);
    snapshot.at(&at(0)).answer(&question)
}

#[test]
fn desired_replicas_follow_the_lag() {
    for (annotations, lag, expected, rule) in [
        (&[][..], 0, 0, ValueRule::AsMeasured),
        (&[], 1, 1, ValueRule::AsMeasured),
        (&[], 1001, 2, ValueRule::AsMeasured),
        (&[], 24_000, 24, ValueRule::AsMeasured),
        (&[], 55_000, 24, ValueRule::Clamped),
        (
            &[("threads-per-replica", "5")],
            55_000,
            5,
            ValueRule::Clamped,
        ),
        (&[("even", "true")], 6_001, 8, ValueRule::Even),
    ] {
        let hpas = both(annotations, "1000");
        let read = observation(0, &[("t", &behind(24, lag))]);
        let snapshot = snapshot(vec![read], &hpas);
        let answer = ask_for(DESIRED_METRIC, &snapshot, &POLICY).unwrap();
        let expected = (Milli::from_units(expected), rule);
        assert_eq!(
            (answer.value, answer.rule),
            expected,
            "{annotations:?} {lag}"
        );
        assert_eq!(answer.wanted, Some(Milli::from_units(1000)));
        let of_lag = ask_for(LAG_METRIC, &snapshot, &POLICY).unwrap();
        assert_eq!(of_lag.desired, answer.desired);
        // It is capped in any case.
        let unclamped = ServingPolicy {
            clamp: false,
            ..POLICY
        };
        let same = ask_for(DESIRED_METRIC, &snapshot, &unclamped).unwrap();
        assert_eq!(same.value, answer.value);
    }
}

#[test]
fn a_group_that_never_ran_desires_one_replica() {
    let never: &[_] = &[(None, 500), (None, 0)];
    let snapshot = snapshot(
        vec![observation(0, &[("t", never)])],
        &both(&[("topics", "t")], "1000"),
    );
    let answer = ask_for(DESIRED_METRIC, &snapshot, &POLICY).unwrap();
    let served = (answer.value, answer.rule, answer.desired);
    assert_eq!(served, (Milli::ONE, ValueRule::NeverRan, Some(1)));
}

#[test]
fn without_lag_per_replica_the_refusal_says_what_to_write() {
    let mut bare = hpa(
        "h",
        "group=g",
        MetricTarget::AverageValue(Milli::from_units(2)),
    );
    bare.metrics[0].name = DESIRED_METRIC.into();
    let read = observation(0, &[("t", &behind(24, 10))]);
    let snapshot = snapshot(vec![read], &[bare]);
    let refusal = ask_for(DESIRED_METRIC, &snapshot, &POLICY).unwrap_err();
    assert!(
        refusal.to_string().contains("lagwise.dev/lag-per-replica"),
        "{refusal}"
    );
    let subject = HpaKey::new("shop", "h").into();
    let expected = [
        (FindingCode::DesiredNotOne, &subject),
        (FindingCode::NoLagPerReplica, &subject),
    ];
    let found = snapshot.targets.findings();
    let found: Vec<_> = found.map(|f| (f.code, &f.subject)).collect();
    assert_eq!(found, expected);
    // As long as no HPA is known, theirs are not either.
    let mut unlisted = snapshot.clone();
    let targets =
        Targets::new(&["main".into()], TargetOptions::default(), None).with_hpas_unlisted();
    unlisted.targets = std::sync::Arc::new(targets);
    let refusal = ask_for(DESIRED_METRIC, &unlisted, &POLICY);
    assert_eq!(refusal, Err(NoValueReason::HpasUnlisted));
}

#[test]
fn an_hpa_may_use_both_metrics_with_one_selector() {
    let [mut hpa, other] = both(&[], "1000");
    hpa.metrics.push(ExternalMetric {
        name: LAG_METRIC.into(),
        ..other.metrics[0].clone()
    });
    let read = observation(0, &[("t", &behind(24, 5_500))]);
    let snapshot = snapshot(vec![read], &[hpa]);
    assert!(snapshot.targets.findings().next().is_none());
    let value = |metric| ask_for(metric, &snapshot, &POLICY).unwrap().value;
    assert_eq!(value(DESIRED_METRIC), Milli::from_units(6));
    assert_eq!(value(LAG_METRIC), Milli::from_units(5_500));
}

#[test]
fn an_observed_cap_carries_the_hpa_over_its_tolerance() {
    for (partitions, from) in [(24, 22), (100, 91), (2, 1)] {
        let [mut hpa, _] = both(&[("cap", "enforce")], "1000");
        hpa.max_replicas = u32::try_from(partitions).unwrap();
        let read = observation(0, &[("t", &behind(partitions, 1_000_000))]);
        let snapshot = snapshot(vec![read], &[hpa]);
        let answer = ask_for(DESIRED_METRIC, &snapshot, &POLICY).unwrap();
        assert_eq!(answer.desired.map(|n| n as usize), Some(partitions));
        for now in from..partitions as u64 {
            let proposed = hpa_proposes(answer.value, Milli::ONE, now, 0.1);
            assert!(proposed >= partitions as u64, "{proposed} from {now}");
        }
    }
}

proptest! {
    /// With either metric, an HPA proposes the same replicas.
    #[test]
    fn desired_replicas_equal_what_the_hpa_computes_from_lag(
        lag in 0i64..1_000_000, partitions in 1usize..60, per in 1u64..100_000, even: bool, threads in 1u32..5,
    ) {
        let threads = threads.to_string();
        let set = [("even", if even { "true" } else { "false" }), ("threads-per-replica", threads.as_str())];
        let hpas = both(&set, &per.to_string());
        let read = observation(0, &[("t", &behind(partitions, lag))]);
        let snapshot = snapshot(vec![read], &hpas);
        let desired = ask_for(DESIRED_METRIC, &snapshot, &POLICY).unwrap();
        let of_lag = ask_for(LAG_METRIC, &snapshot, &POLICY).unwrap();
        for now in [0, 1, 7, 100] {
            let by_lag = hpa_proposes(of_lag.value, Milli::from_units(per), now, 0.0);
            let by_replicas = hpa_proposes(desired.value, Milli::ONE, now, 0.0);
            prop_assert_eq!(by_lag, by_replicas);
        }
    }
}
