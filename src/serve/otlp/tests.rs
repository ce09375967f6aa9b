use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use super::messages::ExportMetricsPartialSuccess;
use super::*;
use crate::leader_election::Leadership;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures;
use crate::serve::BuildInfo;
use crate::serve::auth::RequestAuth;
use crate::serve::shadow::ShadowReader;
use crate::snapshot_channel;

/// A request that a collector received: its headers and body.
type Received = (HeaderMap, ExportMetricsServiceRequest);

/// A collector with one answer for everything.
#[derive(Clone)]
struct Collector {
    received: UnboundedSender<Received>,
    answer: Result<Vec<u8>, StatusCode>,
}

impl Collector {
    async fn start(
        answer: Result<Vec<u8>, StatusCode>,
    ) -> (SocketAddr, mpsc::UnboundedReceiver<Received>) {
        let (received, requests) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route(PATH, post(Self::take))
            .with_state(Self { received, answer });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, requests)
    }

    async fn take(
        State(collector): State<Self>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, Vec<u8>) {
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        let _ = collector.received.send((headers, request));
        match collector.answer {
            Ok(answer) => (StatusCode::OK, answer),
            Err(status) => (status, Vec::new()),
        }
    }
}

fn exporter(address: SocketAddr, token_file: Option<PathBuf>) -> OtlpExporter {
    let options = OtlpOptions {
        endpoint: format!("http://{address}"),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(10),
        ca_file: None,
        token_file,
        instance: "lagwise-0".to_owned(),
    };
    OtlpExporter::new(options).unwrap()
}

fn figures(leadership: Leadership) -> MetricsOptions {
    let snapshot = fixtures::snapshot().evaluated(&ServingPolicy::default());
    MetricsOptions {
        reader: snapshot_channel::channel(snapshot).1,
        leadership,
        auth: RequestAuth::None,
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2.12.1".to_owned(),
        },
        shadow: ShadowReader::none(),
    }
}

fn names(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics.map(|metric| metric.name.clone()).collect()
}

#[tokio::test]
async fn a_collector_gets_the_figures_with_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let (address, mut requests) = Collector::start(Ok(Vec::new())).await;
    let exporter = exporter(address, Some(token));
    let exported = exporter
        .export(&figures(Leadership::alone()), &mut CounterStarts::new(1))
        .await;
    exported.unwrap();
    let (headers, request) = requests.recv().await.unwrap();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["authorization"], "Bearer secret");
    let found = names(&request);
    for name in ["kafka.consumer_group.lag", "lagwise_build_info"] {
        assert!(found.iter().any(|found| found == name), "{found:?}");
    }
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let keys: Vec<_> = resource.attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(
        keys,
        ["service.name", "service.version", "service.instance.id"]
    );
}

#[test]
fn the_counters_of_a_term_begin_after_the_last_export_of_another() {
    let mut starts = CounterStarts::new(10);
    // Nothing is known before the first term, and between two terms.
    let exports = [
        (0, 20),
        (0, 30),
        (7, 40),
        (7, 50),
        (0, 60),
        (8, 70),
        (8, 80),
    ];
    let found = exports.map(|(term, now)| starts.times(term, now).term_start);
    assert_eq!(found, [10, 10, 30, 30, 50, 60, 60]);
    // One that leads from the start.
    let mut starts = CounterStarts::new(10);
    let PointTimes {
        process_start,
        term_start,
        now,
    } = starts.times(3, 20);
    assert_eq!((process_start, term_start, now), (10, 10, 20));
    // The clock was set back.
    let times = starts.times(4, 5);
    assert_eq!((times.process_start, times.term_start), (5, 5));
}

#[tokio::test]
async fn failures_have_distinct_errors() {
    let rejected = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too old".to_owned(),
        }),
    };
    for (answer, expected) in [
        (Err(StatusCode::SERVICE_UNAVAILABLE), "refused"),
        (Err(StatusCode::FOUND), "refused"),
        (Ok(b"<html>".to_vec()), "not_otlp"),
        (Ok(vec![0; MAX_RESPONSE_BYTES + 1]), "not_otlp"),
        (Ok(rejected.encode_to_vec()), "rejected"),
    ] {
        let (address, _requests) = Collector::start(answer).await;
        let figures = figures(Leadership::alone());
        let fault = exporter(address, None)
            .export(&figures, &mut CounterStarts::new(1))
            .await;
        assert_eq!(fault.unwrap_err().label(), expected);
    }
    let (address, mut requests) = Collector::start(Ok(Vec::new())).await;
    let without_token = exporter(address, Some(PathBuf::from("/nowhere/token")));
    let fault = without_token
        .export(&figures(Leadership::alone()), &mut CounterStarts::new(1))
        .await;
    assert_eq!(fault.unwrap_err().label(), "no_token");
    assert!(requests.try_recv().is_err());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let exporter = exporter(address, None);
    let fault = exporter
        .export(&figures(Leadership::alone()), &mut CounterStarts::new(1))
        .await;
    assert_eq!(fault.unwrap_err().label(), "unreachable");
}

#[tokio::test]
async fn a_collector_that_hangs_times_out_and_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut exporter = exporter(listener.local_addr().unwrap(), None);
    exporter.options.timeout = Duration::from_millis(50);
    let figures = figures(Leadership::alone());
    let snapshot = figures.reader.latest();
    let running = tokio::spawn(exporter.run(figures));
    // Never answered; kept open.
    let _first = listener.accept().await.unwrap();
    let _second = listener.accept().await.unwrap();
    running.abort();
    let _ = running.await;
    // Nothing of the exports is left.
    assert_eq!(Arc::strong_count(&snapshot), 1);
}
