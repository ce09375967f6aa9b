//! HTTP servers, each with a separate listener: the external metrics API ([`external`]) over TLS, answered by the
//! leader ([`forward`]) or by another server of external metrics ([`upstream`]); the [`external_scaler`] for KEDA;
//! [`metrics`] for Prometheus; [`probes`] for Kubernetes; and the [`admin`] endpoints for people with the page, on
//! loopback. All answers come from the latest snapshot.
//!
//! Nothing here waits for Kafka, except a request for a group that is not watched yet: it waits briefly
//! for the first read.
//! HTTP status codes are decided here and nowhere else.

pub mod access_log;
pub mod admin;
mod admission;
mod api_error;
pub mod auth;
mod bearer_token;
mod connection_peer;
mod connections;
mod discovery;
pub mod endpoints;
mod explain_endpoint;
mod exposition;
pub mod external;
pub mod external_scaler;
mod first_read;
pub mod forward;
mod handshakes;
pub mod health;
pub mod history;
pub mod history_handover;
mod holder_permits;
mod host_check;
pub(crate) mod hpa_endpoints;
pub(crate) mod hpa_peaks;
mod hpa_rows;
mod leader_router;
pub mod listen;
pub mod metrics;
pub mod otlp;
pub(crate) mod page;
pub mod probes;
mod request;
mod route;
pub mod shadow;
mod snapshot_stream;
mod status_endpoint;
pub(crate) mod time_span;
pub mod tls;
pub mod upstream;
mod value_list;

use crate::telemetry::family::Family;

/// Describes every metric of `/metrics`, but for those about the process that Prometheus's library adds.
#[must_use]
pub fn metric_families() -> Vec<Family> {
    let of_snapshots = exposition::families::ALL
        .iter()
        .chain(exposition::shadow::FAMILIES)
        .map(|family| (*family).clone());
    of_snapshots.chain(crate::telemetry::families()).collect()
}

/// The name in an export to OpenTelemetry of a family of `/metrics`.
#[must_use]
pub fn open_telemetry_name(family: &str) -> &str {
    exposition::otlp::open_telemetry_name(family)
}

/// Versions of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub version: String,
    pub librdkafka: String,
}
