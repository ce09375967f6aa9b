//! Publishes events on HPAs: chooses them, at a bounded rate, and writes one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::k8s::api_error::ApiError;
use crate::k8s::events::{WrittenEvent, publish_event};
use crate::k8s::write_guard::WriteGuard;
use crate::model::diagnostics::event_throttle::EventThrottle;
use crate::model::diagnostics::hpa_events::{
    EventReason, HpaEvent, finding_events, incident_events,
};
use crate::model::diagnostics::incidents::detect_incidents;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::notice::{EventLeftOut, EventUnwritten, EventWritten};

/// How long nothing is published after a failure.
const PAUSE: Duration = Duration::from_secs(60);

/// Decides which events are to be published, and when.
pub(super) struct EventPublisher {
    guard: WriteGuard,
    throttle: EventThrottle,
    /// The last snapshot whose findings and incidents were taken in.
    seen: Option<Arc<LagSnapshot>>,
    /// Whether there may be an event to publish.
    is_due: bool,
    is_publishing: bool,
    paused_until: Option<Instant>,
    failures: FailureLog<ApiError>,
}

/// One event to publish.
pub(super) struct EventPublication {
    guard: WriteGuard,
    hpa: Arc<HpaFacts>,
    event: HpaEvent,
}

/// An event and what came of it.
pub(super) struct PublishedEvent {
    event: HpaEvent,
    outcome: Result<WrittenEvent, ApiError>,
}

impl EventPublisher {
    pub(super) fn new(guard: WriteGuard) -> Self {
        Self {
            guard,
            throttle: EventThrottle::default(),
            seen: None,
            is_due: false,
            is_publishing: false,
            paused_until: None,
            failures: FailureLog::default(),
        }
    }

    /// Takes in the findings and incidents of a snapshot; `None` while another process leads.
    pub(super) fn observe(&mut self, latest: Option<&Arc<LagSnapshot>>) {
        let Some(latest) = latest else {
            // The leader publishes. After this process leads again, what it finds then may be published
            // twice, which only counts the event up.
            self.throttle = EventThrottle::default();
            self.seen = None;
            return;
        };
        self.guard.from = Arc::clone(latest);
        self.is_due = true;
        let Some(seen) = self.seen.replace(Arc::clone(latest)) else {
            self.set_lasting(latest);
            return;
        };
        // Most sweeps find what the one before has found.
        let is_same = Arc::ptr_eq(&seen.findings, &latest.findings)
            && Arc::ptr_eq(&seen.targets, &latest.targets);
        if !is_same {
            self.set_lasting(latest);
        }
        for (name, after) in &latest.clusters {
            let before = seen.clusters.get(name);
            if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, after)) {
                let incidents = detect_incidents(name, before, after);
                for event in incident_events(&incidents, &latest.targets) {
                    self.enqueue(event);
                }
            }
        }
    }

    /// Queues an event about something that the reconciler has done.
    pub(super) fn record(&mut self, hpa: &HpaKey, reason: EventReason) {
        let hpa = hpa.clone();
        self.enqueue(HpaEvent { hpa, reason });
    }

    fn set_lasting(&mut self, snapshot: &LagSnapshot) {
        let events = finding_events(snapshot.all_findings(), &snapshot.targets);
        self.throttle.set_lasting(events);
    }

    fn enqueue(&mut self, event: HpaEvent) {
        self.is_due = true;
        if self.guard.time_in_term().is_ok() && !self.throttle.enqueue(event) {
            EventLeftOut.emit();
        }
    }

    /// The next event to publish, if there is one, the rate allows it and none is being published.
    pub(super) fn next_publication(&mut self) -> Option<EventPublication> {
        let now = Instant::now();
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        if !self.is_due || self.is_publishing || is_paused || self.guard.time_in_term().is_err() {
            return None;
        }
        let hpas = self.guard.hpas.borrow();
        let hpas = hpas.as_ref()?;
        while let Some(event) = self.throttle.next(now) {
            // An HPA that is gone by now needs no event.
            if let Some(hpa) = hpas.get(&event.hpa) {
                self.is_publishing = true;
                return Some(EventPublication {
                    guard: self.guard.clone(),
                    hpa: Arc::clone(hpa),
                    event,
                });
            }
        }
        self.is_due = false;
        None
    }

    /// Takes in what came of an event.
    pub(super) fn finish(&mut self, published: PublishedEvent) {
        self.is_publishing = false;
        let error = match published.outcome {
            Ok(publication) => {
                self.failures.succeeded();
                EventWritten {
                    again: publication == WrittenEvent::CountedUp,
                }
                .emit();
                return;
            }
            Err(error) => error,
        };
        self.throttle.mark_unpublished(&published.event);
        if error == ApiError::Changed {
            // Another process leads.
            self.is_due = false;
            return;
        }
        self.paused_until = Instant::now().checked_add(PAUSE);
        let reason = self.failures.failed(error);
        EventUnwritten {
            reason: reason.map(|error| error as &dyn std::error::Error),
        }
        .emit();
    }
}

impl EventPublication {
    pub(super) async fn publish(self) -> PublishedEvent {
        PublishedEvent {
            outcome: publish_event(&self.guard, &self.hpa, &self.event).await,
            event: self.event,
        }
    }
}
