//! What lagwise says of the events that it writes on HPAs.

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

/// An event was written.
#[derive(Clone, Copy, Debug)]
pub struct EventWritten {
    /// Whether it was there already and was counted up.
    pub again: bool,
}

impl EventWritten {
    /// Counts.
    pub fn emit(self) {
        let outcome = if self.again { "repeated" } else { "written" };
        EVENTS.with_label_values(&[outcome]).inc();
    }
}

/// An event could not be written.
#[derive(Debug)]
pub struct EventUnwritten<'a> {
    /// Why, where that is another cause than the last time.
    pub reason: Option<&'a dyn Error>,
}

impl EventUnwritten<'_> {
    /// Counts, and logs what is new.
    pub fn emit(&self) {
        EVENTS.with_label_values(&["failed"]).inc();
        if let Some(reason) = self.reason {
            tracing::warn!(%reason, "events cannot be written on HPAs: the log says the same");
        }
    }
}

/// An event was left out, since too many wait.
#[derive(Clone, Copy, Debug)]
pub struct EventLeftOut;

impl EventLeftOut {
    /// Counts.
    pub fn emit(self) {
        EVENTS.with_label_values(&["left_out"]).inc();
    }
}
