//! Which answers become a line of the access log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::token_bucket::TokenBucket;

/// How much of the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Some of the answers: enough to see who asks, however many do.
    #[default]
    Sampled,
    /// Every answer.
    All,
    /// None.
    Off,
}

/// Of the values served: a few at first, then one each ten seconds.
const SERVED: (Duration, u32) = (Duration::from_secs(10), 5);
/// Of the refusals: more, since they are what somebody looks for.
const REFUSED: (Duration, u32) = (Duration::from_secs(1), 30);

/// Chooses, and counts what it leaves out.
#[derive(Debug)]
pub(super) struct Sampler {
    mode: AccessLog,
    served: Mutex<AccessOutcome>,
    refused: Mutex<AccessOutcome>,
}

#[derive(Debug)]
struct AccessOutcome {
    bucket: TokenBucket,
    omitted: u64,
}

impl Sampler {
    pub(super) fn new(mode: AccessLog) -> Self {
        let now = Instant::now();
        let kind = |(every, burst)| {
            let bucket = TokenBucket::new(every, burst, now);
            Mutex::new(AccessOutcome { bucket, omitted: 0 })
        };
        Self {
            mode,
            served: kind(SERVED),
            refused: kind(REFUSED),
        }
    }

    /// For an answer that is to be logged: how many of its kind were not since the last one.
    pub(super) fn choose(&self, code: u16, now: Instant) -> Option<u64> {
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
    fn a_sample_says_how_many_it_leaves_out() {
        let sampler = Sampler::new(AccessLog::Sampled);
        let now = Instant::now() + Duration::from_secs(1);
        let lines = (0..1000).filter(|_| sampler.choose(200, now).is_some());
        assert_eq!(lines.count(), 5);
        // Refusals are chosen by themselves.
        assert_eq!(sampler.choose(403, now), Some(0));
        assert_eq!(sampler.choose(200, now + SERVED.0), Some(995));
        assert_eq!(sampler.choose(200, now + SERVED.0 * 2), Some(0));
    }

    #[test]
    fn all_or_none() {
        let now = Instant::now();
        let (all, off) = (Sampler::new(AccessLog::All), Sampler::new(AccessLog::Off));
        assert!((0..100).all(|_| all.choose(200, now) == Some(0)));
        assert!((0..100).all(|_| off.choose(500, now).is_none()));
    }
}
