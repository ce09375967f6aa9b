//! The admin endpoints, over plain HTTP: `/metrics` for Prometheus, `/explain` and `/status` for
//! people, `/livez` and `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use prometheus::TextEncoder;

use super::health::Readiness;
use super::{BuildInfo, endpoints, explain_endpoint, exposition, status_endpoint};
use crate::leader_election::Leadership;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;
use crate::telemetry::REGISTRY;

/// What the admin endpoints need.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub reader: SnapshotReader,
    /// Whether this daemon leads.
    pub leadership: Leadership,
    pub readiness: Readiness,
    pub build: BuildInfo,
}

/// Router of the admin endpoints.
pub fn router(options: HttpOptions) -> Router {
    Router::new()
        .route(endpoints::METRICS.path, get(scrape))
        .route(endpoints::EXPLAIN.path, get(explain_endpoint::answer))
        .route(endpoints::LIVEZ.path, get(async || "ok\n"))
        .route(endpoints::READYZ.path, get(ready))
        .route(endpoints::STATUS.path, get(status_endpoint::show))
        .with_state(Arc::new(options))
}

async fn ready(State(options): State<Arc<HttpOptions>>) -> Response {
    match options.readiness.check(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn scrape(State(options): State<Arc<HttpOptions>>) -> Response {
    // Only the leader exposes Kafka metrics; otherwise sums over all replicas would be doubled.
    let latest = options.reader.latest();
    let leads = options.leadership.current_term(latest.term, Instant::now());
    let snapshot = leads.map_or_else(Arc::default, |_| latest);
    // Encoded before the response begins, while an error can still be its status.
    let mut of_process = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&REGISTRY.gather(), &mut of_process) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    // The snapshot's metrics may take tens of megabytes, so they are sent while they are written.
    let chunks = exposition::stream(snapshot, Moment::now(), options.build.clone(), of_process);
    let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
