//! Tests of the API's router with a snapshot set by the test.

mod access;
mod answers;
mod first_reads;
mod no_evaluation;
mod random;
mod upstream;

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::targets::Targets;
use crate::model::targets::tenancy::Grant;
use crate::model::units::glob::Glob;
use crate::model::units::newtypes::{GroupId, OffsetReset};
use crate::serve::auth::testing::FakeAuthenticator;
use crate::serve::first_read::{MAX_FORWARDED_WAITING, MAX_WAITING};
use crate::serve::listen::MAX_API_STREAMS;
use crate::snapshot_channel::{self, Publisher};

pub(super) const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";
const LAG: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag";

const POLICY: ServingPolicy = ServingPolicy {
    clamp: true,
    cap: crate::model::settings::cap_mode::CapMode::Advise,
    scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
    // The fixture's readings are as old as the test process.
    max_staleness: Duration::from_secs(3600),
    namespaces: Vec::new(),
    writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
};

/// A snapshot as the poller publishes it.
pub(super) fn evaluated(snapshot: LagSnapshot) -> LagSnapshot {
    snapshot.evaluated(&POLICY)
}

/// An API with the other ends of its channels.
pub(super) struct TestApi {
    pub(super) router: Router,
    pub(super) publisher: Publisher,
    pub(super) watch_keys: mpsc::Receiver<WatchKey>,
    pub(super) queries: mpsc::Receiver<AdHocQuery>,
    pub(super) _drain: watch::Sender<bool>,
}

fn api_with(snapshot: LagSnapshot, auth: RequestAuth, queue: usize) -> TestApi {
    api_for(snapshot, auth, queue, Tenancy::default())
}

fn api_for(snapshot: LagSnapshot, auth: RequestAuth, queue: usize, tenancy: Tenancy) -> TestApi {
    api_over(evaluated(snapshot), auth, queue, tenancy).0
}

/// An API over an evaluated snapshot, and another reader of the snapshot.
fn api_over(
    snapshot: LagSnapshot,
    auth: RequestAuth,
    queue: usize,
    tenancy: Tenancy,
) -> (TestApi, SnapshotReader) {
    api_beside(None, snapshot, auth, queue, tenancy)
}

/// The same, with an upstream.
fn api_beside(
    upstream: Option<Upstream>,
    snapshot: LagSnapshot,
    auth: RequestAuth,
    queue: usize,
    tenancy: Tenancy,
) -> (TestApi, SnapshotReader) {
    let (publisher, reader) = snapshot_channel::channel(snapshot);
    let (sender, watch_keys) = mpsc::channel(queue);
    let (queries_in, queries) = mpsc::channel(queue);
    let (drain, draining) = watch::channel(false);
    let router = router(ExternalOptions {
        leading: Leading::alone(),
        forwarder: None,
        triggers: None,
        history: crate::serve::history::HpaHistoryHandle::none(),
        upstream,
        readiness: Readiness::new(reader.clone(), Instant::now(), draining),
        reader: reader.clone(),
        tenancy,
        access_log: AccessLog::All,
        watch_keys: sender,
        queries: queries_in,
        auth,
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2".to_owned(),
        },
    });
    let api = TestApi {
        router,
        publisher,
        watch_keys,
        queries,
        _drain: drain,
    };
    (api, reader)
}

pub(super) fn api(snapshot: LagSnapshot) -> TestApi {
    api_with(snapshot, RequestAuth::None, 8)
}

pub(super) struct TestResponse {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl TestResponse {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub(super) fn message(&self) -> String {
        let body = self.json();
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["code"], self.code, "{body}");
        body["message"].as_str().unwrap().to_owned()
    }
}

pub(super) async fn send(router: &Router, request: Request) -> TestResponse {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    TestResponse {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(router: &Router, path: &str) -> TestResponse {
    let request = Request::get(path).header("host", "localhost");
    send(router, request.body(Body::empty()).unwrap()).await
}

async fn lag(router: &Router, selector: &str) -> TestResponse {
    get(router, &with_selector(LAG, selector)).await
}

pub(super) fn with_selector(path: &str, selector: &str) -> String {
    let query: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    format!("{path}?labelSelector={query}")
}

/// Answers every watch key like a healthy Kafka cluster without that group.
pub(super) async fn healthy(
    mut snapshot: LagSnapshot,
    publisher: Publisher,
    mut watch_keys: mpsc::Receiver<WatchKey>,
) {
    let mut history = ClusterHistory::default();
    while let Some(watch_key) = watch_keys.recv().await {
        let mut observation = fixtures::nothing(Duration::ZERO, watch_key.group.as_str());
        let plan = &mut observation.groups[0].plan;
        plan.topics = Arc::new(watch_key.topics.clone());
        plan.reset = OffsetReset::Latest;
        for topic in &watch_key.topics {
            let missing = Err(crate::model::kafka::fault::Fault::TopicMissing);
            observation.topics.insert(topic.clone(), missing);
        }
        let committed = watch_key.topics.iter().map(|t| {
            (
                t.clone(),
                crate::model::kafka::offset_column::CommittedOffsets::default(),
            )
        });
        observation.groups[0].committed = Ok(committed.collect());
        let read = history.apply(observation, Scope::Partial);
        let mut main = (*snapshot.clusters["main"]).clone();
        let group: &GroupId = &watch_key.group;
        main.groups
            .insert(group.clone(), read.groups[group].clone());
        snapshot.clusters.insert("main".into(), Arc::new(main));
        publisher.publish(evaluated(snapshot.clone()));
    }
}

pub(super) fn request() -> impl Strategy<Value = (String, String)> {
    let segment = prop_oneof![
        Just("apis".to_owned()),
        Just("external.metrics.k8s.io".to_owned()),
        Just("v1beta1".to_owned()),
        Just("namespaces".to_owned()),
        Just("kafka_lag".to_owned()),
        "[a-z%/.~]{0,8}",
    ];
    let path = prop_oneof![
        Just(LAG.to_owned()),
        "[a-z]{1,5}".prop_map(|namespace| format!("{BASE}/namespaces/{namespace}/kafka_lag")),
        proptest::collection::vec(segment, 0..7).prop_map(|s| format!("/{}", s.join("/"))),
    ];
    let selector = prop_oneof![
        "(group(=| in )[(]?(orders|idle|partial|[a-z]{1,3})[)]?)?(,topic(=|!=)(payments|refunds|[a-z]{1,2}))?",
        "[a-z=!,() ]{0,20}",
        "\\PC{0,20}",
    ];
    let query = prop_oneof![
        selector.prop_map(|s| with_selector("", &s)),
        "[?][a-zA-Z=&%+]{0,20}",
        Just(String::new()),
    ];
    let method = prop_oneof![9 => Just("GET".to_owned()), 1 => Just("POST".to_owned())];
    (method, path, query).prop_map(|(method, path, query)| (method, path + &query))
}
