use super::*;
use crate::model::assembly::{ClusterHistory, Scope};
use crate::model::fixtures;
use crate::model::snapshot::ClusterSnapshot;
use crate::model::target::{ExternalMetric, HpaFacts, MetricTarget, Targets};
use crate::model::tenancy::{Grant, Pattern};
use crate::model::types::{GroupId, OffsetReset};
use crate::publish::{self, Publisher};
use crate::serve::asking::MAX_WAITING;
use crate::serve::auth::testing::Pretended;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::sync::watch;
use tower::ServiceExt;

pub(super) const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";
const LAG: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag";

const RULES: Rules = Rules {
    clamp: true,
    cap: crate::model::cap::CapMode::Advise,
    // The fixture's readings were made when the test began.
    max_staleness: Duration::from_secs(3600),
    namespaces: Vec::new(),
};

pub(super) fn rules() -> Rules {
    RULES
}

/// An API over a snapshot, with what feeds it.
pub(super) struct Rig {
    pub(super) router: Router,
    pub(super) publisher: Publisher,
    pub(super) interests: mpsc::Receiver<Interest>,
    pub(super) _drain: watch::Sender<bool>,
}

fn rig_with(snapshot: LagSnapshot, auth: AuthMode, queue: usize) -> Rig {
    rig_for(snapshot, auth, queue, Tenancy::default())
}

fn rig_for(snapshot: LagSnapshot, auth: AuthMode, queue: usize, tenancy: Tenancy) -> Rig {
    let (publisher, reader) = publish::channel(snapshot);
    let (sender, interests) = mpsc::channel(queue);
    let (drain, draining) = watch::channel(false);
    let router = router(ExternalOptions {
        leading: Leading::alone(),
        forwarder: None,
        readiness: Readiness::new(reader.clone(), Instant::now(), draining),
        reader,
        rules: RULES,
        tenancy,
        access_log: AccessLog::All,
        interests: sender,
        auth,
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2".to_owned(),
        },
    });
    Rig {
        router,
        publisher,
        interests,
        _drain: drain,
    }
}

pub(super) fn rig(snapshot: LagSnapshot) -> Rig {
    rig_with(snapshot, AuthMode::None, 8)
}

pub(super) struct Got {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Got {
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

pub(super) async fn send(router: &Router, request: Request) -> Got {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Got {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(router: &Router, path: &str) -> Got {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn lag(router: &Router, selector: &str) -> Got {
    get(router, &with_selector(LAG, selector)).await
}

pub(super) fn with_selector(path: &str, selector: &str) -> String {
    let query: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    format!("{path}?labelSelector={query}")
}

#[tokio::test]
async fn a_known_metric_has_one_item() {
    let rig = rig(fixtures::snapshot());
    let got = lag(&rig.router, "cluster=main,group=orders,topic=payments").await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
    let expected = json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{
            "metricName": "kafka_lag",
            "metricLabels": {"cluster": "main", "group": "orders", "topic": "payments"},
            "timestamp": "2024-05-06T07:08:09Z",
            "value": "100",
        }],
    });
    assert_eq!(got.json(), expected);
}

#[tokio::test]
async fn the_selector_picks_one_of_two() {
    let rig = rig(fixtures::snapshot());
    for (selector, value) in [
        ("cluster=main,group=orders,topic=payments", "100"),
        ("cluster=main,group=idle,topic=payments", "0"),
        ("cluster=main,group in (orders,idle),topic=payments", "100"),
    ] {
        let got = lag(&rig.router, selector).await;
        assert_eq!(got.json()["items"][0]["value"], value, "{selector}");
    }
}

#[tokio::test]
async fn every_path_and_code() {
    let rig = rig(fixtures::snapshot());
    let openapi = "/openapi/v2".to_owned();
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    for (path, code) in [
        ("/healthz".to_owned(), 200),
        ("/livez".to_owned(), 200),
        ("/readyz".to_owned(), 200),
        ("/version".to_owned(), 200),
        ("/apis".to_owned(), 200),
        ("/apis/external.metrics.k8s.io".to_owned(), 200),
        (BASE.to_owned(), 200),
        (format!("{BASE}/"), 200),
        (good.clone(), 200),
        (format!("{good}&limit=5&continue=x&watch=false"), 200),
        (format!("{good}&watch=0"), 200),
        (format!("{good}&watch=true"), 405),
        (format!("{good}&watch"), 405),
        (openapi, 404),
        ("/openapi/v3".to_owned(), 404),
        ("/".to_owned(), 404),
        ("/metrics".to_owned(), 404),
        (format!("{BASE}/kafka_lag"), 404),
        (format!("{BASE}/namespaces/shop"), 404),
        (format!("{BASE}/namespaces/shop/"), 404),
        (format!("{LAG}/"), 404),
        (format!("{LAG}/more"), 404),
        (format!("/long/prefix{LAG}"), 404),
        (format!("{BASE}/namespaces/shop//kafka_lag"), 404),
        (format!("{BASE}/namespaces/shop/other_metric"), 404),
        (LAG.to_owned(), 400),
        (with_selector(LAG, "topic=payments"), 400),
        (with_selector(LAG, "group orders"), 400),
        (with_selector(LAG, "group=orders,topic=payments"), 400),
        (with_selector(LAG, "cluster=other,group=orders"), 404),
        (with_selector(LAG, "cluster=main,target=none"), 404),
        (
            with_selector(LAG, "cluster=main,group=mute,topic=refunds"),
            503,
        ),
    ] {
        let got = get(&rig.router, &path).await;
        assert_eq!(got.code, code, "{path}: {}", got.body);
        assert!(!got.headers.contains_key(header::RETRY_AFTER), "{path}");
        if code != 200 {
            got.message();
        }
    }
}

#[tokio::test]
async fn messages_say_what_to_do() {
    let rig = rig(fixtures::snapshot());
    for (selector, part) in [
        ("topic=payments", "write for example"),
        ("group=orders", "name one with the label cluster"),
        ("group=g,", "unable to parse the label selector"),
        (
            "cluster=main,group=mute,topic=refunds",
            "no answer within the poll's deadline",
        ),
    ] {
        let message = lag(&rig.router, selector).await.message();
        assert!(message.contains(part), "{selector}: {message}");
    }
}

#[tokio::test]
async fn only_get_is_served() {
    let rig = rig(fixtures::snapshot());
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
        for path in [LAG, BASE, "/apis", "/livez", "/nothing"] {
            let request = Request::builder().method(method).uri(path);
            let got = send(&rig.router, request.body(Body::empty()).unwrap()).await;
            assert_eq!(got.code, 405, "{method} {path}");
            assert_eq!(got.headers[header::ALLOW], "GET");
        }
    }
}

#[tokio::test]
async fn protobuf_first_is_answered_in_json() {
    let rig = rig(fixtures::snapshot());
    let path = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    let request = Request::get(path)
        .header(header::ACCEPT, "application/vnd.kubernetes.protobuf, */*")
        .body(Body::empty());
    let got = send(&rig.router, request.unwrap()).await;
    assert_eq!(got.code, 200);
    assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn discovery_documents() {
    let rig = rig(fixtures::snapshot());
    let version = json!({
        "groupVersion": "external.metrics.k8s.io/v1beta1", "version": "v1beta1",
    });
    let group = json!({
        "name": "external.metrics.k8s.io",
        "versions": [version],
        "preferredVersion": version,
    });
    let groups = get(&rig.router, "/apis").await.json();
    assert_eq!(
        groups,
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
    );
    let one = get(&rig.router, "/apis/external.metrics.k8s.io")
        .await
        .json();
    assert_eq!(
        (&one["kind"], &one["name"]),
        (&json!("APIGroup"), &group["name"])
    );
    assert_eq!(one["preferredVersion"], version);
    let resources = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{
            "name": "externalmetrics",
            "singularName": "",
            "namespaced": true,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }],
    });
    assert_eq!(get(&rig.router, BASE).await.json(), resources);
    assert_eq!(
        get(&rig.router, &format!("{BASE}/")).await.json(),
        resources
    );
    let git = get(&rig.router, "/version").await.json()["gitVersion"].clone();
    assert_eq!(git, "v1.2.3");
}

#[tokio::test]
async fn aggregated_discovery() {
    let rig = rig(fixtures::snapshot());
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::get("/apis")
        .header(header::ACCEPT, media)
        .body(Body::empty());
    let got = send(&rig.router, request.unwrap()).await;
    assert_eq!(got.headers[header::CONTENT_TYPE], media);
    assert_eq!(got.headers[header::VARY], "Accept");
    let body = got.json();
    assert_eq!(body["kind"], "APIGroupDiscoveryList");
    assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2");
    let resources = body["items"][0]["versions"][0]["resources"].as_array();
    assert_eq!(resources.map(Vec::len), Some(1));
    let again = Request::get("/apis")
        .header(header::ACCEPT, media)
        .header(header::IF_NONE_MATCH, &got.headers[header::ETAG])
        .body(Body::empty());
    let again = send(&rig.router, again.unwrap()).await;
    assert_eq!((again.code, again.body.as_str()), (304, ""));
}

/// A cluster that lets these do this (`NAMESPACE/METRIC` or a path), and knows their tokens.
fn cluster(allowed: &[(&str, &'static str, &str)]) -> (Arc<Pretended>, AuthMode) {
    let reviewer = Arc::new(Pretended::default());
    for (who, verb, object) in allowed {
        reviewer.token(who, who);
        reviewer.allow(who, verb, object);
    }
    // Without a sender, what was never known stays so.
    let (_, trust) = watch::channel(None);
    let auth = AuthMode::Kubernetes {
        trust,
        reviewer: reviewer.clone(),
    };
    (reviewer, auth)
}

async fn get_as(router: &Router, token: &str, method: &str, path: &str) -> Got {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    send(router, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn strangers_see_health_and_absence_only() {
    let (_, auth) = cluster(&[]);
    let rig = rig_with(fixtures::snapshot(), auth, 8);
    for (path, anonymous, unknown) in [
        ("/livez", 200, 200),
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/openapi/v2", 404, 404),
        ("/openapi/v3", 404, 404),
        ("/version", 403, 401),
        ("/apis", 403, 401),
        (BASE, 403, 401),
        (LAG, 403, 401),
        ("/nothing", 403, 401),
    ] {
        assert_eq!(get(&rig.router, path).await.code, anonymous, "{path}");
        let got = get_as(&rig.router, "nobody's", "GET", path).await;
        assert_eq!(got.code, unknown, "{path}");
    }
    let got = get(&rig.router, LAG).await;
    assert_eq!(got.json()["reason"], "Forbidden");
    let message = got.message();
    for part in [
        "user \"system:anonymous\" may not list",
        "kafka_lag",
        "shop",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let got = get_as(&rig.router, "nobody's", "GET", LAG).await;
    assert_eq!(got.json()["reason"], "Unauthorized");
    assert!(!got.body.contains("nobody"), "{}", got.body);
    let request = Request::delete(LAG).body(Body::empty()).unwrap();
    assert_eq!(send(&rig.router, request).await.code, 403);
}

#[tokio::test]
async fn roles_are_for_a_verb_a_metric_and_a_namespace() {
    let (_, auth) = cluster(&[
        ("hpa", "list", "shop/kafka_lag"),
        ("admin", "list", "shop/kafka_lag"),
        ("admin", "watch", "shop/kafka_lag"),
        ("admin", "create", "shop/kafka_lag"),
        ("admin", "get", "/version"),
        ("admin", "get", "/nothing"),
    ]);
    let rig = rig_with(fixtures::snapshot(), auth, 8);
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    let other = good.replace("/shop/", "/hr/");
    let unknown = good.replace("kafka_lag", "other_metric");
    let watch = format!("{good}&watch=true");
    for (who, method, path, code) in [
        ("hpa", "GET", good.as_str(), 200),
        ("hpa", "GET", &other, 403),
        ("hpa", "GET", &unknown, 403),
        ("hpa", "GET", &watch, 403),
        ("hpa", "POST", &good, 403),
        ("hpa", "GET", "/version", 403),
        ("admin", "GET", &good, 200),
        ("admin", "GET", &watch, 405),
        ("admin", "POST", &good, 405),
        ("admin", "DELETE", &good, 403),
        ("admin", "GET", "/version", 200),
        ("admin", "POST", "/version", 403),
        ("admin", "GET", "/nothing", 404),
    ] {
        let got = get_as(&rig.router, who, method, path).await;
        assert_eq!(got.code, code, "{who} {method} {path}: {}", got.body);
        assert!(!got.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
}

#[tokio::test]
async fn who_cannot_be_checked_is_refused_with_the_reason() {
    let (reviewer, auth) = cluster(&[("hpa", "list", "shop/kafka_lag")]);
    let rig = rig_with(fixtures::snapshot(), auth, 8);
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    reviewer.fail(Some(crate::review::ReviewError::NoRight));
    for got in [
        get_as(&rig.router, "hpa", "GET", &good).await,
        get(&rig.router, &good).await,
    ] {
        assert_eq!(got.code, 503, "{}", got.body);
        assert!(
            got.message()
                .contains("bind the ClusterRole system:auth-delegator")
        );
    }
    reviewer.fail(None);
    let got = get_as(&rig.router, "hpa", "GET", &good).await;
    assert_eq!(got.code, 200, "{}", got.body);
}

#[tokio::test]
async fn tenancy_bounds_what_a_namespace_may_name() {
    let list = |patterns: &[&str]| patterns.iter().copied().map(Pattern::new).collect();
    let tenancy = Tenancy(vec![Grant {
        namespaces: list(&["shop*"]),
        groups: list(&["orders", "new"]),
        topics: list(&["pay*"]),
        ..Grant::default()
    }]);
    let mut rig = rig_for(fixtures::snapshot(), AuthMode::None, 8, tenancy);
    let other = LAG.replace("/shop/", "/hr/");
    for (path, selector, code) in [
        (LAG, "cluster=main,group=orders,topic=payments", 200),
        (LAG, "cluster=main,group=orders", 403),
        (LAG, "cluster=main,group=idle,topic=payments", 403),
        (
            LAG,
            "cluster=main,group in (orders,idle),topic=payments",
            403,
        ),
        (LAG, "cluster=main,group=orders,topic=refunds", 403),
        (&other, "cluster=main,group=orders,topic=payments", 403),
        (LAG, "cluster=main,group=secret,topic=payments", 403),
    ] {
        let got = get(&rig.router, &with_selector(path, selector)).await;
        assert_eq!(got.code, code, "{path} {selector}: {}", got.body);
        if code == 403 {
            assert!(got.message().contains("tenancy"), "{}", got.body);
        }
    }
    // What may not be named is not read either.
    assert!(rig.interests.try_recv().is_err());
}

#[tokio::test]
async fn only_json_is_spoken() {
    let rig = rig(fixtures::snapshot());
    let path = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    for (accept, code) in [
        ("application/json", 200),
        ("application/vnd.kubernetes.protobuf, application/json", 200),
        ("application/vnd.kubernetes.protobuf,*/*", 200),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            200,
        ),
        ("Application/JSON", 200),
        ("application/*;q=0.5", 200),
        ("", 200),
        ("application/vnd.kubernetes.protobuf", 406),
        ("text/html", 406),
        ("application/yaml, text/plain", 406),
    ] {
        for path in [path.as_str(), BASE, "/apis", "/version"] {
            let request = Request::get(path).header(header::ACCEPT, accept);
            let got = send(&rig.router, request.body(Body::empty()).unwrap()).await;
            assert_eq!(got.code, code, "{accept} {path}");
            if code == 406 {
                got.message();
            }
        }
    }
}

#[tokio::test]
async fn a_large_body_is_refused_and_a_small_one_left_alone() {
    let rig = rig(fixtures::snapshot());
    for (length, code) in [
        ("0", 200),
        ("65536", 200),
        ("65537", 413),
        ("99999999999", 413),
    ] {
        let request = Request::get(BASE).header(header::CONTENT_LENGTH, length);
        let got = send(&rig.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(got.code, code, "{length}");
    }
}

#[tokio::test]
async fn readiness_follows_the_snapshot() {
    let unswept = LagSnapshot {
        clusters: [("main".into(), Arc::new(ClusterSnapshot::default()))].into(),
        ..LagSnapshot::default()
    };
    let rig = rig(unswept);
    let got = get(&rig.router, "/readyz").await;
    assert_eq!(got.code, 503);
    got.message();
    assert_eq!(get(&rig.router, "/livez").await.code, 200);
    rig.publisher.publish(fixtures::snapshot());
    assert_eq!(get(&rig.router, "/readyz").await.code, 200);
}

fn interest(group: &str, topics: &[&str]) -> Interest {
    Interest {
        cluster: "main".into(),
        group: group.into(),
        topics: topics.iter().map(|t| (*t).into()).collect(),
    }
}

/// Adds a group's first reading to a snapshot.
fn and_read(snapshot: &LagSnapshot, group: &str) -> LagSnapshot {
    let mut next = snapshot.clone();
    let mut history = ClusterHistory::default();
    let rows = [(0, Ok(Some(1)), Ok(8))];
    let read = fixtures::read(Duration::ZERO, group, "payments", &rows);
    let read = history.take_in(read, Scope::Some);
    let mut main = (*next.clusters["main"]).clone();
    main.groups.extend(read.groups.clone());
    next.clusters.insert("main".into(), Arc::new(main));
    next
}

#[tokio::test]
async fn a_new_group_is_read_while_the_request_waits() {
    let snapshot = fixtures::snapshot();
    let mut rig = rig(snapshot.clone());
    let router = rig.router.clone();
    let request =
        tokio::spawn(async move { lag(&router, "cluster=main,group=new,topic=payments").await });
    assert_eq!(
        rig.interests.recv().await.unwrap(),
        interest("new", &["payments"])
    );
    // Something else changes first.
    rig.publisher.publish(snapshot.clone());
    tokio::task::yield_now().await;
    rig.publisher.publish(and_read(&snapshot, "new"));
    let got = request.await.unwrap();
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.json()["items"][0]["value"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_first_read_that_does_not_come_is_refused_in_time() {
    let mut rig = rig(fixtures::snapshot());
    let began = tokio::time::Instant::now();
    let got = lag(&rig.router, "cluster=main,group=new").await;
    assert_eq!(began.elapsed(), FIRST_READ_WITHIN);
    assert_eq!(got.code, 503);
    assert!(got.message().contains("the first read of group \"new\""));
    assert_eq!(rig.interests.try_recv().unwrap(), interest("new", &[]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_the_cause() {
    let rig = rig(fixtures::snapshot());
    let got = lag(&rig.router, "cluster=down,group=new").await;
    assert_eq!(got.code, 503);
    let message = got.message();
    assert!(
        message.contains("group \"new\" on Kafka cluster \"down\""),
        "{message}"
    );
    assert!(message.contains("SASL authentication failed"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_refused_at_once() {
    let rig = rig_with(fixtures::snapshot(), AuthMode::None, 1);
    let began = tokio::time::Instant::now();
    let got = lag(&rig.router, "cluster=main,group in (a,b)").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(got.code, 503);
    assert!(got.message().contains("too many new consumer groups"));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_asks_for_many_new_groups_is_slowed_down() {
    let mut rig = rig_with(fixtures::snapshot(), AuthMode::None, 256);
    let asked = (0..40).map(|n| {
        let (router, selector) = (rig.router.clone(), format!("cluster=main,group=g{n}"));
        async move { lag(&router, &selector).await }
    });
    let got = futures::future::join_all(asked).await;
    let count = |code| got.iter().filter(|got| got.code == code).count();
    assert_eq!((count(503), count(429)), (32, 8));
    for got in got.iter().filter(|got| got.code == 429) {
        assert!(
            got.message()
                .contains("namespace \"shop\" asks for too many new")
        );
        assert!(!got.headers.contains_key(header::RETRY_AFTER));
    }
    let mut read = 0;
    while rig.interests.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, 32);
    // Others go on, and what is already known costs nothing.
    let other = LAG.replace("/shop/", "/hr/");
    let got = get(
        &rig.router,
        &with_selector(&other, "cluster=main,group=new"),
    )
    .await;
    assert_eq!(got.code, 503, "{}", got.body);
    let got = lag(&rig.router, "cluster=main,group=orders,topic=payments").await;
    assert_eq!(got.code, 200, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_is_already_asked_for_may_be_asked_for_again() {
    let mut snapshot = fixtures::snapshot();
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(interest("slow", &[]));
    snapshot.targets = Arc::new(targets);
    let rig = rig_with(snapshot, AuthMode::None, 256);
    for _ in 0..40 {
        assert_eq!(lag(&rig.router, "cluster=main,group=slow").await.code, 503);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_has_nothing_read() {
    let mut snapshot = fixtures::snapshot();
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(interest("slow", &[]));
    snapshot.targets = Arc::new(targets);
    let mut rig = rig_with(snapshot, AuthMode::None, 2 * MAX_WAITING);
    let asked = (0..=MAX_WAITING).map(|_| {
        let router = rig.router.clone();
        async move { lag(&router, "cluster=main,group=slow").await }
    });
    let got = futures::future::join_all(asked).await;
    let refused = got
        .iter()
        .filter(|got| got.message().contains("too many requests wait"));
    assert_eq!(refused.count(), 1);
    assert_eq!(
        got.iter().filter(|got| got.code == 503).count(),
        MAX_WAITING
    );
    let mut read = 0;
    while rig.interests.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, MAX_WAITING);
}

#[tokio::test]
async fn too_many_groups_in_one_selector_are_refused() {
    let mut rig = rig(fixtures::snapshot());
    let groups: Vec<_> = (0..33).map(|n| format!("g{n}")).collect();
    let selector = format!("cluster=main,group in ({})", groups.join(","));
    let got = lag(&rig.router, &selector).await;
    assert_eq!(got.code, 400);
    assert!(got.message().contains("names 33 consumer groups"));
    assert!(rig.interests.try_recv().is_err());
}

#[tokio::test]
async fn what_requests_ask_for_stays_watched() {
    let mut snapshot = fixtures::snapshot();
    let known = interest("orders", &["payments"]);
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(known.clone());
    snapshot.targets = Arc::new(targets);
    let mut rig = rig(snapshot);
    let selector = "cluster=main,group=orders,topic=payments";
    for _ in 0..9 {
        assert_eq!(lag(&rig.router, selector).await.code, 200);
    }
    assert_eq!(rig.interests.try_recv().unwrap(), known);
    // Half of the queue stays free for groups that are new.
    assert_eq!(rig.interests.len(), 3);
    assert_eq!(
        lag(&rig.router, "cluster=main,group=idle,topic=payments")
            .await
            .code,
        200
    );
    while let Ok(sent) = rig.interests.try_recv() {
        assert_eq!(sent, known);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_hpa_asks_for_is_not_asked_for_again() {
    let mut snapshot = fixtures::snapshot();
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: "kafka_lag".to_owned(),
            selector: Selector::parse("cluster=main,group=soon").unwrap(),
            target: Some(MetricTarget::AverageValue(
                crate::model::quantity::Milli::ONE,
            )),
        }],
        ..HpaFacts::default()
    };
    let clusters = snapshot.targets.clusters.clone();
    snapshot.targets = Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()));
    let mut rig = rig(snapshot);
    assert_eq!(lag(&rig.router, "cluster=main,group=soon").await.code, 503);
    assert!(rig.interests.try_recv().is_err());
}

/// Answers every interest as a healthy Kafka does that has no such group.
pub(super) async fn healthy(
    mut snapshot: LagSnapshot,
    publisher: Publisher,
    mut interests: mpsc::Receiver<Interest>,
) {
    let mut history = ClusterHistory::default();
    while let Some(interest) = interests.recv().await {
        let mut observation = fixtures::nothing(Duration::ZERO, interest.group.as_str());
        let plan = &mut observation.groups[0].plan;
        plan.topics = interest.topics.clone();
        plan.reset = OffsetReset::Latest;
        for topic in &interest.topics {
            let missing = Err(crate::model::fault::Fault::TopicMissing);
            observation.topics.insert(topic.clone(), missing);
        }
        let committed = interest.topics.iter().map(|t| (t.clone(), Vec::new()));
        observation.groups[0].committed = Ok(committed.collect());
        let read = history.take_in(observation, Scope::Some);
        let mut main = (*snapshot.clusters["main"]).clone();
        let group: &GroupId = &interest.group;
        main.groups
            .insert(group.clone(), read.groups[group].clone());
        snapshot.clusters.insert("main".into(), Arc::new(main));
        publisher.publish(snapshot.clone());
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
