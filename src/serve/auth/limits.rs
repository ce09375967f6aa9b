//! Bounds the reviews in progress, so that callers without valid credentials do not hold up others.
//!
//! Each rank of callers has permits of its own, and no caller takes more than half of those of its rank. Callers
//! without valid credentials are also limited in rate, since each of their reviews is work for the Kubernetes API
//! server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cache::CacheKey;
use crate::authentication::ReviewError;
use crate::model::units::token_bucket::{KeyedTokenBuckets, RateExceeded, RateLimit};
use crate::serve::connections::PeerRank;
use crate::telemetry::api::ReviewRefused;
use crate::telemetry::log_interval::LogInterval;

/// Maximum concurrent reviews, by rank of the caller.
pub(super) const MAX_UNKNOWN: usize = 8;
pub(super) const MAX_KNOWN: usize = 32;
const MAX_TRUSTED: usize = 64;

/// Rate of reviews for callers without valid credentials, by address.
const ADDRESS_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(100),
    burst: 40,
};

/// The same over all addresses.
const UNKNOWN_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(20),
    burst: 200,
};

/// Rate of an address beyond that of all: a reserve for addresses that ask little, when others use up that of all.
const RESERVE_ADDRESS_RATE: RateLimit = RateLimit {
    interval: Duration::from_secs(10),
    burst: 4,
};

/// The same over all addresses.
const RESERVE_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(100),
    burst: 50,
};

/// Maximum number of addresses with a rate of their own.
const MAX_ADDRESSES: usize = 4096;

/// Whom a review is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReviewSubject {
    /// A caller without valid credentials, by its address; `None` if the address is not known.
    Unknown(Option<IpAddr>),
    /// A user, a token that was valid before, or the new tokens of an address on connections with valid credentials.
    Known(CacheKey),
    /// A user for whom the front proxy or another replica asks.
    Trusted(CacheKey),
}

impl ReviewSubject {
    pub(super) fn rank(self) -> PeerRank {
        match self {
            Self::Unknown(_) => PeerRank::Unknown,
            Self::Known(_) => PeerRank::Known,
            Self::Trusted(_) => PeerRank::Trusted,
        }
    }

    fn max_of_rank(self) -> usize {
        match self {
            Self::Unknown(_) => MAX_UNKNOWN,
            Self::Known(_) => MAX_KNOWN,
            Self::Trusted(_) => MAX_TRUSTED,
        }
    }
}

/// Rates of callers without valid credentials, by address.
#[derive(Debug)]
struct UnknownRates {
    usual: KeyedTokenBuckets<Option<IpAddr>>,
    reserve: KeyedTokenBuckets<Option<IpAddr>>,
}

impl UnknownRates {
    fn full() -> Self {
        Self {
            usual: KeyedTokenBuckets::full(ADDRESS_RATE, UNKNOWN_RATE, MAX_ADDRESSES),
            reserve: KeyedTokenBuckets::full(RESERVE_ADDRESS_RATE, RESERVE_RATE, MAX_ADDRESSES),
        }
    }

    fn take(&mut self, address: Option<IpAddr>, now: Instant) -> Result<(), RateExceeded> {
        match self.usual.take(&address, 1, now) {
            Err(RateExceeded::All) => self.reserve.take(&address, 1, now),
            taken => taken,
        }
    }
}

/// Bounds reviews of one kind.
#[derive(Debug)]
pub(super) struct ReviewLimiter {
    /// `token` or `access`.
    kind: &'static str,
    usage: Mutex<ReviewUsage>,
    log: LogInterval,
}

/// What reviews of one kind use of their limits.
#[derive(Debug)]
struct ReviewUsage {
    in_progress: HashMap<ReviewSubject, usize>,
    rates: UnknownRates,
}

/// A review in progress.
#[derive(Debug)]
pub(super) struct ReviewPermit<'a> {
    limiter: &'a ReviewLimiter,
    subject: ReviewSubject,
}

impl ReviewLimiter {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            usage: Mutex::new(ReviewUsage {
                in_progress: HashMap::new(),
                rates: UnknownRates::full(),
            }),
            log: LogInterval::default(),
        }
    }

    /// A permit for one review. Does not wait: whoever waited would hold up others.
    ///
    /// # Errors
    /// The caller, or all of its rank together, ask for too many.
    pub(super) fn acquire(
        &self,
        subject: ReviewSubject,
        now: Instant,
    ) -> Result<ReviewPermit<'_>, ReviewError> {
        let admitted = self.usage().admit(subject, now);
        if let Err(reason) = admitted {
            ReviewRefused {
                kind: self.kind,
                reason,
                is_logged: self.log.is_due(now),
            }
            .emit();
        }
        admitted.map(|()| ReviewPermit {
            limiter: self,
            subject,
        })
    }

    fn usage(&self) -> MutexGuard<'_, ReviewUsage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReviewUsage {
    fn admit(&mut self, subject: ReviewSubject, now: Instant) -> Result<(), ReviewError> {
        // At most as many entries as permits of all ranks.
        let of_rank = self
            .in_progress
            .iter()
            .filter(|(other, _)| other.rank() == subject.rank());
        let all: usize = of_rank.map(|(_, count)| *count).sum();
        let own = self.in_progress.get(&subject).copied().unwrap_or(0);
        let max = subject.max_of_rank();
        if all >= max || own >= max / 2 {
            return Err(ReviewError::Busy);
        }
        if let ReviewSubject::Unknown(address) = subject {
            self.rates
                .take(address, now)
                .map_err(|_| ReviewError::RateLimited)?;
        }
        self.in_progress.insert(subject, own.saturating_add(1));
        Ok(())
    }

    fn release(&mut self, subject: ReviewSubject) {
        match self.in_progress.get_mut(&subject) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => {
                self.in_progress.remove(&subject);
            }
        }
    }
}

impl Drop for ReviewPermit<'_> {
    fn drop(&mut self) {
        self.limiter.usage().release(self.subject);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn unknown(last: u8) -> ReviewSubject {
        ReviewSubject::Unknown(Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))))
    }

    fn user(name: &str) -> CacheKey {
        CacheKey::digest([name.as_bytes()])
    }

    #[test]
    fn each_rank_has_permits_of_its_own() {
        let (limiter, now) = (ReviewLimiter::new("access"), Instant::now());
        let mut held = Vec::new();
        let mut take = |subject, times: usize| {
            let taken = (0..times).filter_map(|_| limiter.acquire(subject, now).ok());
            let before = held.len();
            held.extend(taken);
            held.len() - before
        };
        assert_eq!(take(unknown(1), 20), MAX_UNKNOWN / 2);
        assert_eq!(take(unknown(2), 20), MAX_UNKNOWN / 2);
        assert_eq!(take(unknown(3), 20), 0);
        let known = |name| ReviewSubject::Known(user(name));
        assert_eq!(take(known("greedy"), 100), MAX_KNOWN / 2);
        assert_eq!(take(known("mary"), 3), 3);
        let trusted = |name| ReviewSubject::Trusted(user(name));
        assert_eq!(take(trusted("greedy"), 100), MAX_TRUSTED / 2);
        assert_eq!(take(trusted("mary"), 3), 3);
        drop(held);
        assert!(limiter.usage().in_progress.is_empty());
        assert!(limiter.acquire(unknown(3), now).is_ok());
    }

    #[test]
    fn callers_without_credentials_are_limited_in_rate() {
        let (limiter, began) = (ReviewLimiter::new("access"), Instant::now());
        let admitted = |last: u8, now| {
            let asked = (0..1000).filter(|_| limiter.acquire(unknown(last), now).is_ok());
            asked.count()
        };
        assert_eq!(admitted(1, began), 40);
        assert_eq!(admitted(2, began), 40);
        assert_eq!(admitted(1, began + Duration::from_secs(1)), 10);
        let refused = limiter.acquire(unknown(1), began).unwrap_err();
        assert_eq!(refused, ReviewError::RateLimited);
        // Known callers have no rate.
        let known = ReviewSubject::Known(user("mary"));
        assert!((0..1000).all(|_| limiter.acquire(known, began).is_ok()));
    }

    /// Whether a caller at an address that asked little is admitted while `addresses` others ask as often as they
    /// can for a minute.
    fn admits_quiet_address_beside(addresses: u8) -> bool {
        let (limiter, began) = (ReviewLimiter::new("token"), Instant::now());
        let mut now = began;
        for _ in 0..600 {
            now += Duration::from_millis(100);
            for last in 1..=addresses {
                while limiter.acquire(unknown(last), now).is_ok() {}
            }
        }
        limiter.acquire(unknown(0), now).is_ok()
    }

    #[test]
    fn an_address_that_asks_little_is_admitted_beside_five_that_ask_much() {
        assert!(admits_quiet_address_beside(5));
    }

    #[test]
    fn an_address_that_asks_little_is_admitted_beside_ten_that_ask_much() {
        assert!(admits_quiet_address_beside(10));
    }
}
