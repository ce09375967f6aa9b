use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::authentication::Credential;
use crate::leader_election::{Leader, Leadership, Leading, Term};
use crate::model::fixtures;
use crate::model::hpa::facts::MetricTarget;
use crate::model::lag::assembly::Scope;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::quantity::Milli;
use crate::serve::auth::RequestAuth;
use crate::serve::auth::testing::{FakeAuthenticator, OWN_NAME};
use crate::serve::external::tests::{TestResponse, evaluated, send, with_selector};
use crate::serve::external::{ExternalOptions, router};
use crate::serve::forward::{FORWARDED, Forwarder};
use crate::serve::health::Readiness;
use crate::serve::history::{HpaHistoryHandle, history};
use crate::serve::history_handover::follow;
use crate::serve::tls::ServerTls;
use crate::serve::{BuildInfo, listen};
use crate::snapshot_channel::{self, Publisher, SnapshotReader};

const LAG: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag";
const ORDERS: &str = "cluster=main,group=orders,topic=payments";

/// One of several daemons.
struct TestDaemon {
    router: axum::Router,
    publisher: Publisher,
    terms: watch::Sender<Option<Term>>,
    leaders: watch::Sender<Option<Leader>>,
    cluster: Arc<FakeAuthenticator>,
    _keep: Box<dyn std::any::Any + Send + Sync>,
}

impl TestDaemon {
    fn new(tls: &ServerTls, token: &str) -> Self {
        Self::with_history(tls, token, HpaHistoryHandle::none())
    }

    fn with_history(tls: &ServerTls, token: &str, history: HpaHistoryHandle) -> Self {
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let (terms, own) = watch::channel(None);
        let (leaders, others) = watch::channel(None);
        let (watch_keys, receiver) = mpsc::channel(8);
        let (drain, draining) = watch::channel(false);
        let (trust_in, trust) = watch::channel(None);
        let cluster = Arc::new(FakeAuthenticator::default());
        cluster.token("mary's", "mary");
        cluster.token("peer's", OWN_NAME);
        cluster.allow("mary", "list", "shop/kafka_lag");
        let credential = Credential::Token(token.to_owned());
        let router = router(ExternalOptions {
            leading: Leading {
                own: Leadership::new(own),
                others,
            },
            forwarder: Some(Arc::new(Forwarder::new(tls, credential).unwrap())),
            triggers: None,
            history,
            upstream: None,
            readiness: Readiness::new(reader.clone(), Instant::now(), draining),
            reader,
            tenancy: Default::default(),
            access_log: Default::default(),
            watch_keys,
            queries: mpsc::channel(1).0,
            auth: RequestAuth::Kubernetes {
                trust,
                reviewer: Arc::clone(&cluster) as _,
            },
            build: BuildInfo {
                version: "1.2.3".to_owned(),
                librdkafka: "2".to_owned(),
            },
        });
        Self {
            router,
            publisher,
            terms,
            leaders,
            cluster,
            _keep: Box::new((trust_in, receiver, drain)),
        }
    }

    /// Makes it the leader with the fixture's snapshot.
    fn lead(&self, number: u64, until: Instant) {
        let until = Some(until);
        self.terms.send_replace(Some(Term { number, until }));
        self.publisher
            .of_term(number)
            .publish(evaluated(fixtures::snapshot()));
    }

    async fn get_as(&self, token: &str, headers: HeaderMap) -> TestResponse {
        self.get_path_as(token, headers, &with_selector(LAG, ORDERS))
            .await
    }

    async fn get_path_as(&self, token: &str, headers: HeaderMap, path: &str) -> TestResponse {
        let mut request = Request::get(path).header("authorization", format!("Bearer {token}"));
        request.headers_mut().unwrap().extend(headers);
        send(&self.router, request.body(Body::empty()).unwrap()).await
    }

    async fn get_as_mary(&self) -> TestResponse {
        self.get_as("mary's", HeaderMap::new()).await
    }
}

fn forwarded() -> HeaderMap {
    [(FORWARDED, "1".parse().unwrap())].into_iter().collect()
}

fn tls() -> ServerTls {
    ServerTls::self_signed(&["lagwise.shop.svc".to_owned()]).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[tokio::test(start_paused = true)]
async fn serves_no_values_of_another_term() {
    let daemon = TestDaemon::new(&tls(), "peer's");
    let got = daemon.get_as_mary().await;
    assert_eq!(got.code, 503);
    let no_leader = got.message();
    assert!(
        no_leader.contains("no lagwise replica is the leader"),
        "{no_leader}"
    );
    daemon.lead(3, later());
    assert_eq!(daemon.get_as_mary().await.code, 200);
    // The term is over by the clock, although no new term was published.
    daemon.lead(3, Instant::now());
    assert_eq!(daemon.get_as_mary().await.message(), no_leader);
    // It leads again, but has not read Kafka in this term.
    let until = Some(later());
    daemon.terms.send_replace(Some(Term { number: 5, until }));
    let got = daemon.get_as_mary().await;
    assert!(got.message().contains("has just started"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn request_waits_for_the_next_leader() {
    let daemon = Arc::new(TestDaemon::new(&tls(), "peer's"));
    let waits = Arc::clone(&daemon);
    let waiting = tokio::spawn(async move { waits.get_as_mary().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    daemon.lead(4, later());
    assert_eq!(waiting.await.unwrap().code, 200);
}

#[tokio::test(start_paused = true)]
async fn accepts_forwarded_requests_only_from_peers() {
    let leader = TestDaemon::new(&tls(), "peer's");
    leader.lead(1, later());
    // A peer may not read metrics itself, but its forwarded requests are authorized already.
    let got = leader.get_as("peer's", HeaderMap::new()).await;
    assert_eq!(got.code, 403, "{}", got.body);
    let got = leader.get_as("peer's", forwarded()).await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert!(got.headers.contains_key(FORWARDED));
    // From anyone else the header is ignored.
    leader.cluster.token("john's", "john");
    let got = leader.get_as("john's", forwarded()).await;
    assert_eq!(got.code, 403, "{}", got.body);
    let got = leader.get_as("mary's", forwarded()).await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert!(!got.headers.contains_key(FORWARDED));
    assert_eq!(leader.get_as("nobody's", forwarded()).await.code, 401);
}

/// A history that is recorded while the process leads, or not at all.
fn recorded(leadership: Leadership) -> (HpaHistoryHandle, SnapshotReader) {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let hpa = fixtures::hpa("billing", "group=g,topic=orders", target);
    let row = (0, Ok(Some(1)), Ok(8));
    let read = fixtures::read(Duration::ZERO, "g", "orders", &[row]);
    let snapshot = fixtures::evaluated(&[hpa], [read], Scope::Whole);
    let (publisher, reader) = snapshot_channel::channel(snapshot);
    let (handle, recording) = history(reader.clone(), leadership, Duration::from_millis(5));
    tokio::spawn(async move {
        let _publisher = publisher;
        recording.await;
    });
    (handle, reader)
}

#[tokio::test]
async fn the_history_is_for_replicas_only_and_the_next_leader_takes_it_over() {
    let tls = tls();
    let (history, _reader) = recorded(Leadership::alone());
    let points = async |handle: &HpaHistoryHandle| {
        let key = HpaKey::new("shop", "billing");
        let count = handle.query(move |recorder| Some(recorder.history(&key)?.points().count()));
        count.await.flatten().unwrap_or(0)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while points(&history).await == 0 {
        assert!(Instant::now() < deadline, "nothing was recorded");
        tokio::task::yield_now().await;
    }
    let leader = TestDaemon::with_history(&tls, "peer's", history.clone());
    leader.lead(1, later());
    for (token, headers, code) in [
        ("peer's", forwarded(), 200),
        ("peer's", HeaderMap::new(), 404),
        ("mary's", forwarded(), 404),
        ("mary's", HeaderMap::new(), 404),
        ("nobody's", forwarded(), 401),
    ] {
        let got = leader.get_path_as(token, headers, "/history?since=0").await;
        assert_eq!(got.code, code, "{token}: {}", got.body);
        assert_eq!(
            got.body.contains("billing"),
            code == 200,
            "{token}: {}",
            got.body
        );
    }

    let loopback = "127.0.0.1:0".parse().unwrap();
    let bound = listen::bind(loopback, "server.external_metrics.listen").unwrap();
    let address = Some(bound.address().to_string());
    let (router, server) = (leader.router.clone(), tls.clone());
    let serving = tokio::spawn(async move {
        let forever = std::future::pending();
        bound
            .serve_tls(listen::ListenerKind::Api, router, &server, forever)
            .await
    });
    let (next, _reader) = recorded(Leadership::new(watch::channel(None).1));
    let (_leaders, others) = watch::channel(Some(Leader { term: 1, address }));
    let leading = Leading {
        own: Leadership::new(watch::channel(None).1),
        others,
    };
    let credential = Credential::Token("peer's".to_owned());
    let forwarder = Arc::new(Forwarder::new(&tls, credential).unwrap());
    let following = tokio::spawn(follow(next.clone(), leading, forwarder));
    while points(&next).await == 0 {
        assert!(Instant::now() < deadline, "nothing was handed over");
        tokio::task::yield_now().await;
    }
    // A replica that does not lead hands nothing over.
    leader.terms.send_replace(None);
    let got = leader
        .get_path_as("peer's", forwarded(), "/history?since=0")
        .await;
    assert_eq!(got.code, 503, "{}", got.body);
    following.abort();
    serving.abort();
}

#[tokio::test]
async fn follower_returns_the_leaders_response() {
    let tls = tls();
    let leader = TestDaemon::new(&tls, "peer's");
    let loopback = "127.0.0.1:0".parse().unwrap();
    let bound = listen::bind(loopback, "server.external_metrics.listen").unwrap();
    let known = |bound: &listen::BoundListener| {
        Some(Leader {
            term: 1,
            address: Some(bound.address().to_string()),
        })
    };
    let at_leader = known(&bound);
    let (router, server) = (leader.router.clone(), tls.clone());
    let serving = tokio::spawn(async move {
        bound
            .serve_tls(
                listen::ListenerKind::Api,
                router,
                &server,
                std::future::pending(),
            )
            .await
    });
    let follower = TestDaemon::new(&tls, "peer's");
    follower.leaders.send_replace(at_leader.clone());

    leader.lead(1, later());
    let got = follower.get_as_mary().await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.json()["items"][0]["value"], "100");
    assert!(!got.headers.contains_key(FORWARDED));
    // The follower does not forward requests that it rejects.
    assert_eq!(
        follower.get_as("nobody's", HeaderMap::new()).await.code,
        401
    );
    assert_eq!(follower.get_as("peer's", HeaderMap::new()).await.code, 403);

    // A former leader says so, and does not forward again.
    leader.terms.send_replace(None);
    leader.leaders.send_replace(at_leader.clone());
    let got = follower.get_as_mary().await;
    assert!(got.message().contains("does not lead"), "{}", got.body);

    // A daemon with another user name is no peer, so the leader rejects its forwarded requests.
    leader.leaders.send_replace(None);
    leader.lead(2, later());
    let other_user = TestDaemon::new(&tls, "john's");
    leader.cluster.token("john's", "john");
    other_user.leaders.send_replace(at_leader.clone());
    let got = other_user.get_as_mary().await;
    assert_eq!(got.code, 503);
    assert!(
        got.message().contains("does not accept this replica"),
        "{}",
        got.body
    );

    // A leader whose certificate is signed by another authority is not trusted.
    let other = TestDaemon::new(&self::tls(), "peer's");
    other.leaders.send_replace(at_leader);
    let got = other.get_as_mary().await;
    assert_eq!(got.code, 503);
    assert!(got.message().contains("cannot connect to"), "{}", got.body);
    serving.abort();
}
