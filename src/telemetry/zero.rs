//! What lagwise says of workloads that it sets to zero and wakes.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;
use crate::model::units::hpa_key::HpaKey;

pub(super) static SCALES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_zero_scales_total",
        "Workloads scaled to zero, woken, or neither because of a failure, by outcome",
        &["outcome"],
    )
});

/// A workload without work was set to zero replicas.
#[derive(Debug)]
pub struct ScaledToZero<'a> {
    pub hpa: &'a HpaKey,
}

impl ScaledToZero<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["zeroed"]).inc();
        tracing::info!(
            hpa = %self.hpa,
            "no work for as long as the cooldown: the workload is scaled to zero"
        );
    }
}

/// A workload that was set to zero was woken.
#[derive(Debug)]
pub struct WakeUp<'a> {
    pub hpa: &'a HpaKey,
    /// With so many replicas.
    pub replicas: u32,
}

impl WakeUp<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["woken"]).inc();
        tracing::info!(
            hpa = %self.hpa,
            replicas = self.replicas,
            "the workload is woken from zero"
        );
    }
}

/// A workload could not be looked at, set to zero or woken.
#[derive(Debug)]
pub struct ZeroFailed<'a> {
    pub hpa: &'a HpaKey,
    /// Why.
    pub reason: &'a dyn Error,
}

impl ZeroFailed<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["failed"]).inc();
        tracing::warn!(
            hpa = %self.hpa,
            reason = %self.reason,
            "scale to zero: the workload cannot be looked after"
        );
    }
}
