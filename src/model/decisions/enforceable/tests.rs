use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::Replicas;
use crate::model::units::quantity::Milli;

/// An HPA `shop/both` with a metric on each of two clusters.
fn targets() -> Arc<Targets> {
    let metric = |cluster: &str| ExternalMetric {
        name: LAG_METRIC.into(),
        selector: Selector::parse(&format!("cluster={cluster},group=g,topic=t")).unwrap(),
        target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
    };
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "both".into(),
        metrics: vec![metric("east"), metric("west")],
        ..HpaFacts::default()
    };
    let clusters = ["east".into(), "west".into()];
    Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()))
}

/// The complete read of that HPA after each of these sweeps: cluster, second, and partitions.
fn reads(sweeps: Vec<(&'static str, u64, Vec<PartitionReading>)>) -> Vec<Option<(Limit, u64)>> {
    let mut histories: BTreeMap<&str, ClusterHistory> = BTreeMap::new();
    let mut snapshot = LagSnapshot {
        targets: targets(),
        ..LagSnapshot::default()
    };
    let policy = ServingPolicy {
        clamp: true,
        cap: CapMode::Advise,
        scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
        writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
    };
    let mut seen = Vec::new();
    for (cluster, second, rows) in sweeps {
        let read = fixtures::read(Duration::from_secs(second), "g", "t", &rows);
        let history = histories.entry(cluster).or_default();
        let latest = history.apply(read, Scope::Whole);
        snapshot.clusters.insert(cluster.into(), latest);
        let now = fixtures::at(Duration::from_secs(second));
        snapshot = snapshot.evaluated(&policy);
        let read = complete_read(snapshot.at(&now), &HpaKey::new("shop", "both"));
        assert_eq!(
            complete_read(snapshot.at(&now), &HpaKey::new("shop", "none")),
            None
        );
        let start = fixtures::at(Duration::ZERO).monotonic;
        seen.push(read.map(|read| (read.ceiling, read.at.duration_since(start).as_secs())));
    }
    seen
}

#[test]
fn complete_read_needs_every_metric_from_its_clusters_last_sweep() {
    let whole = |partitions: usize| vec![(0, Ok(Some(1)), Ok(2)); partitions];
    let broken = || {
        vec![
            (0, Ok(Some(1)), Ok(2)),
            (0, Ok(Some(1)), Err(Fault::NoAnswer)),
        ]
    };
    let bounded = |most| Limit::Bounded(Replicas(most));
    let seen = reads(vec![
        ("east", 1, whole(2)),
        ("west", 2, whole(6)),
        // The larger ceiling, and the time of the older reading.
        ("east", 3, whole(2)),
        ("east", 4, whole(2)),
        ("west", 5, whole(6)),
        // With an unknown partition the old value is still served, but is no complete read.
        ("east", 6, broken()),
        ("west", 7, whole(6)),
        ("east", 8, whole(7)),
    ]);
    let expected = [
        None,
        Some((bounded(6), 1)),
        Some((bounded(6), 2)),
        Some((bounded(6), 2)),
        Some((bounded(6), 4)),
        None,
        None,
        Some((bounded(7), 7)),
    ];
    assert_eq!(seen, expected);
}
