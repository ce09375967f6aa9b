//! Events of forwarding requests to the leader.

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

/// A request was forwarded to the leader.
#[derive(Debug)]
pub struct Forwarded {
    /// `answered`, or the reason of a failure, from a fixed list.
    pub outcome: &'static str,
    pub took: Duration,
}

impl Forwarded {
    pub fn emit(&self) {
        let seconds = self.took.as_secs_f64();
        SECONDS.with_label_values(&[self.outcome]).observe(seconds);
        tracing::debug!(outcome = self.outcome, took = ?self.took, "forwarded to the leader");
    }
}

/// Forwarding started to fail.
#[derive(Debug)]
pub struct ForwardsFailing<'a> {
    /// Address of the leader.
    pub leader: &'a str,
    /// Reason, in constant text.
    pub reason: &'a dyn Error,
    /// Error of the connection.
    pub detail: &'a str,
}

impl ForwardsFailing<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            leader = self.leader,
            reason = %self.reason,
            detail = self.detail,
            "cannot forward metric requests to the leader"
        );
    }
}

/// Forwarding works again.
#[derive(Debug)]
pub struct ForwardsRestored<'a> {
    /// Address of the leader.
    pub leader: &'a str,
}

impl ForwardsRestored<'_> {
    pub fn emit(&self) {
        tracing::info!(leader = self.leader, "forwarding to the leader works again");
    }
}
