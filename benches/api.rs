//! Measures the external metrics API on loopback, and a minimal axum server with rustls for comparison: responses per
//! second to 8 connections, and response times at a fixed rate of 200 requests per second (open loop).
//!
//! Four servers, one after the other, with the same certificate, protocols and clients: `hello`; the API's `/version`,
//! a static response; the API without authentication; and the API as the aggregator calls it, with the front proxy's
//! certificate and for a user whose access is cached. The snapshot is that of W1 (200 groups), and
//! each request is that of an HPA.
//!
//! `cargo bench --bench api`, with `-- --rounds 5` for medians of more than two, or with `--profile dev` for a first
//! impression.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and may end by a panic"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use lagwise::authentication::access::{Action, Caller, ClusterTrust, FrontProxyTrust};
use lagwise::authentication::{Authenticator, ReviewError};
use lagwise::leader_election::Leading;
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
use lagwise::model::snapshot::LagSnapshot;
use lagwise::model::targets::Targets;
use lagwise::model::units::metric::LAG_METRIC;
use lagwise::model::units::newtypes::{Moment, Offset};
use lagwise::model::units::quantity::Milli;
use lagwise::serve::BuildInfo;
use lagwise::serve::access_log::AccessLog;
use lagwise::serve::auth::RequestAuth;
use lagwise::serve::external::{ExternalOptions, router};
use lagwise::serve::health::Readiness;
use lagwise::serve::listen::{ListenerKind, bind};
use lagwise::serve::tls::ServerTls;
use lagwise::snapshot_channel;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tower::ServiceExt;

const GROUPS: u32 = 200;
const CONNECTIONS: u32 = 8;
const CLOSED_LOOP: Duration = Duration::from_secs(3);
const OPEN_LOOP: Duration = Duration::from_secs(5);
const OPEN_RATE: u32 = 200;

/// Lets everybody do everything.
#[derive(Debug)]
struct Yes;

impl Authenticator for Yes {
    fn self_subject(&self) -> BoxFuture<'static, Result<String, ReviewError>> {
        Box::pin(async { Ok("lagwise".to_owned()) })
    }

    fn authenticate(&self, _: String) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>> {
        Box::pin(async { Ok(None) })
    }

    fn authorize(&self, _: Caller, _: Action) -> BoxFuture<'static, Result<bool, ReviewError>> {
        Box::pin(async { Ok(true) })
    }
}

fn snapshot() -> LagSnapshot {
    let now = Moment::now();
    let topic = "topic".into();
    let offsets = TopicOffsets {
        starts: vec![Ok(Offset(0)); 12],
        ends: vec![Ok(Offset(1000)); 12],
        ..TopicOffsets::default()
    };
    let observed = Observation {
        cluster: "main".into(),
        started: now,
        finished: now,
        topics: [(topic, Ok(Arc::new(offsets)))].into(),
        groups: (0..GROUPS)
            .map(|i| GroupObservation {
                plan: GroupPlan::new(format!("group-{i}"), ["topic".into()].into()),
                description: Err(Fault::Unsupported),
                reported_lags: None,
                refused_partitions: None,
                committed: Ok([(
                    "topic".into(),
                    CommittedOffsets::filled(12, Ok(Some(Offset(900)))),
                )]
                .into()),
            })
            .collect(),
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: std::collections::BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    };
    let main = ClusterHistory::default().apply(observed, Scope::Whole);
    LagSnapshot {
        targets: Arc::new(Targets::merge(
            &["main".into()],
            &[],
            &(0..GROUPS).map(hpa).collect::<Vec<_>>(),
            Default::default(),
        )),
        clusters: [("main".into(), main)].into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy {
        max_staleness: Duration::from_secs(3600),
        ..ServingPolicy::default()
    })
}

/// The HPA that asks for the lag of a group.
fn hpa(group: u32) -> HpaFacts {
    let selector = format!("group=group-{group},topic=topic");
    HpaFacts {
        namespace: "shop".into(),
        name: format!("hpa-{group}").into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(&selector).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
        }],
        ..HpaFacts::default()
    }
}

/// The API's router, with what must not be dropped while it answers.
fn api(auth: RequestAuth) -> (Router, Box<dyn std::any::Any>) {
    let (publisher, reader) = snapshot_channel::channel(snapshot());
    let (watch_keys, receiver) = mpsc::channel(8);
    let (queries, queries_in) = mpsc::channel(8);
    let (drain, draining) = watch::channel(false);
    let api = router(ExternalOptions {
        leading: Leading::alone(),
        forwarder: None,
        triggers: None,
        history: lagwise::serve::history::HpaHistoryHandle::none(),
        upstream: None,
        readiness: Readiness::new(reader.clone(), Instant::now(), draining),
        reader,
        tenancy: Default::default(),
        watch_keys,
        queries,
        auth,
        access_log: AccessLog::Sampled,
        build: BuildInfo {
            version: "0".to_owned(),
            librdkafka: "0".to_owned(),
        },
    });
    (api, Box::new((publisher, receiver, queries_in, drain)))
}

/// A front proxy: what makes it known, and its certificate.
fn front_proxy() -> (ClusterTrust, CertificateDer<'static>, KeyPair) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut client = CertificateParams::default();
    client.distinguished_name = rcgen::DistinguishedName::new();
    client
        .distinguished_name
        .push(DnType::CommonName, "front-proxy-client");
    let key = KeyPair::generate().unwrap();
    let certificate = client.signed_by(&key, &ca).unwrap();
    let trust = FrontProxyTrust {
        client_ca_pem: ca.pem(),
        allowed_names: vec!["front-proxy-client".to_owned()],
        username_headers: vec!["X-Remote-User".to_owned()],
        group_headers: vec!["X-Remote-Group".to_owned()],
        ..FrontProxyTrust::default()
    };
    let trust = ClusterTrust {
        front_proxy: Some(trust),
        client_ca_pem: None,
    };
    (trust, certificate.der().clone(), key)
}

fn main() {
    // `cargo test --benches` asks for a list of tests: there are none.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let tls = ServerTls::self_signed(&["localhost".to_owned()]).unwrap();
    let (trust, certificate, key) = front_proxy();
    let (_trust, trust) = watch::channel(Some(trust));
    let plain = client_config(&tls, None);
    let proxy = client_config(&tls, Some((certificate, key)));
    let hello = Router::new().fallback(async || "hello");
    let (open, _open) = api(RequestAuth::None);
    let reviewer = Arc::new(Yes);
    let (known, _known) = api(RequestAuth::Kubernetes { trust, reviewer });
    // A static response, at the path that the clients request: the cost of the API without computing a value.
    let version = {
        let open = open.clone();
        Router::new().fallback(async move |mut request: Request<Body>| {
            *request.uri_mut() = "/version".parse().unwrap();
            open.clone().oneshot(request).await
        })
    };
    if let Some(answers) = argument("--in-process") {
        // For a profiler that counts instructions: one router alone.
        let router = match std::env::args().any(|argument| argument == "hello") {
            true => hello,
            false => open,
        };
        println!("{:?}", in_process_of(&router, answers));
        return;
    }
    println!(
        "without a network: hello {:?}, API, open {:?} for an answer",
        in_process(&hello),
        in_process(&open)
    );
    let servers = [
        ("hello", hello, &plain),
        ("API's /version", version, &plain),
        ("API, open", open, &plain),
        ("API, front proxy", known, &proxy),
    ];
    // In turn, so that what else the machine does meets all of them.
    let rounds = argument("--rounds").unwrap_or(2);
    let servers = match argument("--only") {
        Some(one) => &servers[one..=one],
        None => &servers[..],
    };
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
    for _ in 0..rounds {
        for ((name, router, config), rates) in servers.iter().zip(&mut rates) {
            let served = measure(router.clone(), &tls, config);
            rates.push(served.rate);
            println!(
                "{name:<17} {:>8.0} answers/s on {CONNECTIONS} connections, {:?} of the server's threads each; \
                 at {OPEN_RATE}/s open-loop p50 {:?}, p99 {:?}",
                served.rate, served.cost, served.median, served.late
            );
        }
    }
    let hello = median(&rates[0]);
    for ((name, ..), rates) in servers.iter().zip(&rates).skip(1) {
        let slower = hello / median(rates);
        println!("{name:<17} hello is {slower:.2} times as fast (medians of {rounds})");
    }
}

/// The number that follows an argument of this name.
fn argument(name: &str) -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

type Config = Arc<rustls::ClientConfig>;

fn client_config(tls: &ServerTls, identity: Option<(CertificateDer<'static>, KeyPair)>) -> Config {
    let mut roots = rustls::RootCertStore::empty();
    let ca = tls.ca_pem().unwrap();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate], key.into())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// CPU time of a response on one thread, without connection, TLS and HTTP.
fn in_process(router: &Router) -> Duration {
    in_process_of(router, 100_000)
}

fn in_process_of(router: &Router, answers: usize) -> Duration {
    let answers = u32::try_from(answers).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        for n in 0..answers {
            let answer = router.clone().oneshot(request(n)).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
        }
        began.elapsed() / answers
    })
}

/// Results of a server.
struct Served {
    /// Answers per second, in a closed loop.
    rate: f64,
    /// CPU time of the server's threads per response. Unlike the rate, it does not depend on other load of the machine.
    cost: Duration,
    /// Median and 99th percentile of the response time in an open loop.
    median: Duration,
    late: Duration,
}

fn measure(router: Router, tls: &ServerTls, config: &Config) -> Served {
    let runtime = |name: &str| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .unwrap()
    };
    let (server, clients) = (runtime(SERVER), runtime("client"));
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let bound = bind(loopback, "benchmark").unwrap();
    let address = bound.address();
    let tls = tls.clone();
    server.spawn(async move {
        bound
            .serve_tls(ListenerKind::Api, router, &tls, std::future::pending())
            .await
    });
    let worked = worked_of(SERVER);
    let (answers, took) = clients.block_on(closed_loop(address, config));
    let cost = (worked_of(SERVER) - worked) / answers;
    let (median, late) = clients.block_on(open_loop(address, config));
    server.shutdown_timeout(Duration::from_secs(1));
    Served {
        rate: f64::from(answers) / took.as_secs_f64(),
        cost,
        median,
        late,
    }
}

/// How a server's threads are named.
const SERVER: &str = "server";

/// What this process's threads of that name have worked so far, as the kernel counts it.
fn worked_of(name: &str) -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        let read = |file: &str| std::fs::read_to_string(thread.join(file)).ok();
        if read("comm")?.trim() != name {
            return None;
        }
        read("schedstat")?.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

async fn connect(address: SocketAddr, config: &Config) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Body>, n: u32) {
    let answer = sender.send_request(request(n)).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
}

fn request(n: u32) -> Request<Body> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag\
         ?labelSelector=group%3Dgroup-{}%2Ctopic%3Dtopic",
        n % GROUPS
    );
    let user = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    Request::get(path)
        .header("host", "localhost")
        .header("x-remote-user", user)
        .header("x-remote-group", "system:serviceaccounts")
        .body(Body::empty())
        .unwrap()
}

async fn closed_loop(address: SocketAddr, config: &Config) -> (u32, Duration) {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(address, config).await);
    }
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut sender in senders {
        tasks.spawn(async move {
            let mut answers = 0_u32;
            while began.elapsed() < CLOSED_LOOP {
                ask(&mut sender, answers).await;
                answers += 1;
            }
            answers
        });
    }
    let answers: u32 = tasks.join_all().await.iter().sum();
    (answers, began.elapsed())
}

/// Each connection sends requests at fixed times. A late response also delays the following ones, and their delay
/// counts.
async fn open_loop(address: SocketAddr, config: &Config) -> (Duration, Duration) {
    let every = Duration::from_secs(1) * CONNECTIONS / OPEN_RATE;
    let began = tokio::time::Instant::now() + Duration::from_millis(200);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..CONNECTIONS {
        let mut sender = connect(address, config).await;
        tasks.spawn(async move {
            let mut took = Vec::new();
            let first = began + every * i / CONNECTIONS;
            for n in 0.. {
                let due = first + every * n;
                if due > began + OPEN_LOOP {
                    break;
                }
                tokio::time::sleep_until(due).await;
                ask(&mut sender, n).await;
                took.push(due.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
