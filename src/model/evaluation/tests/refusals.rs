//! Questions that get no value, and in which words.

use super::*;

#[test]
fn no_value_is_served_before_the_hpas_are_listed() {
    let mut snapshot = snapshot(vec![observation(0, &[("t", &behind(6, 1800))])], &[]);
    let mut unlisted = Targets::clone(&snapshot.targets);
    unlisted.hpas_unlisted = true;
    assert_eq!(ask(&snapshot, "group=g").unwrap().lag, Some(Lag(1800)));
    snapshot.targets = Arc::new(unlisted);
    assert_eq!(ask(&snapshot, "group=g"), Err(NoValueReason::HpasUnlisted));
    let raw = ServingPolicy {
        clamp: false,
        ..POLICY
    };
    assert_eq!(
        ask_at(0, &snapshot, "group=g", &raw).unwrap().lag,
        Some(Lag(1800))
    );
}

#[test]
fn the_refusal_of_stale_readings_does_not_change_from_sweep_to_sweep() {
    let mut down = observation(5, &[]);
    down.groups[0].committed = Err(Fault::Unreachable);
    down.connection = Some(ConnectionFault {
        kind: Fault::Unreachable,
        reason: "k:9092: refused".into(),
        since: at(5),
    });
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 9))]), down], &[]);
    assert_eq!(
        ask_at(30, &snapshot, "group=g,topic=t", &POLICY)
            .unwrap()
            .lag,
        Some(Lag(9))
    );
    for seconds in [31, 300] {
        assert_eq!(
            ask_at(seconds, &snapshot, "group=g,topic=t", &POLICY)
                .unwrap_err()
                .to_string(),
            "lag of group \"g\" on Kafka cluster \"main\" is unknown since 1970-01-01T00:00:00Z: k:9092: refused"
        );
    }
}

#[test]
fn topics_named_by_other_targets_are_not_the_whole_group() {
    let mut named = observation(0, &[("t", &behind(1, 5))]);
    named.groups[0].plan.discover = false;
    let mut failed = observation(5, &[]);
    failed.groups[0].committed = Err(Fault::NoAnswer);
    let snapshot = snapshot(vec![named, failed], &[]);
    assert_eq!(ask(&snapshot, "group=g,topic=t").unwrap().lag, Some(Lag(5)));
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::Unknown { .. }),
        "{refusal}"
    );
}

#[test]
fn a_missing_topic_is_named() {
    let mut read = observation(0, &[("t", &[])]);
    read.topics.insert("t".into(), Err(Fault::TopicMissing));
    let refusal = ask(&snapshot(vec![read], &[]), "group=g,topic=t").unwrap_err();
    assert_eq!(
        refusal,
        NoValueReason::TopicMissing {
            topic: "t".into(),
            cluster: "main".into()
        }
    );
}

#[test]
fn a_group_that_was_never_read_is_requested() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(1, 1))])], &[]);
    let watch_key = |group: &str, topic: &str| WatchKey {
        cluster: "main".into(),
        group: group.into(),
        topics: [topic.into()].into(),
    };
    for (selector, unread) in [
        ("group=g,topic=new", watch_key("g", "new")),
        ("group=h,topic=t", watch_key("h", "t")),
    ] {
        assert_eq!(
            ask(&snapshot, selector).unwrap_err(),
            NoValueReason::NotYetRead(vec![unread]),
            "{selector}"
        );
    }
}

#[test]
fn refusals_say_what_to_write_instead() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(1, 1))])], &[]);
    for (selector, text) in [
        (
            "topic=t",
            "the selector \"topic=t\" names no consumer group; set for example matchLabels: {group: my-group, topic: my-topic}",
        ),
        (
            "group in (,g)",
            "the selector \"group in (,g)\" names no consumer group; set for example matchLabels: {group: my-group, topic: my-topic}",
        ),
        (
            "group=g,cluster=x",
            "the Kafka cluster \"x\" is not configured; the configured ones are main",
        ),
        (
            "group=g,topics=t",
            "the selector \"group=g,topics=t\" matches no topic of group \"g\"; it may use the labels group, topic, cluster, hpa and target",
        ),
        (
            "group=g,topic!=t",
            "the selector \"group=g,topic!=t\" matches no topic of group \"g\"; it may use the labels group, topic, cluster, hpa and target",
        ),
        (
            "target=x",
            "no target of the configuration matches \"target=x\" for namespace \"shop\"; configure the target, or add the namespace to it",
        ),
    ] {
        assert_eq!(ask(&snapshot, selector).unwrap_err().to_string(), text);
    }
}

#[test]
fn hpas_with_the_same_selector_and_different_targets_must_add_a_label() {
    let hpas = [
        hpa("a", "group=g", average(10)),
        hpa("b", "group=g", average(20)),
        hpa("c", "group=g,hpa=c", average(1)),
    ];
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 90))])], &hpas);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        refusal
            .to_string()
            .starts_with("HPAs a, b of namespace \"shop\""),
        "{refusal}"
    );
    assert_eq!(
        ask(&snapshot, "group=g,hpa=c").unwrap().value,
        Milli::from_units(2)
    );
}

#[test]
fn queries_from_unwatched_namespaces_are_refused() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 9))])], &[]);
    let only = |namespace: &str| ServingPolicy {
        namespaces: vec![namespace.to_owned()],
        ..POLICY
    };
    assert_eq!(
        ask_at(0, &snapshot, "group=g", &only("shop")).unwrap().lag,
        Some(Lag(9))
    );
    // Also for keys that were not read yet: nothing is read for a namespace to which nothing can be served.
    for selector in ["group=g", "group=another"] {
        assert_eq!(
            ask_at(0, &snapshot, selector, &only("other")).unwrap_err(),
            NoValueReason::NamespaceNotWatched {
                namespace: "shop".into()
            }
        );
    }
}

#[test]
fn an_hpa_with_two_targets_for_one_selector_is_refused() {
    let mut twice = hpa("a", "group=g", average(10));
    twice
        .metrics
        .extend(hpa("a", "group=g", average(20)).metrics);
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 90))])], &[twice]);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::ConflictingTargets { .. }),
        "{refusal}"
    );
}
