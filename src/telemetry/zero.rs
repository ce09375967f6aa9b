//! Workloads that lagwise scales to zero and wakes.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;
use super::hpa_lines::may_log;
use crate::model::units::hpa_key::HpaKey;

pub(super) static SCALES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let scales = counter(
        "lagwise_zero_scales_total",
        "Attempts to scale a workload to zero or to wake it, by outcome: zeroed, woken, or failed (also if the workload could not be read)",
        &["outcome"],
    );
    // From 0, because PromQL's increase() does not see a counter that begins with 1.
    for outcome in ["zeroed", "woken", "failed"] {
        scales.with_label_values(&[outcome]);
    }
    scales
});

/// A workload was scaled to zero.
#[derive(Debug)]
pub struct ScaledToZero<'a> {
    pub hpa: &'a HpaKey,
}

impl ScaledToZero<'_> {
    pub fn emit(&self) {
        SCALES.with_label_values(&["zeroed"]).inc();
        if may_log(self.hpa) {
            tracing::info!(
                hpa = %self.hpa,
                "scaled the workload to zero: there was no demand for the whole cooldown"
            );
        }
    }
}

/// A workload was woken from zero.
#[derive(Debug)]
pub struct WakeUp<'a> {
    pub hpa: &'a HpaKey,
    /// The replicas that it was given.
    pub replicas: u32,
}

impl WakeUp<'_> {
    pub fn emit(&self) {
        SCALES.with_label_values(&["woken"]).inc();
        if may_log(self.hpa) {
            tracing::info!(
                hpa = %self.hpa,
                replicas = self.replicas,
                "woke the workload from zero"
            );
        }
    }
}

/// A workload could not be read, scaled to zero or woken.
#[derive(Debug)]
pub struct ZeroFailed<'a, E> {
    pub hpa: &'a HpaKey,
    /// `None` if the previous attempt failed for the same reason.
    pub new_reason: Option<&'a E>,
}

impl<E: Error> ZeroFailed<'_, E> {
    pub fn emit(&self) {
        SCALES.with_label_values(&["failed"]).inc();
        if let Some(reason) = self.new_reason
            && may_log(self.hpa)
        {
            tracing::warn!(
                hpa = %self.hpa,
                %reason,
                "cannot scale the workload to zero or wake it: trying again"
            );
        }
    }
}

/// The ledger of what was scaled to zero could not be read, for a new reason.
#[derive(Debug)]
pub struct LedgerUnread<'a> {
    pub reason: &'a dyn Error,
}

impl LedgerUnread<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot read the ledger of scale to zero: until it can be read, no workload is scaled to zero or woken"
        );
    }
}
