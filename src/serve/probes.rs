//! `/livez` and `/readyz` for the probes of Kubernetes, over plain HTTP. They have a separate listener, so that other
//! callers cannot use up their connections.

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::endpoints;
use super::health::Readiness;

/// Router of the probes.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route(endpoints::LIVEZ.path, get(async || "ok\n"))
        .route(endpoints::READYZ.path, get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.check(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
