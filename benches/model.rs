//! The pure core on the workloads W1 (2,400 group-partitions), W2 (36,000) and W3 (120,000): assembling a snapshot from
//! the brokers' responses, serializing the saved state, and answering one metric request.
//!
//! `cargo bench --bench model`
#![allow(missing_docs, reason = "the macros of the harness have none")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lagwise::model::evaluation::target_policies::TargetPolicies;
use lagwise::model::evaluation::{Evaluations, ServingPolicy};
use lagwise::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use lagwise::model::hpa::selector::Selector;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use lagwise::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::settings::scaling_policy::ScalingPolicy;
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::Targets;
use lagwise::model::targets::metric_query::MetricQuery;
use lagwise::model::units::metric::{DESIRED_METRIC, LAG_METRIC};
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
        certificates: CertificateExpiry::default(),
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
            scaling: lagwise::model::settings::scaling_policy::ScalingPolicy::Lag,
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

/// The same observation some sweeps later: every group has members, and reads 5 to 9 messages per second of each
/// partition.
fn moving(observed: &Observation, sweep: u32) -> Observation {
    let passed = Duration::from_secs(5) * sweep;
    let start = observed.started;
    let at = Moment {
        monotonic: start.monotonic + passed,
        wall: start.wall + passed,
    };
    let partitions = |first: i64| {
        let offset = move |partition: i64| first + i64::from(sweep) * (25 + 10 * (partition % 3));
        (0..).take(PARTITIONS).map(offset).map(Offset)
    };
    let mut next = Observation {
        started: at,
        finished: at,
        ..observed.clone()
    };
    for offsets in next.topics.values_mut() {
        *offsets = Ok(Arc::new(TopicOffsets {
            starts: vec![Ok(Offset(0)); PARTITIONS],
            ends: partitions(1000).map(Ok).collect(),
            ..TopicOffsets::default()
        }));
    }
    for group in &mut next.groups {
        let topics = group.plan.topics.iter().cloned();
        let committed = || partitions(990).map(|offset| Ok(Some(offset))).collect();
        group.committed = Ok(topics.map(|topic| (topic, committed())).collect());
    }
    next
}

/// A group of three members that share the partitions of its topics.
fn described(topics: &BTreeSet<TopicName>) -> GroupDescription {
    let member = |n: usize| {
        let owned = (0..PARTITIONS).filter(|partition| partition % 3 == n);
        let owned: Vec<_> = owned.filter_map(|p| i32::try_from(p).ok()).collect();
        let topics = topics.iter().cloned();
        Member {
            id: format!("member-{n}").into(),
            instance: None,
            client: "client".into(),
            host: "/10.0.0.1".into(),
            subscribed: None,
            assigned: topics.map(|topic| (topic, owned.clone())).collect(),
        }
    };
    GroupDescription {
        members: (0..3).map(member).collect(),
        ..GroupDescription::memberless(GroupKind::Consumer, GroupState::Stable)
    }
}

/// Sweeps, applied and evaluated: without a policy, and with every group under the rate policy, which may cost at most
/// 1.3 times as much in a whole sweep.
fn bench_policies(criterion: &mut Criterion) {
    let (groups, each, topics) = (1000, 3, 500);
    let mut observed = observation(groups, each, topics);
    for group in &mut observed.groups {
        group.description = Ok(Arc::new(described(&group.plan.topics)));
    }
    let hpas: Vec<_> = (0..groups)
        .map(|i| HpaFacts {
            namespace: "default".into(),
            name: format!("hpa-{i}").into(),
            max_replicas: 36,
            metrics: vec![ExternalMetric {
                name: DESIRED_METRIC.into(),
                selector: Selector::parse(&format!("group=group-{i:04}")).unwrap_or_default(),
                target: Some(MetricTarget::AverageValue(Milli::ONE)),
            }],
            annotations: [("lagwise.dev/lag-per-replica".to_owned(), "100".to_owned())].into(),
            ..HpaFacts::default()
        })
        .collect();
    let targets = Arc::new(Targets::merge(
        &["main".into()],
        &[],
        &hpas,
        BTreeSet::new(),
    ));
    for (name, scaling) in [("lag", ScalingPolicy::Lag), ("rate", ScalingPolicy::Rate)] {
        let policy = ServingPolicy {
            scaling,
            ..ServingPolicy::default()
        };
        let mut evaluations = Arc::new(Evaluations::new(policy));
        let mut history = ClusterHistory::default();
        let mut policies = TargetPolicies::default();
        let mut sweep = 0;
        criterion.bench_function(&format!("sweep of W2 under {name}"), |bencher| {
            bencher.iter_batched(
                || {
                    sweep += 1;
                    moving(&observed, sweep)
                },
                |observed| {
                    let started = observed.started;
                    let latest = history.apply(observed, Scope::Whole);
                    let clusters = [("main".into(), latest)].into();
                    let next = evaluations.next(&clusters, &targets, std::iter::empty());
                    evaluations = policies.observe_sweep(&"main".into(), next, &started);
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn selector(group: usize, topics: usize) -> Selector {
    let text = format!("group=group-{group:04},topic=topic-{}", group % topics);
    Selector::parse(&text).unwrap_or_default()
}

criterion_group!(benches, bench, bench_policies);
criterion_main!(benches);
