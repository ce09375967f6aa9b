//! What lagwise says of the cap that it writes.

use std::error::Error;
use std::sync::{Arc, LazyLock};

use prometheus::IntCounterVec;

use super::counter;

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
    /// The HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
    /// The ceiling; `None` where the HPA is given back to its user.
    pub ceiling: Option<u32>,
}

impl CapWritten<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["written"]).inc();
        let (namespace, name) = self.hpa;
        let hpa = format_args!("{namespace}/{name}");
        match self.ceiling {
            Some(ceiling) => tracing::info!(%hpa, ceiling, "maxReplicas is held to the ceiling"),
            None => tracing::info!(%hpa, "maxReplicas is the user's alone again"),
        }
    }
}

/// A ceiling could not be written to an HPA.
#[derive(Debug)]
pub struct CapFailed<'a> {
    /// The HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
    /// Why.
    pub reason: &'a dyn Error,
}

impl CapFailed<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["failed"]).inc();
        let (namespace, name) = self.hpa;
        tracing::warn!(
            hpa = format_args!("{namespace}/{name}"),
            reason = %self.reason,
            "the ceiling cannot be enforced: the value served is clamped instead"
        );
    }
}

/// Somebody keeps undoing what is written to an HPA.
#[derive(Debug)]
pub struct CapFought<'a> {
    /// The HPA's namespace and name.
    pub hpa: &'a (Arc<str>, Arc<str>),
}

impl CapFought<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        WRITES.with_label_values(&["fought"]).inc();
        let (namespace, name) = self.hpa;
        tracing::warn!(
            hpa = format_args!("{namespace}/{name}"),
            "somebody keeps undoing the ceiling: it is written ever more rarely; have them leave \
             spec.maxReplicas alone, or set lagwise.dev/cap: advise"
        );
    }
}
