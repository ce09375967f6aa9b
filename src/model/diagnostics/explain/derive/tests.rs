use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::evaluation::Ceiling;
use crate::model::evaluation::parallelism::Parallelism;
use crate::model::findings::FindingCode;
use crate::model::fixtures;
use crate::model::hpa::facts::{HpaFacts, MetricTarget};
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::topic_listing::Unlisted;
use crate::model::kafka::topic_listing::testing::listing;
use crate::model::lag::assembly::Scope;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Replicas, TopicName};
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::model::units::quantity::Milli;

#[test]
fn every_value_rule_has_an_explanation() {
    let limit = Limit::Bounded(Replicas(24));
    let answer = |rule| MetricValue {
        metric: Metric::Lag,
        value: Milli::from_units(2400),
        desired: Some(24),
        uncapped: Some(100),
        lag: Some(Lag(9999)),
        ceiling: Some(Ceiling {
            replicas: limit,
            useful: Parallelism {
                limit,
                rule: ParallelismRule::OneTopic,
            },
            threads: NonZeroU32::MIN,
        }),
        wanted: Some(Milli::from_units(100)),
        rule,
        read: fixtures::at(Duration::ZERO),
    };
    for (rule, words) in [
        (ValueRule::AsMeasured, "unchanged"),
        (ValueRule::Clamped, "ceiling x lag per replica: 24 x 100"),
        (ValueRule::Lifted, "reaches the ceiling of 24"),
        (ValueRule::Even, "share the partitions evenly"),
        (ValueRule::NeverRan, "has no committed offset"),
        (ValueRule::Cooldown, "the cooldown is not over yet"),
        (ValueRule::Fallback, "longer than fallback-after"),
    ] {
        let text = because(&answer(rule));
        assert!(text.contains(words), "{rule:?}: {text}");
    }
}

#[test]
fn selects_findings_of_the_hpa_and_its_groups() {
    let groups = [("main".into(), "g".into())].into();
    let mixed = |group: &str| {
        let (cluster, group) = (ClusterName::from("main"), GroupId::from(group));
        Finding::new(FindingCode::MixedSubscriptions, (&cluster, &group), "m")
    };
    let no_group = |name: &str| Finding::new(FindingCode::NoGroup, HpaKey::new("shop", name), "m");
    let orders = HpaKey::new("shop", "orders");
    for (finding, expected) in [
        (mixed("g"), true),
        (mixed("h"), false),
        (no_group("orders"), true),
        (no_group("orders-2"), false),
    ] {
        assert_eq!(is_about(&finding, &orders, &groups), expected, "{finding}");
    }
}

/// Explains a group that was read on topic `orders` by this plan.
fn explained_group(discover: bool, topics: &[&str]) -> Explanation {
    let rows = [(0, Ok(Some(3)), Ok(8))];
    let mut observation = fixtures::read(Duration::ZERO, "g", "orders", &rows);
    observation.groups[0].plan.discover = discover;
    let snapshot = fixtures::evaluated(&[], [observation], Scope::Whole);
    let key = WatchKey {
        cluster: "main".into(),
        group: "g".into(),
        topics: topics.iter().map(|topic| TopicName::from(*topic)).collect(),
    };
    let now = fixtures::at(Duration::ZERO);
    derive(&Subject::Group(key), snapshot.at(&now), [].into_iter()).unwrap()
}

#[test]
fn a_group_is_explained_by_the_topics_that_a_target_reads() {
    let partly = explained_group(false, &[]);
    assert!(!partly.is_unknown(), "{partly:?}");
    assert_eq!(
        partly.verdict,
        "group g on cluster main has lag 5, and at most 1 member can have work"
    );
    assert_eq!(partly.not_knowable, [OTHER_TOPICS]);
    for (discover, topics) in [(true, &[][..]), (false, &["orders"])] {
        let whole = explained_group(discover, topics);
        assert_eq!(whole.metrics, partly.metrics, "{discover} {topics:?}");
        assert_eq!(whole.not_knowable, [""; 0]);
    }
    let other = explained_group(false, &["payments"]);
    assert!(other.is_unknown(), "{other:?}");
}

/// A sweep of group `g`, which has one member on topic `orders-eu`.
fn working() -> Observation {
    let rows = [(0, Ok(Some(5)), Ok(5))];
    let mut sweep = fixtures::read(Duration::ZERO, "g", "orders-eu", &rows);
    sweep.groups[0].description = Ok(Arc::new(fixtures::member_of("orders-eu")));
    sweep
}

/// The same group without members, for which these topics of the cluster were listed.
fn asleep(listed: Result<&[&str], Unlisted>) -> Observation {
    let mut sweep = working();
    let empty = GroupDescription::memberless(GroupKind::Classic, GroupState::Empty);
    sweep.groups[0].description = Ok(Arc::new(empty));
    sweep.listings = [("g".into(), Arc::new(listing("orders-.*", listed)))].into();
    sweep
}

/// What is said, after these sweeps, about the topics that match the topic regex of an HPA.
fn explained_listing(sweeps: Vec<Observation>) -> Option<String> {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let regex = ("lagwise.dev/topic-regex".to_owned(), "orders-.*".to_owned());
    let hpa = HpaFacts {
        annotations: [regex].into(),
        ..fixtures::hpa("billing", "group=g", target)
    };
    let snapshot = fixtures::evaluated(&[hpa], sweeps, Scope::Whole);
    let now = fixtures::at(Duration::ZERO);
    let subject = Subject::Hpa(HpaKey::new("shop", "billing"));
    let explanation = derive(&subject, snapshot.at(&now), [].into_iter()).unwrap();
    explanation.metrics[0].groups[0].listing.clone()
}

#[test]
fn topics_that_match_a_regex_are_named_while_the_group_has_no_members() {
    let new = || asleep(Ok(&["orders-new"]));
    let newer = || asleep(Ok(&["orders-new", "orders-newer"]));
    for (sweeps, expected) in [
        (vec![working()], None),
        (
            vec![working(), asleep(Ok(&[]))],
            Some("no topic without a commit matches the topic regex"),
        ),
        (
            vec![working(), new()],
            Some(
                "these topics match the topic regex and count without a commit while the group has no members: orders-new",
            ),
        ),
        (
            vec![working(), asleep(Err(Unlisted::Failed(Fault::TopicDenied)))],
            Some(
                "topics without a commit do not count: the topics of the cluster could not be listed: not authorized: \
                 the principal lacks Describe on the topic",
            ),
        ),
        // Members came because of it, and did not read it.
        (
            vec![working(), new(), working(), new()],
            Some(
                "topics without a commit that match the topic regex do not count, since earlier members did not read them: orders-new",
            ),
        ),
        (
            vec![working(), new(), working(), newer()],
            Some(
                "these topics match the topic regex and count without a commit while the group has no members: orders-newer; \
                 these match but do not count, since earlier members did not read them: orders-new",
            ),
        ),
        // While it has members, they report what they read.
        (vec![working(), new(), working()], None),
    ] {
        assert_eq!(explained_listing(sweeps).as_deref(), expected);
    }
}

#[test]
fn says_why_a_group_or_topic_is_not_read() {
    let topic = explained_group(false, &["orders", "nope"]);
    let part = &topic.metrics[0].groups[0];
    let expected =
        r#"topic "nope" is not read for this group; to read it, name it in an HPA or a target"#;
    assert_eq!(part.unknown.as_deref(), Some(expected));
    let snapshot = fixtures::evaluated(&[], [], Scope::Whole);
    let now = fixtures::at(Duration::ZERO);
    let key = WatchKey {
        cluster: "main".into(),
        group: "nope".into(),
        topics: [].into(),
    };
    let group = derive(&Subject::Group(key), snapshot.at(&now), [].into_iter()).unwrap();
    let part = &group.metrics[0].groups[0];
    let expected = r#"no HPA or target names group "nope", so it is not read"#;
    assert_eq!(part.unknown.as_deref(), Some(expected));
}
