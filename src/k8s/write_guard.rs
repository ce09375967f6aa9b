//! What the writers of HPAs and scale targets have in common: what they follow, and when they may
//! write ([`model::fencing`](crate::model::decisions::fencing)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::events::PendingEvents;
use super::scale::{ApiError, in_time};
use crate::leader_election::Leadership;
use crate::model::decisions::fencing::{self, EPOCH};
use crate::model::diagnostics::hpa_events::{EventReason, HpaEvent};
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::snapshot_channel::SnapshotReader;

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What a writer works with.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct WriteGuard {
    /// The Kubernetes cluster.
    pub client: Client,
    /// The snapshots.
    pub reader: SnapshotReader,
    /// The HPAs.
    pub hpas: watch::Receiver<Option<Vec<Arc<HpaFacts>>>>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// The rules by which requests are answered.
    pub rules: ServingPolicy,
    /// The snapshot that is decided by; at first nothing is.
    pub from: Arc<LagSnapshot>,
    /// Takes what is done that a person should know of.
    pub notices: PendingEvents,
}

impl WriteGuard {
    /// The latest snapshot, which is decided by from now on; `None` where this process does not lead, or
    /// did not when it was made, or knows no HPAs yet.
    pub(super) fn begin(&mut self) -> Option<Arc<LagSnapshot>> {
        self.from = self.reader.latest();
        self.leadership.holds(self.from.term, Instant::now())?;
        (!self.from.targets.hpas_unlisted).then(|| Arc::clone(&self.from))
    }

    /// How long a request may take, so that it is over before another process may lead, and before what
    /// is decided by is too old.
    ///
    /// # Errors
    /// It may be so by now: whatever was read has to be read again.
    pub(super) fn within(&self) -> Result<Duration, ApiError> {
        self.left().ok_or(ApiError::Changed)
    }

    fn left(&self) -> Option<Duration> {
        let now = Instant::now();
        let term = self.leadership.holds(self.from.term, now)?;
        let fresh = fencing::time_left(&self.from.clusters, now, self.rules.max_staleness)?;
        Some(term.left(now)?.min(fresh).min(REQUEST_WITHIN))
    }

    /// Writes on an HPA, as it was read, that this term manages it; to be called before anything else is
    /// written there. Returns what it is then.
    ///
    /// # Errors
    /// Why that may not be written; somebody else's write since the read, too.
    pub(super) async fn claim(
        &self,
        api: &Api<HorizontalPodAutoscaler>,
        read: ObjectMeta,
    ) -> Result<ObjectMeta, ApiError> {
        let Some(epoch) = fencing::to_claim(read.annotations.as_ref(), self.from.term) else {
            return Ok(read);
        };
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": read.resource_version,
            "annotations": {EPOCH: epoch},
        }}));
        let params = PatchParams {
            field_manager: Some("lagwise".to_owned()),
            ..PatchParams::default()
        };
        let name = read.name.as_deref().unwrap_or_default();
        let patched = api.patch_metadata(name, &params, &patch);
        Ok(in_time(self.within()?, patched).await?.metadata)
    }

    /// The HPAs of an HPA's namespace.
    pub(super) fn api(&self, hpa: &HpaFacts) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), &hpa.namespace)
    }

    /// How long a request may take that decides nothing, so that it may be made of what is old: as long as
    /// this process leads.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn within_term(&self) -> Result<Duration, ApiError> {
        let now = Instant::now();
        let term = self.leadership.holds(self.from.term, now);
        let left = term.and_then(|term| term.left(now));
        Ok(left.ok_or(ApiError::Changed)?.min(REQUEST_WITHIN))
    }

    /// Has a person told what was done about an HPA.
    pub(super) fn tell(&self, hpa: &HpaKey, reason: EventReason) {
        let hpa = hpa.clone();
        self.notices.tell(HpaEvent { hpa, reason });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;
    use crate::leader_election::Term;
    use crate::model::fixtures;
    use crate::model::settings::cap_mode::CapMode;
    use crate::snapshot_channel::{self, Publisher};

    /// An API server with one HPA: its version and its annotations.
    type PatchedHpa = Arc<Mutex<(u64, BTreeMap<String, String>)>>;

    fn client(hpa: &PatchedHpa) -> Client {
        let hpa = Arc::clone(hpa);
        let serve = move |request: Request<Body>| {
            let hpa = Arc::clone(&hpa);
            async move {
                assert_eq!(request.method(), "PATCH");
                let patch = request.into_body().collect_bytes().await.unwrap();
                let patch: Value = serde_json::from_slice(&patch).unwrap();
                let metadata = &patch["metadata"];
                let mut hpa = hpa.lock().unwrap();
                let version = hpa.0.to_string();
                let is_latest = metadata["resourceVersion"].as_str() == Some(&version);
                let (code, body) = if is_latest {
                    let epoch = metadata["annotations"][EPOCH].as_str().unwrap();
                    hpa.1.insert(EPOCH.to_owned(), epoch.to_owned());
                    hpa.0 += 1;
                    (StatusCode::OK, shown(&hpa))
                } else {
                    let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "message": "the object has been modified", "reason": "Conflict", "code": 409});
                    (StatusCode::CONFLICT, conflict)
                };
                let mut response = Response::new(Body::from(body.to_string().into_bytes()));
                *response.status_mut() = code;
                Ok::<_, Infallible>(response)
            }
        };
        Client::new(tower::service_fn(serve), "shop")
    }

    fn shown(hpa: &(u64, BTreeMap<String, String>)) -> Value {
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": "orders", "namespace": "shop",
                "resourceVersion": hpa.0.to_string(), "annotations": hpa.1},
        })
    }

    fn read(hpa: &PatchedHpa) -> ObjectMeta {
        serde_json::from_value(shown(&hpa.lock().unwrap())["metadata"].clone()).unwrap()
    }

    /// A leader of that term, for so long from now on.
    fn leader(hpa: &PatchedHpa, number: u64, lasts: Duration) -> (WriteGuard, Publisher) {
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        publisher.of_term(number).publish(fixtures::snapshot());
        let until = Some(Instant::now() + lasts);
        let term = watch::channel(Some(Term { number, until })).1;
        let writing = WriteGuard {
            client: client(hpa),
            reader,
            hpas: watch::channel(None).1,
            leadership: Leadership::new(term),
            rules: ServingPolicy {
                clamp: true,
                cap: CapMode::Enforce,
                // The fixture's readings were made when the test began.
                max_staleness: Duration::from_secs(3600),
                namespaces: Vec::new(),
            },
            notices: crate::k8s::events::channel().0,
            from: Arc::default(),
        };
        (writing, publisher)
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn what_a_leader_that_was_held_up_still_writes_meets_a_newer_version() {
        let hpa = PatchedHpa::default();
        let (mut old, _old) = leader(&hpa, 1, LONG);
        let (mut new, _new) = leader(&hpa, 2, LONG);
        assert!(old.begin().is_some() && new.begin().is_some());
        let api = |writing: &WriteGuard| Api::namespaced(writing.client.clone(), "shop");
        let before = old.claim(&api(&old), read(&hpa)).await.unwrap();
        assert_eq!(before.annotations.unwrap()[EPOCH], "1");
        // It has read, and stands still; the new one has nothing else to write.
        let known = read(&hpa);
        let claimed = new.claim(&api(&new), read(&hpa)).await.unwrap();
        assert_eq!(claimed.annotations.as_ref().unwrap()[EPOCH], "2");
        assert_ne!(claimed.resource_version, known.resource_version);
        // Once in a term is enough.
        let again = new.claim(&api(&new), claimed.clone()).await.unwrap();
        assert_eq!(again.resource_version, claimed.resource_version);
        let mut late = known;
        late.annotations = None;
        let refused = old.claim(&api(&old), late).await;
        assert_eq!(refused.err(), Some(ApiError::Changed));
        assert_eq!(read(&hpa), claimed);
    }

    #[tokio::test]
    async fn nothing_is_written_without_a_term_and_a_fresh_snapshot_of_it() {
        let hpa = PatchedHpa::default();
        let (mut writing, publisher) = leader(&hpa, 3, LONG);
        // Nothing is decided by yet.
        assert_eq!(writing.within(), Err(ApiError::Changed));
        assert!(writing.begin().is_some());
        assert_eq!(writing.within(), Ok(REQUEST_WITHIN));
        writing.rules.max_staleness = Duration::ZERO;
        assert_eq!(writing.within(), Err(ApiError::Changed));
        writing.rules.max_staleness = LONG;
        // A snapshot of an earlier term.
        publisher.of_term(2).publish(fixtures::snapshot());
        assert!(writing.begin().is_none());
        assert_eq!(writing.within(), Err(ApiError::Changed));
        let (mut over, _keep) = leader(&hpa, 4, Duration::ZERO);
        assert!(over.begin().is_none());
        let api = Api::namespaced(over.client.clone(), "shop");
        let refused = over.claim(&api, read(&hpa)).await;
        assert_eq!(refused.err(), Some(ApiError::Changed));
        assert_eq!(read(&hpa).resource_version.as_deref(), Some("0"));
    }
}
