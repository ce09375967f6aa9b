//! Scale targets of any kind: what an HPA scales is asked and set by its `/scale` subresource, so
//! that whatever has one works (Deployments, StatefulSets, Argo Rollouts).

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::pinned_kind;
use kube::{Api, Client, Error};
use serde_json::json;

use crate::model::hpa::facts::ScaleTarget;

/// How many replicas a scale target is to have and has, as last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Its `.spec.replicas`.
    pub replicas: u32,
    /// Its `.status.replicas`: the pods that there are.
    pub status_replicas: u32,
    /// What a write must find unchanged.
    version: Option<String>,
}

/// Why a scale target could not be read or set, in words that stay the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Somebody else wrote in between: whoever wants to write has to look again.
    #[error("it was changed meanwhile")]
    Changed,
    /// There is no such object.
    #[error("{0}")]
    Gone(String),
    /// The API server says no.
    #[error("{0}")]
    Refused(String),
    /// No answer, or not in time.
    #[error("the Kubernetes API server does not answer")]
    NoAnswer,
    /// Not a kind that the cluster knows.
    #[error("the cluster knows no {kind} of {api_version}")]
    NoKind {
        /// The API group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

/// Reads and sets scale targets. Remembers which resource a kind is, which costs a request once.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Scales {
    client: Client,
    resources: HashMap<(String, String), ApiResource>,
}

impl Scales {
    /// Through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            resources: HashMap::new(),
        }
    }

    /// How many replicas it is to have.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn read(
        &mut self,
        namespace: &str,
        target: &ScaleTarget,
        within: Duration,
    ) -> Result<Scale, ApiError> {
        let api = self.api(namespace, target, within).await?;
        let scale = in_time(within, api.get_scale(&target.name)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let status = scale.status.map_or(0, |status| status.replicas);
        Ok(Scale {
            replicas: u32::try_from(replicas).unwrap_or(0),
            status_replicas: u32::try_from(status).unwrap_or(0),
            version: scale.metadata.resource_version,
        })
    }

    /// Sets the replicas, if nobody has changed anything since it was `read`.
    ///
    /// # Errors
    /// Why they may not be set.
    pub async fn set(
        &mut self,
        namespace: &str,
        target: &ScaleTarget,
        read: &Scale,
        replicas: u32,
        within: Duration,
    ) -> Result<(), ApiError> {
        let api = self.api(namespace, target, within).await?;
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": read.version},
            "spec": {"replicas": replicas},
        }));
        let params = PatchParams::default();
        let patched = api.patch_scale(&target.name, &params, &patch);
        in_time(within, patched).await.map(drop)
    }

    async fn api(
        &mut self,
        namespace: &str,
        target: &ScaleTarget,
        within: Duration,
    ) -> Result<Api<DynamicObject>, ApiError> {
        let key = (target.api_version.to_string(), target.kind.to_string());
        let resource = match self.resources.get(&key) {
            Some(resource) => resource.clone(),
            None => {
                let found = self.find(target, within).await?;
                self.resources.insert(key, found.clone());
                found
            }
        };
        Ok(Api::namespaced_with(
            self.client.clone(),
            namespace,
            &resource,
        ))
    }

    async fn find(&self, target: &ScaleTarget, within: Duration) -> Result<ApiResource, ApiError> {
        let (group, version) = target
            .api_version
            .split_once('/')
            .unwrap_or(("", &target.api_version));
        let kind = GroupVersionKind::gvk(group, version, &target.kind);
        let unknown = || ApiError::NoKind {
            api_version: target.api_version.to_string(),
            kind: target.kind.to_string(),
        };
        let found = tokio::time::timeout(within, pinned_kind(&self.client, &kind)).await;
        match found.map_err(|_| ApiError::NoAnswer)? {
            Ok((resource, _)) => Ok(resource),
            Err(Error::Discovery(_)) => Err(unknown()),
            Err(Error::Api(status)) if status.code == 404 => Err(unknown()),
            Err(error) => Err(told(error)),
        }
    }
}

/// A request's answer, if it comes in time.
pub(super) async fn in_time<T>(
    within: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let answer = tokio::time::timeout(within, request).await;
    answer.map_err(|_| ApiError::NoAnswer)?.map_err(told)
}

fn told(error: Error) -> ApiError {
    match error {
        Error::Api(status) if status.code == 409 => ApiError::Changed,
        Error::Api(status) if status.code == 404 && !status.message.is_empty() => {
            ApiError::Gone(status.message.clone())
        }
        Error::Api(status) if status.message.is_empty() => {
            ApiError::Refused(format!("status {}", status.code))
        }
        Error::Api(status) => ApiError::Refused(status.message.clone()),
        _ => ApiError::NoAnswer,
    }
}
