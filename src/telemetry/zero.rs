//! What lagwise says of workloads that it sets to zero and wakes.

use std::error::Error;
use std::sync::{Arc, LazyLock};

use prometheus::IntCounterVec;

use super::counter;

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
    /// Its HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
}

impl ScaledToZero<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["zeroed"]).inc();
        let (namespace, name) = self.hpa;
        tracing::info!(
            hpa = format_args!("{namespace}/{name}"),
            "no work for as long as the cooldown: the workload is scaled to zero"
        );
    }
}

/// A workload that was set to zero was woken.
#[derive(Debug)]
pub struct WakeUp<'a> {
    /// Its HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
    /// With so many replicas.
    pub replicas: u32,
}

impl WakeUp<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["woken"]).inc();
        let (namespace, name) = self.hpa;
        tracing::info!(
            hpa = format_args!("{namespace}/{name}"),
            replicas = self.replicas,
            "the workload is woken from zero"
        );
    }
}

/// A workload could not be looked at, set to zero or woken.
#[derive(Debug)]
pub struct ZeroFailed<'a> {
    /// Its HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
    /// Why.
    pub reason: &'a dyn Error,
}

impl ZeroFailed<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        SCALES.with_label_values(&["failed"]).inc();
        let (namespace, name) = self.hpa;
        tracing::warn!(
            hpa = format_args!("{namespace}/{name}"),
            reason = %self.reason,
            "scale to zero: the workload cannot be looked after"
        );
    }
}
