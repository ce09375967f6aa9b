//! Decides which responses are written to the access log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::units::token_bucket::{RateLimit, TokenBucket};

/// Access log mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// A sample: enough to see who sends requests, however many there are.
    #[default]
    Sampled,
    /// Every response.
    All,
    /// No response.
    Off,
}

/// Rate of sampled successes: a burst of 5, then one every ten seconds.
const SERVED: RateLimit = RateLimit {
    interval: Duration::from_secs(10),
    burst: 5,
};
/// Rate of sampled errors: higher, because errors are what people look for.
const REFUSED: RateLimit = RateLimit {
    interval: Duration::from_secs(1),
    burst: 30,
};

/// Samples log lines and counts the omitted ones.
#[derive(Debug)]
pub(super) struct AccessLogSampler {
    mode: AccessLog,
    served: Mutex<SampleCounter>,
    refused: Mutex<SampleCounter>,
}

#[derive(Debug)]
struct SampleCounter {
    bucket: TokenBucket,
    omitted: u64,
}

impl AccessLogSampler {
    pub(super) fn new(mode: AccessLog) -> Self {
        let kind = |limit| {
            let bucket = TokenBucket::full(limit);
            Mutex::new(SampleCounter { bucket, omitted: 0 })
        };
        Self {
            mode,
            served: kind(SERVED),
            refused: kind(REFUSED),
        }
    }

    /// Decides whether to log a response. Returns the number of similar responses omitted since the
    /// last logged one; `None` to omit this one too.
    pub(super) fn sample(&self, code: u16, now: Instant) -> Option<u64> {
        match self.mode {
            AccessLog::Off => return None,
            AccessLog::All => return Some(0),
            AccessLog::Sampled => {}
        }
        let kind = if code < 400 {
            &self.served
        } else {
            &self.refused
        };
        let mut kind = kind.lock().unwrap_or_else(PoisonError::into_inner);
        if kind.bucket.take(1, now) {
            Some(std::mem::take(&mut kind.omitted))
        } else {
            kind.omitted = kind.omitted.saturating_add(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_counts_omitted_lines() {
        let sampler = AccessLogSampler::new(AccessLog::Sampled);
        let now = Instant::now() + Duration::from_secs(1);
        let lines = (0..1000).filter(|_| sampler.sample(200, now).is_some());
        assert_eq!(lines.count(), 5);
        // Refusals are chosen by themselves.
        assert_eq!(sampler.sample(403, now), Some(0));
        assert_eq!(sampler.sample(200, now + SERVED.interval), Some(995));
        assert_eq!(sampler.sample(200, now + SERVED.interval * 2), Some(0));
    }

    #[test]
    fn logs_all_or_none() {
        let now = Instant::now();
        let (all, off) = (
            AccessLogSampler::new(AccessLog::All),
            AccessLogSampler::new(AccessLog::Off),
        );
        assert!((0..100).all(|_| all.sample(200, now) == Some(0)));
        assert!((0..100).all(|_| off.sample(500, now).is_none()));
    }
}
