//! Events of passing requests on to the upstream server of external metrics.

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter};

use super::register;

pub(super) static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0];
    let options = HistogramOpts::new(
        "lagwise_api_upstream_duration_seconds",
        "Time until the upstream server of external metrics answered a request that was passed on to it, in seconds, by outcome",
    );
    register(HistogramVec::new(options.buckets(buckets), &["outcome"]))
});

pub(super) static UNREAD: LazyLock<IntCounter> = LazyLock::new(|| {
    register(IntCounter::new(
        "lagwise_api_upstream_unread_total",
        "Answers of the upstream server of external metrics that were given up because the caller did not read them",
    ))
});

/// A request was passed on.
#[derive(Debug)]
pub struct PassedOn {
    /// `answered`, or the reason of a failure, from a fixed list.
    pub outcome: &'static str,
    pub took: Duration,
}

impl PassedOn {
    pub fn emit(&self) {
        let seconds = self.took.as_secs_f64();
        SECONDS.with_label_values(&[self.outcome]).observe(seconds);
        tracing::debug!(outcome = self.outcome, took = ?self.took, "asked the upstream");
    }
}

/// The upstream started to fail.
#[derive(Debug)]
pub struct UpstreamFailing<'a> {
    pub url: &'a str,
    /// Reason, in constant text.
    pub reason: &'a dyn Error,
    /// Error of the connection.
    pub detail: &'a str,
}

impl UpstreamFailing<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            url = self.url,
            reason = %self.reason,
            detail = self.detail,
            "the upstream server of external metrics does not answer"
        );
    }
}

/// The upstream works again.
#[derive(Debug)]
pub struct UpstreamRestored<'a> {
    pub url: &'a str,
}

impl UpstreamRestored<'_> {
    pub fn emit(&self) {
        tracing::info!(
            url = self.url,
            "the upstream server of external metrics answers again"
        );
    }
}

/// The rest of an answer was dropped, because its caller did not read it for too long.
#[derive(Debug)]
pub struct AnswerUnread;

impl AnswerUnread {
    pub fn emit(&self) {
        UNREAD.inc();
        tracing::debug!("a caller does not read an answer of the upstream");
    }
}

/// The files for the upstream have changed and cannot be used.
#[derive(Debug)]
pub struct UpstreamFilesUnusable<'a> {
    pub reason: &'a str,
}

impl UpstreamFilesUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = self.reason,
            "cannot use the changed files of server.external_metrics.upstream: continuing with their former content"
        );
    }
}

/// The files for the upstream can be used again.
#[derive(Debug)]
pub struct UpstreamFilesUsable;

impl UpstreamFilesUsable {
    pub fn emit(&self) {
        tracing::info!("the files of server.external_metrics.upstream can be used again");
    }
}
