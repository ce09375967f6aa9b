//! Memory of the model per group and partition, counted by the allocator, on workloads in which groups share topics;
//! memory that a scrape needs; and the memory of the history of HPAs while it is not read.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    reason = "figures for whoever runs it"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use lagwise::leader_election::Leadership;
use lagwise::model::diagnostics::hpa_history::recorder::HistoryRecorder;
use lagwise::model::evaluation::ServingPolicy;
use lagwise::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use lagwise::model::hpa::selector::Selector;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::lag::cluster_snapshot::ClusterSnapshot;
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::Targets;
use lagwise::model::units::metric::LAG_METRIC;
use lagwise::model::units::newtypes::{Moment, Offset, TopicName};
use lagwise::model::units::quantity::Milli;
use lagwise::serve::BuildInfo;
use lagwise::serve::auth::RequestAuth;
use lagwise::serve::metrics::{MetricsOptions, router};
use lagwise::serve::shadow::ShadowReader;
use lagwise::snapshot_channel;
use peak_alloc::PeakAlloc;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const PARTITIONS: usize = 12;

/// Groups, topics that each of them reads, topics in all.
#[derive(Clone, Copy)]
struct Workload {
    groups: usize,
    each: usize,
    topics: usize,
}

impl Workload {
    fn group_partitions(self) -> f64 {
        (self.groups * self.each * PARTITIONS) as f64
    }

    fn observation(self, zero: &Moment, poll: u64) -> Observation {
        let passed = Duration::from_secs(5 * poll);
        let now = Moment {
            monotonic: zero.monotonic + passed,
            wall: zero.wall + passed,
        };
        let names: Vec<TopicName> = (0..self.topics)
            .map(|i| TopicName::from(format!("topic-{i}")))
            .collect();
        let at = |offset: u64| vec![Ok(Offset(i64::try_from(offset).unwrap())); PARTITIONS];
        let offsets = || {
            Arc::new(TopicOffsets {
                starts: at(0),
                ends: at(1000 + 50 * poll),
                ..TopicOffsets::default()
            })
        };
        let commit = i64::try_from(900 + 50 * poll).unwrap();
        let commits = || CommittedOffsets::filled(PARTITIONS, Ok(Some(Offset(commit))));
        let of_group = |i: usize| (0..self.each).map(move |j| (i * self.each + j) % self.topics);
        Observation {
            cluster: "main".into(),
            started: now,
            finished: now,
            topics: names.iter().map(|n| (n.clone(), Ok(offsets()))).collect(),
            groups: (0..self.groups)
                .map(|i| GroupObservation {
                    plan: GroupPlan::new(
                        format!("group-{i:04}"),
                        of_group(i).map(|t| names[t].clone()).collect(),
                    ),
                    description: Err(Fault::Unsupported),
                    reported_lags: None,
                    refused_partitions: None,
                    committed: Ok(of_group(i).map(|t| (names[t].clone(), commits())).collect()),
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
}

/// Bytes allocated since there were `before`.
fn held(before: usize) -> f64 {
    ALLOCATOR.current_usage() as f64 - before as f64
}

/// One test, because the allocator counts for the whole process.
#[test]
fn memory_stays_within_bounds() {
    every_group_and_partition_costs_little();
    the_history_of_an_hpa_is_bounded();
    a_scrape_needs_little_memory_however_long_it_is();
}

fn every_group_and_partition_costs_little() {
    // Of the last, no two groups share a topic: each pays alone for the topic's offsets and samples. A snapshot
    // keeps the samples, which it shares with the history.
    let workloads = [
        ("W2", 1000, 3, 500, 80.0, 110.0),
        ("W3", 100, 100, 100, 64.0, 64.0),
        ("unshared", 500, 1, 500, 240.0, 304.0),
    ];
    for (name, groups, each, topics, snapshot_max, all_max) in workloads {
        let workload = Workload {
            groups,
            each,
            topics,
        };
        let zero = Moment {
            monotonic: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        let before = ALLOCATOR.current_usage();
        let mut history = ClusterHistory::default();
        let mut snapshot = None;
        for poll in 0..30 {
            drop(snapshot.take());
            let observed = workload.observation(&zero, poll);
            snapshot = Some(history.apply(observed, Scope::Whole));
        }
        let per = workload.group_partitions();
        let all = held(before) / per;
        drop(history);
        let snapshot_only = held(before) / per;
        drop(snapshot);
        let left = held(before) / per;
        eprintln!(
            "{name}: {all:.1} bytes, of which the snapshot {snapshot_only:.1}; left {left:.1}"
        );
        assert!(left.abs() < 0.1, "{name}: the count is off by {left}");
        assert!(snapshot_only < snapshot_max, "{name}: {snapshot_only}");
        assert!(all < all_max, "{name}: {all}");
    }
}

/// Maximum memory of a scrape of W2 with an HPA for each group at once. The exposition is longer.
const MAX_SCRAPE_BYTES: usize = 512 * 1024;

fn a_scrape_needs_little_memory_however_long_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    let (_publisher, reader) = snapshot_channel::channel(snapshot());
    let router = router(MetricsOptions {
        shadow: ShadowReader::none(),
        auth: RequestAuth::None,
        leadership: Leadership::alone(),
        reader,
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2".to_owned(),
        },
    });
    for _ in 0..2 {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let length = runtime.block_on(async {
            let response = router.clone().oneshot(request).await.unwrap();
            let (mut body, mut length) = (response.into_body(), 0);
            while let Some(frame) = body.frame().await {
                length += frame.unwrap().into_data().unwrap().len();
            }
            length
        });
        let peak = ALLOCATOR.peak_usage() - before;
        eprintln!("a scrape of {length} bytes needs {peak} at once");
        assert!(length > 10 * MAX_SCRAPE_BYTES, "{length}");
        assert!(peak < MAX_SCRAPE_BYTES, "{peak}");
    }
}

/// Maximum memory of the history of one HPA and of all: the figures of the guide.
const MAX_HISTORY_BYTES: f64 = 100_000.0;
const MAX_HISTORIES_BYTES: f64 = 32.0 * 1024.0 * 1024.0;

/// Lists of points grow in steps, and the history keeps the readings at its last point.
const HISTORIES_SLACK: f64 = 1.2;

/// Each HPA has a group on 36 partitions. Few HPAs have a point every 15 seconds, for all of the day that is kept; of a
/// thousand the points are coarser, so that all of them together have room.
fn the_history_of_an_hpa_is_bounded() {
    let of_few = recorded(20, Duration::from_secs(15), 1440 + 216 * 20);
    assert!(of_few.bytes_per_hpa < MAX_HISTORY_BYTES, "{of_few:?}");
    let of_many = recorded(1000, Duration::from_secs(60), 400);
    let all = of_many.bytes_per_hpa * 1000.0;
    assert!(all < MAX_HISTORIES_BYTES * HISTORIES_SLACK, "{of_many:?}");
    // There is a sweep every 5 seconds, and a point every 15.
    assert!(of_many.point < of_many.sweep, "{of_many:?}");
    eprintln!(
        "a point of the history of 1,000 HPAs costs {:.2} times the assembly and evaluation of a sweep",
        of_many.point.as_secs_f64() / of_many.sweep.as_secs_f64()
    );
}

/// Memory of a history.
#[derive(Debug)]
struct HistoryCost {
    #[allow(dead_code, reason = "printed")]
    hpas: usize,
    bytes_per_hpa: f64,
    /// Shortest time that a point of all HPAs took.
    point: Duration,
    /// Shortest time that assembling and evaluating a sweep of all their groups took.
    sweep: Duration,
}

/// Records this number of points. Between them every group commits and every HPA changes its replicas from time to
/// time.
fn recorded(hpas: usize, step: Duration, points: u32) -> HistoryCost {
    /// Points between two changes.
    const POINTS_PER_CHANGE: u32 = 10;
    let workload = Workload {
        groups: hpas,
        each: 3,
        topics: hpas / 2,
    };
    let zero = Moment::now();
    let targets = [1, 2].map(|replicas| Arc::new(targets(workload, replicas)));
    let mut recorder = HistoryRecorder::new(step);
    let mut history = ClusterHistory::default();
    let (mut point, mut sweep) = (Duration::MAX, Duration::MAX);
    let mut snapshot = None;
    for number in 0..points {
        let now = Moment {
            monotonic: zero.monotonic + step * number,
            wall: zero.wall + step * number,
        };
        if number % POINTS_PER_CHANGE == 0 {
            let mut observed = workload.observation(&zero, number.into());
            (observed.started, observed.finished) = (now, now);
            let begun = Instant::now();
            let cluster = history.apply(observed, Scope::Whole);
            let targets = &targets[usize::from((number / POINTS_PER_CHANGE).is_multiple_of(2))];
            snapshot = Some(evaluated(cluster, targets));
            sweep = sweep.min(begun.elapsed());
        }
        let snapshot: &LagSnapshot = snapshot.as_ref().unwrap();
        let begun = Instant::now();
        recorder.record(snapshot.at(&now), snapshot.all_findings(), snapshot.term);
        point = point.min(begun.elapsed());
    }
    assert_eq!((recorder.hpas().count(), recorder.left_out()), (hpas, 0));
    // Then only the history has the readings at its last point.
    drop((snapshot, history));
    let before = ALLOCATOR.current_usage();
    drop(recorder);
    let cost = HistoryCost {
        hpas,
        bytes_per_hpa: -held(before) / hpas as f64,
        point,
        sweep,
    };
    eprintln!("{cost:?}");
    cost
}

/// A snapshot of W2, with an HPA for each group.
fn snapshot() -> LagSnapshot {
    let workload = Workload {
        groups: 1000,
        each: 3,
        topics: 500,
    };
    let observed = workload.observation(&Moment::now(), 0);
    let cluster = ClusterHistory::default().apply(observed, Scope::Whole);
    evaluated(cluster, &Arc::new(targets(workload, 1)))
}

/// The targets of an HPA for each group.
fn targets(workload: Workload, replicas: u32) -> Targets {
    let hpas: Vec<_> = (0..workload.groups)
        .map(|i| HpaFacts {
            namespace: "default".into(),
            name: format!("hpa-{i}").into(),
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse(&format!("group=group-{i:04}")).unwrap(),
                target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
            }],
            replicas: Some(replicas),
            ..HpaFacts::default()
        })
        .collect();
    Targets::merge(&["main".into()], &[], &hpas, BTreeSet::new())
}

fn evaluated(cluster: Arc<ClusterSnapshot>, targets: &Arc<Targets>) -> LagSnapshot {
    LagSnapshot {
        targets: Arc::clone(targets),
        clusters: [("main".into(), cluster)].into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default())
}
