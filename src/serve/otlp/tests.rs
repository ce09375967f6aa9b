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

/// What a collector got: the headers and the request.
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
    let exported = exporter.export(&figures(Leadership::alone()), 1).await;
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

#[tokio::test]
async fn failures_are_told_apart() {
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
        (Ok(vec![0; ANSWER_BYTES_MAX + 1]), "not_otlp"),
        (Ok(rejected.encode_to_vec()), "rejected"),
    ] {
        let (address, _requests) = Collector::start(answer).await;
        let figures = figures(Leadership::alone());
        let fault = exporter(address, None).export(&figures, 1).await;
        assert_eq!(fault.unwrap_err().label(), expected);
    }
    let (address, mut requests) = Collector::start(Ok(Vec::new())).await;
    let without_token = exporter(address, Some(PathBuf::from("/nowhere/token")));
    let fault = without_token.export(&figures(Leadership::alone()), 1).await;
    assert_eq!(fault.unwrap_err().label(), "no_token");
    assert!(requests.try_recv().is_err());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let exporter = exporter(address, None);
    let fault = exporter.export(&figures(Leadership::alone()), 1).await;
    assert_eq!(fault.unwrap_err().label(), "unreachable");
}

#[tokio::test]
async fn a_collector_that_hangs_is_given_up_and_asked_again() {
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
