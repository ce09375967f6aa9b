//! Which topics of a group count: named ones, those that members read, and those that match a pattern.

use super::*;
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::topic_listing::testing::listing;
use crate::model::kafka::topic_listing::{TopicListing, Unlisted};
use crate::model::units::newtypes::OffsetReset;
use crate::model::units::topic_pattern::TopicPattern;

#[test]
fn without_named_topics_those_that_members_read_count() {
    let read: [Read<'_>; 3] = [
        ("new", &[(None, 9)]),
        ("old", &[(Some(0), 1000)]),
        ("t", &[(Some(0), 5), (Some(0), 0)]),
    ];
    let hpas = [hpa("h", "group=g", average(10))];
    // `old` has commits of a former version; `new` has none yet, and is read.
    let working = sweep_of(described(Some("range"), &[&["new", "t"]]), &read);
    let snapshot_of = |sweeps| snapshot(sweeps, &hpas);
    assert_eq!(
        ask(&snapshot_of(vec![working.clone()]), "group=g")
            .unwrap()
            .lag,
        Some(Lag(5))
    );
    // The subscription is remembered while the group has no members.
    let empty = sweep_of(described(None, &[]), &read);
    let after = snapshot_of(vec![working.clone(), empty.clone()]);
    assert_eq!(ask(&after, "group=g").unwrap().lag, Some(Lag(5)));
    // A rebalance during which the broker does not report subscriptions changes nothing, and neither does an empty
    // group after that.
    let mut silent = (*described(None, &[&[]])).clone();
    silent.state = GroupState::Rebalancing;
    let rebalancing = sweep_of(Arc::new(silent), &read);
    for later in [
        vec![rebalancing.clone()],
        vec![rebalancing.clone(), empty.clone()],
        vec![empty.clone(), rebalancing.clone(), empty.clone()],
    ] {
        let after = snapshot_of([vec![working.clone()], later].concat());
        assert_eq!(ask(&after, "group=g").unwrap().lag, Some(Lag(5)));
    }
    // If no member was ever seen, the partitions with commits count.
    assert_eq!(
        ask(&snapshot_of(vec![empty]), "group=g").unwrap().lag,
        Some(Lag(1005))
    );
}

#[test]
fn a_topic_that_only_a_request_names_changes_no_lag() {
    let read: [Read<'_>; 2] = [("asked", &[(None, 9)]), ("t", &[(Some(0), 5)])];
    let hpas = [hpa("h", "group=g", average(10))];
    for fault in [Fault::TopicDenied, Fault::NoAnswer, Fault::TopicMissing] {
        let lag = |requested: &[&str]| {
            // No subscription is known, so topics with commits count.
            let mut sweep = observation(0, &read);
            let requested = requested.iter().map(|topic| TopicName::from(*topic));
            sweep.groups[0].plan.requested = Arc::new(requested.collect());
            sweep.topics.insert("asked".into(), Err(fault));
            ask(&snapshot(vec![sweep], &hpas), "group=g").map(|answer| answer.lag)
        };
        assert_eq!(lag(&["asked"]), Ok(Some(Lag(5))), "{fault:?}");
        // For a topic of the group it is unknown whether it has commits, unless it does not exist.
        assert_eq!(lag(&[]).is_ok(), fault == Fault::TopicMissing, "{fault:?}");
    }
}

#[test]
fn a_request_while_commits_are_unknown_changes_no_lag() {
    let read: [Read<'_>; 1] = [("t", &[(Some(0), 5)])];
    let hpas = [hpa("h", "group=g", average(10))];
    let lag = |is_requested: bool| {
        let mut failed = observation(5, &read);
        let plan = &mut failed.groups[0].plan;
        plan.topics = Arc::new(["asked".into(), "t".into()].into());
        if is_requested {
            plan.requested = Arc::new(["asked".into()].into());
        }
        failed.groups[0].committed = Err(Fault::NoAnswer);
        let sweeps = vec![observation(0, &read), failed];
        ask(&snapshot(sweeps, &hpas), "group=g").map(|answer| answer.lag)
    };
    assert_eq!(lag(true), Ok(Some(Lag(5))), "the last complete reading");
    assert!(lag(false).is_err());
}

#[test]
fn no_value_is_served_before_every_subscribed_topic_was_read() {
    let read: [Read<'_>; 1] = [("t", &[(Some(0), 5)])];
    let working = sweep_of(described(Some("range"), &[&["new", "t"]]), &read);
    let snapshot = snapshot(vec![working], &[hpa("h", "group=g", average(10))]);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    let NoValueReason::NotYetRead(unread) = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(unread[0].topics, ["new".into()].into());
    let known = &snapshot.clusters["main"];
    let plan = snapshot.targets.plan(&"main".into(), known.topics_read());
    assert_eq!(*plan.groups[0].topics, ["new".into(), "t".into()].into());
    assert!(plan.groups[0].discover);
}

#[test]
fn a_deleted_topic_that_members_still_subscribe_to_has_no_lag() {
    let read: [Read<'_>; 2] = [("gone", &[]), ("t", &[(Some(0), 5)])];
    let mut working = sweep_of(described(Some("range"), &[&["gone", "t"]]), &read);
    working
        .topics
        .insert("gone".into(), Err(Fault::TopicMissing));
    let snapshot = snapshot(vec![working], &[hpa("h", "group=g", average(10))]);
    assert_eq!(ask(&snapshot, "group=g").unwrap().lag, Some(Lag(5)));
    assert!(matches!(
        ask(&snapshot, "group=g,topic=gone"),
        Err(NoValueReason::TopicMissing { .. })
    ));
}

#[test]
fn a_pattern_selects_from_the_topics_that_the_group_reads() {
    let read: [Read<'_>; 3] = [
        ("orders-eu", &[(Some(0), 5)]),
        ("orders-us", &[(Some(0), 70)]),
        ("payments", &[(Some(0), 900)]),
    ];
    let facts = |regex| annotated(hpa("h", "group=g", average(10)), &[("topic-regex", regex)]);
    for (regex, lag) in [("orders-.*", 75), ("orders-eu|payments", 905)] {
        let snapshot = snapshot(vec![observation(0, &read)], &[facts(regex)]);
        assert_eq!(
            ask(&snapshot, "group=g").unwrap().lag,
            Some(Lag(lag)),
            "{regex}"
        );
    }
    let snapshot = snapshot(vec![observation(0, &read)], &[facts("orders")]);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::NothingMatches { .. }),
        "{refusal}"
    );
}

/// A sweep of group `g`, whose members read these topics, or which has none and for which this was listed.
fn sweep_by_pattern(members: &[&[&str]], listing: Option<TopicListing>) -> Observation {
    let read: [Read<'_>; 3] = [
        ("orders-eu", &[(Some(5), 5)]),
        ("orders-new", &[(None, 1000)]),
        // Of a former subscription.
        ("orders-old", &[(Some(0), 40)]),
    ];
    let mut sweep = sweep_of(described(Some("range"), members), &read);
    sweep.groups[0].plan.reset = OffsetReset::Earliest;
    let listing = listing.map(|listing| ("g".into(), Arc::new(listing)));
    sweep.listings = listing.into_iter().collect();
    sweep
}

#[test]
fn without_members_topics_of_the_cluster_that_match_the_pattern_count() {
    let listed = |topics: &[&str]| Some(listing("orders-.*", Ok(topics)));
    let working = || sweep_by_pattern(&[&["orders-eu"]], None);
    let facts = annotated(
        hpa("h", "group=g", average(10)),
        &[("topic-regex", "orders-.*")],
    );
    let lag = |later: Option<TopicListing>| {
        let sweeps = vec![working(), sweep_by_pattern(&[], later)];
        ask(&snapshot(sweeps, std::slice::from_ref(&facts)), "group=g")
    };
    assert_eq!(lag(listed(&["orders-new"])).unwrap().lag, Some(Lag(1000)));
    assert_eq!(lag(listed(&[])).unwrap().lag, Some(Lag(0)));
    for unknown in [
        Unlisted::TooMany,
        Unlisted::TooSlow,
        Unlisted::Failed(Fault::NoAnswer),
    ] {
        let unknown = listing("orders-.*", Err(unknown));
        assert_eq!(lag(Some(unknown)).unwrap().lag, Some(Lag(0)));
    }
    // The listing of another pattern does not count, and does not replace a missing one.
    let mut other = listing("orders-n.*", Ok(&["orders-new"]));
    for pattern in [None, TopicPattern::parse("orders-.*").ok()] {
        if let Some(pattern) = pattern {
            other.refuse(pattern, Unlisted::TooMany);
        }
        assert_eq!(lag(Some(other.clone())).unwrap().lag, Some(Lag(0)));
    }
    let refusal = lag(None).unwrap_err();
    assert!(matches!(refusal, NoValueReason::NotYetRead(_)), "{refusal}");
    // Who would begin at the end has nothing to read there.
    let mut latest = sweep_by_pattern(&[], listed(&["orders-new"]));
    latest.groups[0].plan.reset = OffsetReset::Latest;
    let known = snapshot(vec![working(), latest], std::slice::from_ref(&facts));
    assert_eq!(ask(&known, "group=g").unwrap().lag, Some(Lag(0)));
    // A target without a pattern does not count it.
    let asleep = || sweep_by_pattern(&[], listed(&["orders-new"]));
    let known = snapshot(
        vec![working(), asleep()],
        &[hpa("h", "group=g", average(10))],
    );
    assert_eq!(ask(&known, "group=g").unwrap().lag, Some(Lag(0)));
    // Members come because of it, and do not read it.
    let known = snapshot(
        vec![working(), asleep(), working(), asleep()],
        std::slice::from_ref(&facts),
    );
    assert_eq!(ask(&known, "group=g").unwrap().lag, Some(Lag(0)));
    let others = || sweep_by_pattern(&[&["orders-eu", "orders-new"]], None);
    let known = snapshot(
        vec![working(), asleep(), working(), others(), asleep()],
        std::slice::from_ref(&facts),
    );
    assert_eq!(ask(&known, "group=g").unwrap().lag, Some(Lag(1000)));
}

#[test]
fn a_request_hides_no_topic_that_a_pattern_lists() {
    let facts = annotated(
        hpa("h", "group=g", average(10)),
        &[("topic-regex", "orders-.*")],
    );
    let lag = |listed: &[&str], is_requested: bool| {
        let working = sweep_by_pattern(&[&["orders-eu"]], None);
        let mut asleep = sweep_by_pattern(&[], Some(listing("orders-.*", Ok(listed))));
        let plan = &mut asleep.groups[0].plan;
        if is_requested {
            plan.topics = Arc::new(["orders-new".into()].into());
            plan.requested = Arc::clone(&plan.topics);
        }
        let known = snapshot(vec![working, asleep], std::slice::from_ref(&facts));
        ask(&known, "group=g").unwrap().lag
    };
    for is_requested in [false, true] {
        assert_eq!(lag(&["orders-new"], is_requested), Some(Lag(1000)));
    }
    assert_eq!(lag(&[], true), Some(Lag(0)));
}

#[test]
fn topics_are_listed_by_the_patterns_of_a_group_without_members() {
    let facts = |regex| annotated(hpa("h", "group=g", average(10)), &[("topic-regex", regex)]);
    let patterns = |sweep, facts: &HpaFacts| {
        let snapshot = snapshot(vec![sweep], std::slice::from_ref(facts));
        let known = &snapshot.clusters["main"];
        let plan = snapshot.targets.plan(&"main".into(), known.topics_read());
        let patterns = plan.groups[0].patterns.iter();
        patterns.map(ToString::to_string).collect::<Vec<_>>()
    };
    let regex = facts("orders-.*");
    assert_eq!(patterns(sweep_by_pattern(&[], None), &regex), ["orders-.*"]);
    let working = sweep_by_pattern(&[&["orders-eu"]], None);
    assert!(patterns(working, &regex).is_empty());
    let mut undescribed = sweep_by_pattern(&[], None);
    undescribed.groups[0].description = Err(Fault::Unsupported);
    assert!(patterns(undescribed, &regex).is_empty());
    let named = hpa("h", "group=g,topic=orders-eu", average(10));
    assert!(patterns(sweep_by_pattern(&[], None), &named).is_empty());
}
