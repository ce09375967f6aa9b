//! Events of the export to an OpenTelemetry collector.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;

pub(super) static EXPORTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_otlp_exports_total",
        "Exports to the OpenTelemetry collector, by outcome: sent, or why they failed",
        &["outcome"],
    )
});

/// An export was sent.
#[derive(Clone, Copy, Debug)]
pub struct ExportSent;

impl ExportSent {
    pub fn emit(self) {
        EXPORTS.with_label_values(&["sent"]).inc();
    }
}

/// An export failed.
#[derive(Debug)]
pub struct ExportFailed<'a> {
    pub endpoint: &'a str,
    /// The kind of failure, from a fixed list.
    pub outcome: &'static str,
    /// The failure, if it is of another kind than that of the former export.
    pub reason: Option<&'a dyn Error>,
}

impl ExportFailed<'_> {
    pub fn emit(&self) {
        EXPORTS.with_label_values(&[self.outcome]).inc();
        if let Some(reason) = self.reason {
            tracing::warn!(
                endpoint = self.endpoint,
                %reason,
                "cannot export metrics to the OpenTelemetry collector: trying again at each interval"
            );
        }
    }
}

/// Exports work again.
#[derive(Debug)]
pub struct ExportRestored<'a> {
    pub endpoint: &'a str,
}

impl ExportRestored<'_> {
    pub fn emit(&self) {
        tracing::info!(
            endpoint = self.endpoint,
            "metrics are exported to the OpenTelemetry collector again"
        );
    }
}
