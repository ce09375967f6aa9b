//! What a daemon says of requests that it passes on to the one that leads.

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec};

use super::register;

pub(super) static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0];
    let options = HistogramOpts::new(
        "lagwise_api_forward_duration_seconds",
        "Duration of a request that this daemon forwarded to the leader, in seconds, by outcome",
    );
    register(HistogramVec::new(options.buckets(buckets), &["outcome"]))
});

/// A request was passed on to the daemon that leads.
#[derive(Debug)]
pub struct Forwarded {
    /// `answered`, or why it was not, from a fixed list.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
}

impl Forwarded {
    /// Logs and counts.
    pub fn emit(&self) {
        let seconds = self.took.as_secs_f64();
        SECONDS.with_label_values(&[self.outcome]).observe(seconds);
        tracing::debug!(outcome = self.outcome, took = ?self.took, "passed on to the leader");
    }
}

/// The daemon that leads does not answer what is passed on to it.
#[derive(Debug)]
pub struct ForwardsFailing<'a> {
    /// Where it was asked.
    pub leader: &'a str,
    /// Why, in few words.
    pub reason: &'a dyn Error,
    /// What the connection says.
    pub detail: &'a str,
}

impl ForwardsFailing<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            leader = self.leader,
            reason = %self.reason,
            detail = self.detail,
            "requests for metrics cannot be passed on to the daemon that leads"
        );
    }
}

/// It answers again.
#[derive(Debug)]
pub struct ForwardsRestored<'a> {
    /// Where it is asked.
    pub leader: &'a str,
}

impl ForwardsRestored<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::info!(
            leader = self.leader,
            "the daemon that leads answers what is passed on to it"
        );
    }
}
