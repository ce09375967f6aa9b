//! The pure core on the workloads W1 (2,400 group-partitions), W2 (36,000) and W3 (120,000): assembling a snapshot
//! from what the brokers said, writing down what a restart must not lose, and answering one metric request.
//!
//! `cargo bench --bench model`
#![allow(missing_docs, reason = "the macros of the harness have none")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lagwise::model::evaluation::{Evaluations, ServingPolicy};
use lagwise::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use lagwise::model::hpa::selector::Selector;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{GroupObservation, Observation, TopicOffsets};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::Targets;
use lagwise::model::targets::metric_query::MetricQuery;
use lagwise::model::units::metric::LAG_METRIC;
use lagwise::model::units::newtypes::{Moment, Offset, TopicName};
use lagwise::model::units::quantity::Milli;

const PARTITIONS: usize = 12;

/// `groups` groups that read `each` topics of `topics`.
fn observation(groups: usize, each: usize, topics: usize) -> Observation {
    let names: Vec<TopicName> = (0..topics)
        .map(|i| TopicName::from(format!("topic-{i}")))
        .collect();
    let offsets = |offset| vec![Ok(Offset(offset)); PARTITIONS];
    let of_group = |i: usize| -> Vec<TopicName> {
        (0..each).map(|j| names[(i + j) % topics].clone()).collect()
    };
    Observation {
        cluster: "main".into(),
        started: Moment::now(),
        finished: Moment::now(),
        topics: names
            .iter()
            .map(|name| {
                (
                    name.clone(),
                    Ok(Arc::new(TopicOffsets {
                        starts: offsets(0),
                        ends: offsets(1000),
                        ..TopicOffsets::default()
                    })),
                )
            })
            .collect(),
        groups: (0..groups)
            .map(|i| GroupObservation {
                plan: GroupPlan::new(format!("group-{i:04}"), of_group(i).into_iter().collect()),
                description: Err(Fault::Unsupported),
                reported_lags: None,
                refused_partitions: None,
                committed: Ok(of_group(i)
                    .into_iter()
                    .map(|t| {
                        (
                            t,
                            CommittedOffsets::filled(PARTITIONS, Ok(Some(Offset(900)))),
                        )
                    })
                    .collect()),
            })
            .collect(),
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: std::collections::BTreeMap::new(),
        group_names: None,
    }
}

fn bench(criterion: &mut Criterion) {
    for (name, groups, each, topics) in [
        ("W1", 200, 1, 100),
        ("W2", 1000, 3, 500),
        ("W3", 100, 100, 100),
    ] {
        let observed = observation(groups, each, topics);
        let mut history = ClusterHistory::default();
        history.apply(observed.clone(), Scope::Whole);
        criterion.bench_function(&format!("assemble {name}"), |bencher| {
            bencher.iter_batched(
                || observed.clone(),
                |mut observed| {
                    observed.started = Moment::now();
                    history.apply(observed, Scope::Whole)
                },
                BatchSize::LargeInput,
            );
        });

        let now = Moment::now();
        criterion.bench_function(&format!("export {name}"), |bencher| {
            bencher.iter(|| history.export(black_box(&now)));
        });

        let hpas: Vec<_> = (0..groups)
            .map(|i| HpaFacts {
                namespace: "default".into(),
                name: format!("hpa-{i}").into(),
                metrics: vec![ExternalMetric {
                    name: LAG_METRIC.into(),
                    selector: selector(i, topics),
                    target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
                }],
                ..HpaFacts::default()
            })
            .collect();
        let snapshot = LagSnapshot {
            sequence: 1,
            targets: Arc::new(Targets::merge(
                &["main".into()],
                &[],
                &hpas,
                BTreeSet::new(),
            )),
            clusters: [(
                "main".into(),
                history.apply(
                    Observation {
                        started: Moment::now(),
                        ..observed
                    },
                    Scope::Whole,
                ),
            )]
            .into(),
            ..LagSnapshot::default()
        };
        let selector = selector(7, topics);
        let question = MetricQuery {
            namespace: "default",
            metric: LAG_METRIC,
            selector: &selector,
        };
        let policy = ServingPolicy {
            clamp: true,
            cap: lagwise::model::settings::cap_mode::CapMode::Advise,
            max_staleness: Duration::from_secs(3600),
            namespaces: Vec::new(),
            writes: lagwise::model::hpa::write_scopes::WriteScopes::ALL,
        };
        let now = Moment::now();
        let none = Arc::new(Evaluations::new(policy.clone()));
        criterion.bench_function(&format!("evaluate {name}"), |bencher| {
            bencher.iter(|| {
                none.next(
                    black_box(&snapshot.clusters),
                    &snapshot.targets,
                    std::iter::empty(),
                )
            });
        });
        let snapshot = snapshot.evaluated(&policy);
        criterion.bench_function(&format!("answer one of {name}"), |bencher| {
            bencher.iter(|| snapshot.at(&now).answer(black_box(&question)));
        });
    }
}

fn selector(group: usize, topics: usize) -> Selector {
    let text = format!("group=group-{group:04},topic=topic-{}", group % topics);
    Selector::parse(&text).unwrap_or_default()
}

criterion_group!(benches, bench);
criterion_main!(benches);
