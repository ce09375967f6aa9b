use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::fixtures::{hpa, read};
use crate::model::hpa::facts::{HpaFacts, HpaMap, MetricTarget};
use crate::model::kafka::topic_listing::Unlisted;
use crate::model::settings::Settings;
use crate::model::targets::budgets::{Amounts, Resource};
use crate::model::targets::{ConfiguredTarget, TargetOptions, WatchKey};
use crate::model::units::newtypes::GroupId;
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::TopicPattern;

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

/// A reading of group `g` with 8 partitions of a topic that is asked for, and of one topic for each of these patterns with
/// this many partitions.
fn read_with_listed(listed: &[(&str, usize)]) -> Observation {
    let rows = |partitions| vec![(0, Ok(Some(0)), Ok(1)); partitions];
    let mut all = read(Duration::ZERO, "g", "t", &rows(8));
    let mut by_pattern = Vec::new();
    for (text, partitions) in listed {
        let topic = format!("topic-{text}");
        let new = read(Duration::ZERO, "g", &topic, &rows(*partitions));
        let column = new.groups[0].committed.as_ref().unwrap()[&*topic].clone();
        let columns = all.groups[0].committed.as_mut().unwrap();
        columns.insert(topic.as_str().into(), column);
        by_pattern.push((pattern(text), Ok([topic.as_str().into()].into())));
    }
    let listing = TopicListing::new(by_pattern.into_iter().collect());
    all.listings = [("g".into(), Arc::new(listing))].into();
    all
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).unwrap()
}

/// What is left of the topics that were read of group `g`, and the patterns that were refused.
fn left(ledger: &mut PartitionLedger, targets: &Targets, mut all: Observation) -> (usize, String) {
    ledger.apply(&mut all, targets);
    let topics = all.groups[0].committed.as_ref().map_or(0, |all| all.len());
    let refused = all.listings.get("g");
    let refused = refused.iter().flat_map(|l| l.refused(Unlisted::OverBudget));
    (
        topics,
        refused
            .map(TopicPattern::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// The patterns that are planned for group `g`, of which the targets have these.
fn planned_patterns(ledger: &mut PartitionLedger, targets: &Targets, texts: &[&str]) -> String {
    let cluster = ClusterName::from("main");
    let mut whole = targets.plan(&cluster, |_| BTreeSet::new());
    for group in &mut whole.groups {
        if group.group.as_str() == "g" {
            group.patterns = texts.iter().map(|text| pattern(text)).collect();
        }
    }
    let (plan, _) = ledger.split_plan(&cluster, whole, targets);
    let group = plan.groups.iter().find(|plan| plan.group.as_str() == "g");
    let patterns = group.unwrap().patterns.iter().map(TopicPattern::as_str);
    patterns.collect::<Vec<_>>().join(" ")
}

#[test]
fn topics_listed_by_a_pattern_give_way_to_those_that_are_asked_for() {
    for (hpa, namespace, total, listed, expected) in [
        (10, 100, 100, &[("a", 2)][..], (2, "")),
        (10, 100, 100, &[("a", 3)], (1, "a")),
        (100, 10, 100, &[("a", 3)], (1, "a")),
        (100, 100, 10, &[("a", 3)], (1, "a")),
        // Only the widest pattern is refused, here the last of two that list as many topics.
        (100, 100, 20, &[("a", 5), ("b", 8)], (2, "b")),
        (100, 100, 12, &[("a", 5), ("b", 8)], (1, "a b")),
    ] {
        let targets = targets(budgets(hpa, namespace, total), &["a/h=g"], &[]);
        let mut ledger = PartitionLedger::default();
        let (topics, refused) = left(&mut ledger, &targets, read_with_listed(listed));
        assert_eq!((topics, &*refused), expected, "{listed:?}");
        // The group stays as it was charged first.
        let key: GroupKey = ("main".into(), "g".into());
        assert_eq!(ledger.groups[&key].partitions, 8);
    }
}

/// A reading of group `g` with so many topics of one partition each.
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
fn targets_that_look_at_all_topics_of_a_group_are_charged_for_that() {
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

#[test]
fn topics_listed_by_a_pattern_take_no_room_of_others() {
    let targets = targets(budgets(100, 100, 30), &["a/h=g", "b/h=h"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("h", 21)]).is_empty());
    for _ in 0..3 {
        let read = read_with_listed(&[("a", 5)]);
        assert_eq!(left(&mut ledger, &targets, read), (1, "a".to_owned()));
        assert!(apply(&mut ledger, &targets, &[("h", 21)]).is_empty());
    }
    // What fits is read.
    let read = read_with_listed(&[("a", 1)]);
    assert_eq!(left(&mut ledger, &targets, read), (2, String::new()));
}

#[test]
fn only_the_listed_part_of_a_group_makes_room_later() {
    for (hpas, budgets) in [
        (["a/h=g", "b/h=h"], budgets(100, 100, 20)),
        (["a/h=g", "a/h2=h"], budgets(100, 20, 100)),
    ] {
        let targets = targets(budgets, &hpas, &[]);
        let mut ledger = PartitionLedger::default();
        let read = || read_with_listed(&[("a", 5)]);
        assert_eq!(left(&mut ledger, &targets, read()).0, 2);
        assert!(apply(&mut ledger, &targets, &[("h", 9)]).is_empty());
        // Next time the pattern makes room, and the group is read on.
        assert_eq!(left(&mut ledger, &targets, read()), (1, "a".to_owned()));
        assert!(ledger.exceeded_budgets().is_empty());
        assert!(apply(&mut ledger, &targets, &[("h", 9)]).is_empty());
    }
}

#[test]
fn a_pattern_that_does_not_fit_is_not_read_until_there_is_room() {
    let targets = targets(budgets(100, 100, 20), &["a/h=g", "b/h=h"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("h", 9)]).is_empty());
    let read = || read_with_listed(&[("a", 1), ("b", 5)]);
    assert_eq!(left(&mut ledger, &targets, read()), (2, "b".to_owned()));
    for _ in 1..REREAD_AFTER {
        assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "a");
        // The finding is reported even if nothing is listed.
        let only = read_with_listed(&[("a", 1)]);
        assert_eq!(left(&mut ledger, &targets, only), (2, "b".to_owned()));
    }
    assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "a b");
    assert_eq!(left(&mut ledger, &targets, read()), (2, "b".to_owned()));
    assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "a");
    // As soon as there is room for it, it is read.
    assert!(apply(&mut ledger, &targets, &[("h", 5)]).is_empty());
    assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "a b");
    assert_eq!(left(&mut ledger, &targets, read()), (3, String::new()));
    // With members there are no patterns.
    assert_eq!(planned_patterns(&mut ledger, &targets, &[]), "");
    assert!(ledger.listed.is_empty());
}

#[test]
fn a_pattern_that_the_client_refuses_is_left_out_for_a_while() {
    let targets = targets(budgets(100, 100, 20), &["a/h=g"], &[]);
    let mut ledger = PartitionLedger::default();
    let mut refused = read_with_listed(&[("b", 1)]);
    let listing = Arc::make_mut(refused.listings.get_mut("g").unwrap());
    listing.refuse(pattern("a"), Unlisted::OverBudget);
    assert_eq!(left(&mut ledger, &targets, refused), (2, "a".to_owned()));
    for _ in 1..REREAD_AFTER {
        assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "b");
    }
    assert_eq!(planned_patterns(&mut ledger, &targets, &["a", "b"]), "a b");
    // Nobody asks for the group any more.
    let key = ("main".into(), "g".into());
    ledger.update_owners(
        &key,
        targets.group(&key.0, &key.1),
        &self::targets(budgets(1, 1, 1), &[], &[]),
    );
    assert!(ledger.listed.is_empty());
}

/// Applies that the client has refused a group of this many partitions.
fn refuse(ledger: &mut PartitionLedger, targets: &Targets, group: &str, partitions: u64) {
    let mut all = read(Duration::ZERO, group, "t", &[]);
    let refused = all.groups.remove(0);
    let refused = GroupObservation::over_budget(refused.plan, partitions);
    all.groups.push(refused.clone());
    ledger.apply(&mut all, targets);
    assert_eq!(all.groups, [refused]);
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

/// Takes in that other targets ask for a group than before.
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
        // The operator has chosen it: it leaves the budgets to the others.
        ("operators", 1000, None),
        ("a1", 10, None),
        ("a2", 6, Some(BudgetScope::Namespace)),
        ("c2", 11, Some(BudgetScope::Hpa)),
        ("b1", 9, None),
        ("asked", 6, None),
        ("asked2", 6, Some(BudgetScope::Total)),
        ("c1", 5, None),
        // Requests make room for it.
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
        update(&mut ledger, group, &targets_before, &after);
    }
    let (read, left_out, _) = plan(&mut ledger, &after);
    assert_eq!(read, ids(&["a2", "b1", "operators", "asked"]));
    assert!(left_out.is_empty() && ledger.exceeded_budgets().is_empty());
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
    update(&mut ledger, "shared", &targets_of_both, &one);
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

#[test]
fn a_refused_group_is_read_again_when_other_topics_are_asked_of_it() {
    let limits = budgets(10, 15, 100);
    for (before, after) in [
        ("a/h=a1", "a/h=a1:u"),
        ("a/h=a1:*", "a/h=a1"),
        ("a/h=a1", "a/h=a1:*"),
    ] {
        let (before, after) = (
            targets(limits, &[before], &[]),
            targets(limits, &[after], &[]),
        );
        let mut ledger = PartitionLedger::default();
        assert_eq!(apply(&mut ledger, &before, &[("a1", 11)]), ["a1"]);
        // Another HPA for the same topics changes nothing: it is as large as before.
        let same = targets(limits, &["a/h2=a1", "a/h=a1"], &[]);
        if before
            .group(&"main".into(), &"a1".into())
            .is_some_and(|g| !g.has_open_topics())
        {
            update(&mut ledger, "a1", &before, &same);
            assert_eq!(plan(&mut ledger, &same).1, ids(&["a1"]));
        }
        update(&mut ledger, "a1", &before, &after);
        let (read, left_out, _) = plan(&mut ledger, &after);
        assert_eq!((read, left_out), (ids(&["a1", "operators"]), Vec::new()));
        assert!(apply(&mut ledger, &after, &[("a1", 10)]).is_empty());
    }
}

#[test]
fn a_refused_group_is_read_again_from_time_to_time() {
    let targets = targets(budgets(10, 15, 100), &["a/h=a1"], &[]);
    let mut ledger = PartitionLedger::default();
    // Its topics are as large as before at first, and then they are smaller.
    for (partitions, is_refused) in [(11, true), (12, true), (5, false)] {
        let over = apply(&mut ledger, &targets, &[("a1", partitions)]);
        assert_eq!(!over.is_empty(), is_refused);
        assert_eq!(!ledger.exceeded_budgets().is_empty(), is_refused);
        if is_refused {
            for _ in 1..REREAD_AFTER {
                assert_eq!(plan(&mut ledger, &targets).1, ids(&["a1"]));
            }
            // Until it is read it stays due, and is still reported.
            for _ in 0..2 {
                assert_eq!(plan(&mut ledger, &targets).0, ids(&["a1", "operators"]));
            }
            assert_eq!(ledger.exceeded_budgets().len(), 1);
        }
    }
    assert_eq!(plan(&mut ledger, &targets).0, ids(&["a1", "operators"]));
}

#[test]
fn a_group_that_the_client_refuses_is_counted_and_left_out_too() {
    let targets = targets(budgets(50, 50, 50), &["a/h=a1", "b/h=b1"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("a1", 40)]).is_empty());
    let exceeded = |ledger: &PartitionLedger| {
        let exceeded = ledger.exceeded_budgets().into_iter();
        Vec::from_iter(exceeded.map(|(exceeded, groups)| (exceeded.scope, groups)))
    };
    for _ in 0..2 {
        assert_eq!(
            plan(&mut ledger, &targets),
            (ids(&["a1", "b1", "operators"]), Vec::new(), 50)
        );
        refuse(&mut ledger, &targets, "b1", 11);
        assert_eq!(exceeded(&ledger), [(BudgetScope::Total, 1)]);
        for _ in 1..REREAD_AFTER {
            assert_eq!(plan(&mut ledger, &targets).1, ids(&["b1"]));
        }
    }
    // As soon as there is room for it, it is read.
    assert!(apply(&mut ledger, &targets, &[("a1", 39)]).is_empty());
    let (read, left_out, max) = plan(&mut ledger, &targets);
    assert_eq!(
        (read, left_out),
        (ids(&["a1", "b1", "operators"]), Vec::new())
    );
    assert_eq!((exceeded(&ledger), max), (Vec::new(), 50));
}

#[test]
fn a_group_that_the_client_refuses_because_another_has_grown_stays_admitted() {
    let targets = targets(budgets(50, 50, 50), &["a/h=a1", "b/h=b1"], &[]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("a1", 25), ("b1", 25)]).is_empty());
    assert_eq!(apply(&mut ledger, &targets, &[("a1", 26)]), ["a1"]);
    refuse(&mut ledger, &targets, "b1", 25);
    let (read, left_out, _) = plan(&mut ledger, &targets);
    assert_eq!((read, left_out), (ids(&["b1", "operators"]), ids(&["a1"])));
}

#[test]
fn a_group_that_was_never_read_gets_no_more_than_its_hpa_may_have() {
    let asked = ["a/h=new", "a/h2=new2:*", "a/h3=known", "b/h=operators:u"];
    let targets = targets(budgets(10, 15, 100), &asked, &["asked"]);
    let mut ledger = PartitionLedger::default();
    assert!(apply(&mut ledger, &targets, &[("known", 4)]).is_empty());
    let cluster = ClusterName::from("main");
    let whole = targets.plan(&cluster, |_| BTreeSet::new());
    let (plan, _) = ledger.split_plan(&cluster, whole, &targets);
    assert_eq!(plan.max_partitions, Some(100));
    let max: BTreeMap<_, _> = plan
        .groups
        .iter()
        .map(|plan| (plan.group.to_string(), plan.max_partitions))
        .collect();
    let expected = [
        ("asked", Some(15)),
        ("known", Some(10)),
        ("new", Some(10)),
        ("new2", Some(10)),
        // The operator has chosen it, and an HPA adds a topic.
        ("operators", None),
    ];
    assert_eq!(
        max,
        expected.map(|(group, max)| (group.to_owned(), max)).into()
    );
}

#[test]
fn what_only_the_operator_asks_for_has_no_limit() {
    let limits = budgets(10, 15, 100);
    for (hpa, is_unlimited) in [
        ("a/h=a1", true),
        ("a/h=operators", true),
        ("a/h=operators:u", false),
        ("a/h=operators:*", false),
    ] {
        let targets = targets(limits, &[hpa], &[]);
        let cluster = ClusterName::from("main");
        let whole = targets.plan(&cluster, |_| BTreeSet::new());
        let unlimited = whole.groups.iter().filter(|plan| plan.is_unlimited);
        let unlimited: Vec<_> = unlimited.map(|plan| plan.group.clone()).collect();
        let expected: &[&str] = if is_unlimited { &["operators"] } else { &[] };
        assert_eq!(unlimited, ids(expected), "{hpa}");
        let mut ledger = PartitionLedger::default();
        assert!(apply(&mut ledger, &targets, &[("operators", 1000)]).is_empty());
        let max = if is_unlimited { 100 } else { 1100 };
        assert_eq!(plan(&mut ledger, &targets).2, max, "{hpa}");
    }
}

#[test]
fn the_namespaces_that_have_most_make_room_for_others() {
    let asked = [
        "a/h=a1", "a/h2=a2", "a/h3=a3", "b/h=b1", "b/h2=b2", "c/h=c1", "c/h2=c2",
    ];
    let targets = targets(budgets(100, 100, 12), &asked, &["asked"]);
    let mut ledger = PartitionLedger::default();
    let reading = [("a1", 2), ("a2", 3), ("a3", 3), ("asked", 2), ("b1", 2)];
    assert!(apply(&mut ledger, &targets, &reading).is_empty());
    // Requests come first, and then the latest group of the largest namespace.
    let more = [("a3", 3), ("asked", 2), ("b2", 2), ("c1", 2)];
    assert_eq!(apply(&mut ledger, &targets, &more), ["a3", "asked"]);
    let exceeded = ledger.exceeded_budgets();
    assert_eq!(Vec::from_iter(exceeded.values()), [&2]);
    // Nothing is taken back and forth.
    for _ in 0..3 {
        let (read, left_out, _) = plan(&mut ledger, &targets);
        assert_eq!(
            read,
            ids(&["a1", "b1", "c1", "a2", "b2", "operators", "c2"])
        );
        assert_eq!(left_out, ids(&["a3", "asked"]));
    }
    // A namespace that has as much as the others makes no room, nor gets any.
    assert_eq!(apply(&mut ledger, &targets, &[("c2", 4)]), ["c2"]);
    assert_eq!(apply(&mut ledger, &targets, &[("b2", 5)]), ["b2"]);
    assert_eq!(
        apply(&mut ledger, &targets, &[("a3", 2)]),
        Vec::<String>::new()
    );
}

#[test]
fn a_group_that_was_read_before_it_has_to_make_room_is_unknown_at_once() {
    let targets = targets(budgets(100, 100, 6), &["a/h=a1", "a/h2=a2", "b/h=b1"], &[]);
    for order in [["a1", "a2", "b1"], ["b1", "a1", "a2"]] {
        let mut ledger = PartitionLedger::default();
        let reading = order.map(|group| (group, 3));
        assert_eq!(apply(&mut ledger, &targets, &reading), ["a2"], "{order:?}");
    }
}
