//! Kubernetes events on HPAs.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::counter;

pub(super) static EVENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_kubernetes_events_total",
        "Events on HPAs, by outcome: written, repeated (counted up), failed, or left_out because too many waited",
        &["outcome"],
    )
});

/// An event was published.
#[derive(Clone, Copy, Debug)]
pub struct EventWritten {
    /// Whether it existed and was counted up.
    pub again: bool,
}

impl EventWritten {
    pub fn emit(self) {
        let outcome = if self.again { "repeated" } else { "written" };
        EVENTS.with_label_values(&[outcome]).inc();
    }
}

/// An event could not be published.
#[derive(Debug)]
pub struct EventUnwritten<'a> {
    pub namespace: &'a str,
    /// The reason, if it differs from the last one.
    pub reason: Option<&'a dyn Error>,
}

impl EventUnwritten<'_> {
    pub fn emit(&self) {
        EVENTS.with_label_values(&["failed"]).inc();
        if let Some(reason) = self.reason {
            tracing::warn!(
                namespace = self.namespace, %reason,
                "cannot publish events on HPAs of this namespace: the log has the same messages"
            );
        }
    }
}

/// An event was dropped, since too many are waiting.
#[derive(Clone, Copy, Debug)]
pub struct EventLeftOut;

impl EventLeftOut {
    pub fn emit(self) {
        EVENTS.with_label_values(&["left_out"]).inc();
    }
}
