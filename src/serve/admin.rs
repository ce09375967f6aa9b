//! The admin endpoints for people, over plain HTTP: the page, `/api`, `/status` and `/explain`. They show the groups,
//! topics and offsets of all namespaces, so they are served on loopback only, and only if the `Host` header is a local
//! one: a web page whose name resolves to a loopback address cannot read them.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::history::HpaHistoryHandle;
use super::shadow::{self, ShadowReader};
use super::snapshot_stream::MAX_STREAMS;
use super::{
    endpoints, explain_endpoint, host_check, hpa_endpoints, hpa_peaks, page, snapshot_stream,
    status_endpoint,
};
use crate::blocking_work::try_blocking;
use crate::leader_election::Leadership;
use crate::snapshot_channel::SnapshotReader;

/// The response of a follower.
pub(super) const FOLLOWER: &str =
    "this daemon does not lead, so it does not read Kafka; ask the holder of the Lease\n";

/// Inputs of the admin endpoints.
#[derive(Clone, Debug)]
pub struct AdminEndpointOptions {
    pub(super) reader: SnapshotReader,
    /// Whether this daemon leads.
    pub(super) leadership: Leadership,
    pub(super) history: HpaHistoryHandle,
    /// The name of this replica.
    pub(super) instance: Arc<str>,
    /// The comparison of KEDA's replicas with lagwise's.
    pub(super) shadow: ShadowReader,
    /// Places for streams.
    pub(super) streams: Arc<Semaphore>,
}

impl AdminEndpointOptions {
    /// Without a history.
    #[must_use]
    pub fn new(reader: SnapshotReader, leadership: Leadership) -> Self {
        Self {
            reader,
            leadership,
            history: HpaHistoryHandle::none(),
            instance: Arc::from("lagwise"),
            shadow: ShadowReader::none(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// With this history, for the replica of this name.
    #[must_use]
    pub fn with_history(self, history: HpaHistoryHandle, instance: &str) -> Self {
        Self {
            history,
            instance: Arc::from(instance),
            ..self
        }
    }

    /// With these reports about KEDA's objects.
    #[must_use]
    pub fn with_shadow(self, shadow: ShadowReader) -> Self {
        Self { shadow, ..self }
    }
}

/// Router of the admin endpoints.
pub fn router(options: AdminEndpointOptions) -> Router {
    Router::new()
        .route(endpoints::PAGE.path, get(page::show_overview))
        .route("/hpas/{namespace}/{name}", get(page::show_hpa))
        .route("/assets/{name}", get(page::serve_asset))
        .route(endpoints::API_HPAS.path, get(hpa_endpoints::list))
        .route("/api/hpas/{namespace}/{name}", get(hpa_endpoints::show))
        .route(endpoints::API_PEAKS.path, get(hpa_peaks::list))
        .route(endpoints::API_STREAM.path, get(snapshot_stream::serve))
        .route(endpoints::EXPLAIN.path, get(explain_endpoint::answer))
        .route(endpoints::STATUS.path, get(status_endpoint::show))
        .route(endpoints::SHADOW.path, get(shadow::show))
        .layer(from_fn(host_check::require_local_host))
        .with_state(Arc::new(options))
}

/// Makes a response on a thread for blocking work. With thousands of objects, or of partitions of one object, this
/// takes longer than a task may keep a thread of the runtime.
pub(super) async fn respond_off_runtime(
    make: impl FnOnce() -> Response + Send + 'static,
) -> Response {
    off_runtime(make).await.unwrap_or_else(|response| *response)
}

/// Runs `work` on a thread for blocking work. The error is the response to give if it panicked.
pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Response>> {
    try_blocking(work).await.map_err(|error| {
        Box::new((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
    })
}

/// A response as JSON.
pub(super) fn json_response(code: StatusCode, value: &impl Serialize) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    match serde_json::to_vec(value) {
        Ok(text) => (code, content_type, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
