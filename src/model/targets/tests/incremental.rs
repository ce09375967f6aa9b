//! Targets that were brought up to date step by step equal those that a scan of all HPAs gives.

mod scan;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use self::scan::{Scan, configuration, known_topics};
use super::*;
use crate::model::fixtures::at;
use crate::model::hpa::facts::ExternalMetric;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::settings::GroupSettings;
use crate::model::targets::builder::HpaTargetBuilder;
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::units::glob::Glob;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};

/// One step of a series.
#[derive(Clone, Debug)]
enum TargetStep {
    /// HPAs that are inserted or changed; `None` for one that is removed.
    Hpas(Vec<(usize, Option<HpaFacts>)>),
    /// The keys of requests from now on.
    Requests(BTreeSet<WatchKey>),
}

const HPAS: [(&str, &str); 6] = [
    ("a", "x"),
    ("a", "y"),
    ("b", "x"),
    ("b", "z"),
    ("c", "x"),
    ("c", "z"),
];

const SELECTORS: [&str; 9] = [
    "group=g,topic=t,cluster=main",
    "group=g,cluster=main",
    "group in (g,h),topic in (t,u),cluster=main",
    "group=h,topic=u,cluster=main",
    "group=h,cluster=down",
    "group=g,cluster in (main,down)",
    "group=g,cluster=unknown",
    "target=orders",
    "topic=t",
];

const ANNOTATIONS: [(&str, &str); 8] = [
    ("offset-reset", "earliest"),
    ("offset-reset", "latest"),
    ("isolation", "read_committed"),
    ("stuck-after", "5m"),
    ("consumer-group", "h"),
    ("topic-regex", "t.*"),
    ("scale-to-zero", "true"),
    ("max-replicas", "7"),
];

fn facts() -> impl Strategy<Value = HpaFacts> {
    let metrics = vec((0..SELECTORS.len(), any::<bool>(), 1..3u64), 0..3);
    let annotations = vec(0..ANNOTATIONS.len(), 0..3);
    (metrics, annotations, 1..3u32).prop_map(|(metrics, annotations, max_replicas)| {
        let metric = |(selector, is_lag, target): (usize, bool, u64)| ExternalMetric {
            name: if is_lag { LAG_METRIC } else { DESIRED_METRIC }.into(),
            selector: Selector::parse(SELECTORS[selector]).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(target))),
        };
        let annotation = |index: usize| {
            let (key, value) = ANNOTATIONS[index];
            (format!("lagwise.dev/{key}"), value.to_owned())
        };
        HpaFacts {
            metrics: metrics.into_iter().map(metric).collect(),
            annotations: annotations.into_iter().map(annotation).collect(),
            max_replicas,
            running: RunningReplicas::Several,
            ..HpaFacts::default()
        }
    })
}

fn watch_key() -> impl Strategy<Value = WatchKey> {
    let topics = btree_set(prop_oneof![Just("t"), Just("v")], 0..2);
    let cluster = prop_oneof![Just("main"), Just("down")];
    let group = prop_oneof![Just("g"), Just("h"), Just("i")];
    (cluster, group, topics).prop_map(|(cluster, group, topics)| WatchKey {
        cluster: cluster.into(),
        group: group.into(),
        topics: topics.into_iter().map(TopicName::from).collect(),
    })
}

fn step() -> impl Strategy<Value = TargetStep> {
    let hpas = vec((0..HPAS.len(), prop::option::weighted(0.7, facts())), 1..4);
    let requests = btree_set(watch_key(), 0..3);
    prop_oneof![
        4 => hpas.prop_map(TargetStep::Hpas),
        1 => requests.prop_map(TargetStep::Requests),
    ]
}

/// Compares targets with a scan, and when each key began to be watched with `watched`.
fn check(
    targets: &Targets,
    scan: &Scan,
    watched: &BTreeMap<WatchKey, Moment>,
) -> Result<(), TestCaseError> {
    prop_assert!(targets.all().eq(&scan.targets));
    prop_assert!(targets.findings().eq(&scan.findings));
    for cluster in ["main", "down"] {
        let plan = targets.plan(&cluster.into(), known_topics);
        prop_assert_eq!(plan.groups, scan.plan(cluster));
    }
    for selector in SELECTORS.map(|text| Selector::parse(text).unwrap()) {
        for (namespace, metric) in [
            ("a", Metric::Lag),
            ("b", Metric::Lag),
            ("c", Metric::Lag),
            ("c", Metric::DesiredReplicas),
            ("a", Metric::DesiredReplicas),
        ] {
            let found = targets.selecting(namespace, metric, &selector);
            let all = scan.targets.iter();
            prop_assert!(found.eq(all.filter(|t| t.answers(namespace, metric, &selector))));
            let hash = QueryHash::new(namespace, metric, &selector);
            let denied = scan.denied.iter();
            let mut denied = denied
                .filter(|(hpa, denied)| *hpa.namespace == *namespace && denied.query_hash == hash);
            let expected = denied.next().map(|(_, denied)| &denied.reason);
            prop_assert_eq!(
                targets.denial_reason(namespace, metric, &selector),
                expected
            );
        }
    }
    for (namespace, name) in HPAS {
        let key = HpaKey::new(namespace, name);
        let all = scan.targets.iter();
        prop_assert!(
            targets
                .of_hpa(&key)
                .iter()
                .eq(all.filter(|t| t.hpa() == Some(&key)))
        );
    }
    let since = scan.keys().map(|key| targets.watched_since(key));
    prop_assert!(since.eq(scan.keys().map(|key| watched.get(key).copied())));
    let is_target = |key: &WatchKey| scan.targets.iter().any(|target| *target.key == *key);
    prop_assert!(
        watched
            .keys()
            .all(|key| targets.has_target_for(key) == is_target(key))
    );
    let group_count = |(cluster, group): &GroupKey| {
        let keys = scan.keys();
        keys.filter(|key| key.cluster == *cluster && key.group == *group)
            .count()
    };
    prop_assert!(targets.groups().keys().all(|key| group_count(key) > 0));
    Ok(())
}

/// What changed from one version to another, by the diffs that the poller goes by.
fn check_diffs(before: &Targets, after: &Targets) -> Result<(), TestCaseError> {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (before.findings().collect(), after.findings().collect());
    let mut changed = BTreeSet::new();
    before.diff_findings(after, |finding, is_new| {
        changed.insert((Finding::clone(finding), is_new));
    });
    let ended = old.difference(&new).map(|f| (Finding::clone(f), false));
    let begun = new.difference(&old).map(|f| (Finding::clone(f), true));
    prop_assert_eq!(changed, ended.chain(begun).collect::<BTreeSet<_>>());
    let mut replanned = BTreeSet::new();
    let groups = before.groups();
    groups.diff(after.groups(), |key, _, _| {
        replanned.insert(key.clone());
    });
    for cluster in ["main", "down"].map(ClusterName::from) {
        let plans = |targets: &Targets| -> BTreeMap<GroupId, GroupPlan> {
            let plan = targets.plan(&cluster, known_topics).groups.into_iter();
            plan.map(|plan| (plan.group.clone(), plan)).collect()
        };
        let (before, after) = (plans(before), plans(after));
        let all = before.keys().chain(after.keys());
        for group in all.filter(|group| before.get(*group) != after.get(*group)) {
            prop_assert!(replanned.contains(&(cluster.clone(), group.clone())));
        }
    }
    Ok(())
}

/// Each of lagwise's own writes changes one HPA. Were the others built again, thousands of writes would take quadratic
/// time.
#[test]
fn only_hpas_that_changed_are_built_again() {
    let (clusters, options) = configuration();
    let facts = |(namespace, name): (&str, &str), max_replicas| HpaFacts {
        namespace: namespace.into(),
        name: name.into(),
        max_replicas,
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(SELECTORS[0]).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::ONE)),
        }],
        ..HpaFacts::default()
    };
    let all = HPAS.map(|hpa| Arc::new(facts(hpa, 3)));
    let mut targets =
        Targets::new(&clusters, options, None).with_hpas(&HpaMap::from_iter(all), None);
    for (index, max_replicas) in [(0, 4), (5, 4), (2, 9)] {
        let mut hpas = targets.facts.clone();
        let changed = Arc::new(facts(HPAS[index], max_replicas));
        hpas.insert(changed.key(), changed);
        let next = targets.with_hpas(&hpas, None);
        let is_kept =
            |key: &HpaKey| Arc::ptr_eq(targets.hpas.get(key).unwrap(), next.hpas.get(key).unwrap());
        let kept = HPAS.map(|(namespace, name)| is_kept(&HpaKey::new(namespace, name)));
        let expected: Vec<_> = (0..HPAS.len()).map(|other| other != index).collect();
        assert_eq!(Vec::from(kept), expected);
        targets = next;
    }
}

proptest! {
    #[test]
    fn targets_after_any_series_of_changes_equal_a_scan(steps in vec(step(), 1..24)) {
        let (clusters, options) = configuration();
        let begun = at(Duration::ZERO);
        let mut targets = Targets::new(&clusters, options, Some(begun));
        let (mut hpas, mut requests) = (HpaMap::default(), BTreeSet::new());
        let mut scan = Scan::new(&hpas, &requests);
        let mut watched: BTreeMap<_, _> = scan.keys().map(|key| (key.clone(), begun)).collect();
        let mut seconds = 0;
        for step in steps {
            seconds += 1;
            let now = at(Duration::from_secs(seconds));
            let before = targets.clone();
            match step {
                TargetStep::Hpas(changes) => {
                    for (index, facts) in changes {
                        let (namespace, name) = HPAS[index];
                        let key = HpaKey::new(namespace, name);
                        match facts {
                            Some(facts) => {
                                let (namespace, name) = (namespace.into(), name.into());
                                let facts = HpaFacts { namespace, name, ..facts };
                                hpas.insert(key, Arc::new(facts));
                            }
                            None => {
                                hpas.remove(&key);
                            }
                        }
                    }
                    targets = targets.with_hpas(&hpas, Some(now));
                }
                TargetStep::Requests(keys) => {
                    requests = keys;
                    targets = targets.with_ad_hoc(requests.clone(), Some(now));
                }
            }
            scan = Scan::new(&hpas, &requests);
            let since = |key: &WatchKey| (key.clone(), watched.get(key).copied().unwrap_or(now));
            watched = scan.keys().map(since).collect();
            check(&targets, &scan, &watched)?;
            check_diffs(&before, &targets)?;
        }
    }
}
