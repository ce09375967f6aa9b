//! A rate with room for a burst.

use std::time::Duration;

use tokio::time::Instant;

/// Lets one through per `every`, and up to `burst` at once after a quiet time.
#[derive(Debug)]
pub(super) struct TokenBucket {
    every: Duration,
    burst: u32,
    /// When everything that was taken is made up for.
    full: Instant,
}

impl TokenBucket {
    pub(super) fn new(every: Duration, burst: u32, now: Instant) -> Self {
        Self {
            every,
            burst,
            full: now,
        }
    }

    /// Takes so many at once, or none where there are not so many.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> bool {
        let full = self.full.max(now) + self.every.saturating_mul(count);
        let fits = full.saturating_duration_since(now) <= self.every.saturating_mul(self.burst);
        if fits {
            self.full = full;
        }
        fits
    }

    /// Whether nothing of late was taken, so that a new one would do as well.
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
        let mut bucket = TokenBucket::new(Duration::from_secs(10), 3, began);
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
