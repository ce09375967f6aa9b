//! Tests by a gRPC client over TLS, with lag set by the test.

mod calls;
mod certificates;
mod limits;
mod reflection;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use axum::http::uri::PathAndQuery;
use futures::{FutureExt, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
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
        let (triggers, requested) = mpsc::channel(64);
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
        tokio::spawn(poll(publisher.of_term(term), requested, lag_in));
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
            watch_keys: mpsc::channel(1).0,
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
        self.connect_from(LOOPBACK, identity).await
    }

    async fn connect_from(
        &self,
        own: SocketAddr,
        identity: Option<TestIdentity>,
    ) -> TestConnection {
        let stream = self.dial_from(own, identity).await.unwrap();
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
        self.dial_from(LOOPBACK, identity).await
    }

    async fn dial_from(
        &self,
        own: SocketAddr,
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
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(own).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
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

/// Stands in for the poller: publishes a snapshot when a trigger is requested and when the lag changes.
async fn poll(
    publisher: Publisher,
    mut requested: mpsc::Receiver<Arc<ExternalTrigger>>,
    mut lag: watch::Receiver<Option<i64>>,
) {
    let mut triggers = ExternalTriggers::default();
    loop {
        let is_changed = tokio::select! {
            trigger = requested.recv() => match trigger {
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

    /// Sends a request with this header whose message never comes.
    async fn send_unfinished(
        mut self,
        path: String,
        (name, value): (&'static str, &str),
    ) -> Result<axum::http::Response<hyper::body::Incoming>, hyper::Error> {
        let body = futures::stream::pending::<Result<axum::body::Bytes, Infallible>>();
        let request = axum::http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header(name, value)
            .body(tonic::body::Body::new(Body::from_stream(body)))
            .unwrap();
        self.0.send_request(request).await
    }

    async fn is_active(&self, object: ScaledObjectRef) -> Result<bool, Status> {
        let answer: IsActiveResponse = self.call(&path_of("IsActive"), object).await?;
        Ok(answer.result)
    }

    async fn metrics(&self, object: ScaledObjectRef) -> Result<ScalerMetricValue, Status> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(object),
            metric_name: "kafka_lag".to_owned(),
        };
        let mut answer: GetMetricsResponse = self.call(&path_of("GetMetrics"), request).await?;
        Ok(answer.metric_values.remove(0))
    }
}

/// The header of a message that is not compressed.
const PLAIN: (&str, &str) = ("grpc-encoding", "identity");

fn code_of(response: &axum::http::Response<hyper::body::Incoming>) -> Code {
    Code::from_bytes(response.headers()[Status::GRPC_STATUS].as_bytes())
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
