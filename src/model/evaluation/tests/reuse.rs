//! Which evaluations are made again from one snapshot to the next.

use proptest::prelude::*;

use super::*;
use crate::model::evaluation::{Clusters, Evaluations};
use crate::model::fixtures;
use crate::model::targets::metric_query::AdHocQuery;
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::units::glob::Glob;
use crate::model::units::metric::Metric;

/// A sequence of evaluations, each after the one before.
struct Sequence {
    history: ClusterHistory,
    clusters: Clusters,
    targets: Arc<Targets>,
    queries: Vec<AdHocQuery>,
    evaluations: Arc<Evaluations>,
}

impl Sequence {
    fn new(hpas: &[&str]) -> Self {
        let mut sequence = Self {
            history: ClusterHistory::default(),
            clusters: [("main".into(), Arc::default())].into(),
            targets: Arc::new(Targets::new(
                &["main".into()],
                TargetOptions::default(),
                None,
            )),
            queries: Vec::new(),
            evaluations: Arc::new(Evaluations::new(POLICY)),
        };
        sequence.set_hpas(hpas);
        for group in ["a", "b", "c"] {
            sequence.read(0, group, None);
        }
        sequence
    }

    /// Replaces the HPAs by those of these names, each for the group of its name.
    fn set_hpas(&mut self, hpas: &[&str]) {
        let facts = |name: &&str| hpa(name, &format!("group={name},topic=t"), average(10));
        let facts = hpas.iter().map(facts).map(Arc::new).collect();
        self.targets = Arc::new(self.targets.with_hpas(&facts, Some(at(0))));
    }

    fn read(&mut self, seconds: u64, group: &str, connection: Option<ConnectionFault>) {
        self.read_rows(seconds, group, &[(0, Ok(Some(0)), Ok(5))], connection);
    }

    fn read_rows(
        &mut self,
        seconds: u64,
        group: &str,
        rows: &[fixtures::PartitionReading],
        connection: Option<ConnectionFault>,
    ) {
        let mut read = fixtures::read(Duration::from_secs(seconds), group, "t", rows);
        read.connection = connection;
        let latest = self.history.apply(read, Scope::Partial);
        self.clusters.insert("main".into(), latest);
    }

    /// How many metrics the next evaluations take.
    fn next(&mut self) -> u64 {
        let before = self.evaluations.metrics_evaluated();
        let queries = self.queries.iter();
        self.evaluations = self
            .evaluations
            .next(&self.clusters, &self.targets, queries);
        self.evaluations.metrics_evaluated() - before
    }
}

#[test]
fn unchanged_groups_are_not_evaluated_again() {
    let mut sequence = Sequence::new(&["a", "b"]);
    assert_eq!(sequence.next(), 2);
    let before = Arc::clone(&sequence.evaluations);
    assert_eq!(sequence.next(), 0);
    assert!(Arc::ptr_eq(&before, &sequence.evaluations));
}

#[test]
fn a_group_that_was_read_again_is_evaluated_again() {
    let mut sequence = Sequence::new(&["a", "b"]);
    sequence.next();
    sequence.read(5, "b", None);
    assert_eq!(sequence.next(), 1);
    // No target uses this group.
    sequence.read(5, "c", None);
    assert_eq!(sequence.next(), 0);
}

#[test]
fn a_named_topic_is_found_again_among_others() {
    let mut history = ClusterHistory::default();
    let hpas = [hpa("h", "group=g,topic=t", average(10))];
    let targets = Targets::merge(&["main".into()], &[], &hpas, BTreeSet::new());
    let targets = Arc::new(targets);
    let mut evaluations = Arc::new(Evaluations::new(POLICY));
    let other = behind(1, 100);
    for (seconds, before, lag, after) in [
        (0, None, 7, None),
        (5, None, 8, None),
        (10, Some("a"), 9, None),
        (15, Some("a"), 10, Some("z")),
        (20, None, 11, Some("z")),
    ] {
        let read = behind(1, lag);
        let named = |name: Option<&'static str>| name.map(|name| (name, other.as_slice()));
        let topics = named(before).into_iter().chain([("t", read.as_slice())]);
        let topics: Vec<_> = topics.chain(named(after)).collect();
        let latest = history.apply(observation(seconds, &topics), Scope::Whole);
        let clusters = [("main".into(), latest)].into();
        evaluations = evaluations.next(&clusters, &targets, std::iter::empty());
        let (idle, now) = (Default::default(), at(seconds));
        let metrics = EvaluationsAt::new(&evaluations, &idle, &now).hpa_metrics();
        let value = metrics[0].outcome.clone().unwrap();
        assert_eq!(value.lag.unwrap().0, u64::try_from(lag).unwrap());
    }
}

#[test]
fn a_new_hpa_keeps_the_evaluations_of_the_others() {
    let mut sequence = Sequence::new(&["a", "b"]);
    sequence.next();
    sequence.set_hpas(&["a", "b", "c"]);
    assert_eq!(sequence.next(), 1);
    sequence.set_hpas(&["b", "c"]);
    assert_eq!(sequence.next(), 0);
    let unlisted = Targets::clone(&sequence.targets).with_hpas_unlisted();
    sequence.targets = Arc::new(unlisted);
    assert_eq!(sequence.next(), 2);
}

#[test]
fn refusals_quote_the_current_connection_fault() {
    let mut sequence = Sequence::new(&["a", "b"]);
    sequence.next();
    let fault = ConnectionFault {
        kind: Fault::Unreachable,
        reason: "k:9092: refused".into(),
        since: at(5),
    };
    sequence.read(5, "c", Some(fault));
    assert_eq!(sequence.next(), 2);
}

#[test]
fn hpas_with_the_same_query_share_one_evaluation() {
    let mut sequence = Sequence::new(&["a"]);
    let facts = ["x", "y"].map(|name| hpa(name, "group=a,topic=t", average(10)));
    let merged = Targets::merge(&["main".into()], &[], &facts, BTreeSet::new());
    sequence.targets = Arc::new(merged);
    assert_eq!(sequence.next(), 1);
    let (idle, now) = (Default::default(), at(0));
    let metrics = EvaluationsAt::new(&sequence.evaluations, &idle, &now).hpa_metrics();
    assert!(std::ptr::eq(metrics[0].evaluation, metrics[1].evaluation));
}

#[test]
fn an_ad_hoc_query_is_evaluated_with_every_snapshot_while_it_is_kept() {
    let mut sequence = Sequence::new(&["a"]);
    sequence.next();
    let selector = Selector::parse("group=c,topic=t").unwrap();
    let query = MetricQuery {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let answer = |sequence: &Sequence| {
        let (idle, now) = (Default::default(), at(0));
        let value = EvaluationsAt::new(&sequence.evaluations, &idle, &now).answer(&query);
        value.unwrap().lag
    };
    // The first request of a query evaluates it, without keeping the evaluation.
    let evaluated = sequence.evaluations.metrics_evaluated();
    assert_eq!(answer(&sequence), Some(Lag(5)));
    assert_eq!(sequence.evaluations.metrics_evaluated() - evaluated, 1);
    sequence.queries = vec![query.to_ad_hoc(Metric::Lag)];
    assert_eq!(sequence.next(), 1);
    let evaluated = sequence.evaluations.metrics_evaluated();
    assert_eq!(answer(&sequence), Some(Lag(5)));
    assert_eq!(sequence.evaluations.metrics_evaluated(), evaluated);
    assert_eq!(sequence.next(), 0);
    sequence.read(5, "c", None);
    assert_eq!(sequence.next(), 1);
    sequence.queries.clear();
    assert_eq!(sequence.next(), 0);
    assert!(sequence.evaluations.of_ad_hoc(&query).is_none());
}

#[test]
fn an_evaluation_has_the_uncapped_replicas_and_whether_the_cap_is_observed() {
    for (max_replicas, annotations, observed) in [
        (6, &[("cap", "enforce")][..], true),
        (7, &[("cap", "enforce")], false),
        (6, &[], false),
    ] {
        let mut facts = annotated(hpa("h", "group=g", average(100)), annotations);
        facts.max_replicas = max_replicas;
        let read = observation(0, &[("t", &behind(6, 1800))]);
        let snapshot = snapshot(vec![read], &[facts]).evaluated(&POLICY);
        let now = at(0);
        let metrics = snapshot.at(&now).hpa_metrics();
        let measure = metrics[0].evaluation.outcome.clone().unwrap();
        assert_eq!(
            (measure.uncapped, measure.served.desired),
            (Some(18), Some(6))
        );
        assert_eq!(measure.cap_observed, observed, "{max_replicas}");
    }
}

/// One step of a series.
#[derive(Clone, Debug)]
enum EvaluationStep {
    Hpas(Vec<(usize, usize, u32)>),
    /// A group, and the committed offset on each partition.
    Read(usize, Vec<Result<Option<i64>, Fault>>),
    Queries(Vec<usize>),
}

const GROUPS: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = EvaluationStep> {
    let hpa = (0..5usize, 0..GROUPS.len(), 1..5u32);
    let committed = prop_oneof![
        4 => (3..6i64).prop_map(|at| Ok(Some(at))),
        1 => Just(Ok(None)),
        1 => Just(Err(Fault::NoAnswer)),
    ];
    prop_oneof![
        prop::collection::vec(hpa, 0..6).prop_map(EvaluationStep::Hpas),
        (0..GROUPS.len(), prop::collection::vec(committed, 1..4))
            .prop_map(|(group, committed)| EvaluationStep::Read(group, committed)),
        prop::collection::vec(0..GROUPS.len(), 0..3).prop_map(EvaluationStep::Queries),
    ]
}

/// Everything that evaluations answer, as text.
fn answers(evaluations: &Arc<Evaluations>, queries: &[AdHocQuery]) -> Vec<String> {
    let (idle, now) = (Default::default(), at(1000));
    let at = EvaluationsAt::new(evaluations, &idle, &now);
    let metrics = at.hpa_metrics();
    let metrics = metrics.iter().map(|metric| {
        let answered = at.answer(&MetricQuery {
            namespace: metric.namespace,
            metric: metric.metric.name(),
            selector: metric.selector,
        });
        assert_eq!(answered, metric.outcome);
        let measure = metric.evaluation.outcome.as_ref();
        format!("{} {:?} {measure:?}", metric.hpa, metric.outcome)
    });
    let ad_hoc = queries.iter().map(|query| {
        let known = evaluations.of_ad_hoc(&query.as_query()).unwrap();
        format!("{:?}", at.value(known))
    });
    let parallelism = GROUPS.map(|group| {
        let most = evaluations.parallelism(&"main".into(), &group.into());
        format!("{group} {most:?}")
    });
    metrics.chain(ad_hoc).chain(parallelism).collect()
}

proptest! {
    #[test]
    fn evaluations_after_any_series_of_changes_equal_new_ones(
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let mut sequence = Sequence::new(&[]);
        let tenancy = Tenancy(vec![Grant {
            groups: GROUPS.map(Glob::new).into(),
            ..Grant::default()
        }]);
        let options = TargetOptions { tenancy, ..TargetOptions::default() };
        sequence.targets = Arc::new(Targets::new(&["main".into()], options, None));
        for (seconds, step) in (1..).zip(steps) {
            match step {
                EvaluationStep::Hpas(hpas) => {
                    let facts = hpas.into_iter().map(|(name, group, max_replicas)| {
                        let selector = format!("group={},topic=t", GROUPS[group]);
                        let hpa = hpa(&format!("h{name}"), &selector, average(10));
                        let set = [
                            ("fallback-replicas", "3"),
                            ("cap", "enforce"),
                            // Which tenancy denies.
                            ("consumer-group", "secret"),
                        ];
                        let facts = annotated(hpa, &set[..max_replicas as usize - 1]);
                        Arc::new(HpaFacts { max_replicas, ..facts })
                    });
                    let targets = sequence.targets.with_hpas(&facts.collect(), Some(at(seconds)));
                    sequence.targets = Arc::new(targets);
                }
                EvaluationStep::Read(group, committed) => {
                    let rows = committed.into_iter().map(|committed| (0, committed, Ok(5)));
                    sequence.read_rows(seconds, GROUPS[group], &rows.collect::<Vec<_>>(), None);
                }
                EvaluationStep::Queries(groups) => {
                    let queries = groups.into_iter().map(|group| {
                        let text = format!("group={},topic=t", GROUPS[group]);
                        let selector = Selector::parse(&text).unwrap();
                        let query = MetricQuery { namespace: "shop", metric: LAG_METRIC, selector: &selector };
                        query.to_ad_hoc(Metric::Lag)
                    });
                    sequence.queries = queries.collect();
                }
            }
            sequence.next();
            let queries = sequence.queries.iter();
            let none = Arc::new(Evaluations::new(POLICY));
            let new = none.next(&sequence.clusters, &sequence.targets, queries);
            prop_assert_eq!(
                answers(&sequence.evaluations, &sequence.queries),
                answers(&new, &sequence.queries)
            );
        }
    }
}
