//! Limits how often events are published on HPAs: each once while its cause lasts, at a limited rate that is shared
//! fairly between namespaces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hpa_events::{EventReason, HpaEvent};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::token_bucket::{RateLimit, TokenBucket};

/// Rate of events on one HPA.
const HPA_RATE: RateLimit = RateLimit {
    burst: 10,
    interval: Duration::from_secs(60),
};

/// Rate of events on all HPAs together.
const TOTAL_RATE: RateLimit = RateLimit {
    burst: 50,
    interval: Duration::from_secs(1),
};

/// Maximum number of one-time events that wait to be published.
const MAX_QUEUED_EVENTS: usize = 500;

/// How long nothing is published in a namespace after an event in it could not be published: its quota may be used up,
/// or it may be about to be deleted.
const PAUSE: Duration = Duration::from_secs(60);

/// Decides which event is published next.
#[derive(Clone, Debug)]
pub struct EventThrottle {
    /// Events that wait, by namespace. Namespaces without any are removed.
    pending: BTreeMap<Arc<str>, PendingEvents>,
    /// Number of one-time events that wait.
    queued: usize,
    /// Lasting events that were published.
    published: BTreeSet<HpaEvent>,
    /// The namespace of the last event. The next one comes from another namespace, if one waits there.
    last: Option<Arc<str>>,
    /// The namespaces in which nothing is published, with the end of the pause.
    paused: BTreeMap<Arc<str>, Instant>,
    total_bucket: TokenBucket,
    /// Buckets per HPA; full ones are dropped.
    buckets: BTreeMap<HpaKey, TokenBucket>,
}

/// Events of one namespace that wait.
#[derive(Clone, Debug, Default)]
struct PendingEvents {
    /// One-time events.
    queue: VecDeque<HpaEvent>,
    /// Events whose cause lasts.
    lasting: BTreeSet<HpaEvent>,
}

impl PendingEvents {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.lasting.is_empty()
    }

    /// Removes the newest advice of the rate policy from the queue. Returns whether there was one.
    fn remove_newest_advice(&mut self) -> bool {
        let newest = self.queue.iter().rposition(is_advice);
        newest.and_then(|index| self.queue.remove(index)).is_some()
    }

    /// The first event that is allowed: one-time events in the order in which they were added, then lasting ones.
    fn first(&self, is_allowed: impl Fn(&HpaEvent) -> bool) -> Option<NextEvent> {
        if let Some(index) = self.queue.iter().position(&is_allowed) {
            return Some(NextEvent::Queued(index));
        }
        let lasting = self.lasting.iter().find(|event| is_allowed(event));
        lasting.cloned().map(NextEvent::Lasting)
    }
}

/// Whether an event is advice of the rate policy: another number of replicas. It matters less than other events,
/// because later advice replaces it.
fn is_advice(event: &HpaEvent) -> bool {
    matches!(event.reason, EventReason::ScaleAdvice(_))
}

/// The event of a namespace that is published next.
enum NextEvent {
    /// Index in the queue.
    Queued(usize),
    Lasting(HpaEvent),
}

impl Default for EventThrottle {
    fn default() -> Self {
        Self {
            pending: BTreeMap::new(),
            queued: 0,
            published: BTreeSet::new(),
            last: None,
            paused: BTreeMap::new(),
            total_bucket: TokenBucket::full(TOTAL_RATE),
            buckets: BTreeMap::new(),
        }
    }
}

impl EventThrottle {
    /// Adds an event whose cause has begun and lasts.
    pub fn add_lasting(&mut self, event: HpaEvent) {
        if !self.published.contains(&event) {
            let namespace = Arc::clone(&event.hpa.namespace);
            self.pending
                .entry(namespace)
                .or_default()
                .lasting
                .insert(event);
        }
    }

    /// Removes an event whose cause has ended. If it begins again, the event is published again.
    pub fn remove_lasting(&mut self, event: &HpaEvent) {
        self.published.remove(event);
        if let Some(pending) = self.pending.get_mut(&event.hpa.namespace) {
            pending.lasting.remove(event);
            self.drop_if_empty(&event.hpa.namespace);
        }
    }

    /// Adds a one-time event. If the queue is full, an event of the namespace with the most events is dropped: the
    /// newest advice of the rate policy, otherwise the newest event, which may be this one. Returns `false` if an event
    /// was dropped.
    pub fn enqueue(&mut self, event: HpaEvent) -> bool {
        if self.join_advice(&event) {
            return true;
        }
        let namespace = Arc::clone(&event.hpa.namespace);
        let has_room = self.queued < MAX_QUEUED_EVENTS;
        if !has_room && !self.drop_of_longest_queue(&namespace) && !self.drop_advice_for(&event) {
            return false;
        }
        let pending = self.pending.entry(namespace).or_default();
        pending.queue.push_back(event);
        self.queued = self.queued.saturating_add(1);
        has_room
    }

    /// Joins advice of the rate policy with the queued advice that it replaces. Returns whether there was any. So a
    /// policy whose advice changes faster than events are published does not fill the queue, and no outdated advice is
    /// published.
    fn join_advice(&mut self, event: &HpaEvent) -> bool {
        let EventReason::ScaleAdvice(next) = &event.reason else {
            return false;
        };
        let namespace = &event.hpa.namespace;
        let Some(pending) = self.pending.get_mut(namespace) else {
            return false;
        };
        let newest_first = pending.queue.iter().enumerate().rev();
        let mut of_hpa = newest_first.filter(|(_, queued)| queued.hpa == event.hpa);
        let joined = of_hpa.find_map(|(index, queued)| {
            let EventReason::ScaleAdvice(change) = &queued.reason else {
                return None;
            };
            Some((index, change.join(next)?))
        });
        let Some((index, change)) = joined else {
            return false;
        };
        if change.from == change.to {
            pending.queue.remove(index);
            self.queued = self.queued.saturating_sub(1);
            self.drop_if_empty(namespace);
        } else if let Some(queued) = pending.queue.get_mut(index) {
            queued.reason = EventReason::ScaleAdvice(change);
        }
        true
    }

    /// Drops advice of the rate policy of the same namespace to make room for an event, unless the event is advice
    /// itself. Returns whether there is room.
    fn drop_advice_for(&mut self, event: &HpaEvent) -> bool {
        let pending = self.pending.get_mut(&event.hpa.namespace);
        let is_dropped =
            !is_advice(event) && pending.is_some_and(PendingEvents::remove_newest_advice);
        if is_dropped {
            self.queued = self.queued.saturating_sub(1);
        }
        is_dropped
    }

    /// Drops an event of the namespace with the most events to make room for one of `namespace`, unless `namespace`
    /// would then have as many. Returns whether there is room.
    fn drop_of_longest_queue(&mut self, namespace: &Arc<str>) -> bool {
        let len = |pending: &PendingEvents| pending.queue.len();
        let own = self.pending.get(namespace).map_or(0, len);
        let Some((longest, pending)) = self.pending.iter_mut().max_by_key(|(_, p)| len(p)) else {
            return false;
        };
        if len(pending) <= own.saturating_add(1) {
            return false;
        }
        if !pending.remove_newest_advice() {
            pending.queue.pop_back();
        }
        self.queued = self.queued.saturating_sub(1);
        let longest = Arc::clone(longest);
        self.drop_if_empty(&longest);
        true
    }

    fn drop_if_empty(&mut self, namespace: &Arc<str>) {
        if self
            .pending
            .get(namespace)
            .is_some_and(PendingEvents::is_empty)
        {
            self.pending.remove(namespace);
        }
    }

    /// Takes the next event to publish, if one is pending and the rate limits allow it. The namespaces take turns, so
    /// that those with many events do not keep the others waiting.
    pub fn next(&mut self, now: Instant) -> Option<HpaEvent> {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        self.paused.retain(|_, until| now < *until);
        if !self.total_bucket.has_tokens(1, now) {
            return None;
        }
        let (namespace, next) = self.choose(now)?;
        let pending = self.pending.get_mut(&namespace)?;
        let event = match next {
            NextEvent::Queued(index) => {
                self.queued = self.queued.saturating_sub(1);
                pending.queue.remove(index)?
            }
            NextEvent::Lasting(event) => {
                pending.lasting.remove(&event);
                self.published.insert(event.clone());
                event
            }
        };
        self.drop_if_empty(&namespace);
        self.last = Some(namespace);
        self.total_bucket.take(1, now);
        let bucket = self.buckets.entry(event.hpa.clone());
        let bucket = bucket.or_insert_with(|| TokenBucket::full(HPA_RATE));
        bucket.take(1, now);
        Some(event)
    }

    /// Chooses the next event. The namespaces take turns in the order of their names, beginning after the last one.
    fn choose(&self, now: Instant) -> Option<(Arc<str>, NextEvent)> {
        let last = self.last.as_deref().unwrap_or_default();
        let (after, up_to) = (Bound::Excluded(last), Bound::Included(last));
        let after = self.pending.range::<str, _>((after, Bound::Unbounded));
        let up_to = self.pending.range::<str, _>((Bound::Unbounded, up_to));
        let is_allowed = |event: &HpaEvent| {
            let bucket = self.buckets.get(&event.hpa);
            bucket.is_none_or(|bucket| bucket.has_tokens(1, now))
        };
        let mut unpaused = after
            .chain(up_to)
            .filter(|(namespace, _)| !self.paused.contains_key(*namespace));
        unpaused.find_map(|(namespace, pending)| {
            Some((Arc::clone(namespace), pending.first(is_allowed)?))
        })
    }

    /// Records that an event could not be published. Nothing is published in its namespace for the time of [`PAUSE`].
    /// Then the event is published again, if its cause lasts.
    pub fn mark_failed(&mut self, event: &HpaEvent, now: Instant) {
        self.mark_unpublished(event);
        if let Some(until) = now.checked_add(PAUSE) {
            self.paused.insert(Arc::clone(&event.hpa.namespace), until);
        }
    }

    /// Records that an event was not published after all, for a reason that does not concern its namespace.
    pub fn mark_unpublished(&mut self, event: &HpaEvent) {
        if self.published.remove(event) {
            self.add_lasting(event.clone());
        }
    }
}

#[cfg(test)]
mod tests;
