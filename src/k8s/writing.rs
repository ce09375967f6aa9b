//! What the writers of HPAs and scale targets have in common: what they follow, and when they may
//! write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{Api, Client};
use tokio::sync::watch;

use super::scale::ScaleError;
use crate::leading::Leadership;
use crate::model::query::Rules;
use crate::model::target::HpaFacts;
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
}

impl Writing {
    /// Whether this process leads.
    pub(super) fn leads(&self) -> bool {
        self.left().is_some()
    }

    /// How long a request may take, so that it is over before another process may lead.
    ///
    /// # Errors
    /// Another may lead by now: whatever was read has to be read again.
    pub(super) fn within(&self) -> Result<Duration, ScaleError> {
        let left = self.left().ok_or(ScaleError::Changed)?;
        Ok(left.min(REQUEST_WITHIN))
    }

    /// The HPAs of an HPA's namespace.
    pub(super) fn api(&self, hpa: &HpaFacts) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), &hpa.namespace)
    }

    fn left(&self) -> Option<Duration> {
        let now = Instant::now();
        self.leadership.term(now)?.left(now)
    }
}
