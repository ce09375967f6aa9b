//! Limits how often events are published on HPAs: each once while its cause lasts, and at a limited rate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::hpa_events::HpaEvent;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::token_bucket::{RateLimit, TokenBucket};

const LIMIT_PER_HPA: RateLimit = RateLimit {
    burst: 10,
    interval: Duration::from_secs(60),
};

const TOTAL_LIMIT: RateLimit = RateLimit {
    burst: 50,
    interval: Duration::from_secs(1),
};

/// How many one-time events may wait to be published.
const QUEUE_MAX: usize = 500;

/// Decides which event is published next.
#[derive(Clone, Debug)]
pub struct EventThrottle {
    /// Events whose cause lasts.
    lasting: BTreeSet<HpaEvent>,
    /// Lasting events that were published.
    published: BTreeSet<HpaEvent>,
    /// One-time events that wait.
    queue: VecDeque<HpaEvent>,
    total_bucket: TokenBucket,
    /// Buckets per HPA; full ones are dropped.
    buckets: BTreeMap<HpaKey, TokenBucket>,
}

impl Default for EventThrottle {
    fn default() -> Self {
        Self {
            lasting: BTreeSet::new(),
            published: BTreeSet::new(),
            queue: VecDeque::new(),
            total_bucket: TokenBucket::full(TOTAL_LIMIT),
            buckets: BTreeMap::new(),
        }
    }
}

impl EventThrottle {
    /// Replaces the events whose cause lasts. One whose cause ends and begins again is published again.
    pub fn set_lasting(&mut self, lasting: BTreeSet<HpaEvent>) {
        self.published.retain(|event| lasting.contains(event));
        self.lasting = lasting;
    }

    /// Adds a one-time event. Returns `false` and drops it if too many wait.
    pub fn enqueue(&mut self, event: HpaEvent) -> bool {
        let fits = self.queue.len() < QUEUE_MAX;
        if fits {
            self.queue.push_back(event);
        }
        fits
    }

    /// Takes the next event to publish, if one is pending and the rate limits allow it.
    pub fn next(&mut self, now: Instant) -> Option<HpaEvent> {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        if !self.total_bucket.has_tokens(1, now) {
            return None;
        }
        let buckets = &self.buckets;
        let is_allowed = |event: &HpaEvent| {
            let bucket = buckets.get(&event.hpa);
            bucket.is_none_or(|bucket| bucket.has_tokens(1, now))
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
        self.total_bucket.take(1, now);
        let bucket = self.buckets.entry(next.hpa.clone());
        let bucket = bucket.or_insert_with(|| TokenBucket::full(LIMIT_PER_HPA));
        bucket.take(1, now);
        Some(next)
    }

    /// Records that publishing an event failed: it is retried while its cause lasts.
    pub fn mark_unpublished(&mut self, event: &HpaEvent) {
        self.published.remove(event);
    }
}

#[cfg(test)]
mod tests;
