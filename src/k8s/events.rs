//! Events on HPAs, for people who `kubectl describe` one.
//!
//! An event's name is made of what it says, so that whoever leads next, or a daemon that was started
//! anew, finds it there and counts it up instead of writing another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::scale::{ApiError, in_time};
use super::write_guard::WriteGuard;
use crate::model::diagnostics::event_throttle::EventThrottle;
use crate::model::diagnostics::hpa_events::{HpaEvent, finding_events, incident_events};
use crate::model::diagnostics::incidents::detect_incidents;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::notice::{EventLeftOut, EventUnwritten, EventWritten};

/// Who writes them.
const CONTROLLER: &str = "lagwise.dev/lagwise";

/// What other writers' notices may wait for this one.
const WAITING: usize = 256;

/// How long nothing is written after a write failed.
const PAUSE: Duration = Duration::from_secs(60);

/// An event's note has at most so many bytes.
const NOTE_MAX: usize = 1024;

/// Takes what the writers of HPAs and scale targets have done. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PendingEvents(mpsc::Sender<HpaEvent>);

/// A way for notices, and its end for [`keep`].
#[must_use]
pub fn channel() -> (PendingEvents, mpsc::Receiver<HpaEvent>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (PendingEvents(sender), receiver)
}

impl PendingEvents {
    /// Hands it over, without waiting.
    pub(super) fn tell(&self, notice: HpaEvent) {
        if self.0.try_send(notice).is_err() {
            EventLeftOut.emit();
        }
    }
}

/// Writes events on HPAs until there are no more snapshots.
pub async fn keep(writing: WriteGuard, mut told: mpsc::Receiver<HpaEvent>) {
    let mut reader = writing.reader.clone();
    let mut keeper = EventWriter {
        writing,
        throttle: EventThrottle::default(),
        seen: None,
        paused: None,
        failing: None,
    };
    loop {
        tokio::select! {
            more = reader.changed() => {
                if !more {
                    return;
                }
                keeper.observe();
            }
            Some(notice) = told.recv() => keeper.happened(notice),
        }
        keeper.write().await;
    }
}

struct EventWriter {
    writing: WriteGuard,
    throttle: EventThrottle,
    /// The last snapshot that was looked at.
    seen: Option<Arc<LagSnapshot>>,
    /// Until when nothing is written.
    paused: Option<Instant>,
    failing: Option<ApiError>,
}

impl EventWriter {
    fn observe(&mut self) {
        let Some(latest) = self.writing.begin() else {
            // Whoever leads tells; what is found then may be told again, and is counted up.
            self.throttle = EventThrottle::default();
            self.seen = None;
            return;
        };
        let Some(seen) = self.seen.replace(Arc::clone(&latest)) else {
            self.throttle
                .set_lasting(finding_events(latest.all_findings(), &latest.targets));
            return;
        };
        // Most sweeps find what the one before has found.
        let is_same = Arc::ptr_eq(&seen.findings, &latest.findings)
            && Arc::ptr_eq(&seen.targets, &latest.targets);
        if !is_same {
            self.throttle
                .set_lasting(finding_events(latest.all_findings(), &latest.targets));
        }
        for (name, after) in &latest.clusters {
            let before = seen.clusters.get(name);
            if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, after)) {
                let incidents = detect_incidents(name, before, after);
                for event in incident_events(&incidents, &latest.targets) {
                    self.happened(event);
                }
            }
        }
    }

    fn happened(&mut self, notice: HpaEvent) {
        if self.writing.within_term().is_ok() && !self.throttle.enqueue(notice) {
            EventLeftOut.emit();
        }
    }

    async fn write(&mut self) {
        let now = Instant::now();
        if self.paused.is_some_and(|until| now < until) || self.writing.within_term().is_err() {
            return;
        }
        let Some(hpas) = self.writing.hpas.borrow().clone() else {
            return;
        };
        let mut by_name: Option<BTreeMap<HpaKey, &HpaFacts>> = None;
        while let Some(notice) = self.throttle.next(now) {
            let by_name = by_name.get_or_insert_with(|| named(&hpas));
            // One that is gone by now has nobody to tell.
            let Some(hpa) = by_name.get(&notice.hpa) else {
                continue;
            };
            match self.post(hpa, &notice).await {
                Ok(again) => {
                    self.failing = None;
                    EventWritten { again }.emit();
                }
                // Another leads.
                Err(ApiError::Changed) => return self.throttle.mark_unpublished(&notice),
                Err(error) => {
                    self.throttle.mark_unpublished(&notice);
                    self.paused = Instant::now().checked_add(PAUSE);
                    let is_new = self.failing.as_ref() != Some(&error);
                    let reason = is_new.then_some(&error as &dyn std::error::Error);
                    EventUnwritten { reason }.emit();
                    self.failing = Some(error);
                    return;
                }
            }
        }
    }

    /// Whether it was there already.
    async fn post(&self, hpa: &HpaFacts, notice: &HpaEvent) -> Result<bool, ApiError> {
        let api: Api<Event> = Api::namespaced(self.writing.client.clone(), &hpa.namespace);
        let event = event(hpa, notice, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        let within = self.writing.within_term()?;
        match in_time(within, api.create(&PostParams::default(), &event)).await {
            Ok(_) => return Ok(false),
            // The only conflict of a creation is that it is there.
            Err(ApiError::Changed) => {}
            Err(error) => return Err(error),
        }
        // Nobody else writes it, and how often exactly matters to nobody: it is there twice or more.
        let again = Patch::Merge(json!({"series": {
            "count": 2,
            "lastObservedTime": MicroTime(Timestamp::now()),
        }}));
        let within = self.writing.within_term()?;
        in_time(within, api.patch(&name, &PatchParams::default(), &again)).await?;
        Ok(true)
    }
}

fn named(hpas: &[Arc<HpaFacts>]) -> BTreeMap<HpaKey, &HpaFacts> {
    hpas.iter().map(|hpa| (hpa.key(), &**hpa)).collect()
}

/// The event, as `events.k8s.io/v1` wants it.
fn event(hpa: &HpaFacts, notice: &HpaEvent, now: Timestamp) -> Event {
    let cause = &notice.reason;
    let note = shortened(cause.to_string());
    Event {
        action: Some("Observe".to_owned()),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta {
            name: Some(name(hpa, cause.name(), &note)),
            namespace: Some(hpa.namespace.to_string()),
            ..ObjectMeta::default()
        },
        note: Some(note),
        reason: Some(cause.name().to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("autoscaling/v2".to_owned()),
            kind: Some("HorizontalPodAutoscaler".to_owned()),
            name: Some(hpa.name.to_string()),
            namespace: Some(hpa.namespace.to_string()),
            uid: Some(hpa.uid.to_string()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some("lagwise".to_owned()),
        type_: Some(
            if cause.is_warning() {
                "Warning"
            } else {
                "Normal"
            }
            .to_owned(),
        ),
        ..Event::default()
    }
}

/// A name that says the same as the event: of two that say the same there is one.
fn name(hpa: &HpaFacts, reason: &str, note: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [&*hpa.uid, reason, note] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let hash = hasher.finalize();
    let short: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // An object's name has at most 253 characters, all of them ASCII; one may not end with a dot.
    let of: String = hpa.name.chars().take(200).collect();
    format!("{}.{short}", of.trim_end_matches(['.', '-']))
}

fn shortened(mut note: String) -> String {
    if note.len() > NOTE_MAX {
        let most = NOTE_MAX.saturating_sub('…'.len_utf8());
        let ends = note.char_indices().map(|(end, _)| end);
        let end = ends.take_while(|end| *end <= most).last().unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::hpa_events::EventReason;

    #[test]
    fn an_event_says_of_whom_it_is_and_is_named_by_what_it_says() {
        let hpa = |name: &str, uid: &str| HpaFacts {
            namespace: "shop".into(),
            name: name.into(),
            uid: uid.into(),
            ..HpaFacts::default()
        };
        let notice = |replicas| HpaEvent {
            hpa: HpaKey::new("shop", "billing"),
            reason: EventReason::Woken(replicas),
        };
        let now = Timestamp::now();
        let made = event(&hpa("billing", "u1"), &notice(3), now);
        let regarding = made.regarding.clone().unwrap();
        assert_eq!(regarding.uid.as_deref(), Some("u1"));
        assert_eq!(
            (made.type_.as_deref(), made.reason.as_deref()),
            (Some("Normal"), Some("Woken"))
        );
        let name = |hpa: &HpaFacts, replicas| {
            let later = now + k8s_openapi::jiff::SignedDuration::from_secs(9);
            event(hpa, &notice(replicas), later).metadata.name.unwrap()
        };
        let first = made.metadata.name.unwrap();
        assert!(first.starts_with("billing.") && first.len() == "billing.".len() + 16);
        assert_eq!(name(&hpa("billing", "u1"), 3), first);
        // Another text, and another HPA of the same name.
        assert_ne!(name(&hpa("billing", "u1"), 4), first);
        assert_ne!(name(&hpa("billing", "u2"), 3), first);
        assert!(name(&hpa(&"x".repeat(253), "u1"), 3).len() <= 253);
    }

    #[test]
    fn a_note_is_as_long_as_it_may_be() {
        assert_eq!(shortened("short".into()), "short");
        for text in ["x".repeat(1024), "x".repeat(1025), "é".repeat(900)] {
            let note = shortened(text.clone());
            assert!(note.len() <= NOTE_MAX, "{}", note.len());
            assert_eq!(note.ends_with('…'), text.len() > NOTE_MAX);
        }
    }
}
