//! Refused groups: when they are left out of the plan, and when they are read again.

use super::*;

/// Applies that the client has refused a group of this many partitions.
fn refuse(ledger: &mut PartitionLedger, targets: &Targets, group: &str, partitions: u64) {
    let mut all = read(Duration::ZERO, group, "t", &[]);
    let refused = all.groups.remove(0);
    let refused = GroupObservation::over_budget(refused.plan, partitions);
    all.groups.push(refused.clone());
    ledger.apply(&mut all, targets);
    assert_eq!(all.groups, [refused]);
}

#[test]
fn groups_over_budget_are_left_out_until_there_is_room() {
    let limits = budgets(10, 15, 100);
    let hpas_groups = ["a/h=a1", "a/h2=a2", "b/h=b1"];
    let targets_before = targets(limits, &hpas_groups, &["asked"]);
    let mut ledger = PartitionLedger::default();
    let reading = [("a1", 9), ("a2", 9), ("b1", 9)];
    assert_eq!(apply(&mut ledger, &targets_before, &reading), ["a2"]);
    let (read, left_out, max) = plan(&mut ledger, &targets_before);
    // Groups that were read come before those that were not.
    assert_eq!(read, ids(&["a1", "b1", "operators", "asked"]));
    assert_eq!((left_out, max), (ids(&["a2"]), 100));
    // Without the first HPA there is room.
    let after = targets(limits, &hpas_groups[1..], &["asked"]);
    for group in ["a1", "a2", "b1"] {
        update(&mut ledger, group, &targets_before, &after);
    }
    let (read, left_out, _) = plan(&mut ledger, &after);
    assert_eq!(read, ids(&["a2", "b1", "operators", "asked"]));
    assert!(left_out.is_empty() && ledger.exceeded_budgets().is_empty());
}

#[test]
fn a_refused_group_is_read_again_when_its_topics_change() {
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
fn a_group_refused_in_favor_of_another_is_unknown_at_once() {
    let targets = targets(budgets(100, 100, 6), &["a/h=a1", "a/h2=a2", "b/h=b1"], &[]);
    for order in [["a1", "a2", "b1"], ["b1", "a1", "a2"]] {
        let mut ledger = PartitionLedger::default();
        let reading = order.map(|group| (group, 3));
        assert_eq!(apply(&mut ledger, &targets, &reading), ["a2"], "{order:?}");
    }
}
