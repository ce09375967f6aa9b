//! Effects of annotations, members and the configuration on the value.

use super::*;
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::selector::Selector;

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
