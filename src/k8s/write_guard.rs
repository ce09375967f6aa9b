//! When this process may write to the Kubernetes cluster, and for how long a write may take
//! ([`fencing`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{Api, Client};
use tokio::sync::watch;

use super::api_error::ApiError;
use crate::leader_election::Leadership;
use crate::model::decisions::fencing;
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::facts::{HpaFacts, HpaMap};
use crate::model::snapshot::LagSnapshot;
use crate::snapshot_channel::SnapshotReader;

/// Timeout for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The snapshot from which the reconciler decides, and whether it may write. Cheap to clone: a clone keeps the snapshot
/// that it was made with.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct WriteGuard {
    /// The Kubernetes cluster.
    pub client: Client,
    /// The snapshots.
    pub reader: SnapshotReader,
    /// The HPAs; `None` until they are listed.
    pub hpas: watch::Receiver<Option<HpaMap>>,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// The serving policy, and where lagwise may write.
    pub policy: ServingPolicy,
    /// The snapshot that is decided from; an empty one at first.
    pub from: Arc<LagSnapshot>,
}

impl WriteGuard {
    /// Takes the latest snapshot to decide from. `None` if this process does not lead or did not when it
    /// was made, or if the HPAs are not listed yet.
    pub(super) fn take_snapshot(&mut self) -> Option<Arc<LagSnapshot>> {
        self.from = self.reader.latest();
        self.leadership
            .current_term(self.from.term, Instant::now())?;
        (!self.from.targets.hpas_unlisted).then(|| Arc::clone(&self.from))
    }

    /// Timeout for a request that writes a decision, or reads for it. The request ends before another process may lead
    /// and before the snapshot is too old for decisions.
    ///
    /// # Errors
    /// [`ApiError::Changed`] if that is now: a later snapshot has to decide.
    pub(super) fn time_for_write(&self) -> Result<Duration, ApiError> {
        let now = Instant::now();
        let in_term = self.time_in_term()?;
        let fresh = fencing::time_left(&self.from.clusters, now, self.policy.max_staleness);
        Ok(in_term.min(fresh.ok_or(ApiError::Changed)?))
    }

    /// Timeout for a request that no decision depends on, such as an event: the snapshot may be old.
    ///
    /// # Errors
    /// [`ApiError::Changed`] if this process does not lead.
    pub(super) fn time_in_term(&self) -> Result<Duration, ApiError> {
        let now = Instant::now();
        let term = self.leadership.current_term(self.from.term, now);
        let left = term.and_then(|term| term.time_left(now));
        Ok(left.ok_or(ApiError::Changed)?.min(REQUEST_TIMEOUT))
    }

    /// The HPAs in the namespace of this one.
    pub(super) fn hpa_api(&self, hpa: &HpaFacts) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), &hpa.namespace)
    }
}

/// Leaders for tests.
#[cfg(test)]
pub(super) mod testing {
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::leader_election::Term;
    use crate::model::fixtures;
    use crate::model::hpa::write_scopes::WriteScopes;
    use crate::model::settings::cap_mode::CapMode;
    use crate::snapshot_channel::{self, Publisher};

    /// Message of the API server that refuses a request.
    pub(in crate::k8s) fn refusal(code: StatusCode, message: &str) -> (StatusCode, Value) {
        let reason = match code {
            StatusCode::NOT_FOUND => "NotFound",
            _ => "",
        };
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16()});
        (code, status)
    }

    /// A leader of that term for this duration from now on, with a snapshot without decisions yet.
    pub(in crate::k8s) fn leader(
        client: Client,
        number: u64,
        lasts: Duration,
    ) -> (WriteGuard, Publisher) {
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        publisher.of_term(number).publish(fixtures::snapshot());
        let until = Some(Instant::now() + lasts);
        let term = watch::channel(Some(Term { number, until })).1;
        let guard = WriteGuard {
            client,
            reader,
            hpas: watch::channel(None).1,
            leadership: Leadership::new(term),
            policy: ServingPolicy {
                clamp: true,
                cap: CapMode::Advise,
                scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
                // The fixture's readings were made when the test began.
                max_staleness: Duration::from_secs(3600),
                namespaces: Vec::new(),
                writes: WriteScopes::ALL,
            },
            from: Arc::default(),
        };
        (guard, publisher)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use kube::client::Body;

    use super::testing::leader;
    use super::*;
    use crate::model::fixtures;

    fn client() -> Client {
        let unused = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        Client::new(tower::service_fn(unused), "shop")
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn refuses_writes_without_a_term_and_a_fresh_snapshot() {
        let (mut guard, publisher) = leader(client(), 3, LONG);
        // Nothing is decided from yet.
        assert_eq!(guard.time_for_write(), Err(ApiError::Changed));
        assert!(guard.take_snapshot().is_some());
        assert_eq!(guard.time_for_write(), Ok(REQUEST_TIMEOUT));
        guard.policy.max_staleness = Duration::ZERO;
        assert_eq!(guard.time_for_write(), Err(ApiError::Changed));
        // An event needs no fresh snapshot.
        assert_eq!(guard.time_in_term(), Ok(REQUEST_TIMEOUT));
        guard.policy.max_staleness = LONG;
        // A snapshot of an earlier term.
        publisher.of_term(2).publish(fixtures::snapshot());
        assert!(guard.take_snapshot().is_none());
        assert_eq!(guard.time_for_write(), Err(ApiError::Changed));
        let (mut over, _keep) = leader(client(), 4, Duration::ZERO);
        assert!(over.take_snapshot().is_none());
        assert_eq!(over.time_for_write(), Err(ApiError::Changed));
        assert_eq!(over.time_in_term(), Err(ApiError::Changed));
    }

    #[tokio::test]
    async fn request_timeout_ends_before_the_term() {
        let second = Duration::from_secs(1);
        let (mut guard, _keep) = leader(client(), 3, second);
        guard.take_snapshot();
        let left = guard.time_for_write().unwrap();
        assert!(left <= second, "{left:?}");
    }
}
