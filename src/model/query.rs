//! One metric request -> its value, or why there is none.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Fault;
use super::parallelism::useful_parallelism;
use super::quantity::Milli;
use super::refusal::Refusal;
use super::selector::Selector;
use super::snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, LagSnapshot};
use super::target::{
    Interest, LAG_METRIC, MetricTarget, Origin, Targets, UnpickedCluster, groups_of, label,
    topics_of,
};
use super::types::{ClusterName, GroupId, Lag, Moment, Replicas, TopicName};

/// What is asked: one external metric, as an HPA of `namespace` asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The namespace of the request.
    pub namespace: &'a str,
    /// The metric's name.
    pub metric: &'a str,
    /// The label selector.
    pub selector: &'a Selector,
}

/// The rules that answers follow.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether the value served never exceeds ceiling x wanted lag per replica.
    pub clamp: bool,
    /// The oldest reading that is still served.
    pub max_staleness: Duration,
    /// The namespaces whose HPAs are watched; empty = all. What an HPA of another wants is not
    /// known, so its value could not be clamped.
    pub namespaces: Vec<String>,
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is served.
    pub value: Milli,
    /// The lag behind it.
    pub lag: Lag,
    /// The most replicas that can be useful.
    pub ceiling: Replicas,
    /// The lag wanted per replica, where an HPA or the configuration says.
    pub wanted: Option<Milli>,
    /// What made the value differ from the lag.
    pub rule: ValueRule,
    /// When the oldest reading in it was made.
    pub read: Moment,
}

/// Which rule made the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRule {
    /// The lag as it is.
    AsMeasured,
    /// Cut to ceiling x wanted lag per replica.
    Clamped,
    /// One replica's worth: the group has never run, so that its lag of nothing says nothing.
    NeverRan,
}

fn listed(clusters: &[ClusterName]) -> String {
    clusters
        .iter()
        .map(ClusterName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What has to be read to answer.
///
/// # Errors
/// A question that no reading answers.
pub fn interests(question: &Question<'_>, targets: &Targets) -> Result<Vec<Interest>, Refusal> {
    let Question {
        namespace,
        metric,
        selector,
    } = question;
    if *metric != LAG_METRIC {
        return Err(Refusal::UnknownMetric {
            metric: (*metric).to_owned(),
        });
    }
    if selector.mentions(label::TARGET) {
        let found: Vec<_> = targets
            .configured(namespace, selector)
            .map(|t| t.interest.clone())
            .collect();
        return if found.is_empty() {
            Err(Refusal::UnknownTarget {
                selector: selector.to_string(),
                namespace: (*namespace).to_owned(),
            })
        } else {
            Ok(found)
        };
    }
    let groups = groups_of(selector).ok_or_else(|| Refusal::NoGroup {
        selector: selector.to_string(),
    })?;
    let clusters = targets
        .pick_clusters(selector)
        .map_err(|unpicked| match unpicked {
            UnpickedCluster::Unknown(cluster) => Refusal::UnknownCluster {
                cluster,
                known: listed(&targets.clusters),
            },
            UnpickedCluster::Ambiguous => Refusal::AmbiguousCluster {
                known: listed(&targets.clusters),
            },
        })?;
    let topics = topics_of(selector);
    let pairs = clusters
        .iter()
        .flat_map(|cluster| groups.iter().map(move |group| (cluster, group)));
    Ok(pairs
        .map(|(cluster, group)| Interest {
            cluster: cluster.clone(),
            group: GroupId::from(group.as_str()),
            topics: topics.clone(),
        })
        .collect())
}

/// The value for a question.
///
/// # Errors
/// Why there is none; never a zero instead.
pub fn answer(
    question: &Question<'_>,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &Rules,
) -> Result<Answer, Refusal> {
    let interests = interests(question, &snapshot.targets)?;
    let wanted = wanted(question, &snapshot.targets)?;
    let unread: Vec<_> = interests
        .iter()
        .filter(|i| group_of(snapshot, i).is_none())
        .cloned()
        .collect();
    if !unread.is_empty() {
        return Err(Refusal::NotYetRead(unread));
    }
    let mut lag = Lag::default();
    let mut ceiling = Replicas(0);
    let mut read = *now;
    let mut never_ran = true;
    for interest in &interests {
        let Some((cluster, group)) = group_of(snapshot, interest) else {
            continue;
        };
        let mut partitions = Vec::new();
        for (topic, group_topic) in series(question.selector, interest, cluster, group)? {
            let complete = group_topic
                .fresh(now, rules.max_staleness)
                .ok_or_else(|| unknown(interest, cluster, topic, group_topic))?;
            // A complete reading has no unknown partition; were there one, it is never summed over.
            let total = complete
                .total()
                .map_err(|_| unknown(interest, cluster, topic, group_topic))?;
            lag = lag.plus(total);
            partitions.push(complete.partitions());
            never_ran &= complete.never_ran();
            if complete.read.monotonic < read.monotonic {
                read = complete.read;
            }
        }
        ceiling = ceiling.max(useful_parallelism(partitions));
    }
    let is_watched = rules.namespaces.is_empty()
        || rules
            .namespaces
            .iter()
            .any(|watched| watched == question.namespace);
    if rules.clamp && !is_watched {
        return Err(Refusal::NamespaceNotWatched {
            namespace: question.namespace.to_owned(),
        });
    }
    if rules.clamp && snapshot.targets.hpas_unlisted {
        // Without the lag wanted per replica there is nothing to clamp by.
        return Err(Refusal::HpasUnlisted);
    }
    let measured = Milli::from_units(lag.0);
    let (value, rule) = match wanted {
        Some(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted)) if never_ran => {
            (wanted, ValueRule::NeverRan)
        }
        Some(MetricTarget::AverageValue(wanted))
            if rules.clamp && measured > wanted.times(ceiling.0) =>
        {
            (wanted.times(ceiling.0), ValueRule::Clamped)
        }
        _ => (measured, ValueRule::AsMeasured),
    };
    let wanted =
        wanted.map(|(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted))| wanted);
    Ok(Answer {
        value,
        lag,
        ceiling,
        wanted,
        rule,
        read,
    })
}

fn group_of<'a>(
    snapshot: &'a LagSnapshot,
    interest: &Interest,
) -> Option<(&'a ClusterSnapshot, &'a GroupSnapshot)> {
    let cluster = snapshot.clusters.get(&interest.cluster)?;
    let group = cluster.groups.get(&interest.group)?;
    let covered = if interest.topics.is_empty() {
        group.discovered || group.fault.is_some()
    } else {
        interest
            .topics
            .iter()
            .all(|topic| group.topics.contains_key(topic))
    };
    covered.then_some((cluster, group))
}

/// The group's topics that the selector picks.
fn series<'a>(
    selector: &Selector,
    interest: &'a Interest,
    cluster: &ClusterSnapshot,
    group: &'a GroupSnapshot,
) -> Result<Vec<(&'a TopicName, &'a GroupTopic)>, Refusal> {
    let unknown = |fault| Refusal::Unknown {
        group: interest.group.clone(),
        cluster: interest.cluster.clone(),
        cause: cluster.cause(fault),
    };
    if let (true, false, Some(fault)) = (interest.topics.is_empty(), group.discovered, group.fault)
    {
        // What somebody else named of the group is here, and perhaps not all that it reads.
        return Err(unknown(fault));
    }
    let pinned = |key: &str| {
        selector
            .values(key)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let mut picked: Vec<_> = group
        .topics
        .iter()
        .filter(|(topic, group_topic)| {
            if interest.topics.is_empty() {
                group_topic.may_have_commits()
            } else {
                interest.topics.contains(*topic)
            }
        })
        .collect();
    let has_topics = !picked.is_empty();
    picked.retain(|(topic, _)| {
        selector.matches(|key| match key {
            label::GROUP => Some(interest.group.as_str()),
            label::TOPIC => Some(topic.as_str()),
            label::CLUSTER => Some(interest.cluster.as_str()),
            label::HPA | label::TARGET => pinned(key),
            _ => None,
        })
    });
    match (picked.is_empty(), group.fault) {
        (false, _) => Ok(picked),
        (true, _) if has_topics => Err(Refusal::NothingSelected {
            selector: selector.to_string(),
            group: interest.group.clone(),
        }),
        (true, Some(fault)) => Err(unknown(fault)),
        (true, None) => Err(Refusal::NothingCommitted {
            group: interest.group.clone(),
            cluster: interest.cluster.clone(),
        }),
    }
}

fn unknown(
    interest: &Interest,
    cluster: &ClusterSnapshot,
    topic: &TopicName,
    group_topic: &GroupTopic,
) -> Refusal {
    let fault = group_topic.fault().unwrap_or(Fault::NoAnswer);
    let (group, name) = (interest.group.clone(), interest.cluster.clone());
    if fault == Fault::TopicMissing {
        return Refusal::TopicMissing {
            topic: topic.clone(),
            cluster: name,
        };
    }
    let cause = cluster.cause(fault);
    match &group_topic.complete {
        Some(complete) => Refusal::Stale {
            group,
            cluster: name,
            since: humantime::format_rfc3339_seconds(complete.read.wall).to_string(),
            cause,
        },
        None => Refusal::Unknown {
            group,
            cluster: name,
            cause,
        },
    }
}

/// What the asking HPA compares with: found by its selector, since a request does not say who asks.
fn wanted(question: &Question<'_>, targets: &Targets) -> Result<Option<MetricTarget>, Refusal> {
    let named = question.selector.values(label::HPA);
    let mut found: Vec<(&str, MetricTarget)> = Vec::new();
    for target in &targets.all {
        if let (Origin::Hpa { namespace, name }, Some(wanted)) = (&target.origin, target.wanted)
            && **namespace == *question.namespace
            && target.selector.as_ref() == Some(question.selector)
            && named.is_none_or(|names| names.iter().any(|n| **n == **name))
        {
            found.push((name, wanted));
        }
    }
    if found
        .iter()
        .any(|(_, wanted)| Some(wanted) != found.first().map(|(_, first)| first))
    {
        let hpas: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
        return Err(Refusal::ConflictingTargets {
            hpas: hpas.into_iter().collect::<Vec<_>>().join(", "),
            namespace: question.namespace.to_owned(),
            selector: question.selector.to_string(),
        });
    }
    let configured = || {
        targets
            .configured(question.namespace, question.selector)
            .find_map(|t| t.wanted)
    };
    Ok(found.first().map(|(_, wanted)| *wanted).or_else(configured))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::assembly::{ClusterHistory, Scope};
    use crate::model::fault::ConnectionFault;
    use crate::model::observation::{
        CommittedColumn, GroupObservation, GroupPlan, Observation, TopicOffsets,
    };
    use crate::model::target::{ExternalMetric, HpaFacts};
    use crate::model::types::Offset;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    const RULES: Rules = Rules {
        clamp: true,
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
    };

    fn at(seconds: u64) -> Moment {
        static ZERO: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let passed = Duration::from_secs(seconds);
        Moment {
            monotonic: *ZERO + passed,
            wall: SystemTime::UNIX_EPOCH + passed,
        }
    }

    /// The committed offset and the end of each partition of a topic.
    type Read<'a> = (&'a str, &'a [(Option<i64>, i64)]);

    /// A group `g` on cluster `main`.
    fn observation(seconds: u64, topics: &[Read<'_>]) -> Observation {
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

    fn hpa(name: &str, selector: &str, wanted: MetricTarget) -> HpaFacts {
        HpaFacts {
            namespace: "shop".into(),
            name: name.into(),
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse(selector).unwrap(),
                target: Some(wanted),
            }],
        }
    }

    fn average(units: u64) -> MetricTarget {
        MetricTarget::AverageValue(Milli::from_units(units))
    }

    fn snapshot(observations: Vec<Observation>, hpas: &[HpaFacts]) -> LagSnapshot {
        let mut history = ClusterHistory::default();
        let mut latest = Arc::default();
        for observation in observations {
            latest = history.take_in(observation, Scope::Whole);
        }
        LagSnapshot {
            sequence: 1,
            targets: Arc::new(Targets::merge(&["main".into()], &[], hpas, BTreeSet::new())),
            clusters: [("main".into(), latest)].into(),
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
    fn behind(partitions: usize, lag: i64) -> Vec<(Option<i64>, i64)> {
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
    fn hpa_proposes(value: Milli, target: Milli, replicas: u64, tolerance: f64) -> u64 {
        let (sum, per) = (value.thousandths() as f64, target.thousandths() as f64);
        let ratio = sum / (per * replicas as f64);
        if replicas > 0 && (1.0 - ratio).abs() <= tolerance {
            replicas
        } else {
            (sum / per).ceil() as u64
        }
    }

    #[test]
    fn table_from_lag_to_replicas() {
        // (partitions of each topic, wanted per replica, lag, replicas now, replicas proposed)
        for (topics, per, lag, now, expected) in [
            (vec![5], 5, 26, 4, 5),
            (vec![5], 5, 29, 4, 5),
            (vec![24], 1000, 55_000, 23, 24),
            (vec![12, 4], 10, 900, 12, 12),
            (vec![12], 10, 40, 8, 4),
            (vec![6], 100, 1_800, 1, 6),
            (vec![6], 100, 601, 6, 6),
            (vec![6], 100, 0, 6, 0),
        ] {
            let columns: Vec<_> = topics
                .iter()
                .enumerate()
                .map(|(i, p)| behind(*p, if i == 0 { lag } else { 0 }))
                .collect();
            let names = ["t0", "t1"];
            let read: Vec<_> = names
                .iter()
                .zip(&columns)
                .map(|(name, column)| (*name, column.as_slice()))
                .collect();
            let snapshot = snapshot(
                vec![observation(0, &read)],
                &[hpa("h", "group=g", average(per))],
            );
            let answer = ask(&snapshot, "group=g").unwrap();
            assert_eq!(
                hpa_proposes(answer.value, Milli::from_units(per), now, 0.0),
                expected,
                "{topics:?} {lag}"
            );
            assert_eq!(answer.lag, Lag(lag.unsigned_abs()));
        }
    }

    proptest! {
        #[test]
        fn the_hpa_never_proposes_more_than_the_ceiling(
            lags in proptest::collection::vec(0i64..=i64::MAX, 1..30),
            thousandths in 1u64..10_000_000,
            now in 1u64..200,
        ) {
            let column: Vec<_> = lags.iter().map(|lag| (Some(0), *lag)).collect();
            let target = Milli::parse(&format!("{thousandths}m")).unwrap();
            let hpas = [hpa("h", "group=g", MetricTarget::AverageValue(target))];
            let snapshot = snapshot(vec![observation(0, &[("t", &column)])], &hpas);
            let answer = ask(&snapshot, "group=g").unwrap();
            let ceiling = u64::from(answer.ceiling.0);
            prop_assert_eq!(ceiling, lags.len() as u64);
            prop_assert!(hpa_proposes(answer.value, target, now, 0.0) <= ceiling);
            prop_assert!(hpa_proposes(answer.value, target, now, 0.1) <= ceiling.max(now));
            // Unless it is cut, the value is the smallest n with n x T >= L.
            if answer.rule == ValueRule::AsMeasured {
                prop_assert_eq!(answer.value, Milli::from_units(answer.lag.0));
            }
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
        let unlisted = Targets {
            hpas_unlisted: true,
            ..Targets::clone(&snapshot.targets)
        };
        assert_eq!(ask(&snapshot, "group=g").unwrap().lag, Lag(1800));
        snapshot.targets = Arc::new(unlisted);
        assert_eq!(ask(&snapshot, "group=g"), Err(Refusal::HpasUnlisted));
        let raw = Rules {
            clamp: false,
            ..RULES
        };
        assert_eq!(
            ask_at(0, &snapshot, "group=g", &raw).unwrap().lag,
            Lag(1800)
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
                Lag(lag),
                "{selector}"
            );
        }
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
            (Milli::from_units(100), ValueRule::NeverRan, Lag(0))
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
            Lag(9)
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
        assert_eq!(ask(&snapshot, "group=g,topic=t").unwrap().lag, Lag(5));
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
            Lag(9)
        );
        assert_eq!(
            ask_at(0, &snapshot, "group=g", &only("other")).unwrap_err(),
            Refusal::NamespaceNotWatched {
                namespace: "shop".into()
            }
        );
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
}
