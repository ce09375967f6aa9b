//! First reads: a request for a group that is not watched yet waits for its first read. Bounded in
//! every way, because any authorized caller can name any group.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::api_error::ApiFailure;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::units::metric::Metric;
use crate::model::units::token_bucket::{RateLimit, TokenBucket};

/// Maximum requests waiting for a first read.
pub(super) const MAX_WAITING: usize = 256;

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

/// Maximum number of namespaces with a rate of their own.
const MAX_NAMESPACES: usize = 1024;

/// Maximum length of a namespace name in Kubernetes.
const MAX_NAMESPACE_BYTES: usize = 63;

/// Passes requested groups to the poller within limits.
#[derive(Debug)]
pub(super) struct FirstReadLimiter {
    interests: mpsc::Sender<WatchKey>,
    queries: mpsc::Sender<AdHocQuery>,
    waiting: Semaphore,
    rates: Mutex<FirstReadRates>,
}

#[derive(Debug)]
struct FirstReadRates {
    all: TokenBucket,
    namespaces: HashMap<String, TokenBucket>,
}

impl FirstReadLimiter {
    pub(super) fn new(
        interests: mpsc::Sender<WatchKey>,
        queries: mpsc::Sender<AdHocQuery>,
    ) -> Self {
        Self {
            interests,
            queries,
            waiting: Semaphore::new(MAX_WAITING),
            rates: Mutex::new(FirstReadRates {
                all: TokenBucket::full(TOTAL_RATE),
                namespaces: HashMap::new(),
            }),
        }
    }

    /// Takes a permit to wait for a first read. Taken before Kafka is read, so that rejected
    /// requests cost it nothing.
    pub(super) fn acquire(&self) -> Result<SemaphorePermit<'_>, ApiFailure> {
        self.waiting.try_acquire().map_err(|_| {
            ApiFailure::too_many(
                "too many requests are waiting for a first read of their consumer group",
            )
        })
    }

    /// Asks the poller to read groups that no HPA and no configured target needs.
    pub(super) fn request(
        &self,
        namespace: &str,
        unread: &[WatchKey],
        snapshot: &LagSnapshot,
    ) -> Result<(), ApiFailure> {
        let targets = &snapshot.targets;
        let is_ad_hoc = |key: &&WatchKey| !targets.has_target_for(key);
        let unread: Vec<_> = unread.iter().filter(is_ad_hoc).collect();
        let is_new = |i: &&&WatchKey| !targets.ad_hoc().contains(**i);
        let new = u32::try_from(unread.iter().filter(is_new).count()).unwrap_or(u32::MAX);
        self.rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(namespace, new, tokio::time::Instant::now().into_std())?;
        for interest in unread {
            self.interests.try_send(interest.clone()).map_err(|_| {
                ApiFailure::unavailable("too many requests for new consumer groups at once")
            })?;
        }
        Ok(())
    }

    /// Renews the interest in groups, so that the poller does not drop them. Renewals leave half of
    /// the channel to new groups.
    pub(super) fn keep_watched<'i>(
        &self,
        interests: impl Iterator<Item = &'i WatchKey>,
        snapshot: &LagSnapshot,
    ) {
        let has_room = || self.interests.capacity() > self.interests.max_capacity() / 2;
        for interest in interests {
            if snapshot.targets.ad_hoc().contains(interest) && has_room() {
                // If the channel is full or closed, the next request renews it.
                let _ = self.interests.try_send(interest.clone());
            }
        }
    }

    /// Reports an answered query that belongs to no HPA, so that the poller evaluates it from now on.
    pub(super) fn keep_evaluated(&self, query: &MetricQuery<'_>, metric: Metric) {
        // Full or closed: the next request evaluates the query itself and sends it again.
        let _ = self.queries.try_send(query.to_ad_hoc(metric));
    }
}

impl FirstReadRates {
    fn take(&mut self, namespace: &str, count: u32, now: Instant) -> Result<(), ApiFailure> {
        if count == 0 {
            return Ok(());
        }
        let ends = namespace.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = ends.take_while(|end| *end <= MAX_NAMESPACE_BYTES).last();
        let name = namespace.get(..end.unwrap_or(0)).unwrap_or_default();
        if !self.namespaces.contains_key(name) && self.namespaces.len() >= MAX_NAMESPACES {
            self.namespaces.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.namespaces.len() >= MAX_NAMESPACES && !self.namespaces.contains_key(name) {
            return Err(too_many());
        }
        let own = self
            .namespaces
            .entry(name.to_owned())
            .or_insert_with(|| TokenBucket::full(NAMESPACE_RATE));
        // A request that one limit refuses must not use up the other.
        if !own.has_tokens(count, now) {
            return Err(ApiFailure::too_many(format!(
                "too many requests for new consumer groups from namespace {name:?}; groups of HPAs \
                 and of configured targets are not limited"
            )));
        }
        if !self.all.take(count, now) {
            return Err(too_many());
        }
        own.take(count, now);
        Ok(())
    }
}

fn too_many() -> ApiFailure {
    ApiFailure::too_many("too many requests for new consumer groups")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> FirstReadRates {
        FirstReadRates {
            all: TokenBucket::full(TOTAL_RATE),
            namespaces: HashMap::new(),
        }
    }

    #[test]
    fn limits_each_namespace_separately() {
        let now = Instant::now();
        let mut rates = rates();
        let admitted = (0..1000).filter(|_| rates.take("greedy", 1, now).is_ok());
        assert_eq!(admitted.count(), 32);
        assert!(rates.take("shop", 32, now).is_ok());
        assert!(rates.take("shop", 1, now).is_err());
        assert!(rates.take("shop", 0, now).is_ok());
        let later = now + NAMESPACE_RATE.interval;
        assert!(rates.take("greedy", 1, later).is_ok());
        assert!(rates.take("greedy", 1, later).is_err());
    }

    /// Takes every token of the total rate, and then some for `shop`, all refused. Returns how many groups `shop` may
    /// ask for at once when the total rate allows it again.
    fn admitted_after_refusals(refused: u32, count: u32) -> usize {
        let now = Instant::now();
        let mut rates = rates();
        for n in 0..TOTAL_RATE.burst / NAMESPACE_RATE.burst {
            let other = format!("other-{n}");
            assert!(rates.take(&other, NAMESPACE_RATE.burst, now).is_ok());
        }
        for _ in 0..refused {
            assert!(rates.take("shop", count, now).is_err());
        }
        // As after a pause in which `shop` asks for nothing.
        rates.all = TokenBucket::full(TOTAL_RATE);
        (0..100)
            .filter(|_| rates.take("shop", 1, now).is_ok())
            .count()
    }

    #[test]
    fn total_rate_refuses_without_using_up_the_namespaces_rate() {
        assert_eq!(admitted_after_refusals(32, 1), 32);
    }

    #[test]
    fn total_rate_refuses_many_groups_without_using_up_the_namespaces_rate() {
        assert_eq!(admitted_after_refusals(5, 20), 32);
    }

    #[test]
    fn bounds_the_total_rate_and_the_number_of_namespaces() {
        let now = Instant::now();
        let mut rates = rates();
        let admitted = (0..3 * MAX_NAMESPACES).filter(|n| {
            let taken = rates.take(&format!("namespace-{n}"), 1, now);
            assert!(rates.namespaces.len() <= MAX_NAMESPACES);
            taken.is_ok()
        });
        assert_eq!(admitted.count(), 128);
        let long = "n".repeat(100_000);
        let later = now + Duration::from_secs(600);
        assert!(rates.take(&long, 1, later).is_ok());
        assert!(rates.take("ö".repeat(64).as_str(), 1, later).is_ok());
        assert!(rates.namespaces.keys().all(|name| name.len() <= 63));
    }
}
