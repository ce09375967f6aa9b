//! Publishes events on HPAs: chooses them, at a bounded rate, and writes one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::k8s::api_error::ApiError;
use crate::k8s::client::server_version;
use crate::k8s::events::{WrittenEvent, publish_event};
use crate::k8s::write_guard::WriteGuard;
use crate::model::diagnostics::event_throttle::EventThrottle;
use crate::model::diagnostics::hpa_events::{
    EventReason, FindingEvents, HpaEvent, incident_events,
};
use crate::model::diagnostics::incidents::detect_incidents;
use crate::model::diagnostics::policy_events::policy_events;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::newtypes::Moment;
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::notice::{EventLeftOut, EventUnwritten, EventWritten};

/// The shortest time between two log lines about failures: without the right to write events, every namespace has one.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How long a failure is remembered, so that it is logged once while it lasts.
const FORGET_FAILURE_AFTER: Duration = Duration::from_secs(600);

/// How long the version of the Kubernetes cluster is remembered, since clusters are upgraded.
const REMEMBER_VERSION: Duration = Duration::from_secs(3600);

/// The version of the Kubernetes cluster, read when the first event needs it.
#[derive(Clone)]
struct VersionCache {
    since: Instant,
    version: Arc<OnceCell<KubernetesVersion>>,
}

impl VersionCache {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            version: Arc::default(),
        }
    }

    /// The version; `None` if it cannot be read.
    async fn get(&self, guard: &WriteGuard) -> Option<KubernetesVersion> {
        let read = || async { server_version(&guard.client, guard.time_in_term()?).await };
        self.version.get_or_try_init(read).await.ok().copied()
    }
}

/// Decides which events to publish, and when.
pub(super) struct EventPublisher {
    guard: WriteGuard,
    throttle: EventThrottle,
    findings: FindingEvents,
    /// The last snapshot whose findings and incidents were processed.
    seen: Option<Arc<LagSnapshot>>,
    /// Whether there may be an event to publish.
    is_due: bool,
    is_publishing: bool,
    /// The namespaces in which events could not be published lately.
    failures: BTreeMap<Arc<str>, NamespaceFailures>,
    logged_at: Option<Instant>,
    version: VersionCache,
}

/// What keeps events of one namespace from being published.
struct NamespaceFailures {
    log: FailureLog<ApiError>,
    last: Instant,
}

/// One event to publish.
pub(super) struct EventPublication {
    guard: WriteGuard,
    hpa: Arc<HpaFacts>,
    event: HpaEvent,
    version: VersionCache,
}

/// An event and the outcome of publishing it.
pub(super) struct PublishedEvent {
    event: HpaEvent,
    outcome: Result<WrittenEvent, ApiError>,
}

impl EventPublisher {
    pub(super) fn new(guard: WriteGuard) -> Self {
        Self {
            guard,
            throttle: EventThrottle::default(),
            findings: FindingEvents::default(),
            seen: None,
            is_due: false,
            is_publishing: false,
            failures: BTreeMap::new(),
            logged_at: None,
            version: VersionCache::new(),
        }
    }

    /// Records the findings and incidents of a snapshot; `None` while another process leads.
    pub(super) fn observe(&mut self, latest: Option<&Arc<LagSnapshot>>) {
        let Some(latest) = latest else {
            // The leader publishes. After this process leads again, its findings may be published again, which only
            // increments the count of the events.
            self.throttle = EventThrottle::default();
            self.findings = FindingEvents::default();
            self.seen = None;
            return;
        };
        self.guard.from = Arc::clone(latest);
        self.is_due = true;
        let changes = self.findings.update(&latest.targets, &latest.findings);
        for event in &changes.ended {
            self.throttle.remove_lasting(event);
        }
        for event in changes.begun {
            self.throttle.add_lasting(event);
        }
        let Some(seen) = self.seen.replace(Arc::clone(latest)) else {
            return;
        };
        for event in policy_events(&seen.evaluations, &latest.evaluations) {
            self.enqueue(event);
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

    /// The rule behind a ceiling of an HPA; `None` if a metric has another one by now.
    pub(super) fn ceiling_rule(&self, hpa: &HpaKey, ceiling: u32) -> Option<ParallelismRule> {
        let now = Moment::now();
        let metrics = self.guard.from.at(&now).metrics_of(hpa);
        let ceilings = metrics
            .iter()
            .filter_map(|metric| metric.outcome.as_ref().ok()?.ceiling);
        let mut same = ceilings.filter(|found| found.replicas.bounded() == Some(ceiling));
        same.next().map(|found| found.useful.rule)
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
        if !self.is_due || self.is_publishing || self.guard.time_in_term().is_err() {
            return None;
        }
        if self.version.since.elapsed() > REMEMBER_VERSION {
            self.version = VersionCache::new();
        }
        let hpas = self.guard.hpas.borrow();
        let hpas = hpas.as_ref()?;
        while let Some(event) = self.throttle.next(now) {
            // A deleted HPA needs no event.
            if let Some(hpa) = hpas.get(&event.hpa) {
                self.is_publishing = true;
                return Some(EventPublication {
                    guard: self.guard.clone(),
                    hpa: Arc::clone(hpa),
                    event,
                    version: self.version.clone(),
                });
            }
        }
        self.is_due = false;
        None
    }

    /// Records the outcome of publishing an event.
    pub(super) fn finish(&mut self, published: PublishedEvent) {
        self.is_publishing = false;
        let PublishedEvent { event, outcome } = published;
        match outcome {
            Ok(publication) => {
                self.failures.remove(&event.hpa.namespace);
                EventWritten {
                    again: publication == WrittenEvent::Incremented,
                }
                .emit();
            }
            Err(ApiError::Changed) => {
                // Another process leads.
                self.throttle.mark_unpublished(&event);
                self.is_due = false;
            }
            Err(error) => self.fail(&event, error, Instant::now()),
        }
    }

    /// Pauses the namespace of an event that could not be published: the next event of another namespace may be.
    fn fail(&mut self, event: &HpaEvent, error: ApiError, now: Instant) {
        self.throttle.mark_failed(event, now);
        self.failures.retain(|_, failures| {
            now.saturating_duration_since(failures.last) < FORGET_FAILURE_AFTER
        });
        let namespace = &event.hpa.namespace;
        let failures = self.failures.entry(Arc::clone(namespace));
        let failures = failures.or_insert_with(|| NamespaceFailures {
            log: FailureLog::default(),
            last: now,
        });
        failures.last = now;
        let since = |logged_at| now.saturating_duration_since(logged_at);
        let may_log = self.logged_at.is_none_or(|at| since(at) >= LOG_INTERVAL);
        // A failure that is not logged now is logged the next time.
        let reason = if may_log {
            failures.log.record_failure(error)
        } else {
            None
        };
        if reason.is_some() {
            self.logged_at = Some(now);
        }
        EventUnwritten {
            namespace,
            reason: reason.map(|error| error as &dyn std::error::Error),
        }
        .emit();
    }
}

impl EventPublication {
    pub(super) async fn publish(self) -> PublishedEvent {
        let version = match self.event.reason.depends_on_version() {
            true => self.version.get(&self.guard).await,
            false => None,
        };
        PublishedEvent {
            outcome: publish_event(&self.guard, &self.hpa, &self.event, version).await,
            event: self.event,
        }
    }
}

#[cfg(test)]
mod tests;
