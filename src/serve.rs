//! What lagwise answers over the network, always from the latest snapshot: the external metrics
//! API ([`external`]) over TLS, by whoever leads ([`forward`]), and Prometheus metrics and health ([`admin`]) over plain HTTP.
//!
//! Nothing here waits for Kafka, except a first read that a request asked for, and that shortly.
//! HTTP status codes are decided here and nowhere else.

pub mod access_log;
pub mod admin;
mod api_error;
pub mod auth;
mod client_certs;
mod connections;
mod discovery;
pub mod endpoints;
mod explain_endpoint;
mod exposition;
pub mod external;
mod first_read;
pub mod forward;
pub mod health;
pub mod listen;
mod request;
mod route;
mod status_endpoint;
pub mod tls;
mod token_bucket;
mod value_list;

use crate::telemetry::family::Family;

/// Describes every metric of `/metrics`, but for those about the process that Prometheus's library adds.
#[must_use]
pub fn metric_families() -> Vec<Family> {
    let of_snapshots = exposition::families::ALL
        .iter()
        .map(|family| (*family).clone());
    of_snapshots.chain(crate::telemetry::families()).collect()
}

/// Which build answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The version of lagwise.
    pub version: String,
    /// The version of librdkafka in it.
    pub librdkafka: String,
}
