//! A rate limit that allows bursts.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How fast a [`TokenBucket`] refills and how many tokens it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time in which one token comes back.
    pub interval: Duration,
    /// The tokens in a full bucket: the largest burst after a quiet time.
    pub burst: u32,
}

/// A token bucket. It keeps the moment at which it will be full again instead of a count, so nothing
/// has to refill it.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: RateLimit,
    /// `None` until a token is taken: full.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn full(limit: RateLimit) -> Self {
        Self {
            limit,
            full_at: None,
        }
    }

    /// Takes `count` tokens, or none if fewer are left.
    pub fn take(&mut self, count: u32, now: Instant) -> bool {
        match self.full_after(count, now) {
            Some(full_at) => {
                self.full_at = Some(full_at);
                true
            }
            None => false,
        }
    }

    /// Whether `count` tokens are left.
    #[must_use]
    pub fn has_tokens(&self, count: u32, now: Instant) -> bool {
        self.full_after(count, now).is_some()
    }

    /// Whether the bucket is full, so that a new one would behave the same.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    /// When the bucket is full again if `count` tokens are taken; `None` if fewer are left.
    fn full_after(&self, count: u32, now: Instant) -> Option<Instant> {
        let RateLimit { interval, burst } = self.limit;
        let start = self.full_at.map_or(now, |full_at| full_at.max(now));
        let full_at = start.checked_add(interval.saturating_mul(count))?;
        let refill = full_at.saturating_duration_since(now);
        (refill <= interval.saturating_mul(burst)).then_some(full_at)
    }
}

/// A token bucket for each of many keys, and one for all of them together.
#[derive(Clone, Debug)]
pub struct KeyedTokenBuckets<K> {
    each: RateLimit,
    max_keys: usize,
    all: TokenBucket,
    buckets: HashMap<K, TokenBucket>,
}

/// Which limit has no tokens left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateExceeded {
    /// The limit of the key.
    Own,
    /// The limit of all keys together, or the maximum number of keys.
    All,
}

impl<K: Eq + Hash> KeyedTokenBuckets<K> {
    /// Full buckets: the limit of each key, that of all together, and how many keys are remembered.
    #[must_use]
    pub fn full(each: RateLimit, all: RateLimit, max_keys: usize) -> Self {
        Self {
            each,
            max_keys,
            all: TokenBucket::full(all),
            buckets: HashMap::new(),
        }
    }

    /// Whether the bucket of the key and that of all have `count` tokens.
    ///
    /// # Errors
    /// One of them has fewer.
    pub fn check<Q>(&self, key: &Q, count: u32, now: Instant) -> Result<(), RateExceeded>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let own = self.buckets.get(key);
        if own.is_some_and(|own| !own.has_tokens(count, now)) {
            return Err(RateExceeded::Own);
        }
        match self.all.has_tokens(count, now) {
            true => Ok(()),
            false => Err(RateExceeded::All),
        }
    }

    /// Takes `count` tokens from the bucket of the key and from that of all.
    ///
    /// # Errors
    /// One of them has fewer.
    pub fn take<Q>(&mut self, key: &Q, count: u32, now: Instant) -> Result<(), RateExceeded>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if count == 0 {
            return Ok(());
        }
        let is_full = |keys: usize| keys >= self.max_keys;
        let is_new = !self.buckets.contains_key(key);
        if is_new && is_full(self.buckets.len()) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if is_full(self.buckets.len()) {
                return Err(RateExceeded::All);
            }
        }
        let each = self.each;
        let own = self.buckets.entry(key.to_owned());
        let own = own.or_insert_with(|| TokenBucket::full(each));
        // What one limit refuses must not use up the other.
        if !own.has_tokens(count, now) {
            return Err(RateExceeded::Own);
        }
        if !self.all.take(count, now) {
            return Err(RateExceeded::All);
        }
        own.take(count, now);
        Ok(())
    }

    /// The keys that are remembered.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.buckets.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes every token of all keys together, and then some for `shop`, all refused. Returns how many `shop` may
    /// take when the limit of all allows it again.
    fn admitted_after_refusals(refused: u32, count: u32) -> usize {
        let limit = |burst| RateLimit {
            interval: Duration::from_secs(10),
            burst,
        };
        let (each, all, now) = (limit(32), limit(128), Instant::now());
        let mut buckets = KeyedTokenBuckets::<String>::full(each, all, 100);
        for n in 0..4 {
            assert_eq!(buckets.take(&*format!("other-{n}"), 32, now), Ok(()));
        }
        for _ in 0..refused {
            assert!(buckets.take("shop", count, now).is_err());
        }
        // As after a pause without requests of `shop`.
        buckets.all = TokenBucket::full(all);
        let taken = (0..100).filter(|_| buckets.take("shop", 1, now).is_ok());
        taken.count()
    }

    #[test]
    fn the_limit_of_all_refuses_without_using_up_the_keys() {
        assert_eq!(admitted_after_refusals(32, 1), 32);
    }

    #[test]
    fn the_limit_of_all_refuses_many_without_using_up_the_keys() {
        assert_eq!(admitted_after_refusals(5, 20), 32);
    }

    #[test]
    fn limits_each_key_and_all_of_them() {
        let limit = |burst| RateLimit {
            interval: Duration::from_secs(1),
            burst,
        };
        let now = Instant::now();
        let mut buckets = KeyedTokenBuckets::<String>::full(limit(2), limit(5), 4);
        let mut take = |key: &str, count, now| {
            let may = buckets.check(key, count, now);
            let taken = buckets.take(key, count, now);
            // But for the number of keys.
            assert!(may == taken || (may.is_ok() && buckets.keys().len() == 4));
            assert!(buckets.keys().len() <= 4);
            taken
        };
        assert_eq!(take("a", 2, now), Ok(()));
        assert_eq!(take("a", 1, now), Err(RateExceeded::Own));
        assert_eq!(take("a", 0, now), Ok(()));
        assert_eq!(take("b", 2, now), Ok(()));
        assert_eq!(take("c", 1, now), Ok(()));
        assert_eq!(take("d", 1, now), Err(RateExceeded::All));
        // The number of keys is bounded; full buckets are forgotten.
        let later = now + Duration::from_secs(1);
        assert_eq!(take("e", 1, later), Ok(()));
        let later = now + Duration::from_secs(60);
        for key in ["f", "g", "h", "i"] {
            assert_eq!(take(key, 1, later), Ok(()), "{key}");
        }
        assert_eq!(take("j", 1, later), Err(RateExceeded::All));
    }

    #[test]
    fn allows_a_burst_then_the_steady_rate() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let limit = RateLimit {
            interval: Duration::from_secs(10),
            burst: 3,
        };
        let mut bucket = TokenBucket::full(limit);
        assert!((0..3).all(|_| bucket.take(1, began)));
        assert!(!bucket.take(1, began) && !bucket.take(1, at(9)));
        assert!(!bucket.has_tokens(1, at(9)) && bucket.has_tokens(1, at(10)));
        assert!(bucket.has_tokens(0, at(9)) && !bucket.has_tokens(2, at(10)));
        assert!(bucket.take(1, at(10)) && !bucket.take(1, at(19)));
        // A refused request costs nothing; after a long rest there is one burst and no more.
        assert!(bucket.take(1, at(20)));
        assert!(!bucket.is_full(at(49)) && bucket.is_full(at(50)));
        assert!(!bucket.take(4, at(1000)) && bucket.take(3, at(1000)));
        assert!(!bucket.take(1, at(1000)) && bucket.take(0, at(1000)));
    }
}
