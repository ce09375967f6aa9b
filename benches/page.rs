//! Cost of the page and its JSON at the server: the overview and one HPA, among 10 and among 1,000 HPAs that read 36
//! partitions each.
//!
//! `cargo bench --bench page`
//!
//! All HPAs have lag, findings and a history of some points. The overview may take at most 50 ms. No network and no
//! browser takes part.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and may end by a panic"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use lagwise::leader_election::Leadership;
use lagwise::model::evaluation::ServingPolicy;
use lagwise::model::hpa::facts::{ExternalMetric, HpaFacts, HpaMap, MetricTarget};
use lagwise::model::hpa::selector::Selector;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use lagwise::model::kafka::offset_column::CommittedOffsets;
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::Scope;
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::TargetOptions;
use lagwise::model::units::metric::LAG_METRIC;
use lagwise::model::units::newtypes::{Moment, Offset, TopicName};
use lagwise::model::units::quantity::Milli;
use lagwise::poller::PollerState;
use lagwise::serve::admin::{AdminEndpointOptions, router};
use lagwise::serve::history::history;
use lagwise::snapshot_channel;
use tower::ServiceExt;

const FEW: usize = 10;
const MANY: usize = 1_000;

const PARTITIONS: usize = 36;

/// Maximum time of an overview of many HPAs.
const MAX_OVERVIEW_TIME: Duration = Duration::from_millis(50);

/// Requests for each path.
const REQUESTS: usize = 41;

/// Time between two points of the history, and how many are waited for.
const STEP: Duration = Duration::from_millis(20);
const POINTS: u32 = 10;

const PATHS: [(&str, &str); 4] = [
    ("overview", "/"),
    ("overview as JSON", "/api/hpas"),
    ("one HPA", "/hpas/shop/hpa-0007"),
    ("one HPA as JSON", "/api/hpas/shop/hpa-0007"),
];

fn hpa(i: usize) -> Arc<HpaFacts> {
    Arc::new(HpaFacts {
        namespace: "shop".into(),
        name: format!("hpa-{i:04}").into(),
        max_replicas: 50,
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(&format!("group=group-{i:04}")).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(10))),
        }],
        ..HpaFacts::default()
    })
}

/// Each group reads a separate topic.
fn observe(groups: usize) -> Observation {
    let topic = |i: usize| TopicName::from(format!("topic-{i:04}"));
    let offsets = |offset| vec![Ok(Offset(offset)); PARTITIONS];
    let read = TopicOffsets {
        starts: offsets(0),
        ends: offsets(1_000),
        ..TopicOffsets::default()
    };
    let group = |i: usize| GroupObservation {
        plan: GroupPlan::new(format!("group-{i:04}"), [topic(i)].into()),
        description: Err(Fault::Unsupported),
        reported_lags: None,
        refused_partitions: None,
        committed: Ok([(
            topic(i),
            CommittedOffsets::filled(PARTITIONS, Ok(Some(Offset(900)))),
        )]
        .into()),
    };
    Observation {
        cluster: "main".into(),
        started: Moment::now(),
        finished: Moment::now(),
        topics: (0..groups)
            .map(|i| (topic(i), Ok(Arc::new(read.clone()))))
            .collect(),
        groups: (0..groups).map(group).collect(),
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: std::collections::BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    }
}

/// The admin endpoints of a daemon with this many HPAs, and the poller that keeps their snapshot.
async fn serve(hpas: usize) -> (Router, PollerState) {
    let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
    let policy = ServingPolicy {
        max_staleness: Duration::from_secs(3600),
        ..ServingPolicy::default()
    };
    let options = TargetOptions::default();
    let mut state = PollerState::new(&["main".into()], options, policy, publisher);
    let facts: HpaMap = (0..hpas).map(hpa).collect();
    state.update_hpas(Some(&facts));
    state.apply(observe(hpas), Scope::Whole);
    state.publish();
    let (handle, recording) = history(reader.clone(), Leadership::alone(), STEP);
    tokio::spawn(recording);
    tokio::time::sleep(STEP * POINTS).await;
    let options = AdminEndpointOptions::new(reader, Leadership::alone());
    (router(options.with_history(handle, "bench-0")), state)
}

/// The median time of a request, and the length of its response.
async fn measure(router: &Router, path: &str) -> (Duration, usize) {
    let (mut took, mut length) = (Vec::new(), 0);
    for _ in 0..REQUESTS {
        let request = Request::get(path).header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        let began = Instant::now();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let body = response.into_body().collect().await.unwrap();
        took.push(began.elapsed());
        length = body.to_bytes().len();
    }
    took.sort_unstable();
    (took[took.len() / 2], length)
}

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --benches` asks for a list of tests: there are none.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let (few, _few) = serve(FEW).await;
    let (many, _many) = serve(MANY).await;
    let mut is_within = true;
    for (name, path) in PATHS {
        let (among_few, _) = measure(&few, path).await;
        let (among_many, length) = measure(&many, path).await;
        let ratio = among_many.as_secs_f64() / among_few.as_secs_f64();
        println!(
            "{name:<17} {among_few:>10.1?} among {FEW}, {among_many:>10.1?} among {MANY}: {ratio:.1} times as long, {length} bytes"
        );
        is_within &= among_many <= MAX_OVERVIEW_TIME;
    }
    match is_within {
        true => println!("all within {MAX_OVERVIEW_TIME:?}"),
        false => println!("TOO MUCH: more than {MAX_OVERVIEW_TIME:?}"),
    }
    if is_within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
