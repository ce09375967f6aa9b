//! Events of the external metrics API.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::{counter, register};
use crate::authentication::ReviewError;

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_api_requests_total",
        "Responses of the external metrics API, by kind of request, verb, metric and status code",
        &["request", "verb", "metric", "code"],
    )
});
static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0];
    let options = HistogramOpts::new(
        "lagwise_api_request_duration_seconds",
        "Duration of a request to the external metrics API, in seconds",
    );
    register(HistogramVec::new(options.buckets(buckets), &["request"]))
});
static SERVED_AGE: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0];
    let options = HistogramOpts::new(
        "lagwise_api_served_age_seconds",
        "Age of the oldest reading in a value when it was served",
    );
    register(Histogram::with_opts(options.buckets(buckets)))
});
static REVIEWS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_api_reviews_total",
        "Token and access reviews that requests needed, by kind and outcome; those with outcome busy or rate_limited were refused instead of sent to the Kubernetes API server, and cached answers are not counted",
        &["kind", "outcome"],
    )
});
static CONNECTIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let options = Opts::new("lagwise_connections", "Open connections, by listener");
    register(IntGaugeVec::new(options, &["listener"]))
});
static CONNECTIONS_CUT: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_connections_cut_total",
        "Connections that lagwise closed, by listener and reason",
        &["listener", "reason"],
    )
});
static CERTIFICATE_ENDS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new(
        "lagwise_api_certificate_expiry_timestamp_seconds",
        "Time at which the certificate of the external metrics API expires, in seconds since 1970",
    ))
});

static SCALER_CALLS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_external_scaler_requests_total",
        "Calls of the external scaler by KEDA, by method and gRPC status code; a stream counts when it is opened",
        &["method", "code"],
    )
});

/// All collectors of this file.
pub(super) fn collectors() -> [&'static dyn Collector; 8] {
    [
        &*SCALER_CALLS,
        &*REQUESTS,
        &*SECONDS,
        &*SERVED_AGE,
        &*REVIEWS,
        &*CONNECTIONS,
        &*CONNECTIONS_CUT,
        &*CERTIFICATE_ENDS,
    ]
}

/// A call of the external scaler that was answered.
#[derive(Debug)]
pub struct ScalerAnswered {
    /// Name of the method, from a fixed list.
    pub method: &'static str,
    /// gRPC status code, from a fixed list.
    pub code: &'static str,
}

impl ScalerAnswered {
    pub fn emit(&self) {
        SCALER_CALLS
            .with_label_values(&[self.method, self.code])
            .inc();
    }
}

/// Maximum length of logged text from outside, in characters.
const MAX_LOGGED_CHARS: usize = 200;

/// A response of the external metrics API.
#[derive(Debug)]
pub struct ApiAnswered<'a> {
    /// Kind of request, from a fixed list.
    pub request: &'static str,
    /// RBAC verb, from a fixed list.
    pub verb: &'static str,
    /// Metric name; `other` for an unknown one, empty if none is requested.
    pub metric: &'static str,
    pub code: StatusCode,
    /// Path without the query.
    pub path: &'a str,
    /// User name, if authenticated.
    pub user: Option<&'a str>,
    pub took: Duration,
    /// For a line of the access log, the number of omitted similar lines since the last one.
    pub logged: Option<u64>,
}

impl ApiAnswered<'_> {
    pub fn emit(&self) {
        REQUESTS
            .with_label_values(&[self.request, self.verb, self.metric, self.code.as_str()])
            .inc();
        SECONDS
            .with_label_values(&[self.request])
            .observe(self.took.as_secs_f64());
        // Evaluated only if it is logged.
        let user = || cut(self.user.unwrap_or_default());
        match self.logged {
            Some(omitted) => tracing::info!(
                target: "lagwise::access",
                user = user(),
                verb = self.verb,
                path = cut(self.path),
                code = self.code.as_u16(),
                took = ?self.took,
                omitted,
                "answered"
            ),
            None => tracing::debug!(
                user = user(),
                verb = self.verb,
                path = cut(self.path),
                code = self.code.as_u16(),
                took = ?self.took,
                "answered"
            ),
        }
    }
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(MAX_LOGGED_CHARS) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// A metric value was served.
#[derive(Debug)]
pub struct ValueServed {
    /// Age of its oldest reading.
    pub age: Duration,
}

impl ValueServed {
    /// Counts.
    pub fn emit(&self) {
        SERVED_AGE.observe(self.age.as_secs_f64());
    }
}

/// A token or access review by the Kubernetes API server.
#[derive(Debug)]
pub struct ReviewAnswered {
    /// `token` or `access`.
    pub kind: &'static str,
    /// `answered`, or the kind of error.
    pub outcome: &'static str,
}

impl ReviewAnswered {
    pub fn emit(&self) {
        REVIEWS.with_label_values(&[self.kind, self.outcome]).inc();
        tracing::debug!(kind = self.kind, outcome = self.outcome, "access reviewed");
    }
}

/// A review was not sent, because there are too many.
#[derive(Debug)]
pub struct ReviewRefused {
    /// `token` or `access`.
    pub kind: &'static str,
    pub reason: ReviewError,
    /// Whether to log it.
    pub is_logged: bool,
}

impl ReviewRefused {
    pub fn emit(&self) {
        let outcome = self.reason.label();
        REVIEWS.with_label_values(&[self.kind, outcome]).inc();
        if self.is_logged {
            tracing::warn!(
                kind = self.kind,
                reason = %self.reason,
                "refusing requests instead of asking the Kubernetes API server about them; \
                 lagwise_api_reviews_total counts them"
            );
        }
    }
}

/// Reviews started to fail.
#[derive(Debug)]
pub struct ReviewsFailing<'a> {
    pub reason: &'a ReviewError,
}

impl ReviewsFailing<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot review access: rejecting callers without a recent review"
        );
    }
}

/// Reviews work again.
#[derive(Debug)]
pub struct ReviewsRestored;

impl ReviewsRestored {
    pub fn emit(&self) {
        tracing::info!("access reviews work again");
    }
}

/// The number of open connections changed.
#[derive(Debug)]
pub struct ConnectionsChanged {
    /// Name of the listener.
    pub listener: &'static str,
    /// Open connections now.
    pub open: usize,
}

impl ConnectionsChanged {
    /// Counts.
    pub fn emit(&self) {
        let open = i64::try_from(self.open).unwrap_or(i64::MAX);
        CONNECTIONS.with_label_values(&[self.listener]).set(open);
    }
}

/// A connection was closed by lagwise.
#[derive(Debug)]
pub struct ConnectionCut {
    /// Name of the listener.
    pub listener: &'static str,
    /// Reason, from a fixed list.
    pub reason: &'static str,
}

impl ConnectionCut {
    pub fn emit(&self) {
        CONNECTIONS_CUT
            .with_label_values(&[self.listener, self.reason])
            .inc();
        tracing::debug!(
            listener = self.listener,
            reason = self.reason,
            "connection closed"
        );
    }
}

/// A listener, or one address on it, has as many connections as it may have.
#[derive(Debug)]
pub struct ConnectionLimitReached {
    /// Name of the listener.
    pub listener: &'static str,
    /// Which limit was reached, from a fixed list.
    pub reason: &'static str,
    /// That limit: a number of connections.
    pub max: usize,
    /// The address whose connections reached the limit; `None` if those of all addresses did.
    pub address: Option<IpAddr>,
    /// Whether the new connection was refused. Otherwise another one was closed for it.
    pub is_refused: bool,
}

impl ConnectionLimitReached {
    pub fn emit(&self) {
        let Self {
            listener,
            reason,
            max,
            ..
        } = *self;
        match (self.address, self.is_refused) {
            (Some(address), _) => tracing::warn!(
                listener, max, reason, %address,
                "too many connections of one address: closing some of them; \
                 lagwise_connections_cut_total counts them"
            ),
            (None, false) => tracing::warn!(
                listener,
                max,
                reason,
                "too many connections: closing those of the address that has most; \
                 lagwise_connections_cut_total counts them"
            ),
            (None, true) => tracing::warn!(
                listener,
                max,
                reason,
                "too many connections of the front proxy and of other replicas: refusing new ones; \
                 lagwise_connections_cut_total counts them"
            ),
        }
    }
}

/// The last second of the year 9999, after which RFC 3339 has no dates.
const LAST_SECOND: u64 = 253_402_300_799;

/// The API started to use a certificate.
#[derive(Debug)]
pub struct CertificateServed<'a> {
    /// Where the certificate comes from.
    pub origin: &'a str,
    /// Expiry in seconds since 1970.
    pub ends: i64,
}

impl CertificateServed<'_> {
    pub fn emit(&self) {
        CERTIFICATE_ENDS.set(self.ends);
        let since_1970 = u64::try_from(self.ends).unwrap_or(0).min(LAST_SECOND);
        let since_1970 = Duration::from_secs(since_1970);
        let ends = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since_1970);
        tracing::info!(origin = self.origin, %ends, "using certificate");
    }
}

/// A new certificate cannot be used.
#[derive(Debug)]
pub struct CertificateUnusable<'a> {
    pub reason: &'a dyn std::error::Error,
}

impl CertificateUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot use the new certificate: continuing with the old one"
        );
    }
}

/// The file with the authorities of the external scaler's callers has changed and holds none.
#[derive(Debug)]
pub struct ClientAuthoritiesUnusable<'a> {
    pub file: &'a std::path::Path,
    pub reason: &'a str,
}

impl ClientAuthoritiesUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            file = %self.file.display(),
            reason = self.reason,
            "cannot use the changed file of server.external_scaler.client_ca_file: continuing with its former content"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_once() {
        for vector in [&REQUESTS, &REVIEWS, &CONNECTIONS_CUT] {
            LazyLock::force(vector);
        }
        LazyLock::force(&SECONDS);
        LazyLock::force(&SERVED_AGE);
        LazyLock::force(&CONNECTIONS);
        LazyLock::force(&CERTIFICATE_ENDS);
    }

    #[test]
    fn truncates_long_texts_between_characters() {
        assert_eq!(cut("größe"), "größe");
        assert_eq!(cut(&"ö".repeat(300)).chars().count(), MAX_LOGGED_CHARS);
    }
}
