//! What the writers of HPAs and scale targets have in common: what they follow, and when they may
//! write ([`model::fencing`](crate::model::fencing)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::events::Notices;
use super::scale::{ScaleError, in_time};
use crate::leading::Leadership;
use crate::model::fencing::{self, EPOCH};
use crate::model::notice::{Cause, Notice};
use crate::model::query::Rules;
use crate::model::snapshot::LagSnapshot;
use crate::model::target::HpaFacts;
use crate::model::zero::HpaName;
use crate::publish::Reader;

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What a writer works with.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Writing {
    /// The Kubernetes cluster.
    pub client: Client,
    /// The snapshots.
    pub reader: Reader,
    /// The HPAs.
    pub hpas: watch::Receiver<Option<Vec<Arc<HpaFacts>>>>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// The rules by which requests are answered.
    pub rules: Rules,
    /// The snapshot that is decided by; at first nothing is.
    pub from: Arc<LagSnapshot>,
    /// Takes what is done that a person should know of.
    pub notices: Notices,
}

impl Writing {
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
    pub(super) fn within(&self) -> Result<Duration, ScaleError> {
        self.left().ok_or(ScaleError::Changed)
    }

    fn left(&self) -> Option<Duration> {
        let now = Instant::now();
        let term = self.leadership.holds(self.from.term, now)?;
        let fresh = fencing::time_left(&self.from, now, self.rules.max_staleness)?;
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
    ) -> Result<ObjectMeta, ScaleError> {
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
    pub(super) fn within_term(&self) -> Result<Duration, ScaleError> {
        let now = Instant::now();
        let term = self.leadership.holds(self.from.term, now);
        let left = term.and_then(|term| term.left(now));
        Ok(left.ok_or(ScaleError::Changed)?.min(REQUEST_WITHIN))
    }

    /// Has a person told what was done about an HPA.
    pub(super) fn tell(&self, hpa: &HpaName, cause: Cause) {
        let hpa = hpa.clone();
        self.notices.tell(Notice { hpa, cause });
    }
}
