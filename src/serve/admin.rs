//! The admin endpoints, over plain HTTP: `/metrics` for Prometheus, `/explain` and `/status` for
//! people, `/livez` and `/readyz`.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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
    let mut text = exposition::render(&snapshot, &Moment::now(), &options.build);
    if let Err(error) = TextEncoder::new().encode_utf8(&REGISTRY.gather(), &mut text) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
