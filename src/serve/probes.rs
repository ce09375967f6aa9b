//! `/livez` and `/readyz` for the probes of Kubernetes, over plain HTTP. They have a separate listener, so that other
//! callers cannot use up their connections.

use std::fmt::Display;
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::endpoints;
use super::health::{Liveness, Readiness};

/// Router of the probes.
pub(crate) fn router(liveness: Liveness, readiness: Readiness) -> Router {
    let alive = async move || answer(liveness.check(Instant::now()));
    let ready = async move || answer(readiness.check(Instant::now()));
    Router::new()
        .route(endpoints::LIVEZ.path, get(alive))
        .route(endpoints::READYZ.path, get(ready))
}

fn answer(checked: Result<(), impl Display>) -> Response {
    match checked {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
