//! Scale targets of any kind, by their `/scale` subresource: Deployments, StatefulSets, Argo Rollouts and
//! every other kind that has one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::pinned_kind;
use kube::{Api, Client, Error};
use serde_json::json;

use super::api_error::{ApiError, in_time};
use crate::model::hpa::facts::ScaleTarget;
use crate::model::units::names::split_api_version;

/// The scale of a workload as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `.spec.replicas`.
    pub replicas: u32,
    /// `.status.replicas`: the number of pods.
    pub status_replicas: u32,
    /// The UID of the workload, which distinguishes it from earlier and later ones of the same name.
    pub uid: Option<String>,
    /// The resource version, which a write must find unchanged.
    version: Option<String>,
}

/// Reads and sets the scale of workloads of any kind. Clones share the discovered resources.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Scales {
    client: Client,
    /// The resource of each kind (API version and kind), which costs a request to find.
    resources: Arc<Mutex<HashMap<(String, String), ApiResource>>>,
}

impl Scales {
    /// Uses this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            resources: Arc::default(),
        }
    }

    /// Reads the scale of a workload.
    ///
    /// # Errors
    /// The API server's, or [`ApiError::NoKind`].
    pub async fn read(
        &self,
        namespace: &str,
        target: &ScaleTarget,
        timeout: Duration,
    ) -> Result<Scale, ApiError> {
        let api = self.api(namespace, target, timeout).await?;
        let scale = in_time(timeout, api.get_scale(&target.name)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let status = scale.status.map_or(0, |status| status.replicas);
        Ok(Scale {
            replicas: u32::try_from(replicas).unwrap_or(0),
            status_replicas: u32::try_from(status).unwrap_or(0),
            uid: scale.metadata.uid.filter(|uid| !uid.is_empty()),
            version: scale.metadata.resource_version,
        })
    }

    /// Sets the replicas of a workload, unless it has changed since it was `read`.
    ///
    /// # Errors
    /// [`ApiError::Changed`] if it has changed, or the error of the API server.
    pub async fn set(
        &self,
        namespace: &str,
        target: &ScaleTarget,
        read: &Scale,
        replicas: u32,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let api = self.api(namespace, target, timeout).await?;
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": read.version},
            "spec": {"replicas": replicas},
        }));
        let params = PatchParams::default();
        let patched = api.patch_scale(&target.name, &params, &patch);
        in_time(timeout, patched).await.map(drop)
    }

    async fn api(
        &self,
        namespace: &str,
        target: &ScaleTarget,
        timeout: Duration,
    ) -> Result<Api<DynamicObject>, ApiError> {
        target.check().map_err(ApiError::Refused)?;
        let key = (target.api_version.to_string(), target.kind.to_string());
        let resources = || {
            self.resources
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = resources().get(&key).cloned();
        let resource = match known {
            Some(resource) => resource,
            None => {
                let found = self.find(target, timeout).await?;
                resources().insert(key, found.clone());
                found
            }
        };
        Ok(Api::namespaced_with(
            self.client.clone(),
            namespace,
            &resource,
        ))
    }

    async fn find(&self, target: &ScaleTarget, timeout: Duration) -> Result<ApiResource, ApiError> {
        let (group, version) = split_api_version(&target.api_version);
        let kind = GroupVersionKind::gvk(group, version, &target.kind);
        let unknown = || ApiError::NoKind {
            api_version: target.api_version.to_string(),
            kind: target.kind.to_string(),
        };
        let found = tokio::time::timeout(timeout, pinned_kind(&self.client, &kind)).await;
        match found.map_err(|_| ApiError::timed_out())? {
            Ok((resource, _)) => Ok(resource),
            Err(Error::Discovery(_)) => Err(unknown()),
            Err(Error::Api(status)) if status.code == 404 => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }
}
