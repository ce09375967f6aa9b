//! Bounds how often an event is logged that its cause may repeat at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::units::token_bucket::{RateLimit, TokenBucket};

const RATE: RateLimit = RateLimit {
    interval: Duration::from_secs(60),
    burst: 1,
};

/// Lets one log line pass in each minute.
#[derive(Debug)]
pub struct LogInterval(Mutex<TokenBucket>);

impl Default for LogInterval {
    fn default() -> Self {
        Self(Mutex::new(TokenBucket::full(RATE)))
    }
}

impl LogInterval {
    /// Whether to log at `now`; if so, not again for a minute.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_one_line_a_minute() {
        let log = LogInterval::default();
        let began = Instant::now();
        let lines = (0..300).filter(|s| log.is_due(began + Duration::from_secs(*s)));
        assert_eq!(lines.collect::<Vec<_>>(), [0, 60, 120, 180, 240]);
    }
}
