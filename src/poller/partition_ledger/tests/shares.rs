//! Shares of namespaces, and the order in which groups are read.

use super::*;

#[test]
fn a_group_of_two_namespaces_is_read_if_one_budget_suffices() {
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
fn among_unread_groups_the_first_of_each_namespace_comes_first() {
    let hpas_groups = [
        "a/h=a1", "a/h2=a2", "a/h3=a3", "b/h=b1", "b/h2=b2", "c/h=c1",
    ];
    let targets = targets(budgets(10, 10, 100), &hpas_groups, &["aaa"]);
    let (read, ..) = plan(&mut PartitionLedger::default(), &targets);
    let expected = ["a1", "b1", "c1", "operators", "a2", "b2", "a3", "aaa"];
    assert_eq!(read, ids(&expected));
}

#[test]
fn a_group_that_was_never_read_gets_no_more_than_its_hpa_may_have() {
    let hpas_groups = ["a/h=new", "a/h2=new2:*", "a/h3=known", "b/h=operators:u"];
    let targets = targets(budgets(10, 15, 100), &hpas_groups, &["asked"]);
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
        // The administrator has chosen it, and an HPA adds a topic.
        ("operators", None),
    ];
    assert_eq!(
        max,
        expected.map(|(group, max)| (group.to_owned(), max)).into()
    );
}

#[test]
fn groups_of_the_administrator_alone_have_no_limit() {
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
fn the_namespaces_with_the_most_lose_groups_to_others() {
    let hpas_groups = [
        "a/h=a1", "a/h2=a2", "a/h3=a3", "b/h=b1", "b/h2=b2", "c/h=c1", "c/h2=c2",
    ];
    let targets = targets(budgets(100, 100, 12), &hpas_groups, &["asked"]);
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
    // A namespace with as much as the others neither loses nor gains any.
    assert_eq!(apply(&mut ledger, &targets, &[("c2", 4)]), ["c2"]);
    assert_eq!(apply(&mut ledger, &targets, &[("b2", 5)]), ["b2"]);
    assert_eq!(
        apply(&mut ledger, &targets, &[("a3", 2)]),
        Vec::<String>::new()
    );
}
