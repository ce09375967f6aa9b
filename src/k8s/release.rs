//! Undoes what the cap and scale to zero have written, without the daemon: for `lagwise release` and for the
//! uninstallation of the chart.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use super::api_error::{ApiError, in_time};
use super::field_owner::find_field_owner;
use super::hpa::facts_of;
use super::hpa_patch::patch_hpa;
use super::scale::Scales;
use crate::model::decisions::cap::{AnnotationChange, CapPatch, HpaFields, release};
use crate::model::decisions::fencing::TERM;
use crate::model::decisions::hpa_write::HpaPatch;
use crate::model::hpa::facts::{HpaFacts, own_mode};
use crate::model::settings::annotation_keys::ZEROED_SINCE;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;

/// Timeout for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts at one HPA. A release takes two writes, and somebody else may write at the same time.
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
    /// The user's number, which it is afterwards.
    pub user_max_replicas: u32,
    /// The replicas with which its workload is woken, if lagwise has scaled it to zero.
    pub woken_replicas: Option<u32>,
    /// Whether it still asks for the cap, so that a running daemon caps it again.
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
    /// Uses this client. A dry run writes nothing.
    #[must_use]
    pub fn new(client: Client, dry_run: bool) -> Self {
        Self {
            scales: Scales::new(client.clone()),
            client,
            dry_run,
        }
    }

    /// Lists the HPAs of all namespaces that carry anything of lagwise's.
    ///
    /// # Errors
    /// The API server's.
    pub async fn marked(&self) -> Result<Vec<HpaKey>, ApiError> {
        let api: Api<HorizontalPodAutoscaler> = Api::all(self.client.clone());
        let mut marked = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = in_time(REQUEST_TIMEOUT, api.list(&page)).await?;
            let facts = listed.items.iter().map(|object| (facts_of(object), object));
            let ours = facts.filter(|(hpa, object)| {
                HpaFields::of(hpa).is_marked() || is_asleep(hpa) || has_term(object)
            });
            marked.extend(ours.map(|(hpa, _)| hpa.key()));
            match listed.metadata.continue_ {
                Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
                _ => return Ok(marked),
            }
        }
    }

    /// Releases one HPA. `None` if it carries nothing of lagwise's.
    ///
    /// # Errors
    /// Why it was not released, or not completely.
    pub async fn release(&self, key: &HpaKey) -> Result<Option<Released>, ApiError> {
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.client.clone(), &key.namespace);
        let mut first: Option<Released> = None;
        for _ in 0..ATTEMPTS {
            let object = in_time(REQUEST_TIMEOUT, api.get(&key.name)).await?;
            let hpa = facts_of(&object);
            let live = HpaFields::of(&hpa);
            if !live.is_marked() && !is_asleep(&hpa) && !has_term(&object) {
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
            match self.write_next(&api, &hpa, &object.metadata).await {
                Ok(()) | Err(ApiError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Changed)
    }

    /// Makes the next write of a release.
    async fn write_next(
        &self,
        api: &Api<HorizontalPodAutoscaler>,
        hpa: &HpaFacts,
        read: &ObjectMeta,
    ) -> Result<(), ApiError> {
        let owner = find_field_owner(&self.client, REQUEST_TIMEOUT).await?;
        if let Some(cap) = release(HpaFields::of(hpa), None, owner) {
            let patch = HpaPatch {
                // The last of these writes leaves nothing of lagwise on the HPA.
                term: cap.is_last().then_some(AnnotationChange::Remove),
                cap,
                zeroed: None,
            };
            let written = patch_hpa(api, read, &patch, REQUEST_TIMEOUT).await;
            return written.map(drop);
        }
        if is_asleep(hpa) {
            match self.wake(hpa).await {
                // The workload is gone: there is nothing to wake.
                Err(ApiError::Gone(_) | ApiError::NoKind { .. }) => {}
                other => other?,
            }
        }
        let patch = HpaPatch {
            term: Some(AnnotationChange::Remove),
            cap: CapPatch::default(),
            zeroed: Some(AnnotationChange::Remove),
        };
        let written = patch_hpa(api, read, &patch, REQUEST_TIMEOUT).await;
        written.map(drop)
    }

    async fn wake(&self, hpa: &HpaFacts) -> Result<(), ApiError> {
        let (namespace, target) = (&hpa.namespace, &hpa.scale_target);
        let scale = self.scales.read(namespace, target, REQUEST_TIMEOUT).await?;
        if scale.replicas > 0 {
            return Ok(());
        }
        let start = hpa.min_replicas.unwrap_or(1).max(1);
        let set = self
            .scales
            .set(namespace, target, &scale, start, REQUEST_TIMEOUT);
        set.await
    }
}

fn has_term(object: &HorizontalPodAutoscaler) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(TERM))
}

fn is_asleep(hpa: &HpaFacts) -> bool {
    hpa.annotations.contains_key(ZEROED_SINCE)
}
