//! Budgets of partitions: which groups are admitted, and how they are charged.

mod listed_topics;
mod refused_groups;
mod shares;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::fixtures::{hpa, read};
use crate::model::hpa::facts::{HpaFacts, HpaMap, MetricTarget};
use crate::model::settings::Settings;
use crate::model::targets::budgets::{Amounts, Resource};
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

/// HPAs as `namespace/name=group` or `namespace/name=group:topic`, without a topic where that is `*`, and one group per
/// request.
fn targets(budgets: Budgets, hpas: &[&str], requests: &[&str]) -> Targets {
    let facts = hpas.iter().map(|text| {
        let (key, group) = text.split_once('=').unwrap();
        let (namespace, name) = key.split_once('/').unwrap();
        let average = MetricTarget::AverageValue(Milli::ONE);
        let selector = match group.split_once(':').unwrap_or((group, "t")) {
            (group, "*") => format!("group={group}"),
            (group, topic) => format!("group={group},topic={topic}"),
        };
        let facts = hpa(name, &selector, average);
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

/// A reading of group `g` with this number of topics of one partition each.
fn read_topics(topics: usize) -> Observation {
    let mut all = read(Duration::ZERO, "g", "t", &[(0, Ok(Some(0)), Ok(1))]);
    let columns = all.groups[0].committed.as_mut().unwrap();
    let column = columns["t"].clone();
    for topic in 1..topics {
        columns.insert(format!("t{topic}").as_str().into(), column.clone());
    }
    all
}

#[test]
fn targets_that_scan_all_topics_of_a_group_are_charged_for_that() {
    let key: GroupKey = ("main".into(), "g".into());
    let names: Vec<_> = (0..9).map(|i| format!("a/h{i}=g:*")).collect();
    let charged = |hpas: &[&str], topics: usize| {
        let targets = targets(budgets(1000, 1000, 1000), hpas, &[]);
        let mut ledger = PartitionLedger::default();
        ledger.apply(&mut read_topics(topics), &targets);
        let entry = ledger.groups[&key].clone();
        (entry.partitions, entry.admission.is_ok())
    };
    let unnamed: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(charged(&unnamed[..1], 160), (160, true));
    // Eight more, each for the price of 10 partitions.
    assert_eq!(charged(&unnamed, 160), (240, true));
    assert_eq!(charged(&unnamed, 640), (960, true));
    assert_eq!(charged(&unnamed, 672), (1008, false));
    let named: Vec<_> = (0..9).map(|i| format!("a/h{i}=g")).collect();
    let named: Vec<_> = named.iter().map(String::as_str).collect();
    assert_eq!(charged(&named, 672), (672, true));

    // The targets change, and the group is charged again.
    let mut ledger = PartitionLedger::default();
    let mut before = targets(budgets(1000, 1000, 1000), &unnamed[..1], &[]);
    for (hpas, expected) in [(9, 1008), (2, 714), (9, 1008), (1, 672)] {
        let after = targets(budgets(1000, 1000, 1000), &unnamed[..hpas], &[]);
        update(&mut ledger, "g", &before, &after);
        let mut read = read_topics(672);
        ledger.apply(&mut read, &after);
        let is_refused = read.groups[0].committed == Err(Fault::OverBudget);
        assert_eq!(is_refused, expected > 1000, "{hpas}");
        assert_eq!(ledger.groups[&key].partitions, expected, "{hpas}");
        before = after;
    }
}

fn plan(ledger: &mut PartitionLedger, targets: &Targets) -> (Vec<GroupId>, Vec<GroupId>, u64) {
    let cluster = ClusterName::from("main");
    let whole = targets.plan(&cluster, |_| BTreeSet::new());
    let (plan, left_out) = ledger.split_plan(&cluster, whole, targets);
    let read = plan.groups.into_iter().map(|plan| plan.group);
    let left_out = left_out.into_iter().map(|group| group.plan.group);
    let max = plan.max_partitions.unwrap();
    (read.collect(), left_out.collect(), max)
}

/// Replaces the targets of a group.
fn update(ledger: &mut PartitionLedger, group: &str, before: &Targets, after: &Targets) {
    let key = ("main".into(), group.into());
    ledger.update_owners(&key, before.group(&key.0, &key.1), after);
}

fn ids(names: &[&str]) -> Vec<GroupId> {
    names.iter().copied().map(GroupId::from).collect()
}

#[test]
fn a_group_is_refused_by_the_budget_that_is_exceeded() {
    let targets = targets(
        budgets(10, 15, 30),
        &[
            "a/h=a1", "a/h2=a2", "a/h2=a2", "b/h=b1", "b/h2=b2", "c/h=c1", "c/big=c2",
        ],
        &["asked", "asked2"],
    );
    let mut ledger = PartitionLedger::default();
    for (group, partitions, refused) in [
        // A configured target is not charged to the budgets.
        ("operators", 1000, None),
        ("a1", 10, None),
        ("a2", 6, Some(BudgetScope::Namespace)),
        ("c2", 11, Some(BudgetScope::Hpa)),
        ("b1", 9, None),
        ("asked", 6, None),
        ("asked2", 6, Some(BudgetScope::Total)),
        ("c1", 5, None),
        // Groups of requests are refused in its favor.
        ("b2", 1, None),
        ("asked", 6, Some(BudgetScope::Total)),
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
        ("b2", 1),
        ("c1", 5),
        ("operators", 1000),
    ];
    assert!(apply(&mut ledger, &targets, &again).is_empty());
}

#[test]
fn an_admitted_group_stays_admitted_until_it_grows() {
    let targets = targets(budgets(10, 15, 100), &["a/h=a1", "a/h2=a2"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("a1", 9), ("a2", 6)]).is_empty());
    assert!(apply(&mut ledger, &targets, &[("a2", 6), ("a1", 9)]).is_empty());
    assert_eq!(
        apply(&mut ledger, &targets, &[("a2", 7), ("a1", 9)]),
        ["a2"]
    );
}
