//! Tests of the listeners with real connections.

mod addresses;
mod hosts;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::authentication::access::{ClusterTrust, FrontProxyTrust};
use crate::leader_election::Leading;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures;
use crate::model::snapshot::LagSnapshot;
use crate::serve::BuildInfo;
use crate::serve::auth::RequestAuth;
use crate::serve::auth::testing::FakeAuthenticator;
use crate::serve::external::{self, ExternalOptions};
use crate::serve::health::{Liveness, Readiness};
use crate::serve::metrics::{self, MetricsOptions};
use crate::serve::probes;
use crate::serve::shadow::ShadowReader;
use crate::serve::tls::testing::{Issuer, TestIdentity};
use crate::snapshot_channel::{self, SnapshotReader};
use crate::worker_threads::Heartbeat;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const DISCOVERY: &str = "/apis/external.metrics.k8s.io/v1beta1";

fn build() -> BuildInfo {
    BuildInfo {
        version: "1.2.3".to_owned(),
        librdkafka: "2".to_owned(),
    }
}

struct TestServer {
    address: SocketAddr,
    tls: ServerTls,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
    _keep: Box<dyn std::any::Any + Send>,
}

impl TestServer {
    fn start(auth: RequestAuth) -> Self {
        let tls =
            ServerTls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let bound = bind(LOOPBACK, "server.external_metrics.listen").unwrap();
        let address = bound.address();
        let (publisher, reader) = snapshot_channel::channel(snapshot());
        let (watch_keys, receiver) = mpsc::channel(8);
        let (drain, draining) = watch::channel(false);
        let router = external::router(ExternalOptions {
            leading: Leading::alone(),
            forwarder: None,
            triggers: None,
            history: crate::serve::history::HpaHistoryHandle::none(),
            upstream: None,
            readiness: Readiness::new(reader.clone(), Instant::now(), draining),
            reader,
            tenancy: Default::default(),
            access_log: Default::default(),
            watch_keys,
            queries: mpsc::channel(1).0,
            auth,
            build: build(),
        });
        let (stop, stopped) = oneshot::channel();
        let server_tls = tls.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            bound
                .serve_tls(ListenerKind::Api, router, &server_tls, shutdown)
                .await
        });
        Self {
            address,
            tls,
            stop,
            task,
            _keep: Box::new((publisher, receiver, drain)),
        }
    }

    async fn connect(&self, identity: Option<TestIdentity>, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.tls.ca_pem().unwrap().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(crate::serve::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.certificate.into()], identity.key)
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    async fn get(&self, identity: Option<TestIdentity>, path: &str, user: Option<&str>) -> u16 {
        let stream = self.connect(identity, b"http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(user) = user {
            request = request.header("x-remote-user", user);
        }
        let response = sender.send_request(request.body(Body::empty()).unwrap());
        response.await.unwrap().status().as_u16()
    }

    /// Stops the server and returns how long that took.
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        began.elapsed()
    }
}

/// A cluster with this front proxy, in which all authenticated users may read the discovery document.
fn front_proxy(ca: &Issuer) -> (watch::Sender<Option<ClusterTrust>>, RequestAuth) {
    let (sender, trust) = watch::channel(Some(ClusterTrust {
        front_proxy: Some(FrontProxyTrust {
            client_ca_pem: ca.pem(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned()],
            ..FrontProxyTrust::default()
        }),
        client_ca_pem: None,
    }));
    let reviewer = Arc::new(FakeAuthenticator::default());
    reviewer.allow("system:authenticated", "get", DISCOVERY);
    (sender, RequestAuth::Kubernetes { trust, reviewer })
}

#[tokio::test]
async fn only_the_front_proxy_acts_for_users() {
    let (ca, other) = (Issuer::new("front-proxy-ca"), Issuer::new("other"));
    let (_trust, auth) = front_proxy(&ca);
    let server = TestServer::start(auth);
    let proxy = || Some(ca.client("front-proxy-client"));
    for (case, identity, user, code) in [
        ("the front proxy", proxy(), Some("mary"), 200),
        ("the front proxy without a user name", proxy(), None, 401),
        ("no certificate", None, None, 403),
        ("no certificate, forged headers", None, Some("mary"), 403),
        (
            "wrong CA",
            Some(other.client("front-proxy-client")),
            Some("mary"),
            401,
        ),
        ("wrong name", Some(ca.client("someone")), Some("mary"), 401),
        (
            "expired",
            Some(ca.expired_client("front-proxy-client")),
            Some("mary"),
            401,
        ),
    ] {
        assert_eq!(server.get(identity, DISCOVERY, user).await, code, "{case}");
    }
    assert_eq!(server.get(None, "/livez", None).await, 200);
    assert_eq!(
        server.get(Some(other.client("x")), "/livez", None).await,
        200
    );
    assert!(server.stop().await < Duration::from_secs(5));
}

#[tokio::test]
async fn bounds_headers_but_accepts_many_groups() {
    let ca = Issuer::new("front-proxy-ca");
    let (_trust, auth) = front_proxy(&ca);
    let server = TestServer::start(auth);
    for (groups, bytes, code) in [
        (1, 5, 200),
        (400, 5, 200),
        (1, 60_000, 200),
        (1, 70_000, 431),
    ] {
        let identity = Some(ca.client("front-proxy-client"));
        let stream = server.connect(identity, b"http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(DISCOVERY).header("x-remote-user", "mary");
        for group in 0..groups {
            request = request.header("x-remote-group", format!("group-{group}"));
        }
        request = request.header("x-other", "x".repeat(bytes));
        let response = sender.send_request(request.body(Body::empty()).unwrap());
        let found = response.await.unwrap().status().as_u16();
        assert_eq!(found, code, "{groups} groups, {bytes} bytes");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_fails_the_handshake() {
    let ca = Issuer::new("front-proxy-ca");
    let (_trust, auth) = front_proxy(&ca);
    let server = TestServer::start(auth);
    let stolen = TestIdentity {
        certificate: ca.client("front-proxy-client").certificate,
        key: ca.client("front-proxy-client").key,
    };
    // rustls refuses to load such a pair, so build it by hand.
    let provider = crate::serve::tls::provider();
    let key = provider.key_provider.load_private_key(stolen.key).unwrap();
    let pair = rustls::sign::CertifiedKey::new(vec![stolen.certificate.into()], key);
    let mut roots = RootCertStore::empty();
    let pem = server.tls.ca_pem().unwrap();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = match TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
    {
        Ok(stream) => stream,
        Err(_) => return,
    };
    // In TLS 1.3 the client finishes before the server has verified the client's certificate.
    let request = format!("GET {DISCOVERY} HTTP/1.1\r\nhost: x\r\nx-remote-user: mary\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    assert!(read.is_err() && answer.is_empty(), "{read:?} {answer:?}");
}

#[tokio::test]
async fn shuts_down_within_seconds_despite_open_connections() {
    let server = TestServer::start(RequestAuth::None);
    // Idle after a request, on HTTP/1 and HTTP/2.
    let stream = server.connect(None, b"http/1.1").await;
    let (mut one, connection) = http1::handshake::<_, Body>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(
        one.send_request(request("/livez")).await.unwrap().status(),
        200
    );
    let stream = server.connect(None, b"h2").await;
    let handshake = http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream));
    let (mut two, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let url = "https://localhost/livez";
    assert_eq!(two.send_request(request(url)).await.unwrap().status(), 200);
    // An incomplete request, an HTTP/2 peer that never answers, a connection without a handshake.
    let mut half = server.connect(None, b"http/1.1").await;
    half.write_all(b"GET /livez HTTP/1.1\r\nhos").await.unwrap();
    let mut mute = server.connect(None, b"h2").await;
    mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let _silent = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.address;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn finishes_running_requests_at_shutdown() {
    let bound = bind(LOOPBACK, "server.metrics.listen").unwrap();
    let address = bound.address();
    let slow = axum::routing::get(async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(bound.serve_plain(
        ListenerKind::Metrics,
        Router::new().route("/slow", slow),
        async {
            let _ = stopped.await;
        },
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    server.await.unwrap().unwrap();
}

/// The fixture's snapshot as the poller publishes it.
fn snapshot() -> LagSnapshot {
    // The fixture's readings are as old as the test process.
    let policy = ServingPolicy {
        max_staleness: Duration::from_secs(3600),
        ..ServingPolicy::default()
    };
    fixtures::snapshot().evaluated(&policy)
}

/// Options of the metrics, for every scraper.
fn metrics_options(reader: SnapshotReader) -> MetricsOptions {
    MetricsOptions {
        shadow: ShadowReader::none(),
        leadership: crate::leader_election::Leadership::alone(),
        reader,
        auth: RequestAuth::None,
        build: build(),
    }
}

#[tokio::test]
async fn metrics_listener_serves_metrics_and_health() {
    let bound = bind(LOOPBACK, "server.metrics.listen").unwrap();
    let address = bound.address();
    let (_publisher, reader) = snapshot_channel::channel(snapshot());
    let (drain, draining) = watch::channel(false);
    let readiness = Readiness::new(reader.clone(), Instant::now(), draining);
    let router = metrics::router(metrics_options(reader));
    let router = router.merge(probes::router(Liveness::default(), readiness));
    let forever = std::future::pending();
    tokio::spawn(bound.serve_plain(ListenerKind::Metrics, router, forever));
    let get = async |path: &str| get_plain(address, path).await;
    let (code, text) = get("/metrics").await;
    assert_eq!(code, 200);
    for part in [
        "kafka_consumergroup_lag_sum{cluster=\"main\",consumergroup=\"orders\",topic=\"payments\"} 100\n",
        "lagwise_build_info{version=\"1.2.3\",librdkafka=\"2\"} 1\n",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
    for path in ["/nothing", "/status", "/explain?group=orders"] {
        assert_eq!(get(path).await.0, 404, "{path}");
    }
    drain.send_replace(true);
    assert_eq!(get("/readyz").await, (503, "shutting down\n".to_owned()));
    assert_eq!(get("/livez").await.0, 200);
}

#[tokio::test]
async fn the_liveness_probe_fails_while_threads_hang() {
    let now = Instant::now();
    for (silent, expected) in [(0, 200), (20, 200), (40, 503), (100, 503)] {
        let last = now.checked_sub(Duration::from_secs(silent)).unwrap();
        let heartbeats = ["answers", "handshakes"].map(|name| {
            let last = if name == "handshakes" { last } else { now };
            Heartbeat::with_last_beat(name, last)
        });
        let (_publisher, reader) = snapshot_channel::channel(snapshot());
        let (_drain, draining) = watch::channel(false);
        let readiness = Readiness::new(reader, now, draining);
        let bound = bind(LOOPBACK, "server.probes.listen").unwrap();
        let address = bound.address();
        let router = probes::router(Liveness::new(heartbeats.into()), readiness);
        let forever = std::future::pending();
        tokio::spawn(bound.serve_plain(ListenerKind::Probes, router, forever));
        let (code, text) = get_plain(address, "/livez").await;
        assert_eq!(code, expected, "{silent} s: {text}");
        if code == 503 {
            let begins = "the threads for handshakes have run nothing for ";
            assert!(text.starts_with(begins), "{text}");
        }
        assert_eq!(get_plain(address, "/readyz").await.0, 200);
    }
}

/// Sends a request over plain HTTP. Returns the status code and the body.
async fn get_plain(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "x").body(Body::empty());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = Body::new(response.into_body());
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn bind_error_names_address_and_setting() {
    let first = bind(LOOPBACK, "server.metrics.listen").unwrap();
    let error = bind(first.address(), "server.metrics.listen")
        .unwrap_err()
        .to_string();
    let expected = format!(
        "cannot listen on {} (server.metrics.listen): ",
        first.address()
    );
    assert!(error.starts_with(&expected), "{error}");
}
