//! Topics that are listed by patterns: they get the rest of the budgets.

use super::*;
use crate::model::kafka::topic_listing::Unlisted;
use crate::model::units::topic_pattern::TopicPattern;

/// A reading of group `g` with 8 partitions of a requested topic, and of one topic for each of these patterns with this
/// many partitions.
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

/// The remaining topics of group `g`, and the patterns that were refused.
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
fn listed_topics_are_refused_before_requested_ones() {
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

#[test]
fn a_listed_topic_that_a_request_names_is_charged_to_the_group_and_stays() {
    let targets = targets(budgets(100, 100, 100), &["a/h=g"], &[]);
    let mut ledger = PartitionLedger::default();
    let mut read = read_with_listed(&[("a", 5), ("b", 90)]);
    let plan = &mut read.groups[0].plan;
    plan.topics = Arc::new(["t".into(), "topic-b".into()].into());
    plan.requested = Arc::new(["topic-b".into()].into());
    // With `topic-b` 98 are used, so that the two patterns are refused, the widest first.
    assert_eq!(left(&mut ledger, &targets, read), (2, "a b".to_owned()));
    let key: GroupKey = ("main".into(), "g".into());
    assert_eq!(ledger.groups[&key].partitions, 98);
}

#[test]
fn listed_topics_take_no_budget_of_other_groups() {
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
fn only_the_listed_topics_of_a_group_are_refused_later() {
    for (hpas, budgets) in [
        (["a/h=g", "b/h=h"], budgets(100, 100, 20)),
        (["a/h=g", "a/h2=h"], budgets(100, 20, 100)),
    ] {
        let targets = targets(budgets, &hpas, &[]);
        let mut ledger = PartitionLedger::default();
        let read = || read_with_listed(&[("a", 5)]);
        assert_eq!(left(&mut ledger, &targets, read()).0, 2);
        assert!(apply(&mut ledger, &targets, &[("h", 9)]).is_empty());
        // In the next sweep the pattern is left out, and the group is still read.
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
    // The group has no target any more.
    let key = ("main".into(), "g".into());
    ledger.update_owners(
        &key,
        targets.group(&key.0, &key.1),
        &self::targets(budgets(1, 1, 1), &[], &[]),
    );
    assert!(ledger.listed.is_empty());
}
