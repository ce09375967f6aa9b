//! Bounds the reviews in progress, so that callers without valid credentials do not hold up others.
//!
//! Each rank of callers has separate permits, and no caller takes more than half of those of its rank. Callers without
//! valid credentials have two more limits: those of one network take at most three quarters of the permits, and their
//! rate is limited, since each of their reviews is work for the Kubernetes API server.
//!
//! The rate of an account with valid credentials is limited as well, since each of its requests may be about something
//! else. The rate of accounts behind the front proxy is not limited: the API server has authenticated and authorized
//! them.
//!
//! A caller with valid credentials can still make up any number of tokens. Token reviews therefore have separate
//! permits, and the same limits as callers without valid credentials.

use std::collections::HashMap;
use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cache::CacheKey;
use crate::authentication::ReviewError;
use crate::model::units::token_bucket::{KeyedTokenBuckets, RateExceeded, RateLimit};
use crate::serve::connections::network;
use crate::telemetry::api::ReviewRefused;
use crate::telemetry::log_interval::LogInterval;

/// Maximum concurrent reviews, by kind of subject.
pub(super) const MAX_UNKNOWN: usize = 8;
const MAX_NEW_TOKENS: usize = 8;
pub(super) const MAX_KNOWN: usize = 32;
const MAX_TRUSTED: usize = 64;

/// Rate of reviews for callers without valid credentials, by address.
const ADDRESS_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(100),
    burst: 40,
};

/// The same by network, so that a caller with many addresses does not use up [`UNKNOWN_RATE`].
const NETWORK_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(40),
    burst: 100,
};

/// The same over all addresses.
const UNKNOWN_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(20),
    burst: 200,
};

/// Reserve of each address for when the rates of its network and of all addresses are used up, so that addresses with
/// few requests are still served.
const RESERVE_ADDRESS_RATE: RateLimit = RateLimit {
    interval: Duration::from_secs(10),
    burst: 4,
};

/// The same over all addresses.
const RESERVE_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(100),
    burst: 50,
};

/// Maximum number of addresses with a separate rate.
const MAX_ADDRESSES: usize = 4096;

/// Rate of reviews for an account with valid credentials: enough for a program that requests hundreds of metrics at
/// once.
const ACCOUNT_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(20),
    burst: 1000,
};

/// The same over all accounts.
const ACCOUNTS_RATE: RateLimit = RateLimit {
    interval: Duration::from_millis(1),
    burst: 20_000,
};

/// Maximum number of accounts with a separate rate.
const MAX_ACCOUNTS: usize = 4096;

/// The subject of a review, by which it is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReviewSubject {
    /// A caller without valid credentials, by its address; `None` if the address is not known.
    Unknown(Option<IpAddr>),
    /// The sender of a token that was not valid before, on a connection with other credentials that are, by its
    /// address.
    NewToken(Option<IpAddr>),
    /// The account of a user, or of a token that was valid before.
    Known(CacheKey),
    /// The account of a user for whom the front proxy or another replica sends the request.
    Trusted(CacheKey),
}

impl ReviewSubject {
    /// Whether both take the same permits.
    fn shares_permits_with(self, other: Self) -> bool {
        discriminant(&self) == discriminant(&other)
    }

    /// The network of a caller that is limited by its address.
    fn network(self) -> Option<IpAddr> {
        match self {
            Self::Unknown(address) | Self::NewToken(address) => address.map(network),
            Self::Known(_) | Self::Trusted(_) => None,
        }
    }

    /// How many permits there are for it and others of its kind.
    fn max_permits(self) -> usize {
        match self {
            Self::Unknown(_) => MAX_UNKNOWN,
            Self::NewToken(_) => MAX_NEW_TOKENS,
            Self::Known(_) => MAX_KNOWN,
            Self::Trusted(_) => MAX_TRUSTED,
        }
    }
}

/// How many of the reviews of a kind the addresses of one network may have in progress.
fn max_of_network(max: usize) -> usize {
    max.saturating_sub(max / 4)
}

/// Rates of callers that are limited by address and network.
#[derive(Debug)]
struct AddressRates {
    networks: KeyedTokenBuckets<Option<IpAddr>>,
    usual: KeyedTokenBuckets<Option<IpAddr>>,
    reserve: KeyedTokenBuckets<Option<IpAddr>>,
}

impl AddressRates {
    fn full() -> Self {
        Self {
            networks: KeyedTokenBuckets::full(NETWORK_RATE, UNKNOWN_RATE, MAX_ADDRESSES),
            usual: KeyedTokenBuckets::full(ADDRESS_RATE, UNKNOWN_RATE, MAX_ADDRESSES),
            reserve: KeyedTokenBuckets::full(RESERVE_ADDRESS_RATE, RESERVE_RATE, MAX_ADDRESSES),
        }
    }

    fn take(&mut self, address: Option<IpAddr>, now: Instant) -> Result<(), RateExceeded> {
        let network = address.map(network);
        let of_network = self.networks.check(&network, 1, now);
        match self.usual.check(&address, 1, now) {
            Err(RateExceeded::Own) => return Err(RateExceeded::Own),
            // Checked before: a request that the network's limit refuses takes no token of the address.
            Ok(()) if of_network.is_ok() => {
                let taken = self.usual.take(&address, 1, now);
                if taken
                    .and_then(|()| self.networks.take(&network, 1, now))
                    .is_ok()
                {
                    return Ok(());
                }
            }
            Ok(()) | Err(RateExceeded::All) => {}
        }
        self.reserve.take(&address, 1, now)
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
    unknown_rates: AddressRates,
    new_token_rates: AddressRates,
    account_rates: KeyedTokenBuckets<CacheKey>,
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
                unknown_rates: AddressRates::full(),
                new_token_rates: AddressRates::full(),
                account_rates: KeyedTokenBuckets::full(ACCOUNT_RATE, ACCOUNTS_RATE, MAX_ACCOUNTS),
            }),
            log: LogInterval::default(),
        }
    }

    /// Gets a permit for one review. Does not wait, because waiting requests would block others.
    ///
    /// # Errors
    /// The caller, or its rank as a whole, needs too many.
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
        // At most as many entries as permits of all kinds.
        let of_kind = self
            .in_progress
            .iter()
            .filter(|(other, _)| other.shares_permits_with(subject));
        let all: usize = of_kind.clone().map(|(_, count)| *count).sum();
        let own = self.in_progress.get(&subject).copied().unwrap_or(0);
        let max = subject.max_permits();
        let network = subject.network();
        let same_network =
            of_kind.filter(|(other, _)| network.is_some() && other.network() == network);
        let of_network: usize = same_network.map(|(_, count)| *count).sum();
        if all >= max || own >= max / 2 || of_network >= max_of_network(max) {
            return Err(ReviewError::Busy);
        }
        match subject {
            ReviewSubject::Unknown(address) => self
                .unknown_rates
                .take(address, now)
                .map_err(|_| ReviewError::RateLimited)?,
            ReviewSubject::NewToken(address) => self
                .new_token_rates
                .take(address, now)
                .map_err(|_| ReviewError::RateLimited)?,
            ReviewSubject::Known(account) => self
                .account_rates
                .take(&account, 1, now)
                .map_err(|_| ReviewError::CallerRateLimited)?,
            ReviewSubject::Trusted(_) => {}
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
    fn each_rank_has_separate_permits() {
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
    fn made_up_tokens_take_no_permits_of_valid_credentials() {
        let (limiter, now) = (ReviewLimiter::new("token"), Instant::now());
        let address = |last: u8| Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let new_tokens = (0..200u8).filter_map(|n| {
            let subject = ReviewSubject::NewToken(address(n % 10));
            limiter.acquire(subject, now).ok()
        });
        let held: Vec<_> = new_tokens.collect();
        assert_eq!(held.len(), MAX_NEW_TOKENS);
        let known = |n: u8| limiter.acquire(ReviewSubject::Known(user(&format!("u{n}"))), now);
        let others: Vec<_> = (0..200).filter_map(|n| known(n).ok()).collect();
        assert_eq!(others.len(), MAX_KNOWN);
        assert!(limiter.acquire(unknown(1), now).is_ok());
        drop(held);
        // One address, as often as it can.
        let new_token = ReviewSubject::NewToken(address(99));
        let admitted = (0..1000).filter(|_| limiter.acquire(new_token, now).is_ok());
        assert_eq!(admitted.count(), 40);
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
    }

    #[test]
    fn accounts_with_valid_credentials_are_limited_in_rate_each() {
        let (limiter, began) = (ReviewLimiter::new("access"), Instant::now());
        let admitted = |subject, now| {
            let asked = (0..5000).filter(|_| limiter.acquire(subject, now).is_ok());
            asked.count()
        };
        let known = |name| ReviewSubject::Known(user(name));
        assert_eq!(admitted(known("greedy"), began), 1000);
        let refused = limiter.acquire(known("greedy"), began).unwrap_err();
        assert_eq!(refused, ReviewError::CallerRateLimited);
        assert_eq!(admitted(known("mary"), began), 1000);
        let later = began + Duration::from_secs(2);
        assert_eq!(admitted(known("greedy"), later), 100);
        // The front proxy sends requests for any user.
        let trusted = ReviewSubject::Trusted(user("greedy"));
        assert_eq!(admitted(trusted, later), 5000);
    }

    #[test]
    fn many_accounts_with_many_requests_leave_permits_to_others() {
        let (limiter, began) = (ReviewLimiter::new("token"), Instant::now());
        let known = |n: u32| ReviewSubject::Known(user(&format!("u{n}")));
        let mut now = began;
        for _ in 0..600 {
            now += Duration::from_millis(100);
            for n in 0..15 {
                while limiter.acquire(known(n), now).is_ok() {}
            }
        }
        let quiet = (0..100).filter(|_| limiter.acquire(known(99), now).is_ok());
        assert_eq!(quiet.count(), 100);
    }

    /// How many of 10 requests of a quiet address are admitted after others sent requests as fast as they can for a
    /// minute. These are `count` addresses, `others(round, n)`.
    fn admitted_beside(quiet: &str, count: u32, others: impl Fn(u32, u32) -> String) -> usize {
        let (limiter, began) = (ReviewLimiter::new("token"), Instant::now());
        let caller = |address: &str| ReviewSubject::Unknown(Some(address.parse().unwrap()));
        let mut now = began;
        for round in 0..600 {
            now += Duration::from_millis(100);
            for n in 0..count {
                let other = caller(&others(round, n));
                while limiter.acquire(other, now).is_ok() {}
            }
        }
        let quiet = caller(quiet);
        (0..10)
            .filter(|_| limiter.acquire(quiet, now).is_ok())
            .count()
    }

    #[test]
    fn an_address_with_few_requests_is_admitted_despite_others_with_many() {
        let of_node = |_, n: u32| format!("10.0.0.{}", n + 1);
        // The reserve of an address without earlier requests.
        assert_eq!(admitted_beside("10.0.0.200", 5, of_node), 4);
        assert_eq!(admitted_beside("10.0.0.200", 10, of_node), 4);
        let of_network = |_, n: u32| format!("fd00::{:x}", n + 1);
        assert_eq!(admitted_beside("fd00::ff", 10, of_network), 4);
    }

    #[test]
    fn many_addresses_of_one_network_take_only_a_part_of_the_rate() {
        let rotating = |round: u32, n: u32| format!("fd00::{round:x}:{:x}", n + 1);
        for quiet in ["fd01::1", "10.0.0.1"] {
            assert_eq!(admitted_beside(quiet, 10, rotating), 10, "{quiet}");
        }
    }

    #[test]
    fn many_addresses_of_one_network_leave_permits_to_others() {
        let (limiter, now) = (ReviewLimiter::new("token"), Instant::now());
        let held = |address: String| {
            let address = address.parse().unwrap();
            limiter.acquire(ReviewSubject::Unknown(Some(address)), now)
        };
        let of_network: Vec<_> = (1..20).map(|n| held(format!("fd00::{n}"))).collect();
        let admitted = of_network.iter().filter(|held| held.is_ok()).count();
        assert_eq!(admitted, max_of_network(MAX_UNKNOWN));
        let others: Vec<_> = (1..9).map(|n| held(format!("10.0.0.{n}"))).collect();
        let admitted = others.iter().filter(|held| held.is_ok()).count();
        assert_eq!(admitted, MAX_UNKNOWN - max_of_network(MAX_UNKNOWN));
    }
}
