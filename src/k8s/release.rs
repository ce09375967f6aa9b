//! Gives HPAs back to their users: what the cap and scale to zero have written is undone, without the
//! daemon. For a person, and for the chart's uninstallation.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;

use super::cap;
use super::hpa::facts_of;
use super::scale::{ApiError, Scales, in_time};
use crate::model::decisions::cap::{HpaFields, release};
use crate::model::decisions::fencing::EPOCH;
use crate::model::hpa::facts::{HpaFacts, own_mode};
use crate::model::settings::annotation_keys::ZEROED_SINCE;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Attempts at one HPA: somebody else may write at the same time, and a release takes two writes.
const ATTEMPTS: u32 = 10;

/// HPAs in one page of a listing.
const PAGE: u32 = 500;

/// What was, or would be, undone on one HPA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Released {
    /// The HPA's namespace.
    pub namespace: String,
    /// The HPA's name.
    pub name: String,
    /// `spec.maxReplicas` before.
    pub max_replicas: u32,
    /// The user's own, which it is now.
    pub user_max_replicas: u32,
    /// The replicas with which its workload is woken, where lagwise has set that to zero.
    pub woken_replicas: Option<u32>,
    /// Whether it still asks for enforcement, so that a daemon that runs does it again.
    pub asks_again: bool,
}

/// Undoes what lagwise has written.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Release {
    client: Client,
    scales: Scales,
    dry_run: bool,
}

impl Release {
    /// Through this client; nothing is written in a dry run.
    #[must_use]
    pub fn new(client: Client, dry_run: bool) -> Self {
        Self {
            scales: Scales::new(client.clone()),
            client,
            dry_run,
        }
    }

    /// The HPAs that carry something of lagwise's, of all namespaces.
    ///
    /// # Errors
    /// Why they cannot be listed.
    pub async fn marked(&self) -> Result<Vec<HpaKey>, ApiError> {
        let api: Api<HorizontalPodAutoscaler> = Api::all(self.client.clone());
        let mut marked = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = in_time(REQUEST_WITHIN, api.list(&page)).await?;
            let facts = listed.items.iter().map(|object| (facts_of(object), object));
            let ours = facts.filter(|(hpa, object)| {
                HpaFields::of(hpa).is_marked() || is_asleep(hpa) || has_epoch(object)
            });
            marked.extend(ours.map(|(hpa, _)| hpa.key()));
            match listed.metadata.continue_ {
                Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
                _ => return Ok(marked),
            }
        }
    }

    /// Gives one HPA back; `None` where nothing of lagwise's is on it.
    ///
    /// # Errors
    /// Why it is not, or not whole.
    pub async fn give_back(&mut self, key: &HpaKey) -> Result<Option<Released>, ApiError> {
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.client.clone(), &key.namespace);
        let mut first: Option<Released> = None;
        for _ in 0..ATTEMPTS {
            let object = in_time(REQUEST_WITHIN, api.get(&key.name)).await?;
            let hpa = facts_of(&object);
            let live = HpaFields::of(&hpa);
            if !live.is_marked() && !is_asleep(&hpa) && !has_epoch(&object) {
                return Ok(first);
            }
            let start = hpa.min_replicas.unwrap_or(1).max(1);
            first.get_or_insert_with(|| Released {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                max_replicas: live.max,
                user_max_replicas: live.user_max(None),
                woken_replicas: is_asleep(&hpa).then_some(start),
                asks_again: own_mode(&hpa) == Some(CapMode::Enforce),
            });
            if self.dry_run {
                return Ok(first);
            }
            match self.step(&api, &hpa, &object.metadata).await {
                Ok(()) | Err(ApiError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Changed)
    }

    async fn step(
        &mut self,
        api: &Api<HorizontalPodAutoscaler>,
        hpa: &HpaFacts,
        read: &ObjectMeta,
    ) -> Result<(), ApiError> {
        let keeper = cap::keeper(&self.client, REQUEST_WITHIN).await?;
        if let Some(change) = release(HpaFields::of(hpa), None, keeper) {
            let written = cap::write(api, read, &change, REQUEST_WITHIN).await;
            return written.map(drop);
        }
        if is_asleep(hpa) {
            match self.wake(hpa).await {
                // What it scaled is gone: there is nothing to wake.
                Err(ApiError::Gone(_) | ApiError::NoKind { .. }) => {}
                other => other?,
            }
        }
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": read.resource_version,
            "annotations": {ZEROED_SINCE: null, EPOCH: null},
        }}));
        let params = PatchParams::default();
        let patched = api.patch_metadata(&hpa.name, &params, &patch);
        in_time(REQUEST_WITHIN, patched).await.map(drop)
    }

    async fn wake(&mut self, hpa: &HpaFacts) -> Result<(), ApiError> {
        let (namespace, target) = (&hpa.namespace, &hpa.scale_target);
        let scale = self.scales.read(namespace, target, REQUEST_WITHIN).await?;
        if scale.replicas > 0 {
            return Ok(());
        }
        let start = hpa.min_replicas.unwrap_or(1).max(1);
        let scales = &mut self.scales;
        let set = scales.set(namespace, target, &scale, start, REQUEST_WITHIN);
        set.await
    }
}

fn has_epoch(object: &HorizontalPodAutoscaler) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(EPOCH))
}

fn is_asleep(hpa: &HpaFacts) -> bool {
    hpa.annotations.contains_key(ZEROED_SINCE)
}
