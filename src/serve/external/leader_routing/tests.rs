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
use crate::serve::auth::RequestAuth;
use crate::serve::auth::testing::{FakeAuthenticator, OWN_NAME};
use crate::serve::external::tests::{Got, evaluated, send, with_selector};
use crate::serve::external::{ExternalOptions, router};
use crate::serve::forward::{FORWARDED, Forwarder};
use crate::serve::health::Readiness;
use crate::serve::tls::ServerTls;
use crate::serve::{BuildInfo, listen};
use crate::snapshot_channel::{self, Publisher};

const LAG: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag";
const ORDERS: &str = "cluster=main,group=orders,topic=payments";

/// A daemon of several.
struct TestDaemon {
    router: axum::Router,
    publisher: Publisher,
    terms: watch::Sender<Option<Term>>,
    leaders: watch::Sender<Option<Leader>>,
    cluster: Arc<FakeAuthenticator>,
    _trust: Box<dyn std::any::Any + Send + Sync>,
}

impl TestDaemon {
    fn new(tls: &ServerTls, token: &str) -> Self {
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let (terms, own) = watch::channel(None);
        let (leaders, others) = watch::channel(None);
        let (interests, asked) = mpsc::channel(8);
        let (drain, draining) = watch::channel(false);
        let (trust_in, trust) = watch::channel(None);
        let cluster = Arc::new(FakeAuthenticator::default());
        cluster.token("mary's", "mary");
        cluster.token("ours", OWN_NAME);
        cluster.allow("mary", "list", "shop/kafka_lag");
        let credential = Credential::Token(token.to_owned());
        let router = router(ExternalOptions {
            leading: Leading {
                own: Leadership::new(own),
                others,
            },
            forwarder: Some(Forwarder::new(tls, credential).unwrap()),
            readiness: Readiness::new(reader.clone(), Instant::now(), draining),
            reader,
            tenancy: Default::default(),
            access_log: Default::default(),
            interests,
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
            _trust: Box::new((trust_in, asked, drain)),
        }
    }

    /// It leads, with the fixture for its snapshot.
    fn leads(&self, number: u64, until: Instant) {
        let until = Some(until);
        self.terms.send_replace(Some(Term { number, until }));
        self.publisher
            .of_term(number)
            .publish(evaluated(fixtures::snapshot()));
    }

    async fn ask(&self, token: &str, headers: HeaderMap) -> Got {
        let mut request = Request::get(with_selector(LAG, ORDERS))
            .header("authorization", format!("Bearer {token}"));
        request.headers_mut().unwrap().extend(headers);
        send(&self.router, request.body(Body::empty()).unwrap()).await
    }

    async fn mary(&self) -> Got {
        self.ask("mary's", HeaderMap::new()).await
    }
}

fn passed_on() -> HeaderMap {
    [(FORWARDED, "1".parse().unwrap())].into_iter().collect()
}

fn tls() -> ServerTls {
    ServerTls::self_signed(&["lagwise.shop.svc".to_owned()]).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_what_was_known_in_another_term() {
    let daemon = TestDaemon::new(&tls(), "ours");
    let got = daemon.mary().await;
    assert_eq!(got.code, 503);
    let nobody = got.message();
    assert!(
        nobody.contains("no lagwise replica is the leader"),
        "{nobody}"
    );
    daemon.leads(3, later());
    assert_eq!(daemon.mary().await.code, 200);
    // The term is over, though nobody has said so.
    daemon.leads(3, Instant::now());
    assert_eq!(daemon.mary().await.message(), nobody);
    // It leads again, and has not asked Kafka since.
    let until = Some(later());
    daemon.terms.send_replace(Some(Term { number: 5, until }));
    let got = daemon.mary().await;
    assert!(got.message().contains("has just started"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn on_the_way_to_the_next_leader_a_request_waits() {
    let daemon = Arc::new(TestDaemon::new(&tls(), "ours"));
    let waits = Arc::clone(&daemon);
    let asking = tokio::spawn(async move { waits.mary().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asking.is_finished());
    daemon.leads(4, later());
    assert_eq!(asking.await.unwrap().code, 200);
}

#[tokio::test(start_paused = true)]
async fn only_a_daemon_of_ours_asks_for_others() {
    let leader = TestDaemon::new(&tls(), "ours");
    leader.leads(1, later());
    // It may do nothing itself, and has checked whoever it asks for.
    let got = leader.ask("ours", HeaderMap::new()).await;
    assert_eq!(got.code, 403, "{}", got.body);
    let got = leader.ask("ours", passed_on()).await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert!(got.headers.contains_key(FORWARDED));
    // From anybody else the header means nothing.
    leader.cluster.token("john's", "john");
    let got = leader.ask("john's", passed_on()).await;
    assert_eq!(got.code, 403, "{}", got.body);
    let got = leader.ask("mary's", passed_on()).await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert!(!got.headers.contains_key(FORWARDED));
    assert_eq!(leader.ask("nobody's", passed_on()).await.code, 401);
}

#[tokio::test]
async fn a_follower_passes_the_leaders_answer_on() {
    let tls = tls();
    let leader = TestDaemon::new(&tls, "ours");
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
            .serve_tls(router, &server, std::future::pending())
            .await
    });
    let follower = TestDaemon::new(&tls, "ours");
    follower.leaders.send_replace(at_leader.clone());

    leader.leads(1, later());
    let got = follower.mary().await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.json()["items"][0]["value"], "100");
    assert!(!got.headers.contains_key(FORWARDED));
    // Whom the follower does not let in is not asked for.
    assert_eq!(follower.ask("nobody's", HeaderMap::new()).await.code, 401);
    assert_eq!(follower.ask("ours", HeaderMap::new()).await.code, 403);

    // One that is no longer the leader says so, and passes nothing on.
    leader.terms.send_replace(None);
    leader.leaders.send_replace(at_leader.clone());
    let got = follower.mary().await;
    assert!(got.message().contains("does not lead"), "{}", got.body);

    // Nobody of ours: the leader does not let it ask for others.
    leader.leaders.send_replace(None);
    leader.leads(2, later());
    let stranger = TestDaemon::new(&tls, "john's");
    leader.cluster.token("john's", "john");
    stranger.leaders.send_replace(at_leader.clone());
    let got = stranger.mary().await;
    assert_eq!(got.code, 503);
    assert!(
        got.message().contains("does not accept this replica"),
        "{}",
        got.body
    );

    // A leader with a certificate of somebody else's authority is not asked.
    let other = TestDaemon::new(&self::tls(), "ours");
    other.leaders.send_replace(at_leader);
    let got = other.mary().await;
    assert_eq!(got.code, 503);
    assert!(got.message().contains("cannot connect to"), "{}", got.body);
    serving.abort();
}
