//! Events on HPAs, for people who `kubectl describe` one.
//!
//! An event's name is a hash of its content, so that a daemon that was restarted, or the next leader, finds it and
//! increments its count instead of creating another.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::api_error::{ApiError, in_time};
use super::write_guard::WriteGuard;
use crate::model::diagnostics::hpa_events::HpaEvent;
use crate::model::hpa::facts::HpaFacts;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::untrusted_text::Printable;

/// The `reportingController` of the events.
const CONTROLLER: &str = "lagwise.dev/lagwise";

/// Maximum length of a note that the API server accepts, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// How an event was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WrittenEvent {
    /// It was created.
    Created,
    /// It existed already, and its count was incremented.
    Incremented,
}

/// Publishes an event on an HPA, with advice for this version of Kubernetes.
///
/// # Errors
/// The API server's; [`ApiError::Changed`] if this process does not lead.
pub(super) async fn publish_event(
    guard: &WriteGuard,
    hpa: &HpaFacts,
    published: &HpaEvent,
    version: Option<KubernetesVersion>,
) -> Result<WrittenEvent, ApiError> {
    let api: Api<Event> = Api::namespaced(guard.client.clone(), &hpa.namespace);
    let event = event(hpa, published, version, Timestamp::now());
    let name = event.metadata.name.clone().unwrap_or_default();
    let timeout = guard.time_in_term()?;
    match in_time(timeout, api.create(&PostParams::default(), &event)).await {
        Ok(_) => return Ok(WrittenEvent::Created),
        // The only conflict of a creation is that the object exists.
        Err(ApiError::Changed) => {}
        Err(error) => return Err(error),
    }
    // No reader needs the exact count, so the old one is not read first: 2 means "more than once".
    let again = Patch::Merge(json!({"series": {
        "count": 2,
        "lastObservedTime": MicroTime(Timestamp::now()),
    }}));
    let timeout = guard.time_in_term()?;
    in_time(timeout, api.patch(&name, &PatchParams::default(), &again)).await?;
    Ok(WrittenEvent::Incremented)
}

/// Builds the event, as `events.k8s.io/v1` validates it.
fn event(
    hpa: &HpaFacts,
    published: &HpaEvent,
    version: Option<KubernetesVersion>,
    now: Timestamp,
) -> Event {
    let reason = &published.reason;
    let note = shortened(Printable::unbounded(&reason.note(version)).to_string());
    Event {
        action: Some("Observe".to_owned()),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta {
            name: Some(name(hpa, reason.name(), &note)),
            namespace: Some(hpa.namespace.to_string()),
            ..ObjectMeta::default()
        },
        note: Some(note),
        reason: Some(reason.name().to_owned()),
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
            if reason.is_warning() {
                "Warning"
            } else {
                "Normal"
            }
            .to_owned(),
        ),
        ..Event::default()
    }
}

/// The name of the event: a hash of its content, so that equal events are one object.
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
    let prefix: String = hpa.name.chars().take(200).collect();
    format!("{}.{short}", prefix.trim_end_matches(['.', '-']))
}

fn shortened(mut note: String) -> String {
    if note.len() > MAX_NOTE_BYTES {
        let most = MAX_NOTE_BYTES.saturating_sub('…'.len_utf8());
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
    use crate::model::units::hpa_key::HpaKey;

    #[test]
    fn event_has_its_subject_and_a_stable_name() {
        let hpa = |name: &str, uid: &str| HpaFacts {
            namespace: "shop".into(),
            name: name.into(),
            uid: uid.into(),
            ..HpaFacts::default()
        };
        let woken = |replicas| HpaEvent {
            hpa: HpaKey::new("shop", "billing"),
            reason: EventReason::Woken(replicas),
        };
        let now = Timestamp::now();
        let made = event(&hpa("billing", "u1"), &woken(3), None, now);
        let regarding = made.regarding.clone().unwrap();
        assert_eq!(regarding.uid.as_deref(), Some("u1"));
        assert_eq!(
            (made.type_.as_deref(), made.reason.as_deref()),
            (Some("Normal"), Some("Woken"))
        );
        let name = |hpa: &HpaFacts, replicas| {
            let later = now + k8s_openapi::jiff::SignedDuration::from_secs(9);
            event(hpa, &woken(replicas), None, later)
                .metadata
                .name
                .unwrap()
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
    fn truncates_event_notes() {
        assert_eq!(shortened("short".into()), "short");
        for text in ["x".repeat(1024), "x".repeat(1025), "é".repeat(900)] {
            let note = shortened(text.clone());
            assert!(note.len() <= MAX_NOTE_BYTES, "{}", note.len());
            assert_eq!(note.ends_with('…'), text.len() > MAX_NOTE_BYTES);
        }
    }
}
