//! Token bucket rate limiter.

use std::time::Duration;

use tokio::time::Instant;

/// Allows one per `every`, and up to `burst` at once after a pause.
#[derive(Debug)]
pub(super) struct RateLimiter {
    every: Duration,
    burst: u32,
    /// When the bucket is full again.
    full: Instant,
}

impl RateLimiter {
    pub(super) fn new(every: Duration, burst: u32, now: Instant) -> Self {
        Self {
            every,
            burst,
            full: now,
        }
    }

    /// Takes `count` tokens, or none if there are fewer.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> bool {
        let full = self.full.max(now) + self.every.saturating_mul(count);
        let fits = full.saturating_duration_since(now) <= self.every.saturating_mul(self.burst);
        if fits {
            self.full = full;
        }
        fits
    }

    /// Whether the bucket is full, and so equal to a new one.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut bucket = RateLimiter::new(Duration::from_secs(10), 3, began);
        assert!((0..3).all(|_| bucket.take(1, began)));
        assert!(!bucket.take(1, began) && !bucket.take(1, at(9)));
        assert!(bucket.take(1, at(10)) && !bucket.take(1, at(19)));
        // What was not let through costs nothing; a long rest gives a burst and no more.
        assert!(bucket.take(1, at(20)));
        assert!(!bucket.is_full(at(49)) && bucket.is_full(at(50)));
        assert!(!bucket.take(4, at(1000)) && bucket.take(3, at(1000)));
        assert!(!bucket.take(1, at(1000)) && bucket.take(0, at(1000)));
    }
}
