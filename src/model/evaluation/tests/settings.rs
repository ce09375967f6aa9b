//! What annotations, members and the configuration change in an answer.

use super::*;
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::selector::Selector;
use crate::model::kafka::topic_listing::testing::listing;
use crate::model::kafka::topic_listing::{TopicListing, Unlisted};
use crate::model::units::newtypes::OffsetReset;
use crate::model::units::topic_pattern::TopicPattern;

#[test]
fn six_partitions_allow_six_replicas() {
    for (lag, now, expected) in [(1_800, 1, 6), (601, 6, 6), (0, 6, 0)] {
        let row = Row {
            topics: vec![behind(6, lag)],
            annotations: &[],
            per: 100,
            now,
        };
        assert_eq!(row.proposed(0.0), expected);
    }
}

#[test]
fn threads_lower_the_ceiling_and_share_the_lag() {
    for (annotations, lag, expected) in [
        (&[("threads-per-replica", "4")][..], 10_000, 4),
        (&[("threads-per-replica", "4"), ("even", "true")], 10_000, 4),
        (&[("threads-per-replica", "4"), ("even", "true")], 21, 4),
        (&[("threads-per-replica", "4"), ("even", "true")], 11, 2),
    ] {
        let row = Row {
            topics: vec![behind(13, lag)],
            annotations,
            per: 10,
            now: 1,
        };
        assert_eq!(row.proposed(0.0), expected, "{annotations:?} {lag}");
        let is_cut = lag > 4 * 10;
        assert_eq!(row.answer().rule == ValueRule::Clamped, is_cut);
        assert_eq!(
            row.answer().ceiling.unwrap().replicas,
            Limit::Bounded(Replicas(4))
        );
    }
}

#[test]
fn partitions_shrink_lag_and_ceiling_together() {
    let column = [(Some(0), 7), (Some(0), 5), (Some(0), 100), (Some(0), 900)];
    let facts = annotated(
        hpa("h", "group=g,topic=t", average(1)),
        &[("partitions", "0-1,7")],
    );
    let mut snapshot = snapshot(vec![observation(0, &[("t", &column)])], &[facts]);
    let answer = ask(&snapshot, "group=g,topic=t").unwrap();
    assert_eq!(
        (answer.lag, answer.value),
        (Some(Lag(12)), Milli::from_units(2))
    );
    assert_eq!(
        answer.ceiling.unwrap().replicas,
        Limit::Bounded(Replicas(2))
    );
    // Partitions that do not exist are no lag of zero.
    let facts = annotated(
        hpa("h", "group=g,topic=t", average(1)),
        &[("partitions", "4-9")],
    );
    snapshot.targets = Arc::new(Targets::merge(
        &["main".into()],
        &[],
        &[facts],
        BTreeSet::new(),
    ));
    let refusal = ask(&snapshot, "group=g,topic=t").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::NoPartition { .. }),
        "{refusal}"
    );
}

#[test]
fn an_unknown_partition_that_does_not_count_is_ignored() {
    let mut read = observation(0, &[("t", &[(Some(0), 7), (Some(0), 5)])]);
    let offsets = TopicOffsets {
        starts: vec![Ok(Offset(0)); 2],
        ends: vec![Ok(Offset(7)), Err(Fault::LeaderUnknown)],
        ..TopicOffsets::default()
    };
    read.topics.insert("t".into(), Ok(Arc::new(offsets)));
    let facts = |of| {
        annotated(
            hpa("h", "group=g,topic=t", average(1)),
            &[("partitions", of)],
        )
    };
    let known = snapshot(vec![read.clone()], &[facts("0")]);
    assert_eq!(ask(&known, "group=g,topic=t").unwrap().lag, Some(Lag(7)));
    let unknown = snapshot(vec![read], &[facts("0-1")]);
    let refusal = ask(&unknown, "group=g,topic=t").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::Unknown { .. }),
        "{refusal}"
    );
}

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
    // What they read is remembered while there is none.
    let empty = sweep_of(described(None, &[]), &read);
    let after = snapshot_of(vec![working.clone(), empty.clone()]);
    assert_eq!(ask(&after, "group=g").unwrap().lag, Some(Lag(5)));
    // A rebalance during which the broker does not report subscriptions changes nothing, nor does an empty group
    // after one.
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
    // What is listed for another pattern does not count, nor does it stand for what is not.
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

#[test]
fn added_partitions_and_a_newly_seen_assignor_change_the_ceiling() {
    let hpas = [hpa("h", "group=g", average(10))];
    let few: [Read<'_>; 2] = [("a", &[(Some(0), 0); 6]), ("b", &[(Some(0), 0); 2])];
    let more: [Read<'_>; 2] = [("a", &[(Some(0), 0); 12]), ("b", &[(Some(0), 0); 2])];
    let ceiling = |sweeps| {
        let answer = ask(&snapshot(sweeps, &hpas), "group=g").unwrap();
        answer.ceiling.unwrap()
    };
    let range = described(Some("range"), &[&["a", "b"]]);
    let sticky = described(Some("cooperative-sticky"), &[&["a", "b"]]);
    for (sweeps, replicas, rule) in [
        (
            vec![sweep_of(Arc::clone(&range), &few)],
            6,
            ParallelismRule::LargestTopic,
        ),
        (
            vec![sweep_of(Arc::clone(&range), &few), sweep_of(range, &more)],
            12,
            ParallelismRule::LargestTopic,
        ),
        (
            vec![sweep_of(sticky, &more)],
            14,
            ParallelismRule::AllTopics,
        ),
        (
            vec![observation(0, &more)],
            12,
            ParallelismRule::AssignorUnknown,
        ),
    ] {
        let found = ceiling(sweeps);
        assert_eq!(found.replicas, Limit::Bounded(Replicas(replicas)));
        assert_eq!(found.useful.rule, rule);
    }
}

#[test]
fn a_share_group_is_not_clamped_and_a_streams_group_is_clamped_to_its_tasks() {
    let read: [Read<'_>; 1] = [("t", &[(Some(0), 900), (Some(0), 0)])];
    let kind = |kind, subtopologies| {
        let mut description = (*described(None, &[&["t"]])).clone();
        description.kind = kind;
        description.subtopologies = subtopologies;
        let sweep = sweep_of(Arc::new(description), &read);
        ask(
            &snapshot(vec![sweep], &[hpa("h", "group=g", average(10))]),
            "group=g",
        )
        .unwrap()
    };
    let shared = kind(GroupKind::Share, Vec::new());
    assert_eq!(
        (shared.value, shared.rule),
        (Milli::from_units(900), ValueRule::AsMeasured)
    );
    assert_eq!(shared.ceiling.unwrap().replicas, Limit::Unbounded);
    let part = |id: &str, count| Subtopology {
        id: id.into(),
        sources: vec![(TopicName::from(format!("t-{id}")), Some(count))],
    };
    let streams = kind(GroupKind::Streams, vec![part("0", 2), part("1", 5)]);
    assert_eq!(
        streams.ceiling.unwrap().replicas,
        Limit::Bounded(Replicas(7))
    );
}

#[test]
fn a_selector_of_several_groups_sums_what_each_can_use() {
    let mut read = observation(0, &[("t", &behind(2, 1000))]);
    let wide = observation(0, &[("w", &behind(10, 15))]);
    read.topics.extend(wide.topics);
    let mut other = wide.groups[0].clone();
    other.plan.group = "h".into();
    read.groups.push(other);
    let snapshot = snapshot(vec![read], &[hpa("a", "group in (g,h)", average(10))]);
    let answer = ask(&snapshot, "group in (g,h)").unwrap();
    // Two replicas' worth of the one that cannot use more, and all of the other.
    assert_eq!(
        (answer.value, answer.rule),
        (Milli::from_units(35), ValueRule::Clamped)
    );
    assert_eq!(answer.lag, Some(Lag(1015)));
    assert_eq!(
        answer.ceiling.unwrap().replicas,
        Limit::Bounded(Replicas(10))
    );
}

#[test]
fn a_group_whose_name_is_no_label_value_is_named_by_an_annotation() {
    let mut read = observation(0, &[("t", &[(Some(0), 5)])]);
    read.groups[0].plan.group = "Orders Group/1".into();
    let facts = annotated(
        hpa("h", "group=orders", average(10)),
        &[("consumer-group", "Orders Group/1")],
    );
    let mut without = HpaFacts {
        name: "without".into(),
        ..facts.clone()
    };
    without.metrics[0].selector = Selector::parse("topic=t").unwrap();
    let snapshot = snapshot(vec![read], &[facts, without]);
    for selector in ["group=orders", "topic=t"] {
        assert_eq!(
            ask(&snapshot, selector).unwrap().lag,
            Some(Lag(5)),
            "{selector}"
        );
    }
    assert!(matches!(
        ask(&snapshot, "group=other"),
        Err(NoValueReason::NotYetRead(_))
    ));
}

#[test]
fn hpas_with_the_same_selector_and_different_settings_must_add_a_label() {
    let set = |name, selector, annotations: &[(&str, &str)]| {
        annotated(hpa(name, selector, average(10)), annotations)
    };
    let hpas = [
        set("a", "group=g", &[("threads-per-replica", "2")]),
        set("b", "group=g", &[]),
        set("c", "group=g,hpa=c", &[("threads-per-replica", "2")]),
        set("d", "group=g,hpa=d", &[]),
    ];
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(4, 900))])], &hpas);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::ConflictingTargets { .. }),
        "{refusal}"
    );
    for (selector, value) in [("group=g,hpa=c", 20), ("group=g,hpa=d", 40)] {
        assert_eq!(
            ask(&snapshot, selector).unwrap().value,
            Milli::from_units(value)
        );
    }
}

#[test]
fn hpas_with_the_same_selector_may_differ_in_settings_of_writes() {
    for annotation in [
        ("paused", "true"),
        ("cap", "enforce"),
        ("max-replicas", "5"),
        ("consumer-group", "g"),
    ] {
        let plain = |name| hpa(name, "group=g", average(10));
        let hpas = [annotated(plain("a"), &[annotation]), plain("b")];
        let snapshot = snapshot(vec![observation(0, &[("t", &behind(4, 900))])], &hpas);
        assert!(ask(&snapshot, "group=g").is_ok(), "{annotation:?}");
    }
}

#[test]
fn the_settings_of_an_hpa_override_those_of_a_configured_target() {
    let fixed = ConfiguredTarget {
        name: "orders".into(),
        namespaces: Vec::new(),
        cluster: "main".into(),
        group: "g".into(),
        lag_per_replica: Some(Milli::from_units(10)),
        settings: crate::model::settings::Settings {
            threads_per_replica: NonZeroU32::new(2),
            ..Default::default()
        },
    };
    let sweeps = vec![observation(0, &[("t", &behind(4, 900))])];
    let mut snapshot = snapshot(sweeps, &[]);
    let mut with = |hpas: &[HpaFacts]| {
        let fixed = std::slice::from_ref(&fixed);
        let targets = Targets::merge(&["main".into()], fixed, hpas, BTreeSet::new());
        snapshot.targets = Arc::new(targets);
        ask(&snapshot, "target=orders").unwrap().value
    };
    assert_eq!(with(&[]), Milli::from_units(20));
    let facts = hpa("h", "target=orders", average(100));
    assert_eq!(with(std::slice::from_ref(&facts)), Milli::from_units(200));
    let facts = annotated(facts, &[("threads-per-replica.orders", "4")]);
    assert_eq!(with(&[facts]), Milli::from_units(100));
}
