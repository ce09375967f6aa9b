use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::fixtures::{hpa, read};
use crate::model::hpa::facts::{HpaFacts, HpaMap, MetricTarget};
use crate::model::settings::Settings;
use crate::model::targets::budgets::Resource;
use crate::model::targets::{ConfiguredTarget, TargetOptions, WatchKey};
use crate::model::units::newtypes::GroupId;
use crate::model::units::quantity::Milli;

fn budgets(hpa: u64, namespace: u64, total: u64) -> Budgets {
    let of = |partitions| Amounts {
        groups: 1000,
        topics: 1000,
        pattern_bytes: 1000,
        partitions,
    };
    Budgets {
        hpa: of(hpa),
        namespace: of(namespace),
        total: of(total),
        partition_series: 0,
    }
}

/// HPAs as `namespace/name=group`, and one group per request.
fn targets(budgets: Budgets, hpas: &[&str], requests: &[&str]) -> Targets {
    let facts = hpas.iter().map(|text| {
        let (key, group) = text.split_once('=').unwrap();
        let (namespace, name) = key.split_once('/').unwrap();
        let average = MetricTarget::AverageValue(Milli::ONE);
        let facts = hpa(name, &format!("group={group},topic=t"), average);
        Arc::new(HpaFacts {
            namespace: namespace.into(),
            ..facts
        })
    });
    let keys = requests.iter().map(|group| WatchKey {
        cluster: "main".into(),
        group: (*group).into(),
        topics: ["t".into()].into(),
    });
    let operators = ConfiguredTarget {
        name: "operators".into(),
        namespaces: Vec::new(),
        cluster: "main".into(),
        group: "operators".into(),
        lag_per_replica: None,
        settings: Settings {
            topics: Some(["t".into()].into()),
            ..Settings::default()
        },
    };
    let options = TargetOptions {
        configured: vec![operators],
        budgets,
        ..TargetOptions::default()
    };
    Targets::new(&["main".into()], options, None)
        .with_hpas(&facts.collect::<HpaMap>(), None)
        .with_ad_hoc(keys.collect(), None)
}

/// Applies a reading of groups with this many partitions each. Returns the groups that are over budget.
fn apply(ledger: &mut PartitionLedger, targets: &Targets, groups: &[(&str, usize)]) -> Vec<String> {
    let mut all = read(Duration::ZERO, "none", "t", &[]);
    all.groups.clear();
    for (group, partitions) in groups {
        let rows = vec![(0, Ok(Some(0)), Ok(1)); *partitions];
        all.groups
            .extend(read(Duration::ZERO, group, "t", &rows).groups);
    }
    ledger.apply(&mut all, targets);
    let over = all.groups.into_iter();
    let over = over.filter(|group| group.committed == Err(Fault::OverBudget));
    over.map(|group| group.plan.group.to_string()).collect()
}

fn plan(ledger: &mut PartitionLedger, targets: &Targets) -> (Vec<GroupId>, Vec<GroupId>, u64) {
    let cluster = ClusterName::from("main");
    let whole = targets.plan(&cluster, |_| BTreeSet::new());
    let (plan, left_out) = ledger.split_plan(&cluster, whole, targets);
    let ids = |groups: Vec<GroupPlan>| groups.into_iter().map(|plan| plan.group).collect();
    (
        ids(plan.groups),
        ids(left_out),
        plan.max_partitions.unwrap(),
    )
}

fn ids(names: &[&str]) -> Vec<GroupId> {
    names.iter().copied().map(GroupId::from).collect()
}

#[test]
fn a_group_is_refused_by_the_budget_that_does_not_suffice() {
    let targets = targets(
        budgets(10, 15, 30),
        &[
            "a/h=a1", "a/h2=a2", "a/h2=a2", "b/h=b1", "b/h2=b2", "c/h=c1", "c/big=c2",
        ],
        &["asked", "asked2"],
    );
    let mut ledger = PartitionLedger::default();
    for (group, partitions, refused) in [
        ("a1", 10, None),
        ("a2", 6, Some(BudgetScope::Namespace)),
        ("c2", 11, Some(BudgetScope::Hpa)),
        ("b1", 9, None),
        ("asked", 6, None),
        ("asked2", 6, Some(BudgetScope::Total)),
        ("c1", 5, None),
        ("b2", 1, Some(BudgetScope::Total)),
        // The operator has chosen it.
        ("operators", 1000, None),
    ] {
        let over = apply(&mut ledger, &targets, &[(group, partitions)]);
        let before = ledger.exceeded_budgets();
        assert_eq!(over.len(), usize::from(refused.is_some()), "{group}");
        assert!(refused.is_none_or(|scope| {
            before
                .keys()
                .any(|e| e.scope == scope && e.resource == Resource::Partitions)
        }));
    }
    // Read again, nothing changes.
    let again = [
        ("a1", 10),
        ("b1", 9),
        ("asked", 6),
        ("c1", 5),
        ("operators", 1000),
    ];
    assert!(apply(&mut ledger, &targets, &again).is_empty());
}

#[test]
fn what_is_over_budget_is_left_out_until_there_is_room() {
    let limits = budgets(10, 15, 100);
    let asked = ["a/h=a1", "a/h2=a2", "b/h=b1"];
    let targets_before = targets(limits, &asked, &["asked"]);
    let mut ledger = PartitionLedger::default();
    let reading = [("a1", 9), ("a2", 9), ("b1", 9)];
    assert_eq!(apply(&mut ledger, &targets_before, &reading), ["a2"]);
    let (read, left_out, max) = plan(&mut ledger, &targets_before);
    // What was read comes before what was not.
    assert_eq!(read, ids(&["a1", "b1", "operators", "asked"]));
    assert_eq!((left_out, max), (ids(&["a2"]), 100));
    // Without the first HPA there is room.
    let after = targets(limits, &asked[1..], &["asked"]);
    for group in ["a1", "a2", "b1"] {
        ledger.update_payers(&("main".into(), group.into()), &after);
    }
    let (read, left_out, _) = plan(&mut ledger, &after);
    assert_eq!(read, ids(&["a2", "b1", "operators", "asked"]));
    assert!(left_out.is_empty() && ledger.exceeded_budgets().is_empty());
}

#[test]
fn a_group_that_is_in_stays_in_while_it_does_not_grow() {
    let targets = targets(budgets(10, 15, 100), &["a/h=a1", "a/h2=a2"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("a1", 9), ("a2", 6)]).is_empty());
    assert!(apply(&mut ledger, &targets, &[("a2", 6), ("a1", 9)]).is_empty());
    assert_eq!(
        apply(&mut ledger, &targets, &[("a2", 7), ("a1", 9)]),
        ["a2"]
    );
}

#[test]
fn a_group_of_two_namespaces_is_read_if_one_of_them_can_pay() {
    let limits = budgets(10, 10, 100);
    let both = ["a/h=a1", "a/h2=shared", "b/h=shared"];
    let targets_of_both = targets(limits, &both, &[]);
    let mut ledger = PartitionLedger::default();
    let reading = [("a1", 9), ("shared", 5)];
    assert!(apply(&mut ledger, &targets_of_both, &reading).is_empty());
    // Without the one that paid, the other cannot.
    let one = targets(limits, &both[..2], &[]);
    ledger.update_payers(&("main".into(), "shared".into()), &one);
    assert_eq!(plan(&mut ledger, &one).1, ids(&["shared"]));
}

#[test]
fn of_what_was_never_read_the_first_group_of_each_namespace_comes_first() {
    let asked = [
        "a/h=a1", "a/h2=a2", "a/h3=a3", "b/h=b1", "b/h2=b2", "c/h=c1",
    ];
    let targets = targets(budgets(10, 10, 100), &asked, &["aaa"]);
    let (read, ..) = plan(&mut PartitionLedger::default(), &targets);
    let expected = ["a1", "b1", "c1", "operators", "a2", "b2", "a3", "aaa"];
    assert_eq!(read, ids(&expected));
}
