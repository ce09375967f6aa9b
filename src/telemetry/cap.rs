//! Writes of the cap to HPAs.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;
use super::hpa_lines::may_log;
use crate::model::units::hpa_key::HpaKey;

pub(super) static WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let writes = counter(
        "lagwise_cap_writes_total",
        "Writes of the ceiling to HPAs, by outcome: written, failed, or fought (another writer keeps undoing it)",
        &["outcome"],
    );
    // From 0, because PromQL's increase() does not see a counter that begins with 1.
    for outcome in ["written", "failed", "fought"] {
        writes.with_label_values(&[outcome]);
    }
    writes
});

/// A ceiling was written to an HPA.
#[derive(Debug)]
pub struct CapWritten<'a> {
    pub hpa: &'a HpaKey,
    /// The ceiling; `None` if the HPA was released to its user.
    pub ceiling: Option<u32>,
}

impl CapWritten<'_> {
    pub fn emit(&self) {
        WRITES.with_label_values(&["written"]).inc();
        let hpa = self.hpa;
        if !may_log(hpa) {
            return;
        }
        match self.ceiling {
            Some(ceiling) => tracing::info!(%hpa, ceiling, "maxReplicas is capped at the ceiling"),
            None => tracing::info!(%hpa, "maxReplicas is no longer capped"),
        }
    }
}

/// A ceiling could not be written to an HPA.
#[derive(Debug)]
pub struct CapFailed<'a, E> {
    pub hpa: &'a HpaKey,
    /// `None` if the previous attempt failed for the same reason.
    pub new_reason: Option<&'a E>,
}

impl<E: Error> CapFailed<'_, E> {
    pub fn emit(&self) {
        WRITES.with_label_values(&["failed"]).inc();
        if let Some(reason) = self.new_reason
            && may_log(self.hpa)
        {
            tracing::warn!(
                hpa = %self.hpa,
                %reason,
                "cannot write the cap to the HPA: trying again, and clamping the served value meanwhile"
            );
        }
    }
}

/// The cap is not written to an HPA as long as it is unknown who records the user's `maxReplicas`. Logged for each new
/// reason, and not counted as a write.
#[derive(Debug)]
pub struct CapOwnerUnknown<'a, E> {
    pub hpa: &'a HpaKey,
    pub reason: &'a E,
}

impl<E: Error> CapOwnerUnknown<'_, E> {
    pub fn emit(&self) {
        if may_log(self.hpa) {
            tracing::warn!(
                hpa = %self.hpa,
                reason = %self.reason,
                "cannot look up who records the user's maxReplicas, so the cap is not written: trying again, and clamping \
                 the served value meanwhile"
            );
        }
    }
}

/// Another writer keeps undoing the cap of an HPA.
#[derive(Debug)]
pub struct CapFought<'a> {
    pub hpa: &'a HpaKey,
}

impl CapFought<'_> {
    pub fn emit(&self) {
        WRITES.with_label_values(&["fought"]).inc();
        if !may_log(self.hpa) {
            return;
        }
        tracing::warn!(
            hpa = %self.hpa,
            "another writer keeps undoing the cap, so lagwise writes it less and less often: stop the other \
             writer from setting spec.maxReplicas, or set the annotation lagwise.dev/cap: advise"
        );
    }
}
