//! One changed HPA among 100 and among 10,000: from the event of the watch to the published snapshot, with a plan of
//! the groups to read again. Also measured: from the reading of its group to the next snapshot.
//!
//! `cargo bench --bench hpas`
//!
//! The work for one changed HPA must not grow with the number of HPAs: among 10,000 it may be at most twice the work
//! among 100, counted in instructions by valgrind, if that is installed. The times differ more. Every iteration is
//! about another HPA, so among 10,000 the caches of the processor are as cold as in a daemon, and most of the time is
//! waiting for memory.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and the macros of the harness have no documentation"
)]

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group};
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricIdentifier,
    MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::runtime::watcher::Event;
use lagwise::k8s::hpa::WatchedHpas;
use lagwise::model::evaluation::ServingPolicy;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::Scope;
use lagwise::model::settings::cap_mode::CapMode;
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::TargetOptions;
use lagwise::model::units::metric::LAG_METRIC;
use lagwise::model::units::newtypes::{Moment, Offset, TopicName};
use lagwise::poller::PollerState;
use lagwise::snapshot_channel::{self, SnapshotReader};

const PARTITIONS: usize = 12;
const TOPICS: usize = 100;
const NAMESPACES: usize = 20;

/// Step between two changed HPAs: large, so that they are not neighbours, and coprime to all counts below.
const STRIDE: usize = 7919;

/// Numbers of HPAs to compare.
const FEW: usize = 100;
const MANY: usize = 10_000;

/// Number of changes of which the instructions are counted.
const COUNTED: usize = 200;

/// Maximum ratio of the instructions of one change among many HPAs to those among few.
const MAX_GROWTH: f64 = 2.0;

/// First argument that makes this binary only change HPAs, so that valgrind can count the instructions.
const CHANGE: &str = "change-hpas";

/// State of the daemon between events.
struct Rig {
    watched: WatchedHpas,
    state: PollerState,
    reader: SnapshotReader,
}

impl Rig {
    /// HPAs that have all been listed, and whose groups have all been read.
    fn new(count: usize) -> Self {
        let policy = ServingPolicy {
            clamp: true,
            cap: CapMode::Advise,
            scaling: lagwise::model::settings::scaling_policy::ScalingPolicy::Lag,
            max_staleness: Duration::from_secs(3600),
            namespaces: Vec::new(),
            writes: lagwise::model::hpa::write_scopes::WriteScopes::ALL,
        };
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let options = TargetOptions::default();
        let state = PollerState::new(&["main".into()], options, policy, publisher);
        let mut rig = Self {
            watched: WatchedHpas::new([None]),
            state,
            reader,
        };
        rig.handle(Event::Init);
        for i in 0..count {
            rig.handle(Event::InitApply(hpa(i, i, 100)));
        }
        rig.handle(Event::InitDone);
        rig.state.apply(observe(0..count), Scope::Whole);
        rig.state.publish();
        assert_eq!(rig.reader.latest().targets.all().count(), count);
        rig
    }

    /// Does the work of the watch and the poller for an event. Returns the number of groups to read at once.
    fn handle(&mut self, event: Event<HorizontalPodAutoscaler>) -> usize {
        if !self.watched.apply(0, event) {
            return 0;
        }
        self.state.update_hpas(Some(&self.watched.all()));
        self.state.publish();
        let plans = self.state.replan();
        plans.iter().map(|sweep| sweep.plan.groups.len()).sum()
    }
}

/// The HPA of a number, for a group and with a lag per replica.
fn hpa(i: usize, group: usize, per_replica: usize) -> HorizontalPodAutoscaler {
    let labels = [
        ("group".to_owned(), format!("group-{group}")),
        ("topic".to_owned(), format!("topic-{}", group % TOPICS)),
    ];
    let metric = ExternalMetricSource {
        metric: MetricIdentifier {
            name: LAG_METRIC.to_owned(),
            selector: Some(LabelSelector {
                match_labels: Some(labels.into()),
                ..LabelSelector::default()
            }),
        },
        target: MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(Quantity(per_replica.to_string())),
            ..MetricTarget::default()
        },
    };
    HorizontalPodAutoscaler {
        metadata: ObjectMeta {
            namespace: Some(format!("namespace-{}", i % NAMESPACES)),
            name: Some(format!("hpa-{i}")),
            uid: Some(format!("uid-{i}")),
            ..ObjectMeta::default()
        },
        spec: HorizontalPodAutoscalerSpec {
            max_replicas: 10,
            metrics: Some(vec![MetricSpec {
                type_: "External".to_owned(),
                external: Some(metric),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        },
        ..HorizontalPodAutoscaler::default()
    }
}

fn observe(groups: impl Iterator<Item = usize>) -> Observation {
    let mut observation = Observation {
        cluster: "main".into(),
        started: Moment::now(),
        finished: Moment::now(),
        topics: Default::default(),
        groups: Vec::new(),
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: std::collections::BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    };
    let offsets = |offset| vec![Ok(Offset(offset)); PARTITIONS];
    for i in groups {
        let topic = TopicName::from(format!("topic-{}", i % TOPICS));
        let read = TopicOffsets {
            starts: offsets(0),
            ends: offsets(1000),
            ..TopicOffsets::default()
        };
        observation
            .topics
            .entry(topic.clone())
            .or_insert_with(|| Ok(Arc::new(read)));
        observation.groups.push(GroupObservation {
            plan: GroupPlan::new(format!("group-{i}"), [topic.clone()].into()),
            description: Err(Fault::Unsupported),
            reported_lags: None,
            refused_partitions: None,
            committed: Ok([(
                topic,
                CommittedOffsets::filled(PARTITIONS, Ok(Some(Offset(900)))),
            )]
            .into()),
        });
    }
    observation
}

fn bench(criterion: &mut Criterion) {
    for count in [FEW, MANY] {
        let mut rig = Rig::new(count);
        let mut iteration = 0;
        // The next HPA, and how often it was changed before.
        let mut next = || {
            iteration += 1;
            (iteration * STRIDE % count, iteration / count)
        };
        criterion.bench_function(
            &format!("change the lag per replica of 1 of {count} HPAs"),
            |bencher| {
                let change = || {
                    let (i, round) = next();
                    Event::Apply(hpa(i, i, 101 + round % 7))
                };
                bencher.iter_batched(change, |event| rig.handle(event), BatchSize::SmallInput);
            },
        );
        criterion.bench_function(
            &format!("give 1 of {count} HPAs another group"),
            |bencher| {
                let change = || {
                    let (i, round) = next();
                    let group = i + (1 + round % 7) * count;
                    Event::Apply(hpa(i, group, 100))
                };
                bencher.iter_batched(change, |event| rig.handle(event), BatchSize::SmallInput);
            },
        );
        criterion.bench_function(&format!("delete and create 1 of {count} HPAs"), |bencher| {
            let change = || {
                let (i, _) = next();
                let hpa = hpa(i, i, 100);
                (Event::Delete(hpa.clone()), Event::Apply(hpa))
            };
            bencher.iter_batched(
                change,
                |(delete, create)| rig.handle(delete) + rig.handle(create),
                BatchSize::SmallInput,
            );
        });
        let mut rig = Rig::new(count);
        criterion.bench_function(&format!("read the group of 1 of {count} HPAs"), |bencher| {
            let read = || observe([next().0].into_iter());
            let apply = |observation| rig.state.apply(observation, Scope::Partial);
            bencher.iter_batched(read, apply, BatchSize::SmallInput);
        });
    }
}

/// Applies this number of changes, each of another HPA. Setup and teardown cost the same for any number.
fn change(count: usize, changes: usize) {
    let mut rig = Rig::new(count);
    let events = (1..=2 * COUNTED).map(|i| hpa(i * STRIDE % count, i * STRIDE % count, 100 + i));
    let events: Vec<_> = events.map(Event::Apply).collect();
    for event in events.into_iter().take(changes) {
        rig.handle(event);
    }
}

/// Instructions of one change among this number of HPAs; `None` without valgrind.
fn instructions(count: usize) -> Option<u64> {
    let run = |changes: usize| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?)
            .args([CHANGE, &count.to_string(), &changes.to_string()])
            .output()
            .ok()?;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, counted) = report.split_once("Collected : ")?;
        counted.split_whitespace().next()?.parse::<u64>().ok()
    };
    let counted = run(2 * COUNTED)?.checked_sub(run(COUNTED)?)?;
    counted.checked_div(COUNTED.try_into().ok()?)
}

/// Prints the instructions of one change with their bound. Returns whether they are within it.
fn print_instructions() -> bool {
    let Some((few, many)) = instructions(FEW).zip(instructions(MANY)) else {
        println!("valgrind is not installed, so no instructions are counted");
        return true;
    };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let growth = many as f64 / few as f64;
    let is_within = growth <= MAX_GROWTH;
    let verdict = if is_within {
        "within the bound"
    } else {
        "TOO MUCH"
    };
    println!("change 1 of {FEW} HPAs: {few} instructions");
    println!("change 1 of {MANY} HPAs: {many} instructions");
    println!("growth: {growth:.2} of {MAX_GROWTH:.2}  {verdict}");
    is_within
}

criterion_group!(benches, bench);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [CHANGE, count, changes] = words.as_slice()
        && let (Ok(count), Ok(changes)) = (count.parse(), changes.parse())
    {
        change(count, changes);
        return ExitCode::SUCCESS;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    // Not in a test of the benchmark, and not if arguments select a part of it.
    if words == ["--bench"] && !print_instructions() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
