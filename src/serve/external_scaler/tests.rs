//! Tests by a gRPC client over TLS, with lag set by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use axum::http::uri::PathAndQuery;
use futures::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::Streaming;

use super::*;
use crate::authentication::Credential;
use crate::leader_election::{Leader, Leadership, Leading, Term};
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures::{at, read};
use crate::model::hpa::facts::HpaMap;
use crate::model::keda::external_triggers::ExternalTriggers;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::newtypes::Moment;
use crate::serve::external::{self, ExternalOptions};
use crate::serve::forward::Forwarder;
use crate::serve::listen::{self, ListenerKind};
use crate::serve::tls::ServerTls;
use crate::serve::tls::testing::{Issuer, TestIdentity};
use crate::serve::{BuildInfo, tls};
use crate::snapshot_channel::{self, Publisher};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A daemon with an external scaler.
struct TestScaler {
    address: SocketAddr,
    api: SocketAddr,
    tls: ServerTls,
    /// Lag of group `billing` on the five partitions of `orders`; `None` while nothing is read.
    lag: watch::Sender<Option<i64>>,
    terms: watch::Sender<Option<Term>>,
    leaders: watch::Sender<Option<Leader>>,
    closing: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    stopped: tokio::task::JoinHandle<std::io::Result<()>>,
    _draining: watch::Sender<bool>,
}

fn own_tls() -> ServerTls {
    // By the second one, replicas know each other.
    ServerTls::self_signed(&["localhost".to_owned(), "lagwise.shop.svc".to_owned()]).unwrap()
}

impl TestScaler {
    fn new(auth: RequestAuth) -> Self {
        Self::with_tls(auth, own_tls(), 1)
    }

    /// It leads in `term`, unless that is 0.
    fn with_tls(auth: RequestAuth, tls: ServerTls, term: u64) -> Self {
        Self::with_scaler_tls(auth, tls.clone(), tls, term)
    }

    /// One that callers need a certificate for.
    fn with_authority(authority: &ClientCa, auth: RequestAuth) -> Self {
        let tls = own_tls();
        let scaler_tls = authority.require(&tls).unwrap();
        Self::with_scaler_tls(auth, tls, scaler_tls, 1)
    }

    fn with_scaler_tls(
        auth: RequestAuth,
        tls: ServerTls,
        scaler_tls: ServerTls,
        term: u64,
    ) -> Self {
        let kind = match auth {
            RequestAuth::None => ListenerKind::OpenScaler,
            RequestAuth::Kubernetes { .. } => ListenerKind::Scaler,
        };
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let until = Some(Instant::now() + Duration::from_secs(600));
        let (terms, own) = watch::channel((term > 0).then_some(Term {
            number: term,
            until,
        }));
        let (leaders, others) = watch::channel(None);
        let own = Leadership::new(own);
        let leading = Leading { own, others };
        let (triggers, asked) = mpsc::channel(64);
        let forwarder = Arc::new(Forwarder::new(&tls, Credential::None).unwrap());
        let answers = TriggerAnswers::new(
            reader.clone(),
            leading.clone(),
            Some(Arc::clone(&forwarder)),
            triggers,
        );
        let answers = Arc::new(answers);
        // The poller of a term publishes before it has read anything.
        publisher.of_term(term).publish(LagSnapshot::default());
        let (lag, lag_in) = watch::channel(None);
        tokio::spawn(poll(publisher.of_term(term), asked, lag_in));
        let (draining_in, draining) = watch::channel(false);
        let readiness = Readiness::new(reader.clone(), Instant::now(), draining)
            .with_leadership(leading.clone());
        let (closing, closed) = watch::channel(false);
        let router = router(ExternalScalerOptions {
            answers: Arc::clone(&answers),
            auth,
            readiness: readiness.clone(),
            poll_interval: Duration::from_millis(300),
            closing: closed,
        });
        let api = external::router(ExternalOptions {
            leading,
            forwarder: Some(forwarder),
            triggers: Some(answers),
            history: crate::serve::history::HpaHistoryHandle::none(),
            upstream: None,
            readiness,
            reader,
            tenancy: Default::default(),
            access_log: Default::default(),
            interests: mpsc::channel(1).0,
            queries: mpsc::channel(1).0,
            auth: RequestAuth::None,
            build: BuildInfo {
                version: "1.2.3".to_owned(),
                librdkafka: "2".to_owned(),
            },
        });
        let (stop, stopping) = watch::channel(false);
        let serve = |kind, router, tls: &ServerTls| {
            let bound = listen::bind(LOOPBACK, "server.external_scaler.listen").unwrap();
            let (address, tls, mut stopping) = (bound.address(), tls.clone(), stopping.clone());
            let served = tokio::spawn(async move {
                let stopped = async move {
                    let _ = stopping.wait_for(|stop| *stop).await;
                };
                bound.serve_tls(kind, router, &tls, stopped).await
            });
            (address, served)
        };
        let (address, stopped) = serve(kind, router, &scaler_tls);
        let (api, _) = serve(ListenerKind::Api, api, &tls);
        Self {
            address,
            api,
            tls,
            lag,
            terms,
            leaders,
            closing,
            stop,
            stopped,
            _draining: draining_in,
        }
    }

    async fn connect(&self) -> TestConnection {
        self.connect_as(None).await
    }

    async fn connect_as(&self, identity: Option<TestIdentity>) -> TestConnection {
        let stream = self.dial(identity).await.unwrap();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        TestConnection(sender)
    }

    async fn dial(
        &self,
        identity: Option<TestIdentity>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.tls.ca_pem().unwrap().as_bytes());
        roots.add(ca.unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.certificate.into()], identity.key)
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        // Otherwise each small write waits for the acknowledgement of the one before.
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    }

    /// Makes it a follower of `leader`.
    fn follow(&self, leader: &TestScaler) {
        self.terms.send_replace(None);
        let address = Some(leader.api.to_string());
        self.leaders.send_replace(Some(Leader { term: 1, address }));
    }
}

/// Plays the poller: publishes a snapshot when another trigger is asked for and when the lag changes.
async fn poll(
    publisher: Publisher,
    mut asked: mpsc::Receiver<Arc<ExternalTrigger>>,
    mut lag: watch::Receiver<Option<i64>>,
) {
    let mut triggers = ExternalTriggers::default();
    loop {
        let is_changed = tokio::select! {
            trigger = asked.recv() => match trigger {
                Some(trigger) => triggers.insert(trigger, Instant::now()),
                None => return,
            },
            changed = lag.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
        };
        if !is_changed {
            continue;
        }
        let targets = Targets::new(&["main".into()], TargetOptions::default(), None);
        let targets = targets.with_hpas(&triggers.add_to(&HpaMap::default()), None);
        let latest = (*lag.borrow_and_update()).map_or_else(Arc::default, |waiting| {
            let row = |partition| {
                let own = waiting / 5 + i64::from(partition < waiting % 5);
                (0, Ok(Some(100)), Ok(100 + own))
            };
            let rows: Vec<_> = (0..5).map(row).collect();
            let read = read(since_fixture(), "billing", "orders", &rows);
            ClusterHistory::default().apply(read, Scope::Whole)
        });
        let snapshot = LagSnapshot {
            targets: Arc::new(targets),
            clusters: [("main".into(), latest)].into(),
            ..LagSnapshot::default()
        };
        publisher.publish(snapshot.evaluated(&ServingPolicy::default()));
    }
}

/// The time since the moment that the fixtures count from.
fn since_fixture() -> Duration {
    Moment::now().since(&at(Duration::ZERO))
}

/// A connection of a client.
#[derive(Clone)]
struct TestConnection(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl TestConnection {
    async fn call<
        M: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    >(
        &self,
        path: &str,
        message: M,
    ) -> Result<A, Status> {
        let mut client = self.client();
        client.ready().await.unwrap();
        let path = PathAndQuery::try_from(path).unwrap();
        let answer = client.unary(tonic::Request::new(message), path, ProstCodec::default());
        answer.await.map(tonic::Response::into_inner)
    }

    async fn stream<A: prost::Message + Default + Send + Sync + 'static>(
        &self,
        method: &str,
        object: ScaledObjectRef,
    ) -> Result<Streaming<A>, Status> {
        let mut client = self.client();
        client.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("{}{method}", messages::SERVICE)).unwrap();
        let answer =
            client.server_streaming(tonic::Request::new(object), path, ProstCodec::default());
        answer.await.map(tonic::Response::into_inner)
    }

    fn client(
        &self,
    ) -> tonic::client::Grpc<
        impl tower::Service<
            axum::http::Request<tonic::body::Body>,
            Response = axum::http::Response<hyper::body::Incoming>,
            Error = hyper::Error,
            Future = impl Send,
        > + Clone,
    > {
        let sender = self.0.clone();
        let service = service_fn(move |request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        tonic::client::Grpc::with_origin(service, "https://localhost".parse().unwrap())
    }

    /// Sends a request whose message never comes.
    async fn send_unfinished(
        mut self,
        path: String,
    ) -> Result<axum::http::Response<hyper::body::Incoming>, hyper::Error> {
        let body = futures::stream::pending::<Result<axum::body::Bytes, Infallible>>();
        let request = axum::http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(Body::from_stream(body)))
            .unwrap();
        self.0.send_request(request).await
    }

    async fn is_active(&self, object: ScaledObjectRef) -> Result<bool, Status> {
        let answer: IsActiveResponse = self.call(&path_of("IsActive"), object).await?;
        Ok(answer.result)
    }

    async fn metrics(&self, object: ScaledObjectRef) -> Result<ScalerMetricValue, Status> {
        let asked = GetMetricsRequest {
            scaled_object_ref: Some(object),
            metric_name: "kafka_lag".to_owned(),
        };
        let mut answer: GetMetricsResponse = self.call(&path_of("GetMetrics"), asked).await?;
        Ok(answer.metric_values.remove(0))
    }
}

fn path_of(method: &str) -> String {
    format!("{}{method}", messages::SERVICE)
}

fn object(more: &[(&str, &str)]) -> ScaledObjectRef {
    let metadata = [
        ("scalerAddress", "lagwise:9443"),
        ("group", "billing"),
        ("topic", "orders"),
        ("lagThreshold", "5"),
    ];
    let metadata: BTreeMap<_, _> = metadata.into_iter().chain(more.iter().copied()).collect();
    let metadata = metadata.into_iter();
    ScaledObjectRef {
        name: "billing".to_owned(),
        namespace: "shop".to_owned(),
        scaler_metadata: metadata
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

#[tokio::test]
async fn answers_all_calls() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(28));
    let client = rig.connect().await;
    let specs: GetMetricSpecResponse = client
        .call(&path_of("GetMetricSpec"), object(&[]))
        .await
        .unwrap();
    let spec = MetricSpec {
        metric_name: "kafka_lag".to_owned(),
        target_size: 5,
        target_size_float: 5.0,
    };
    assert_eq!(specs.metric_specs, [spec]);
    // Five partitions: what KEDA's HPA divides by the target gives five replicas, and not six.
    let value = client.metrics(object(&[])).await.unwrap();
    assert_eq!((value.metric_value, value.metric_value_float), (25, 25.0));
    assert!(client.is_active(object(&[])).await.unwrap());
    assert!(
        !client
            .is_active(object(&[("activationLag", "28")]))
            .await
            .unwrap()
    );
    let mut activity = client.stream("StreamIsActive", object(&[])).await.unwrap();
    let first: Option<IsActiveResponse> = activity.message().await.unwrap();
    assert_eq!(first, Some(IsActiveResponse { result: true }));
    let mut specs_stream = client
        .stream("StreamMetricSpec", object(&[]))
        .await
        .unwrap();
    assert_eq!(specs_stream.message().await.unwrap(), Some(specs));
}

#[tokio::test]
async fn activation_is_streamed_and_ends_with_the_server() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(0));
    let client = rig.connect().await;
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    let mut specs: Streaming<GetMetricSpecResponse> = client
        .stream("StreamMetricSpec", object(&[]))
        .await
        .unwrap();
    assert!(specs.message().await.unwrap().is_some());
    for (waiting, is_active) in [(0, false), (1, true), (0, false), (900, true)] {
        rig.lag.send_replace(Some(waiting));
        let sent = stream.message().await.unwrap().map(|sent| sent.result);
        assert_eq!(sent, Some(is_active), "lag {waiting}");
    }
    rig.closing.send_replace(true);
    assert_eq!(stream.message().await.unwrap(), None);
    assert_eq!(specs.message().await.unwrap(), None);
    rig.stop.send_replace(true);
    rig.stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn unknown_lag_is_unavailable_and_sends_nothing() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    for refused in [
        client.is_active(object(&[])).await.map(|_| ()),
        client.metrics(object(&[])).await.map(|_| ()),
    ] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("is not complete yet"), "{status}");
    }
    assert!(stream.message().now_or_never().is_none());
    rig.lag.send_replace(Some(3));
    let sent = stream.message().await.unwrap();
    assert_eq!(sent, Some(IsActiveResponse { result: true }));
}

#[tokio::test]
async fn garbage_is_refused_with_what_to_do() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let client = rig.connect().await;
    for (key, value) in [
        ("lagThreshold", "-5"),
        ("lagThreshold", "NaN"),
        ("activationLag", "99999999999999999999999"),
        ("even", "perhaps"),
        ("topic", "\u{0}\u{1b}[2J"),
        ("bootstrapServers", "kafka:9092"),
        ("partitions", "9-1"),
    ] {
        let garbage = object(&[(key, value)]);
        let opened = client.stream::<IsActiveResponse>("StreamIsActive", garbage.clone());
        let of_stream = opened.await.map(|_| ());
        let path = path_of("GetMetricSpec");
        let spec = client.call::<_, GetMetricSpecResponse>(&path, garbage.clone());
        for refused in [
            spec.await.map(|_| ()),
            client.is_active(garbage.clone()).await.map(|_| ()),
            client.metrics(garbage).await.map(|_| ()),
            of_stream,
        ] {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(key), "{status}");
            assert!(
                status.message().chars().all(|c| !c.is_control()),
                "{status}"
            );
        }
    }
    let other = GetMetricsRequest {
        scaled_object_ref: Some(object(&[])),
        metric_name: "kafka_age".to_owned(),
    };
    let refused = client
        .call::<_, GetMetricsResponse>(&path_of("GetMetrics"), other)
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    // No ScaledObjectRef at all, too large, not even a message, and no such method.
    let path = path_of("GetMetrics");
    let empty = client.call::<_, GetMetricsResponse>(&path, GetMetricsRequest::default());
    assert_eq!(empty.await.unwrap_err().code(), Code::InvalidArgument);
    let long = "x".repeat(2 * MAX_REQUEST_BYTES);
    let status = client
        .is_active(object(&[("topics", &long)]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let refused = client
        .call::<_, IsActiveResponse>(&path_of("Scale"), object(&[]))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn only_certificates_of_the_authority_are_let_in() {
    let (issuer, other) = (Issuer::new("keda"), Issuer::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, issuer.pem()).unwrap();
    let (authority, auth) = ClientCa::read(file.clone()).unwrap();
    let rig = TestScaler::with_authority(&authority, auth);
    rig.lag.send_replace(Some(3));
    // The handshake fails, so that there is no connection for streams or health checks.
    let refused_for = async |identity| {
        let read = async {
            let mut stream = rig.dial(identity).await?;
            stream.read_u8().await
        };
        format!("{:?}", read.await.unwrap_err())
    };
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(other.client("keda")), "UnknownCA"),
        (Some(issuer.expired_client("keda")), "CertificateExpired"),
    ] {
        let refused = refused_for(identity).await;
        assert!(refused.contains(alert), "{refused}");
    }
    let client = rig.connect_as(Some(issuer.client("keda"))).await;
    assert!(client.is_active(object(&[])).await.unwrap());
    let asked = HealthCheckRequest::default();
    let health: Result<HealthCheckResponse, _> = client.call(messages::HEALTH_CHECK, asked).await;
    assert_eq!(health.unwrap().status(), HealthStatus::Serving);

    // Other authorities count for open connections too, and a file without any changes nothing.
    tokio::spawn(authority.keep_fresh());
    tokio::task::yield_now().await;
    for (text, refused) in [
        ("", "UnknownCA"),
        (&*other.pem(), "UnknownCA"),
        ("no certificate", "UnknownCA"),
    ] {
        std::fs::write(&file, text).unwrap();
        // Longer than a verified certificate counts, and than the time between two looks at the file.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
        let (in_use, not) = match text {
            "" => (&issuer, &other),
            _ => (&other, &issuer),
        };
        let found = refused_for(Some(not.client("keda"))).await;
        assert!(found.contains(refused), "{text:?}: {found}");
        let allowed = rig.connect_as(Some(in_use.client("keda"))).await;
        assert!(allowed.is_active(object(&[])).await.unwrap(), "{text:?}");
        let answer = client.is_active(object(&[])).await;
        match text {
            "" => assert!(answer.unwrap()),
            _ => {
                let status = answer.unwrap_err();
                assert_eq!(status.code(), Code::Unauthenticated, "{status}");
                assert!(status.message().contains("client_ca_file"), "{status}");
            }
        }
    }
}

#[tokio::test]
async fn an_address_has_at_most_half_of_the_streams() {
    let rig = TestScaler::new(RequestAuth::None);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let open = async |client: &TestConnection, namespace: &str| {
        let mut object = object(&[]);
        object.namespace = namespace.to_owned();
        client
            .stream::<GetMetricSpecResponse>("StreamMetricSpec", object)
            .await
    };
    let opened = (0..MAX_STREAMS / 2).map(|number| open(&client, ["shop", "team"][number % 2]));
    let streams = futures::future::join_all(opened).await;
    assert!(streams.iter().all(Result::is_ok));
    for client in [&client, &other] {
        let status = open(client, "third").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("for one address"), "{status}");
    }
    // Other calls have room.
    rig.lag.send_replace(Some(3));
    assert!(client.is_active(object(&[])).await.unwrap());
    drop(streams);
    // The server learns of it a moment later.
    while open(&other, "third").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_without_a_message_hold_up_their_own_connection_only() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let (client, other) = (rig.connect().await, rig.connect().await);
    assert!(client.is_active(object(&[])).await.unwrap());
    let unfinished: Vec<_> = (0..64)
        .map(|_| tokio::spawn(client.clone().send_unfinished(path_of("IsActive"))))
        .collect();
    // Sent after them on the same connection.
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.is_active(object(&[])).await })
    };
    assert!(other.is_active(object(&[])).await.unwrap());
    assert!(!waiting.is_finished());
    for response in unfinished {
        let response = response.await.unwrap().unwrap();
        let code = response.headers()[Status::GRPC_STATUS].as_bytes();
        assert_eq!(Code::from_bytes(code), Code::DeadlineExceeded);
    }
    assert!(waiting.await.unwrap().unwrap());
}

#[test]
fn a_file_without_an_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let missing = ClientCa::read(file.clone()).unwrap_err().to_string();
    assert!(
        missing.contains("ca.crt (server.external_scaler.client_ca_file)"),
        "{missing}"
    );
    std::fs::write(&file, "no certificate").unwrap();
    assert!(ClientCa::read(file).is_err());
}

#[tokio::test]
async fn health_follows_readiness() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    let check = async |service: &str| {
        let asked = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer: Result<HealthCheckResponse, Status> =
            client.call(messages::HEALTH_CHECK, asked).await;
        answer.map(|answer| answer.status())
    };
    assert_eq!(check("").await.unwrap(), HealthStatus::NotServing);
    rig.lag.send_replace(Some(3));
    assert!(client.is_active(object(&[])).await.unwrap());
    assert_eq!(
        check("externalscaler.ExternalScaler").await.unwrap(),
        HealthStatus::Serving
    );
    assert_eq!(
        check("other.Service").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn health_checks_without_a_message_are_bounded() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let client = rig.connect().await;
    let code = async || {
        let asked = HealthCheckRequest::default();
        let answer: Result<HealthCheckResponse, Status> =
            client.call(messages::HEALTH_CHECK, asked).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!(code().await, Code::Ok);
    // Some of them may come while the one below has the last permit.
    for _ in 0..2 * MAX_HEALTH_CHECKS {
        let path = messages::HEALTH_CHECK.to_owned();
        tokio::spawn(client.clone().send_unfinished(path));
    }
    while code().await != Code::ResourceExhausted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn many_streams_share_a_connection_with_other_calls() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(0));
    let client = rig.connect().await;
    let mut streams = Vec::new();
    for number in 0..200 {
        let mut object = object(&[]);
        object.name = format!("billing-{number}");
        let mut stream: Streaming<IsActiveResponse> =
            client.stream("StreamIsActive", object).await.unwrap();
        let first = stream.message().await.unwrap();
        assert_eq!(first, Some(IsActiveResponse { result: false }));
        streams.push(stream);
    }
    assert!(!client.is_active(object(&[])).await.unwrap());
    rig.lag.send_replace(Some(1));
    for stream in &mut streams {
        let next = stream.message().await.unwrap();
        assert_eq!(next, Some(IsActiveResponse { result: true }));
    }
}

#[tokio::test]
async fn followers_ask_the_leader_and_streams_end_with_the_leadership() {
    let tls = own_tls();
    let leader = TestScaler::with_tls(RequestAuth::None, tls.clone(), 1);
    let follower = TestScaler::with_tls(RequestAuth::None, tls, 0);
    let client = follower.connect().await;
    let status = client.is_active(object(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .contains("no lagwise replica is the leader"),
        "{status}"
    );
    follower.follow(&leader);
    leader.lag.send_replace(Some(28));
    assert_eq!(client.metrics(object(&[])).await.unwrap().metric_value, 25);
    let desired = [("metric", "desired"), ("threadsPerReplica", "2")];
    assert!(client.is_active(object(&desired)).await.unwrap());
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    let mut next = async || stream.message().await.unwrap().map(|sent| sent.result);
    assert_eq!(next().await, Some(true));
    leader.lag.send_replace(Some(0));
    assert_eq!(next().await, Some(false));
    // Who has no peer's credential learns nothing of this path.
    let direct = leader.connect().await;
    let mut of_leader: Streaming<IsActiveResponse> =
        direct.stream("StreamIsActive", object(&[])).await.unwrap();
    assert!(of_leader.message().await.unwrap().is_some());
    leader.terms.send_replace(None);
    leader.lag.send_replace(Some(1));
    assert_eq!(of_leader.message().await.unwrap(), None);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(object) = <ScaledObjectRef as prost::Message>::decode(&*bytes) {
            let _ = spec(&object);
        }
    }

    #[test]
    fn any_metadata_is_answered(
        namespace in ".{0,20}",
        metadata in proptest::collection::btree_map("[a-zA-Z]{0,20}|group|topic|lagThreshold|partitions|topicRegex", ".{0,30}", 0..6),
    ) {
        let object = ScaledObjectRef { name: "a".to_owned(), namespace, scaler_metadata: metadata };
        if let Ok(specs) = spec(&object) {
            let spec = &specs.metric_specs[0];
            proptest::prop_assert!(spec.target_size >= 1 && spec.target_size_float > 0.0);
        }
    }
}
