//! Demand of an HPA and its idle time, from the readings of its metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::idle::IdleSince;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::quantity::Milli;

#[test]
fn demand_of_several_metrics_combines() {
    let (less, more) = (Demand::Waiting(2), Demand::Waiting(5));
    for (a, b, expected) in [
        (less, more, more),
        (less, Demand::Unknown, less),
        (Demand::None, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::NeverRan, Demand::NeverRan),
        (Demand::NeverRan, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::None, Demand::None),
    ] {
        assert_eq!((a.and(b), b.and(a)), (expected, expected));
    }
}

/// The candidates at `now` after these sweeps of a group on a topic, for an HPA with `annotations` and a target
/// of 100 messages per replica.
fn after(
    sweeps: Vec<(u64, Vec<PartitionReading>)>,
    now: u64,
    annotations: &[(&str, &str)],
) -> BTreeMap<HpaKey, ZeroCandidate> {
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("group=g,topic=t").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
        }],
        annotations: annotations
            .iter()
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .collect(),
        ..HpaFacts::default()
    };
    let mut history = ClusterHistory::default();
    let mut snapshot = LagSnapshot {
        targets: Arc::new(Targets::merge(
            &["main".into()],
            &[],
            &[hpa],
            BTreeSet::new(),
        )),
        ..LagSnapshot::default()
    };
    for (seconds, rows) in sweeps {
        let read = fixtures::read(Duration::from_secs(seconds), "g", "t", &rows);
        let latest = history.apply(read, Scope::Whole);
        snapshot.clusters = [("main".into(), latest)].into();
    }
    let policy = ServingPolicy {
        clamp: true,
        cap: crate::model::settings::cap_mode::CapMode::Advise,
        scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
        writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
    };
    let now = fixtures::at(Duration::from_secs(now));
    candidates(snapshot.evaluated(&policy).at(&now))
}

#[test]
fn demand_comes_from_the_last_sweep() {
    let on = [("scale-to-zero", "true"), ("cooldown", "1m")];
    let row =
        |committed, end: Result<i64, Fault>| vec![(0, Ok(committed), end), (0, Ok(Some(0)), Ok(0))];
    let down = (5, row(Some(7), Err(Fault::NoAnswer)));
    for (sweeps, now, expected) in [
        (vec![(0, row(Some(7), Ok(7)))], 0, Demand::None),
        (vec![(0, row(Some(7), Ok(8)))], 0, Demand::Waiting(1)),
        (vec![(0, row(Some(7), Ok(157)))], 0, Demand::Waiting(2)),
        // At most one replica for each of the two partitions.
        (vec![(0, row(Some(7), Ok(99_999)))], 0, Demand::Waiting(2)),
        // Lag read before the broker went down is still served, but does not count as no demand.
        (
            vec![(0, row(Some(7), Ok(7))), down.clone()],
            5,
            Demand::Unknown,
        ),
        (
            vec![(0, row(Some(7), Ok(157))), down.clone()],
            5,
            Demand::Waiting(2),
        ),
        (vec![(0, row(Some(7), Ok(157))), down], 60, Demand::Unknown),
        (vec![], 0, Demand::Unknown),
        (vec![(0, vec![(0, Ok(None), Ok(9))])], 0, Demand::NeverRan),
    ] {
        let found = after(sweeps.clone(), now, &on);
        let [candidate] = found.into_values().collect::<Vec<_>>()[..] else {
            panic!("{sweeps:?}");
        };
        assert_eq!(
            (candidate.demand, candidate.cooldown),
            (expected, MINUTE),
            "{sweeps:?}"
        );
    }
    assert!(after(vec![(0, row(Some(7), Ok(7)))], 0, &[]).is_empty());
}

#[test]
fn finds_foreign_metrics_on_hpas_with_scale_to_zero() {
    let found = |annotations: &[(&str, &str)]| {
        let metric = |name: &str, selector| ExternalMetric {
            name: name.into(),
            selector: Selector::parse(selector).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(1))),
        };
        let hpa = HpaFacts {
            metrics: vec![metric(LAG_METRIC, "group=g"), metric("queue_depth", "")],
            annotations: annotations
                .iter()
                .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
                .collect(),
            ..HpaFacts::default()
        };
        let targets = Targets::merge(&["main".into()], &[], &[hpa], BTreeSet::new());
        let findings = targets.findings();
        findings.map(|f| f.code.label()).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]), [""; 0]);
    assert_eq!(found(&[("scale-to-zero", "true")]), ["no_zero_with_others"]);
    assert_eq!(
        found(&[("scale-to-zero.g", "true")]),
        ["suffix_on_hpa_setting"]
    );
}

#[test]
fn idle_time_restarts_after_any_demand() {
    let hpa = HpaKey::new("n", "h");
    let at = |seconds| fixtures::at(Duration::from_secs(seconds));
    let mut idle = IdleSince::new();
    let mut idle_seconds = |seconds, demand| {
        let candidate = ZeroCandidate {
            demand,
            cooldown: MINUTE,
            ceiling: None,
        };
        idle = idle_since(&idle, &[(hpa.clone(), candidate)].into(), &at(seconds));
        idle.get(&hpa)
            .map(|since| at(seconds).since(since).as_secs())
    };
    assert_eq!(idle_seconds(0, Demand::None), Some(0));
    assert_eq!(idle_seconds(5, Demand::None), Some(5));
    for (seconds, demand) in [
        (10, Demand::Unknown),
        (20, Demand::Waiting(1)),
        (30, Demand::NeverRan),
    ] {
        assert_eq!(idle_seconds(seconds, demand), None);
        assert_eq!(idle_seconds(seconds + 5, Demand::None), Some(0));
        assert_eq!(idle_seconds(seconds + 8, Demand::None), Some(3));
    }
}
