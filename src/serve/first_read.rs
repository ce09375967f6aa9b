//! First reads: a request for a group that is not watched yet waits for its first read. Bounded in
//! every way, because any authorized caller can name any group.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::api_error::ApiFailure;
use super::holder_permits::{HolderPermit, HolderPermits};
use super::listen::MAX_API_STREAMS;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::units::metric::Metric;
use crate::model::units::token_bucket::{KeyedTokenBuckets, RateExceeded, RateLimit};

/// Maximum number of requests that wait for a first read; one namespace may have half of them.
pub(super) const MAX_WAITING: usize = 256;

/// The same for requests that other replicas forward: so many about metrics, and as many about triggers. A replica
/// sends all of its requests on one connection, which must also have streams for requests that are answered at once.
pub(super) const MAX_FORWARDED_WAITING: usize = MAX_API_STREAMS as usize / 3;

/// Rate of new groups per namespace: a burst, then one every ten seconds. Low enough that one
/// namespace cannot evict the groups of others from the poller before they expire there.
const NAMESPACE_RATE: RateLimit = RateLimit {
    interval: Duration::from_secs(10),
    burst: 32,
};

/// Rate of new groups over all namespaces.
const TOTAL_RATE: RateLimit = RateLimit {
    interval: Duration::from_secs(2),
    burst: 128,
};

/// Maximum number of namespaces with a separate rate.
const MAX_NAMESPACES: usize = 1024;

/// Maximum length of a namespace name in Kubernetes.
const MAX_NAMESPACE_BYTES: usize = 63;

/// Permits to wait for a first read. One namespace has at most half of each kind.
#[derive(Debug)]
pub(super) struct WaitingPermits {
    /// For requests of other callers than replicas.
    direct: HolderPermits,
    /// Permits for requests that other replicas forward.
    forwarded: HolderPermits,
}

impl WaitingPermits {
    /// Creates permits for `max` requests, and separate ones for forwarded requests.
    pub(super) fn new(max: usize) -> Self {
        Self {
            direct: HolderPermits::new(max),
            forwarded: HolderPermits::new(MAX_FORWARDED_WAITING),
        }
    }

    pub(super) fn try_acquire(&self, namespace: &str, is_forwarded: bool) -> Option<HolderPermit> {
        let permits = match is_forwarded {
            true => &self.forwarded,
            false => &self.direct,
        };
        permits.try_acquire(namespace)
    }
}

/// Passes requested groups to the poller within limits.
#[derive(Debug)]
pub(super) struct FirstReadLimiter {
    watch_keys: mpsc::Sender<WatchKey>,
    queries: mpsc::Sender<AdHocQuery>,
    waiting: WaitingPermits,
    rates: Mutex<FirstReadRates>,
}

/// Rates by namespace.
#[derive(Debug)]
struct FirstReadRates(KeyedTokenBuckets<String>);

impl FirstReadLimiter {
    pub(super) fn new(
        watch_keys: mpsc::Sender<WatchKey>,
        queries: mpsc::Sender<AdHocQuery>,
    ) -> Self {
        Self {
            watch_keys,
            queries,
            waiting: WaitingPermits::new(MAX_WAITING),
            rates: Mutex::new(FirstReadRates::full()),
        }
    }

    /// Takes a permit to wait for a first read. Taken before Kafka is read, so that rejected
    /// requests cost it nothing.
    pub(super) fn acquire(
        &self,
        namespace: &str,
        is_forwarded: bool,
    ) -> Result<HolderPermit, ApiFailure> {
        let permit = self.waiting.try_acquire(namespace, is_forwarded);
        permit.ok_or_else(|| {
            ApiFailure::too_many(
                "too many requests are waiting for a first read of their consumer group",
            )
        })
    }

    /// Requests the poller to read groups that no HPA and no configured target uses.
    pub(super) fn request(
        &self,
        namespace: &str,
        unread: &[WatchKey],
        snapshot: &LagSnapshot,
    ) -> Result<(), ApiFailure> {
        let targets = &snapshot.targets;
        let is_ad_hoc = |key: &&WatchKey| !targets.has_target_for(key);
        let unread: Vec<_> = unread.iter().filter(is_ad_hoc).collect();
        let is_new = |key: &WatchKey| !targets.ad_hoc().contains(key);
        let new =
            u32::try_from(unread.iter().filter(|key| is_new(key)).count()).unwrap_or(u32::MAX);
        self.rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(namespace, new, tokio::time::Instant::now().into_std())?;
        for watch_key in unread {
            if is_new(watch_key) {
                self.watch_keys.try_send(watch_key.clone()).map_err(|_| {
                    ApiFailure::unavailable("too many requests for new consumer groups at once")
                })?;
            } else {
                self.renew(watch_key);
            }
        }
        Ok(())
    }

    /// Sends the keys of ad-hoc groups again, so that the poller does not drop them.
    pub(super) fn keep_watched<'k>(
        &self,
        watch_keys: impl Iterator<Item = &'k WatchKey>,
        snapshot: &LagSnapshot,
    ) {
        for watch_key in watch_keys {
            if snapshot.targets.ad_hoc().contains(watch_key) {
                self.renew(watch_key);
            }
        }
    }

    /// Sends a key again, unless the channel is half full: the other half is for new groups.
    fn renew(&self, watch_key: &WatchKey) {
        if self.watch_keys.capacity() > self.watch_keys.max_capacity() / 2 {
            // On an error, the next request renews it.
            let _ = self.watch_keys.try_send(watch_key.clone());
        }
    }

    /// Reports an answered query that belongs to no HPA, so that the poller evaluates it from now on.
    pub(super) fn keep_evaluated(&self, query: &MetricQuery<'_>, metric: Metric) {
        // If the channel is full or closed, the next request evaluates the query itself and sends it again.
        let _ = self.queries.try_send(query.to_ad_hoc(metric));
    }
}

impl FirstReadRates {
    fn full() -> Self {
        Self(KeyedTokenBuckets::full(
            NAMESPACE_RATE,
            TOTAL_RATE,
            MAX_NAMESPACES,
        ))
    }

    fn take(&mut self, namespace: &str, count: u32, now: Instant) -> Result<(), ApiFailure> {
        let ends = namespace.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = ends.take_while(|end| *end <= MAX_NAMESPACE_BYTES).last();
        let name = namespace.get(..end.unwrap_or(0)).unwrap_or_default();
        self.0.take(name, count, now).map_err(|exceeded| match exceeded {
            RateExceeded::Own => ApiFailure::too_many(format!(
                "too many requests for new consumer groups from namespace {name:?}; groups of HPAs \
                 and of configured targets are not limited"
            )),
            RateExceeded::All => ApiFailure::too_many("too many requests for new consumer groups"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_each_namespace_separately() {
        let now = Instant::now();
        let mut rates = FirstReadRates::full();
        let admitted = (0..1000).filter(|_| rates.take("greedy", 1, now).is_ok());
        assert_eq!(admitted.count(), 32);
        assert!(rates.take("shop", 32, now).is_ok());
        assert!(rates.take("shop", 1, now).is_err());
        assert!(rates.take("shop", 0, now).is_ok());
        let later = now + NAMESPACE_RATE.interval;
        assert!(rates.take("greedy", 1, later).is_ok());
        assert!(rates.take("greedy", 1, later).is_err());
    }

    #[test]
    fn bounds_the_total_rate_and_the_number_and_length_of_names() {
        let now = Instant::now();
        let mut rates = FirstReadRates::full();
        let admitted = (0..3 * MAX_NAMESPACES).filter(|n| {
            let taken = rates.take(&format!("namespace-{n}"), 1, now);
            assert!(rates.0.keys().len() <= MAX_NAMESPACES);
            taken.is_ok()
        });
        assert_eq!(admitted.count(), 128);
        let long = "n".repeat(100_000);
        let later = now + Duration::from_secs(600);
        assert!(rates.take(&long, 1, later).is_ok());
        assert!(rates.take("ö".repeat(64).as_str(), 1, later).is_ok());
        assert!(rates.0.keys().all(|name| name.len() <= 63));
    }
}
