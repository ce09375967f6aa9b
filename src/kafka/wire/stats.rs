//! What asking a cluster costs, counted where it happens and without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::model::kafka::observation::Traffic;

/// The counters of one cluster's connections.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    received_bytes: AtomicU64,
    connections: AtomicU64,
    throttled_ms: AtomicU64,
}

impl Counters {
    pub(super) fn sent(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A response of so many bytes, its length not counted.
    pub(super) fn received(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.received_bytes
            .fetch_add(bytes.saturating_add(4), Relaxed);
    }

    pub(super) fn throttled(&self, during: Duration) {
        let millis = u64::try_from(during.as_millis()).unwrap_or(u64::MAX);
        self.throttled_ms.fetch_add(millis, Relaxed);
    }

    /// A connection, open for as long as what this gives lives.
    pub(super) fn connection(&self) -> OpenConnection<'_> {
        self.connections.fetch_add(1, Relaxed);
        OpenConnection(self)
    }

    pub(super) fn now(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            connections: self.connections.load(Relaxed),
            throttled: Duration::from_millis(self.throttled_ms.load(Relaxed)),
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct OpenConnection<'a>(&'a Counters);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
