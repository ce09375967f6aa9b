//! Lock-free counters of the traffic with a cluster.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::model::kafka::observation::Traffic;

/// Counters of one cluster's connections.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    requests: AtomicU64,
    received_bytes: AtomicU64,
    connections: AtomicU64,
    throttled_ms: AtomicU64,
}

impl TrafficCounters {
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts a response; `bytes` excludes its length prefix.
    pub(super) fn count_response(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.received_bytes
            .fetch_add(bytes.saturating_add(4), Relaxed);
    }

    pub(super) fn count_throttle(&self, during: Duration) {
        let millis = u64::try_from(during.as_millis()).unwrap_or(u64::MAX);
        self.throttled_ms.fetch_add(millis, Relaxed);
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn open_connection(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Relaxed);
        ConnectionGuard(self)
    }

    pub(super) fn totals(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            connections: self.connections.load(Relaxed),
            throttled: Duration::from_millis(self.throttled_ms.load(Relaxed)),
        }
    }
}

/// Keeps a connection counted as open.
#[derive(Debug)]
pub(super) struct ConnectionGuard<'a>(&'a TrafficCounters);

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
