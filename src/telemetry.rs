//! Log lines and metrics of the process. Each event is a struct whose `emit` writes the log line
//! and updates the metric together, so that neither exists without the other.

pub mod api;
pub mod bearer_token;
pub mod brokers;
pub mod cap;
pub mod certificates;
pub mod failure_log;
pub mod family;
pub mod finding_log;
pub mod forward;
mod hpa_lines;
pub mod lease;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod log_buffer;
pub mod log_interval;
mod namespace_lines;
pub mod notice;
pub mod otlp;
#[cfg(test)]
pub(crate) mod testing;
pub mod upstream;
pub mod zero;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use crate::model::diagnostics::incidents::{IncidentKind, LagIncident};
use crate::model::findings::{Finding, Severity};
use crate::model::kafka::fault::ConnectionFault;
use crate::model::units::newtypes::ClusterName;
use family::Family;

/// Registry of the daemon's own metrics.
pub static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::new();
    // Reads /proc, so Linux only. Registration fails only if repeated.
    #[cfg(target_os = "linux")]
    let _ = registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ));
    registry
});

static POLLS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_polls_total",
        "Finished sweeps of a Kafka cluster, by outcome",
        &["cluster", "outcome"],
    )
});
static POLL_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    let options = HistogramOpts::new(
        "lagwise_poll_duration_seconds",
        "Duration of a sweep of a Kafka cluster, in seconds",
    );
    register(Histogram::with_opts(options.buckets(buckets)))
});
static CONNECTION_FAULTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help =
        "Times that a Kafka cluster stopped answering, or stayed so for a new reason, by kind";
    counter(
        "lagwise_connection_faults_total",
        help,
        &["cluster", "kind"],
    )
});
static FINDINGS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_findings_total",
        "New findings about HPAs, groups, workloads and settings, by kind",
        &["kind"],
    )
});
static LAG_EVENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_lag_events_total",
        "Incidents in a group's lag, by kind: offsets lost, topic replaced, commits vanished, partition or group stuck",
        &["cluster", "kind"],
    )
});
static STATE_SAVES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_state_saves_total",
        "Saves of the state that survives a restart, by outcome: saved, trimmed (without the groups that matter least), or failed",
        &["outcome"],
    )
});
static WATCH_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_kubernetes_watch_failures_total",
        "Times that a watch on the Kubernetes API failed, or stayed so for a new reason",
        &["watch"],
    )
});

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(IntCounterVec::new(Opts::new(name, help), labels))
}

/// Registers a metric whose name is a constant of this file.
#[allow(clippy::expect_used)] // Wrong or repeated names are mistakes of this file, found by its test.
fn register<M: prometheus::core::Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a valid metric name");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("a metric name used once");
    metric
}

/// Describes every metric that the process counts, also those without a sample yet.
#[must_use]
pub fn families() -> Vec<Family> {
    collectors()
        .into_iter()
        .filter_map(Family::describe)
        .collect()
}

/// Every collector of this module and of those below it.
fn collectors() -> Vec<&'static dyn Collector> {
    let mut all: Vec<&'static dyn Collector> = vec![
        &*POLLS,
        &*POLL_SECONDS,
        &*CONNECTION_FAULTS,
        &*FINDINGS,
        &*LAG_EVENTS,
        &*STATE_SAVES,
        &*WATCH_FAILURES,
        &*cap::WRITES,
        &*zero::SCALES,
        &*notice::EVENTS,
        &*certificates::CHANGES,
        &*certificates::BUNDLES,
        &*lease::LEADS,
        &*forward::SECONDS,
        &*upstream::SECONDS,
        &*upstream::UNREAD,
        &*otlp::EXPORTS,
    ];
    all.extend(api::collectors());
    all
}

/// A sweep of a cluster finished.
#[derive(Debug)]
pub struct PollFinished<'a> {
    pub cluster: &'a ClusterName,
    /// From the first request to the last response, or the deadline.
    pub took: Duration,
    /// Group-topics read.
    pub group_topics: usize,
    /// Group-topics with unknown partitions; a group without known topics also counts.
    pub incomplete: usize,
}

impl PollFinished<'_> {
    pub fn emit(&self) {
        let outcome = if self.incomplete == 0 {
            "complete"
        } else {
            "incomplete"
        };
        POLLS
            .with_label_values(&[self.cluster.as_str(), outcome])
            .inc();
        POLL_SECONDS.observe(self.took.as_secs_f64());
        tracing::debug!(
            cluster = %self.cluster,
            took = ?self.took,
            group_topics = self.group_topics,
            incomplete = self.incomplete,
            "poll finished"
        );
    }
}

/// A cluster stopped answering, or does not answer for a new reason.
#[derive(Debug)]
pub struct ConnectionLost<'a> {
    pub cluster: &'a ClusterName,
    pub fault: &'a ConnectionFault,
}

impl ConnectionLost<'_> {
    pub fn emit(&self) {
        CONNECTION_FAULTS
            .with_label_values(&[self.cluster.as_str(), self.fault.kind.label()])
            .inc();
        tracing::warn!(
            cluster = %self.cluster,
            kind = self.fault.kind.label(),
            reason = %self.fault.reason,
            "Kafka cluster does not answer"
        );
    }
}

/// A cluster answers again.
#[derive(Debug)]
pub struct ConnectionRestored<'a> {
    pub cluster: &'a ClusterName,
    /// How long it was interrupted.
    pub after: Duration,
}

impl ConnectionRestored<'_> {
    pub fn emit(&self) {
        let after = Duration::from_secs(self.after.as_secs());
        tracing::info!(cluster = %self.cluster, after = %humantime::format_duration(after), "Kafka cluster answers again");
    }
}

/// A new finding.
#[derive(Debug)]
pub struct FindingRaised<'a>(pub &'a Finding);

impl FindingRaised<'_> {
    /// Counts without a line in the log.
    fn count(&self) {
        FINDINGS.with_label_values(&[self.0.code.label()]).inc();
    }

    pub fn emit(&self) {
        self.count();
        let finding = self.0;
        let (code, kind) = (finding.code.code(), finding.code.label());
        let fix = finding.code.fix();
        match finding.code.severity() {
            Severity::Info => tracing::info!(code, kind, "{finding}. {fix}"),
            Severity::Warning | Severity::Error => tracing::warn!(code, kind, "{finding}. {fix}"),
        }
    }
}

/// An incident began.
#[derive(Debug)]
pub struct IncidentDetected<'a>(pub &'a LagIncident);

impl IncidentDetected<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        let LagIncident {
            cluster,
            group,
            topic,
            kind: what,
            first_partition,
            partitions,
            lost,
        } = self.0;
        let kind = what.label();
        LAG_EVENTS
            .with_label_values(&[cluster.as_str(), kind])
            .inc();
        let Some(topic) = topic else {
            tracing::warn!(%cluster, %group, kind, "{what}");
            return;
        };
        // Absent from the line where it is `None`.
        let lost_messages = (*what == IncidentKind::OffsetsLost).then_some(lost.0);
        tracing::warn!(
            %cluster, %group, %topic, kind, first_partition, partitions, lost_messages,
            "{what}"
        );
    }
}

/// The persistent state was saved.
#[derive(Debug)]
pub struct StateSaved<'a> {
    pub place: &'a str,
    pub bytes: usize,
    /// Groups omitted because of the size limit.
    pub dropped: usize,
    /// Whether the previous save failed.
    pub again: bool,
}

impl StateSaved<'_> {
    pub fn emit(&self) {
        let (place, bytes, groups) = (self.place, self.bytes, self.dropped);
        let outcome = if groups == 0 { "saved" } else { "trimmed" };
        STATE_SAVES.with_label_values(&[outcome]).inc();
        if groups > 0 {
            tracing::warn!(
                place,
                bytes,
                groups,
                "state is too large: saved without the groups that matter least"
            );
        } else if self.again {
            tracing::info!(place, bytes, "saving the state works again");
        } else {
            tracing::debug!(place, bytes, "state saved");
        }
    }
}

/// Saving the state failed. `new_reason` is `None` if the previous save failed for the same reason.
#[derive(Debug)]
pub struct StateUnwritten<'a, E> {
    pub place: &'a str,
    pub new_reason: Option<&'a E>,
}

impl<E: std::error::Error> StateUnwritten<'_, E> {
    pub fn emit(&self) {
        STATE_SAVES.with_label_values(&["failed"]).inc();
        if let Some(reason) = self.new_reason {
            tracing::warn!(place = self.place, %reason, "cannot save the state: it will be lost on a restart");
        }
    }
}

/// Reading the state fails for a new reason.
#[derive(Debug)]
pub struct StateUnread<'a> {
    pub place: &'a str,
    pub reason: &'a dyn std::error::Error,
}

impl StateUnread<'_> {
    pub fn emit(&self) {
        tracing::warn!(place = self.place, reason = %self.reason, "cannot read the state: retrying, and not saving until it can be read");
    }
}

/// The stored state is not usable.
#[derive(Debug)]
pub struct StateUnusable<'a> {
    pub place: &'a str,
    pub reason: &'a str,
}

impl StateUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = self.reason,
            "ignoring the stored state"
        );
    }
}

/// A watch on the Kubernetes API failed, or fails for a new reason.
#[derive(Debug)]
pub struct WatchLost<'a> {
    pub watched: &'static str,
    pub reason: &'a str,
}

impl WatchLost<'_> {
    pub fn emit(&self) {
        WATCH_FAILURES.with_label_values(&[self.watched]).inc();
        tracing::warn!(
            watched = self.watched,
            reason = self.reason,
            "Kubernetes watch failed: continuing with the last known objects"
        );
    }
}

/// A watch on the Kubernetes API works again.
#[derive(Debug)]
pub struct WatchRestored {
    pub watched: &'static str,
    /// How long it was interrupted.
    pub after: Duration,
}

impl WatchRestored {
    pub fn emit(&self) {
        let after = Duration::from_secs(self.after.as_secs());
        tracing::info!(
            watched = self.watched,
            after = %humantime::format_duration(after),
            "Kubernetes watch works again"
        );
    }
}

/// The ConfigMap with the trusted certificates is not usable.
#[derive(Debug)]
pub struct TrustUnusable<'a> {
    pub reason: &'a dyn std::error::Error,
}

impl TrustUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot use ConfigMap kube-system/extension-apiserver-authentication"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_registers_once() {
        // Registering one twice panics.
        let names: BTreeSet<_> = families().iter().map(|family| family.name).collect();
        assert_eq!(names.len(), collectors().len());
    }
}
