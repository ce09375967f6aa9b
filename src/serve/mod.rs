//! What lagwise answers over the network, always from the latest snapshot: the external metrics
//! API ([`external`]) over TLS, by whoever leads ([`forward`]), and Prometheus metrics and health ([`metrics`]) over plain HTTP.
//!
//! Nothing here waits for Kafka, except a first read that a request asked for, and that shortly.
//! HTTP status codes are decided here and nowhere else.

pub mod access_log;
mod asking;
pub mod auth;
mod bucket;
mod connections;
mod discovery;
mod explain;
mod exposition;
pub mod external;
pub mod forward;
pub mod health;
pub mod listen;
pub mod metrics;
mod overview;
mod presenting;
mod request;
mod route;
mod status;
pub mod tls;
mod value_list;

/// Which build answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The version of lagwise.
    pub version: String,
    /// The version of librdkafka in it.
    pub librdkafka: String,
}
