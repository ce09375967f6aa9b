//! Answers: from what was read and what HPAs want to the value served, and to the HPA's own proposal.

use super::*;
use crate::model::annotations::PREFIX;
use crate::model::assembly::{ClusterHistory, Scope};
use crate::model::cap::CapMode;
use crate::model::fault::ConnectionFault;
use crate::model::fault::Fault;
use crate::model::finding::Finding;
use crate::model::group::{GroupDescription, GroupKind, GroupState, Member, Subtopology};
use crate::model::observation::{
    CommittedColumn, GroupObservation, GroupPlan, Observation, TopicOffsets,
};
use crate::model::parallelism::ParallelismRule;
use crate::model::standing::{Looking, findings, hpa_ceilings, of_tolerance, standings};
use crate::model::target::{ExternalMetric, HpaFacts, Interest, Targets};
use crate::model::target::{LAG_METRIC, StaticTarget};
use crate::model::types::Offset;
use crate::model::types::Partition;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub(super) const RULES: Rules = Rules {
    clamp: true,
    cap: crate::model::cap::CapMode::Advise,
    max_staleness: Duration::from_secs(30),
    namespaces: Vec::new(),
};

pub(super) fn at(seconds: u64) -> Moment {
    static ZERO: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let passed = Duration::from_secs(seconds);
    Moment {
        monotonic: *ZERO + passed,
        wall: SystemTime::UNIX_EPOCH + passed,
    }
}

/// The committed offset and the end of each partition of a topic.
pub(super) type Read<'a> = (&'a str, &'a [(Option<i64>, i64)]);

/// A group `g` on cluster `main`.
pub(super) fn observation(seconds: u64, topics: &[Read<'_>]) -> Observation {
    let offset = |o: i64| Ok(Offset(o));
    Observation {
        cluster: "main".into(),
        started: at(seconds),
        finished: at(seconds),
        topics: topics
            .iter()
            .map(|(name, partitions)| {
                let starts = partitions.iter().map(|_| offset(0)).collect();
                let ends = partitions.iter().map(|(_, end)| offset(*end)).collect();
                (
                    TopicName::from(*name),
                    Ok(Arc::new(TopicOffsets {
                        starts,
                        ends,
                        ..TopicOffsets::default()
                    })),
                )
            })
            .collect(),
        groups: vec![GroupObservation {
            plan: GroupPlan {
                discover: true,
                ..GroupPlan::new(
                    "g",
                    topics
                        .iter()
                        .map(|(name, _)| TopicName::from(*name))
                        .collect(),
                )
            },
            description: Err(Fault::Untold),
            committed: Ok(topics
                .iter()
                .map(|(name, partitions)| {
                    let column: CommittedColumn =
                        partitions.iter().map(|(c, _)| Ok(c.map(Offset))).collect();
                    (TopicName::from(*name), column)
                })
                .collect()),
        }],
        connection: None,
        traffic: None,
    }
}

pub(super) fn hpa(name: &str, selector: &str, wanted: MetricTarget) -> HpaFacts {
    HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(selector).unwrap(),
            target: Some(wanted),
        }],
        ..HpaFacts::default()
    }
}

fn average(units: u64) -> MetricTarget {
    MetricTarget::AverageValue(Milli::from_units(units))
}

pub(super) fn snapshot(observations: Vec<Observation>, hpas: &[HpaFacts]) -> LagSnapshot {
    let mut history = ClusterHistory::default();
    let mut latest = Arc::default();
    for observation in observations {
        latest = history.take_in(observation, Scope::Whole);
    }
    LagSnapshot {
        sequence: 1,
        term: 0,
        targets: Arc::new(Targets::merge(&["main".into()], &[], hpas, BTreeSet::new())),
        clusters: [("main".into(), latest)].into(),
        idle: Arc::default(),
        findings: Arc::default(),
    }
}

fn ask_at(
    seconds: u64,
    snapshot: &LagSnapshot,
    selector: &str,
    rules: &Rules,
) -> Result<Answer, Refusal> {
    let selector = Selector::parse(selector).unwrap();
    let question = Question {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    answer(&question, snapshot, &at(seconds), rules)
}

fn ask(snapshot: &LagSnapshot, selector: &str) -> Result<Answer, Refusal> {
    ask_at(0, snapshot, selector, &RULES)
}

/// `partitions` partitions with `lag` messages behind in all.
pub(super) fn behind(partitions: usize, lag: i64) -> Vec<(Option<i64>, i64)> {
    let mut column = vec![(Some(0), 0); partitions];
    column[0].1 = lag;
    column
}

/// What the HPA proposes for an AverageValue target: within the tolerance `status.replicas`,
/// otherwise the sum divided and rounded up
/// (`pkg/controller/podautoscaler/replica_calculator.go`, `GetExternalPerPodMetricReplicas`).
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the HPA computes so"
)]
pub(super) fn hpa_proposes(value: Milli, target: Milli, replicas: u64, tolerance: f64) -> u64 {
    let (sum, per) = (value.thousandths() as f64, target.thousandths() as f64);
    let ratio = sum / (per * replicas as f64);
    if replicas > 0 && (1.0 - ratio).abs() <= tolerance {
        replicas
    } else {
        (sum / per).ceil() as u64
    }
}

#[test]
fn without_the_clamp_it_serves_what_it_measures() {
    let snapshot = snapshot(
        vec![observation(0, &[("t", &behind(6, 1800))])],
        &[hpa("h", "group=g", average(100))],
    );
    assert_eq!(ask(&snapshot, "group=g").unwrap().rule, ValueRule::Clamped);
    let raw = ask_at(
        0,
        &snapshot,
        "group=g",
        &Rules {
            clamp: false,
            ..RULES
        },
    )
    .unwrap();
    assert_eq!(
        (raw.value, raw.rule),
        (Milli::from_units(1800), ValueRule::AsMeasured)
    );
}

#[test]
fn nothing_is_served_unclamped_while_the_hpas_are_not_known() {
    let mut snapshot = snapshot(vec![observation(0, &[("t", &behind(6, 1800))])], &[]);
    let mut unlisted = Targets::clone(&snapshot.targets);
    unlisted.hpas_unlisted = true;
    assert_eq!(ask(&snapshot, "group=g").unwrap().lag, Some(Lag(1800)));
    snapshot.targets = Arc::new(unlisted);
    assert_eq!(ask(&snapshot, "group=g"), Err(Refusal::HpasUnlisted));
    let raw = Rules {
        clamp: false,
        ..RULES
    };
    assert_eq!(
        ask_at(0, &snapshot, "group=g", &raw).unwrap().lag,
        Some(Lag(1800))
    );
}

#[test]
fn selectors_pick_topics() {
    let read: [(&str, &[_]); 2] = [("a", &[(Some(0), 5)]), ("b", &[(Some(0), 70)])];
    let snapshot = snapshot(vec![observation(0, &read)], &[]);
    for (selector, lag) in [
        ("group=g", 75),
        ("group=g,topic=a", 5),
        ("group=g,topic in (a,b)", 75),
        ("group=g,topic!=b", 5),
        ("group=g,cluster=main", 75),
    ] {
        assert_eq!(
            ask(&snapshot, selector).unwrap().lag,
            Some(Lag(lag)),
            "{selector}"
        );
    }
}

#[test]
fn the_value_passes_the_clamp_only_while_the_maximum_is_seen_to_hold() {
    let served = |mode: Option<&str>, max_replicas, default, lag| {
        let mut capped = hpa("h", "group=g", average(1000));
        capped.max_replicas = max_replicas;
        let mode = mode.map(|mode| ("lagwise.dev/cap".to_owned(), mode.to_owned()));
        capped.annotations = mode.into_iter().collect();
        let read = observation(0, &[("t", &behind(24, lag))]);
        let rules = Rules {
            cap: default,
            ..RULES
        };
        let answer = ask_at(0, &snapshot(vec![read], &[capped]), "group=g", &rules).unwrap();
        (answer.value, answer.rule)
    };
    let clamped = (Milli::from_units(24_000), ValueRule::Clamped);
    let (enforce, advise) = (CapMode::Enforce, CapMode::Advise);
    for (mode, max, default) in [
        (None, 24, advise),
        (Some("advise"), 24, enforce),
        // Not yet, or no longer.
        (Some("enforce"), 25, advise),
        (None, 30, enforce),
    ] {
        assert_eq!(
            served(mode, max, default, 55_000),
            clamped,
            "{mode:?} {max}"
        );
    }
    for (mode, max, default) in [(Some("enforce"), 24, advise), (None, 20, enforce)] {
        let (value, rule) = served(mode, max, default, 55_000);
        assert_eq!(rule, ValueRule::Lifted);
        for now in 1..24 {
            let proposed = hpa_proposes(value, Milli::from_units(1000), now, 0.1);
            assert!(proposed >= 24, "{proposed} from {now}");
        }
        let less = (Milli::from_units(23_000), ValueRule::AsMeasured);
        assert_eq!(served(mode, max, default, 23_000), less);
    }
}

#[test]
fn who_may_go_to_zero_is_served_one_replicas_worth_until_the_cooldown_is_over() {
    let mut sleeper = hpa("h", "group=g", average(100));
    for (key, value) in [("scale-to-zero", "true"), ("cooldown", "2m")] {
        let key = format!("lagwise.dev/{key}");
        sleeper.annotations.insert(key, value.to_owned());
    }
    let none = observation(0, &[("t", &[(Some(5), 5)])]);
    let mut idle = snapshot(vec![none], &[sleeper]);
    let mut expect = |since: Option<u64>, now, expected, rule| {
        let hpa = || (Arc::from("shop"), Arc::from("h"));
        idle.idle = Arc::new(since.map(|since| (hpa(), at(since))).into_iter().collect());
        let rules = Rules {
            max_staleness: Duration::from_secs(3600),
            ..RULES
        };
        let answer = ask_at(now, &idle, "group=g", &rules).unwrap();
        let expected = (Milli::from_units(expected), rule);
        assert_eq!((answer.value, answer.rule), expected, "{since:?} {now}");
    };
    // Until the poller has said since when, nothing is known of that.
    expect(None, 900, 100, ValueRule::Cooldown);
    expect(Some(0), 119, 100, ValueRule::Cooldown);
    expect(Some(0), 120, 0, ValueRule::AsMeasured);
}

#[test]
fn a_group_that_never_ran_is_served_one_replicas_worth() {
    let never: &[_] = &[(None, 500), (None, 0)];
    let snapshot = snapshot(
        vec![observation(0, &[("t", never)])],
        &[hpa("h", "group=g,topic=t", average(100))],
    );
    let answer = ask(&snapshot, "group=g,topic=t").unwrap();
    assert_eq!(
        (answer.value, answer.rule, answer.lag),
        (Milli::from_units(100), ValueRule::NeverRan, Some(Lag(0)))
    );
    // Somebody who wants nothing per replica is told the lag as it is.
    assert_eq!(
        ask(&snapshot, "group=g").unwrap_err(),
        Refusal::NothingCommitted {
            group: "g".into(),
            cluster: "main".into()
        }
    );
}

#[test]
fn stale_readings_are_refused_in_constant_words() {
    let mut down = observation(5, &[]);
    down.groups[0].committed = Err(Fault::Unreachable);
    down.connection = Some(ConnectionFault {
        kind: Fault::Unreachable,
        reason: "k:9092: refused".into(),
        since: at(5),
    });
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 9))]), down], &[]);
    assert_eq!(
        ask_at(30, &snapshot, "group=g,topic=t", &RULES)
            .unwrap()
            .lag,
        Some(Lag(9))
    );
    for seconds in [31, 300] {
        assert_eq!(
            ask_at(seconds, &snapshot, "group=g,topic=t", &RULES)
                .unwrap_err()
                .to_string(),
            "lag of group \"g\" on Kafka cluster \"main\" is unknown since 1970-01-01T00:00:00Z: k:9092: refused"
        );
    }
}

#[test]
fn topics_that_others_named_are_not_the_whole_group() {
    let mut named = observation(0, &[("t", &behind(1, 5))]);
    named.groups[0].plan.discover = false;
    let mut failed = observation(5, &[]);
    failed.groups[0].committed = Err(Fault::NoAnswer);
    let snapshot = snapshot(vec![named, failed], &[]);
    assert_eq!(ask(&snapshot, "group=g,topic=t").unwrap().lag, Some(Lag(5)));
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(matches!(refusal, Refusal::Unknown { .. }), "{refusal}");
}

#[test]
fn a_missing_topic_is_named() {
    let mut read = observation(0, &[("t", &[])]);
    read.topics.insert("t".into(), Err(Fault::TopicMissing));
    let refusal = ask(&snapshot(vec![read], &[]), "group=g,topic=t").unwrap_err();
    assert_eq!(
        refusal,
        Refusal::TopicMissing {
            topic: "t".into(),
            cluster: "main".into()
        }
    );
}

#[test]
fn what_was_never_read_is_asked_for() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(1, 1))])], &[]);
    let interest = |group: &str, topic: &str| Interest {
        cluster: "main".into(),
        group: group.into(),
        topics: [topic.into()].into(),
    };
    for (selector, unread) in [
        ("group=g,topic=new", interest("g", "new")),
        ("group=h,topic=t", interest("h", "t")),
    ] {
        assert_eq!(
            ask(&snapshot, selector).unwrap_err(),
            Refusal::NotYetRead(vec![unread]),
            "{selector}"
        );
    }
}

#[test]
fn questions_without_an_answer_say_what_to_write() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(1, 1))])], &[]);
    for (selector, text) in [
        (
            "topic=t",
            "the selector \"topic=t\" names no consumer group: write for example matchLabels: {group: my-group, topic: my-topic}",
        ),
        (
            "group in (,g)",
            "the selector \"group in (,g)\" names no consumer group: write for example matchLabels: {group: my-group, topic: my-topic}",
        ),
        (
            "group=g,cluster=x",
            "the Kafka cluster \"x\" is not configured: known are main",
        ),
        (
            "group=g,topics=t",
            "the selector \"group=g,topics=t\" leaves out every topic of group \"g\": the labels that can be matched are group, topic, cluster, hpa and target",
        ),
        (
            "group=g,topic!=t",
            "the selector \"group=g,topic!=t\" leaves out every topic of group \"g\": the labels that can be matched are group, topic, cluster, hpa and target",
        ),
        (
            "target=x",
            "no target of the configuration matches \"target=x\" for namespace \"shop\"",
        ),
    ] {
        assert_eq!(ask(&snapshot, selector).unwrap_err().to_string(), text);
    }
}

#[test]
fn two_hpas_that_want_different_lag_have_to_say_who_they_are() {
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
fn namespaces_whose_hpas_are_not_watched_are_refused() {
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 9))])], &[]);
    let only = |namespace: &str| Rules {
        namespaces: vec![namespace.to_owned()],
        ..RULES
    };
    assert_eq!(
        ask_at(0, &snapshot, "group=g", &only("shop")).unwrap().lag,
        Some(Lag(9))
    );
    // Also what has not been read yet: nothing is read for whom nothing can be served.
    for selector in ["group=g", "group=another"] {
        assert_eq!(
            ask_at(0, &snapshot, selector, &only("other")).unwrap_err(),
            Refusal::NamespaceNotWatched {
                namespace: "shop".into()
            }
        );
    }
}

#[test]
fn one_hpa_that_wants_two_things_of_one_selector_is_refused() {
    let mut twice = hpa("a", "group=g", average(10));
    twice
        .metrics
        .extend(hpa("a", "group=g", average(20)).metrics);
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 90))])], &[twice]);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    assert!(
        matches!(refusal, Refusal::ConflictingTargets { .. }),
        "{refusal}"
    );
}

#[test]
fn a_value_target_is_not_clamped() {
    let hpas = [hpa(
        "a",
        "group=g",
        MetricTarget::Value(Milli::from_units(10)),
    )];
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 900))])], &hpas);
    assert_eq!(
        ask(&snapshot, "group=g").unwrap().value,
        Milli::from_units(900)
    );
}

pub(super) fn annotated(mut hpa: HpaFacts, annotations: &[(&str, &str)]) -> HpaFacts {
    let ours = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), (*value).to_owned());
    hpa.annotations = annotations.iter().map(ours).collect();
    hpa
}

fn member(subscribed: &[&str]) -> Member {
    let assigned = |topic: &&str| (TopicName::from(*topic), Vec::<Partition>::from([0]));
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: Some(subscribed.iter().map(|t| TopicName::from(*t)).collect()),
        assigned: subscribed.iter().map(assigned).collect(),
    }
}

fn described(assignor: Option<&str>, members: &[&[&str]]) -> Arc<GroupDescription> {
    Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: if members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        },
        assignor: assignor.map(Arc::from),
        members: members.iter().map(|topics| member(topics)).collect(),
        subtopologies: Vec::new(),
    })
}

/// A sweep in which the group was described so.
fn told(description: Arc<GroupDescription>, topics: &[Read<'_>]) -> Observation {
    let mut read = observation(0, topics);
    read.groups[0].description = Ok(description);
    read
}

/// A row of the table of lag and replicas, with both tolerances 0.
struct Row<'a> {
    topics: Vec<Vec<(Option<i64>, i64)>>,
    annotations: &'a [(&'a str, &'a str)],
    per: u64,
    now: u64,
}

impl Row<'_> {
    fn snapshot(&self) -> LagSnapshot {
        let names = ["t0", "t1", "t2"];
        let topics: Vec<_> = names
            .iter()
            .zip(&self.topics)
            .map(|(name, column)| (*name, column.as_slice()))
            .collect();
        let hpa = annotated(
            hpa("h", "group=g,topic in (t0,t1,t2)", average(self.per)),
            self.annotations,
        );
        let mut hpas = [hpa];
        let picked: Vec<_> = names[..self.topics.len()].to_vec();
        hpas[0].metrics[0].selector =
            Selector::parse(&format!("group=g,topic in ({})", picked.join(","))).unwrap();
        snapshot(vec![observation(0, &topics)], &hpas)
    }

    fn answer(&self) -> Answer {
        let snapshot = self.snapshot();
        let selector = snapshot.targets.all[0].selector.clone().unwrap();
        ask(&snapshot, &selector.to_string()).unwrap()
    }

    fn proposed(&self, tolerance: f64) -> u64 {
        let per = Milli::from_units(self.per);
        hpa_proposes(self.answer().value, per, self.now, tolerance)
    }
}

#[test]
fn row_five_partitions_and_a_lag_between_five_and_six_replicas_worth() {
    for lag in 26..=29 {
        let row = Row {
            topics: vec![behind(5, lag)],
            annotations: &[],
            per: 5,
            now: 4,
        };
        assert_eq!(row.proposed(0.0), 5, "{lag}");
    }
}

#[test]
fn row_twenty_four_partitions_are_reached_without_tolerance_and_a_finding_says_so() {
    let row = Row {
        topics: vec![behind(24, 55_000)],
        annotations: &[],
        per: 1000,
        now: 22,
    };
    assert_eq!(row.proposed(0.0), 24);
    assert_eq!(row.proposed(0.1), 22);
    let mut facts = hpa("h", "group=g", average(1000));
    facts.max_replicas = 24;
    let expected = [Finding::ToleranceBelow {
        hpa: "shop/h".into(),
        from: 22,
        goal: 24,
    }];
    assert_eq!(of_tolerance(&facts, Replicas(24)), expected);
    facts.tolerance_up = Milli::parse("0");
    assert_eq!(of_tolerance(&facts, Replicas(24)), []);
}

#[test]
fn row_by_lagging() {
    let row = Row {
        topics: vec![behind(8, 19)],
        annotations: &[("by", "lagging")],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 1);
    let ceiling = row.answer().ceiling.unwrap();
    assert_eq!(ceiling.useful.rule, ParallelismRule::Lagging);
}

#[test]
fn row_even() {
    let row = Row {
        topics: vec![behind(13, 14)],
        annotations: &[("even", "true")],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 2);
    assert_eq!(row.answer().rule, ValueRule::Even);
}

#[test]
fn row_no_commits_under_latest() {
    let row = Row {
        topics: vec![vec![(None, 500); 100]],
        annotations: &[],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 1);
    assert_eq!(
        (row.answer().rule, row.answer().lag),
        (ValueRule::NeverRan, Some(Lag(0)))
    );
}

#[test]
fn row_two_topics_by_range() {
    let row = Row {
        topics: vec![behind(12, 900), behind(4, 0)],
        annotations: &[],
        per: 10,
        now: 12,
    };
    assert_eq!(row.proposed(0.0), 12);
}

/// The clamp bounds our own metric; the other one is bounded by the enforced maximum alone.
#[test]
fn row_another_metric_of_the_hpa_is_left_to_enforcement() {
    let row = Row {
        topics: vec![behind(12, 40)],
        annotations: &[],
        per: 10,
        now: 8,
    };
    assert_eq!(row.proposed(0.0), 4);
    let snapshot = row.snapshot();
    let now = at(0);
    let standing = standings(&snapshot.targets, &snapshot, &now, &RULES);
    assert_eq!(
        hpa_ceilings(&standing),
        [(("shop", "h"), Limit::Bounded(Replicas(12)))].into()
    );
}

#[test]
fn six_partitions() {
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
    assert!(matches!(refusal, Refusal::NoPartition { .. }), "{refusal}");
}

#[test]
fn an_unknown_partition_that_does_not_count_makes_nothing_unknown() {
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
    assert!(matches!(refusal, Refusal::Unknown { .. }), "{refusal}");
}

#[test]
fn left_open_topics_are_those_that_members_read() {
    let read: [Read<'_>; 3] = [
        ("new", &[(None, 9)]),
        ("old", &[(Some(0), 1000)]),
        ("t", &[(Some(0), 5), (Some(0), 0)]),
    ];
    let hpas = [hpa("h", "group=g", average(10))];
    // `old` has commits of a former version; `new` has none yet, and is read.
    let working = told(described(Some("range"), &[&["new", "t"]]), &read);
    let snapshot_of = |sweeps| snapshot(sweeps, &hpas);
    assert_eq!(
        ask(&snapshot_of(vec![working.clone()]), "group=g")
            .unwrap()
            .lag,
        Some(Lag(5))
    );
    // What they read is remembered while there is none.
    let empty = told(described(None, &[]), &read);
    let after = snapshot_of(vec![working, empty.clone()]);
    assert_eq!(ask(&after, "group=g").unwrap().lag, Some(Lag(5)));
    // Where nobody was ever seen, it is what has commits.
    assert_eq!(
        ask(&snapshot_of(vec![empty]), "group=g").unwrap().lag,
        Some(Lag(1005))
    );
}

#[test]
fn a_topic_that_members_read_is_read_before_anything_is_said() {
    let read: [Read<'_>; 1] = [("t", &[(Some(0), 5)])];
    let working = told(described(Some("range"), &[&["new", "t"]]), &read);
    let snapshot = snapshot(vec![working], &[hpa("h", "group=g", average(10))]);
    let refusal = ask(&snapshot, "group=g").unwrap_err();
    let Refusal::NotYetRead(unread) = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(unread[0].topics, ["new".into()].into());
    let plan = snapshot
        .targets
        .plan(&"main".into(), &snapshot.clusters["main"]);
    assert_eq!(plan.groups[0].topics, ["new".into(), "t".into()].into());
    assert!(plan.groups[0].discover);
}

#[test]
fn a_topic_that_was_deleted_under_its_members_has_no_lag() {
    let read: [Read<'_>; 2] = [("gone", &[]), ("t", &[(Some(0), 5)])];
    let mut working = told(described(Some("range"), &[&["gone", "t"]]), &read);
    working
        .topics
        .insert("gone".into(), Err(Fault::TopicMissing));
    let snapshot = snapshot(vec![working], &[hpa("h", "group=g", average(10))]);
    assert_eq!(ask(&snapshot, "group=g").unwrap().lag, Some(Lag(5)));
    assert!(matches!(
        ask(&snapshot, "group=g,topic=gone"),
        Err(Refusal::TopicMissing { .. })
    ));
}

#[test]
fn a_regex_picks_from_what_the_group_reads() {
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
        matches!(refusal, Refusal::NothingMatches { .. }),
        "{refusal}"
    );
}

#[test]
fn partitions_added_and_assignors_seen_move_the_ceiling() {
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
            vec![told(Arc::clone(&range), &few)],
            6,
            ParallelismRule::LargestTopic,
        ),
        (
            vec![told(Arc::clone(&range), &few), told(range, &more)],
            12,
            ParallelismRule::LargestTopic,
        ),
        (vec![told(sticky, &more)], 14, ParallelismRule::AllTopics),
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
fn a_share_group_is_not_clamped_and_a_streams_group_has_its_tasks() {
    let read: [Read<'_>; 1] = [("t", &[(Some(0), 900), (Some(0), 0)])];
    let kind = |kind, subtopologies| {
        let mut description = (*described(None, &[&["t"]])).clone();
        description.kind = kind;
        description.subtopologies = subtopologies;
        let sweep = told(Arc::new(description), &read);
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
fn a_group_whose_name_is_no_label_is_named_by_an_annotation() {
    let mut read = observation(0, &[("t", &[(Some(0), 5)])]);
    read.groups[0].plan.group = "Orders Group/1".into();
    let facts = annotated(
        hpa("h", "group=orders", average(10)),
        &[("consumer-group", "Orders Group/1")],
    );
    let mut without = facts.clone();
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
        Err(Refusal::NotYetRead(_))
    ));
}

#[test]
fn hpas_that_select_alike_and_set_other_things_have_to_say_who_they_are() {
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
        matches!(refusal, Refusal::ConflictingTargets { .. }),
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
fn a_configured_target_brings_its_settings_and_the_hpa_goes_before_it() {
    let fixed = StaticTarget {
        name: "orders".into(),
        namespaces: Vec::new(),
        cluster: "main".into(),
        group: "g".into(),
        per_replica: Some(Milli::from_units(10)),
        settings: crate::model::settings::Settings {
            threads: NonZeroU32::new(2),
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

/// A group that was last read completely at 0 and not since.
fn out_of_reach(annotations: &[(&str, &str)]) -> LagSnapshot {
    let mut down = observation(5, &[]);
    down.groups[0].committed = Err(Fault::Unreachable);
    let facts = annotated(hpa("h", "group=g,topic=t", average(10)), annotations);
    snapshot(
        vec![observation(0, &[("t", &behind(4, 9))]), down],
        &[facts],
    )
}

#[test]
fn after_long_unknown_the_fallback_is_served_where_one_is_set() {
    let set = [("fallback-replicas", "3"), ("fallback-after", "2m")];
    let served = |snapshot: &LagSnapshot, seconds| {
        let answer = ask_at(seconds, snapshot, "group=g,topic=t", &RULES);
        answer.map(|a| (a.value.thousandths() / 1000, a.rule, a.lag))
    };
    let snapshot = out_of_reach(&set);
    assert_eq!(
        served(&snapshot, 30),
        Ok((9, ValueRule::AsMeasured, Some(Lag(9))))
    );
    assert!(served(&snapshot, 119).is_err());
    assert_eq!(served(&snapshot, 120), Ok((30, ValueRule::Fallback, None)));
    // Off by default, and the time alone turns nothing on.
    for annotations in [&[][..], &set[1..]] {
        assert!(served(&out_of_reach(annotations), 100_000).is_err());
    }
    // Never above the ceiling that was known last.
    let many = [("fallback-replicas", "9"), ("fallback-after", "2m")];
    assert_eq!(
        served(&out_of_reach(&many), 500),
        Ok((40, ValueRule::Fallback, None))
    );
    let standing = standings(&snapshot.targets, &snapshot, &at(120), &RULES);
    let looking = Looking {
        cap: CapMode::Advise,
        members_within: Duration::ZERO,
    };
    let found = findings::<HpaFacts>(&snapshot, &standing, &[], looking);
    let expected = Finding::FallbackServed {
        hpa: "shop/h".into(),
    };
    assert_eq!(found, [expected].into());
}

#[test]
fn what_was_never_read_is_unknown_since_it_is_wanted() {
    let set = [("fallback-replicas", "3"), ("fallback-after", "2m")];
    let mut snapshot = out_of_reach(&set);
    let mut targets = (*snapshot.targets).clone();
    targets = targets.since(&Targets::default(), at(100));
    snapshot.targets = Arc::new(targets);
    snapshot.clusters = BTreeMap::new();
    let served = |seconds| ask_at(seconds, &snapshot, "group=g,topic=t", &RULES);
    assert!(matches!(served(219), Err(Refusal::NotYetRead(_))));
    assert_eq!(served(220).unwrap().value, Milli::from_units(30));
    assert_eq!(served(220).unwrap().ceiling, None);
}

#[test]
fn a_fallback_is_no_way_around_what_the_hpas_want() {
    let mut snapshot = out_of_reach(&[("fallback-replicas", "3"), ("fallback-after", "2m")]);
    let mut targets = (*snapshot.targets).clone();
    targets.hpas_unlisted = true;
    snapshot.targets = Arc::new(targets);
    assert!(ask_at(500, &snapshot, "group=g,topic=t", &RULES).is_err());
    // A missing topic is no outage.
    let mut gone = observation(0, &[("t", &[])]);
    gone.topics.insert("t".into(), Err(Fault::TopicMissing));
    let facts = annotated(
        hpa("h", "group=g,topic=t", average(10)),
        &[("fallback-replicas", "3"), ("fallback-after", "2m")],
    );
    let snapshot = self::snapshot(vec![gone], &[facts]);
    let refusal = ask_at(500, &snapshot, "group=g,topic=t", &RULES).unwrap_err();
    assert!(matches!(refusal, Refusal::TopicMissing { .. }), "{refusal}");
}

proptest! {
    /// The HPA's own formula on what is served, from every number of replicas there may be.
    #[test]
    fn the_hpa_never_proposes_more_than_the_ceiling(
        lags in proptest::collection::vec(proptest::collection::vec(0i64..=i64::MAX, 1..20), 1..4),
        small: bool,
        thousandths in 1u64..10_000_000,
        assignor in proptest::sample::select(vec![None, Some("range"), Some("sticky")]),
        threads in 1u32..5,
        even: bool,
        lagging: bool,
        max in 1u32..80,
    ) {
        let names = ["a", "b", "c"];
        let columns: Vec<Vec<_>> = lags
            .iter()
            .map(|column| column.iter().map(|lag| (Some(0), if small { lag % 1000 } else { *lag })).collect())
            .collect();
        let topics: Vec<_> = names.iter().zip(&columns).map(|(n, c)| (*n, c.as_slice())).collect();
        let all: u64 = columns.iter().map(|c| c.len() as u64).sum();
        let target = Milli::parse(&format!("{thousandths}m")).unwrap();
        let threads = threads.to_string();
        let mut facts = annotated(
            hpa("h", "group=g", MetricTarget::AverageValue(target)),
            &[
                ("threads-per-replica", &threads),
                ("even", if even { "true" } else { "false" }),
                ("by", if lagging { "lagging" } else { "partitions" }),
            ],
        );
        facts.max_replicas = max;
        let working = told(described(assignor, &[&names[..topics.len()]]), &topics);
        let snapshot = snapshot(vec![working], std::slice::from_ref(&facts));
        let answer = ask(&snapshot, "group=g").unwrap();
        let ceiling = answer.ceiling.unwrap().replicas.bounded().unwrap();
        prop_assert!(u64::from(ceiling) <= all);
        let told_of = !of_tolerance(&facts, Replicas(ceiling)).is_empty();
        for now in 0..=u64::from(max) {
            // Both tolerances 0: at most the ceiling, wherever it stands.
            let exact = hpa_proposes(answer.value, target, now, 0.0);
            prop_assert!(exact <= u64::from(ceiling), "{} from {}", exact, now);
            // The default: perhaps what there is, and then somebody is told.
            let loose = hpa_proposes(answer.value, target, now, 0.1);
            prop_assert!(loose <= u64::from(ceiling).max(now));
            prop_assert!(loose <= u64::from(ceiling) || told_of);
            // One too few, with all there is to do: somebody is told as well.
            if loose < exact && answer.rule == ValueRule::Clamped && now < u64::from(max) {
                prop_assert!(told_of, "{} stays, {} wanted", loose, exact);
            }
        }
        // Plain and below the ceiling, the value is the lag itself.
        if answer.rule == ValueRule::AsMeasured {
            prop_assert_eq!(answer.value, Milli::from_units(answer.lag.unwrap().0));
        }
    }
}
