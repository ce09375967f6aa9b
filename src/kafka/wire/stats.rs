//! Counters of the traffic with a cluster, and the expiry of its certificates.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::model::kafka::observation::Traffic;

/// Counters of one cluster's connections.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    requests: AtomicU64,
    received_bytes: AtomicU64,
    connections: AtomicU64,
    throttled_ms: AtomicU64,
    /// When the first certificate that a broker presented expires, with the number of open connections for which it is
    /// so.
    certificates: Mutex<BTreeMap<SystemTime, usize>>,
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

    /// Counts a connection as open until the guard is dropped. `expires` is when the first certificate of the broker
    /// expires.
    pub(super) fn open_connection(&self, expires: Option<SystemTime>) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Relaxed);
        if let Some(expires) = expires {
            let mut certificates = self.certificates();
            let count = certificates.entry(expires).or_default();
            *count = count.saturating_add(1);
        }
        ConnectionGuard {
            counters: self,
            expires,
        }
    }

    /// When the first certificate expires that a broker presented on an open connection.
    pub(super) fn first_expiry(&self) -> Option<SystemTime> {
        let certificates = self.certificates();
        certificates.first_key_value().map(|(expires, _)| *expires)
    }

    fn certificates(&self) -> MutexGuard<'_, BTreeMap<SystemTime, usize>> {
        // Nothing panics while it is locked.
        let locked = self.certificates.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
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
pub(super) struct ConnectionGuard<'a> {
    counters: &'a TrafficCounters,
    expires: Option<SystemTime>,
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Relaxed);
        let Some(expires) = self.expires else { return };
        let mut certificates = self.counters.certificates();
        if let Entry::Occupied(mut known) = certificates.entry(expires) {
            let left = known.get().saturating_sub(1);
            match left {
                0 => drop(known.remove()),
                left => *known.get_mut() = left,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_expiry_is_that_of_open_connections() {
        let counters = TrafficCounters::default();
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(counters.first_expiry(), None);
        let plain = counters.open_connection(None);
        let late = counters.open_connection(at(20));
        let early = [
            counters.open_connection(at(10)),
            counters.open_connection(at(10)),
        ];
        assert_eq!(counters.first_expiry(), at(10));
        let [one, other] = early;
        drop(one);
        assert_eq!(counters.first_expiry(), at(10));
        // A broker with a new certificate, which is connected again.
        drop(other);
        assert_eq!(counters.first_expiry(), at(20));
        drop((plain, late));
        assert_eq!(counters.first_expiry(), None);
        assert_eq!(counters.totals().connections, 0);
    }
}
