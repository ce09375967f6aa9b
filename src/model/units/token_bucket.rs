//! A rate limit that allows bursts.

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

#[cfg(test)]
mod tests {
    use super::*;

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
