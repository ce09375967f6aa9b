//! What the external metrics API says of itself.

use std::sync::LazyLock;
use std::time::Duration;

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
        "Token and access reviews sent to the Kubernetes API server, by kind and outcome; cached answers are not counted",
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

/// Every collector of this file.
pub(super) fn collectors() -> [&'static dyn Collector; 7] {
    [
        &*REQUESTS,
        &*SECONDS,
        &*SERVED_AGE,
        &*REVIEWS,
        &*CONNECTIONS,
        &*CONNECTIONS_CUT,
        &*CERTIFICATE_ENDS,
    ]
}

/// How much of a text from outside is logged.
const LOGGED_CHARS: usize = 200;

/// The external metrics API answered.
#[derive(Debug)]
pub struct ApiAnswered<'a> {
    /// What kind of request it was, from a fixed list.
    pub request: &'static str,
    /// What it wanted to do, from a fixed list.
    pub verb: &'static str,
    /// The metric, one of ours; `other` for any other, empty where none is asked for.
    pub metric: &'static str,
    /// The HTTP status code.
    pub code: StatusCode,
    /// The path asked for, without its query.
    pub path: &'a str,
    /// Who asked, where that is known.
    pub user: Option<&'a str>,
    /// How long it took.
    pub took: Duration,
    /// Whether it is a line of the access log, and then how many like it were left out since the
    /// last one.
    pub logged: Option<u64>,
}

impl ApiAnswered<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        REQUESTS
            .with_label_values(&[self.request, self.verb, self.metric, self.code.as_str()])
            .inc();
        SECONDS
            .with_label_values(&[self.request])
            .observe(self.took.as_secs_f64());
        // Asked for where it is logged only.
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
    match text.char_indices().nth(LOGGED_CHARS) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// A value was served.
#[derive(Debug)]
pub struct ValueServed {
    /// How old its oldest reading is.
    pub age: Duration,
}

impl ValueServed {
    /// Counts.
    pub fn emit(&self) {
        SERVED_AGE.observe(self.age.as_secs_f64());
    }
}

/// The Kubernetes API server was asked about a caller.
#[derive(Debug)]
pub struct ReviewAnswered {
    /// `token` or `access`.
    pub kind: &'static str,
    /// `answered`, or the kind of error.
    pub outcome: &'static str,
}

impl ReviewAnswered {
    /// Logs and counts.
    pub fn emit(&self) {
        REVIEWS.with_label_values(&[self.kind, self.outcome]).inc();
        tracing::debug!(kind = self.kind, outcome = self.outcome, "access reviewed");
    }
}

/// Callers can no longer be asked about.
#[derive(Debug)]
pub struct ReviewsFailing<'a> {
    /// Why.
    pub reason: &'a ReviewError,
}

impl ReviewsFailing<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "access cannot be checked: refusing whom nothing recent is known about"
        );
    }
}

/// Callers can be asked about again.
#[derive(Debug)]
pub struct ReviewsRestored;

impl ReviewsRestored {
    /// Logs.
    pub fn emit(&self) {
        tracing::info!("access can be checked again");
    }
}

/// The number of open connections changed.
#[derive(Debug)]
pub struct ConnectionsChanged {
    /// `api` or `http`.
    pub listener: &'static str,
    /// How many there are now.
    pub open: usize,
}

impl ConnectionsChanged {
    /// Counts.
    pub fn emit(&self) {
        let open = i64::try_from(self.open).unwrap_or(i64::MAX);
        CONNECTIONS.with_label_values(&[self.listener]).set(open);
    }
}

/// A connection was cut.
#[derive(Debug)]
pub struct ConnectionCut {
    /// `api` or `http`.
    pub listener: &'static str,
    /// Why, from a fixed list.
    pub reason: &'static str,
}

impl ConnectionCut {
    /// Logs and counts.
    pub fn emit(&self) {
        CONNECTIONS_CUT
            .with_label_values(&[self.listener, self.reason])
            .inc();
        tracing::debug!(
            listener = self.listener,
            reason = self.reason,
            "connection cut"
        );
    }
}

/// The API serves with a certificate from now on.
#[derive(Debug)]
pub struct CertificateServed<'a> {
    /// Where it is from.
    pub origin: &'a str,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
}

impl CertificateServed<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        CERTIFICATE_ENDS.set(self.ends);
        tracing::info!(
            origin = self.origin,
            ends = self.ends,
            "serving with a certificate"
        );
    }
}

/// A certificate that was to be served with cannot be.
#[derive(Debug)]
pub struct CertificateUnusable<'a> {
    /// Why.
    pub reason: &'a dyn std::error::Error,
}

impl CertificateUnusable<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "the new certificate cannot be served with: going on with the one before"
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
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("größe"), "größe");
        assert_eq!(cut(&"ö".repeat(300)).chars().count(), LOGGED_CHARS);
    }
}
