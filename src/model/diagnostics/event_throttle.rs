//! Limits how often events are published on HPAs: each once while its cause lasts, and at a limited rate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::hpa_events::HpaEvent;
use crate::model::units::hpa_key::HpaKey;

/// A burst of events, and the interval in which one more is allowed after it.
#[derive(Clone, Copy, Debug)]
struct RateLimit {
    burst: u32,
    interval: Duration,
}

const LIMIT_PER_HPA: RateLimit = RateLimit {
    burst: 10,
    interval: Duration::from_secs(60),
};

const LIMIT_IN_ALL: RateLimit = RateLimit {
    burst: 50,
    interval: Duration::from_secs(1),
};

/// How many one-time events may wait to be published.
const QUEUE_MAX: usize = 500;

/// Decides which event is published next.
#[derive(Clone, Debug, Default)]
pub struct EventThrottle {
    /// Events whose cause lasts.
    lasting: BTreeSet<HpaEvent>,
    /// Those of them that were published.
    published: BTreeSet<HpaEvent>,
    /// Events about something that happened once.
    queue: VecDeque<HpaEvent>,
    used_in_all: TokenBucket,
    used_per_hpa: BTreeMap<HpaKey, TokenBucket>,
}

impl EventThrottle {
    /// Replaces the events whose cause lasts. One whose cause ends and begins again is published again.
    pub fn set_lasting(&mut self, lasting: BTreeSet<HpaEvent>) {
        self.published.retain(|event| lasting.contains(event));
        self.lasting = lasting;
    }

    /// Adds an event about something that happened once. Returns `false` and drops it if too many wait.
    pub fn enqueue(&mut self, event: HpaEvent) -> bool {
        let fits = self.queue.len() < QUEUE_MAX;
        if fits {
            self.queue.push_back(event);
        }
        fits
    }

    /// Takes the next event to publish, if one is pending and the rate limits allow it.
    pub fn next(&mut self, now: Instant) -> Option<HpaEvent> {
        self.used_per_hpa.retain(|_, bucket| !bucket.is_full(now));
        if !self.used_in_all.allows(LIMIT_IN_ALL, now) {
            return None;
        }
        let used = &self.used_per_hpa;
        let is_allowed = |event: &HpaEvent| {
            let bucket = used.get(&event.hpa);
            bucket.is_none_or(|bucket| bucket.allows(LIMIT_PER_HPA, now))
        };
        let next = match self.queue.iter().position(is_allowed) {
            Some(position) => self.queue.remove(position)?,
            None => {
                let mut pending = self.lasting.difference(&self.published);
                let next = pending.find(|event| is_allowed(event))?.clone();
                self.published.insert(next.clone());
                next
            }
        };
        self.used_in_all.take(LIMIT_IN_ALL, now);
        let bucket = self.used_per_hpa.entry(next.hpa.clone()).or_default();
        bucket.take(LIMIT_PER_HPA, now);
        Some(next)
    }

    /// Notes that an event could not be published: it is published later if its cause lasts.
    pub fn mark_unpublished(&mut self, event: &HpaEvent) {
        self.published.remove(event);
    }
}

/// The used part of a [`RateLimit`], as the time at which everything taken is paid back.
#[derive(Clone, Copy, Debug, Default)]
struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    fn full_after_one_more(self, limit: RateLimit, now: Instant) -> Option<Instant> {
        self.full_at
            .map_or(now, |full_at| full_at.max(now))
            .checked_add(limit.interval)
    }

    fn allows(self, limit: RateLimit, now: Instant) -> bool {
        self.full_after_one_more(limit, now).is_some_and(|full_at| {
            full_at.saturating_duration_since(now) <= limit.interval.saturating_mul(limit.burst)
        })
    }

    fn take(&mut self, limit: RateLimit, now: Instant) {
        self.full_at = self.full_after_one_more(limit, now);
    }

    fn is_full(self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests;
