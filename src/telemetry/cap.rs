//! What lagwise says of the cap that it writes.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;
use crate::model::units::hpa_key::HpaKey;

pub(super) static WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_cap_writes_total",
        "Writes of the ceiling to HPAs, by outcome: written, failed, or fought where somebody else keeps undoing it",
        &["outcome"],
    )
});

/// A ceiling was written to an HPA.
#[derive(Debug)]
pub struct CapWritten<'a> {
    pub hpa: &'a HpaKey,
    /// The ceiling; `None` where the HPA is given back to its user.
    pub ceiling: Option<u32>,
}

impl CapWritten<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["written"]).inc();
        let hpa = self.hpa;
        match self.ceiling {
            Some(ceiling) => tracing::info!(%hpa, ceiling, "maxReplicas is held to the ceiling"),
            None => tracing::info!(%hpa, "maxReplicas is the user's alone again"),
        }
    }
}

/// A ceiling could not be written to an HPA.
#[derive(Debug)]
pub struct CapFailed<'a> {
    pub hpa: &'a HpaKey,
    /// Why.
    pub reason: &'a dyn Error,
}

impl CapFailed<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["failed"]).inc();
        tracing::warn!(
            hpa = %self.hpa,
            reason = %self.reason,
            "the ceiling cannot be enforced: the value served is clamped instead"
        );
    }
}

/// Somebody keeps undoing what is written to an HPA.
#[derive(Debug)]
pub struct CapFought<'a> {
    pub hpa: &'a HpaKey,
}

impl CapFought<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["fought"]).inc();
        tracing::warn!(
            hpa = %self.hpa,
            "somebody keeps undoing the ceiling: it is written ever more rarely; have them leave \
             spec.maxReplicas alone, or set lagwise.dev/cap: advise"
        );
    }
}
