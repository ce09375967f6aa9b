//! The admin endpoints for people, `/status` and `/explain`, over plain HTTP. They show the groups, topics
//! and offsets of all namespaces, so they are served on loopback only, and not to web pages that claim to be there.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;

use super::{endpoints, explain_endpoint, host_check, status_endpoint};
use crate::leader_election::Leadership;
use crate::snapshot_channel::SnapshotReader;

/// What the admin endpoints need.
#[derive(Clone, Debug)]
pub struct AdminEndpointOptions {
    pub reader: SnapshotReader,
    /// Whether this daemon leads.
    pub leadership: Leadership,
}

/// Router of the admin endpoints.
pub fn router(options: AdminEndpointOptions) -> Router {
    Router::new()
        .route(endpoints::EXPLAIN.path, get(explain_endpoint::answer))
        .route(endpoints::STATUS.path, get(status_endpoint::show))
        .layer(from_fn(host_check::require_local_host))
        .with_state(Arc::new(options))
}
