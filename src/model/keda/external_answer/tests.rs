use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures::{at, nothing, read};
use crate::model::hpa::facts::{HpaFacts, HpaMap, RunningReplicas};
use crate::model::kafka::observation::Observation;
use crate::model::keda::external_triggers::ExternalTriggers;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::budgets::{Amounts, Budgets};
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::glob::Glob;

fn trigger(metadata: &[(&str, &str)]) -> ExternalTrigger {
    let metadata = [
        ("group", "billing"),
        ("topic", "orders"),
        ("lagThreshold", "5"),
    ]
    .into_iter()
    .chain(metadata.iter().copied());
    ExternalTrigger::parse("shop", "billing", metadata).unwrap()
}

fn snapshot_of(
    trigger: &ExternalTrigger,
    hpas: &HpaMap,
    options: TargetOptions,
    observation: Observation,
) -> LagSnapshot {
    let mut triggers = ExternalTriggers::default();
    triggers.insert(Arc::new(trigger.clone()), Instant::now());
    let targets = Targets::new(&["main".into()], options, None);
    let targets = targets.with_hpas(&triggers.add_to(hpas), None);
    let mut history = ClusterHistory::default();
    LagSnapshot {
        targets: Arc::new(targets),
        clusters: [("main".into(), history.apply(observation, Scope::Whole))].into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default())
}

/// Five partitions with this lag in all.
fn lag(total: i64) -> Observation {
    let rows: Vec<_> = (0..5)
        .map(|partition| {
            let own = total / 5 + i64::from(partition < total % 5);
            (0, Ok(Some(100)), Ok(100 + own))
        })
        .collect();
    read(Duration::ZERO, "billing", "orders", &rows)
}

fn answer(trigger: &ExternalTrigger, observation: Observation) -> Result<ExternalAnswer, NoAnswer> {
    let options = TargetOptions::default();
    let snapshot = snapshot_of(trigger, &HpaMap::default(), options, observation);
    let now = at(Duration::ZERO);
    trigger.answer(snapshot.at(&now))
}

#[test]
fn never_more_than_one_replica_for_each_partition() {
    for (waiting, replicas) in [(0, 0), (1, 1), (5, 1), (6, 2), (25, 5), (28, 5), (1000, 5)] {
        let trigger = trigger(&[]);
        let value = answer(&trigger, lag(waiting)).unwrap().value;
        assert_eq!(
            value.ceil_div(trigger.target()),
            Some(replicas),
            "lag {waiting}"
        );
    }
}

#[test]
fn settings_of_the_metadata_apply() {
    let threads = trigger(&[("threadsPerReplica", "2")]);
    let value = answer(&threads, lag(1000)).unwrap().value;
    assert_eq!(value.ceil_div(threads.target()), Some(3));
    let desired = trigger(&[("metric", "desired"), ("even", "true")]);
    let value = answer(&desired, lag(16)).unwrap().value;
    assert_eq!(value, Milli::from_units(5));
}

#[test]
fn is_active_above_the_activation_lag() {
    let plain = trigger(&[]);
    let is_active = |trigger, waiting| answer(trigger, lag(waiting)).unwrap().is_active;
    assert!(!is_active(&plain, 0) && is_active(&plain, 1));
    let above = trigger(&[("activationLag", "10")]);
    assert!(!is_active(&above, 10) && is_active(&above, 11));
}

#[test]
fn a_group_that_never_ran_is_active() {
    let rows = [(0, Ok(None), Ok(7)), (0, Ok(None), Ok(7))];
    let observation = read(Duration::ZERO, "billing", "orders", &rows);
    let answered = answer(&trigger(&[]), observation).unwrap();
    assert!(answered.is_active);
    assert_eq!(answered.value, Milli::from_units(5));
}

#[test]
fn unknown_lag_is_never_zero() {
    let fault = crate::model::kafka::fault::Fault::Unsupported;
    let rows = [(0, Ok(Some(0)), Err(fault))];
    let unknown = read(Duration::ZERO, "billing", "orders", &rows);
    let why = answer(&trigger(&[]), unknown).unwrap_err();
    assert!(
        matches!(why, NoAnswer::NoValue(NoValueReason::Unknown { .. })),
        "{why}"
    );
    let why = answer(&trigger(&[]), nothing(Duration::ZERO, "other")).unwrap_err();
    assert!(
        matches!(why, NoAnswer::NoValue(NoValueReason::NotYetRead(_))),
        "{why}"
    );
}

#[test]
fn a_trigger_with_other_settings_is_not_answered_by_old_ones() {
    let (old, new) = (trigger(&[]), trigger(&[("threadsPerReplica", "2")]));
    let options = TargetOptions::default();
    let snapshot = snapshot_of(&old, &HpaMap::default(), options, lag(1000));
    let now = at(Duration::ZERO);
    assert_eq!(new.answer(snapshot.at(&now)), Err(NoAnswer::NotYetAdded));
}

#[test]
fn tenancy_is_that_of_the_namespace_of_the_scaled_object() {
    let grant = Grant {
        namespaces: vec![Glob::new("other")],
        ..Grant::default()
    };
    let options = TargetOptions {
        tenancy: Tenancy(vec![grant]),
        ..TargetOptions::default()
    };
    let trigger = trigger(&[]);
    let snapshot = snapshot_of(&trigger, &HpaMap::default(), options, lag(1));
    let now = at(Duration::ZERO);
    let why = trigger.answer(snapshot.at(&now)).unwrap_err().to_string();
    assert!(why.contains(r#"namespace "shop" may not ask"#), "{why}");
    assert!(snapshot.targets.groups().is_empty());
}

#[test]
fn budgets_apply() {
    let options = TargetOptions {
        budgets: Budgets {
            hpa: Amounts::default(),
            ..Budgets::default()
        },
        ..TargetOptions::default()
    };
    let trigger = trigger(&[]);
    let snapshot = snapshot_of(&trigger, &HpaMap::default(), options, lag(1));
    let now = at(Duration::ZERO);
    let why = trigger.answer(snapshot.at(&now)).unwrap_err().to_string();
    assert!(why.contains("nothing is read for the HPA"), "{why}");
}

#[test]
fn an_hpa_of_another_owner_is_named() {
    let facts = HpaFacts {
        namespace: "shop".into(),
        name: "keda-hpa-billing".into(),
        running: RunningReplicas::One,
        ..HpaFacts::default()
    };
    let hpas = HpaMap::from_iter([Arc::new(facts)]);
    let trigger = trigger(&[]);
    let snapshot = snapshot_of(&trigger, &hpas, TargetOptions::default(), lag(1));
    let now = at(Duration::ZERO);
    let why = trigger.answer(snapshot.at(&now)).unwrap_err().to_string();
    assert!(why.starts_with("HPA shop/keda-hpa-billing exists"), "{why}");
}
