//! The Secret that stores the certificates all replicas share, and the APIService whose `caBundle` has to
//! trust them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::json;

use super::api_error::{ApiError, in_time};
use super::owner::{MANAGED_BY, owner_references};
use crate::certificates::{
    CertificateStore, CertificateStoreError, PublishOutcome, Registration, SecretData,
    StoredCertificates,
};

/// The type of a Secret with a certificate and its key.
const TYPE: &str = "kubernetes.io/tls";

/// The only registration of the external metrics API in a cluster.
pub(super) const API_SERVICE: &str = "v1beta1.external.metrics.k8s.io";

/// A Secret. Needs the right to get and patch it, and to create Secrets if it does not exist.
#[derive(Clone, Debug)]
pub struct CertificateSecret {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl CertificateSecret {
    /// The Secret of this name in the client's own namespace: in a pod, the pod's.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self {
            namespace: client.default_namespace().to_owned(),
            api: Api::default_namespaced(client),
            name,
        }
    }
}

impl CertificateStore for CertificateSecret {
    fn place(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.name)
    }

    async fn load(
        &self,
        timeout: Duration,
    ) -> Result<Option<StoredCertificates>, CertificateStoreError> {
        let found = in_time(timeout, self.api.get_opt(&self.name)).await;
        Ok(found.map_err(to_store_error)?.map(read_secret))
    }

    async fn save(
        &self,
        data: &SecretData,
        expected: Option<&StoredCertificates>,
        timeout: Duration,
    ) -> Result<(), CertificateStoreError> {
        let bytes = |text: &String| ByteString(text.clone().into_bytes());
        let data: BTreeMap<_, _> = data.iter().map(|(k, v)| (k.clone(), bytes(v))).collect();
        let written = match expected {
            Some(expected) => {
                let patch = Patch::Merge(json!({
                    "metadata": {"resourceVersion": expected.version},
                    "data": data,
                }));
                let params = PatchParams::default();
                in_time(timeout, self.api.patch(&self.name, &params, &patch)).await
            }
            None => {
                let (label, manager) = MANAGED_BY;
                let client = self.api.clone().into_client();
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        labels: Some(BTreeMap::from([(label.to_owned(), manager.to_owned())])),
                        owner_references: owner_references(&client).await,
                        ..ObjectMeta::default()
                    },
                    type_: Some(TYPE.to_owned()),
                    data: Some(data),
                    ..Secret::default()
                };
                in_time(timeout, self.api.create(&PostParams::default(), &secret)).await
            }
        };
        written.map(drop).map_err(to_store_error)
    }
}

fn read_secret(secret: Secret) -> StoredCertificates {
    let (label, manager) = MANAGED_BY;
    let labels = secret.metadata.labels.unwrap_or_default();
    let data = secret.data.unwrap_or_default().into_iter();
    StoredCertificates {
        version: secret.metadata.resource_version,
        is_ours: labels.get(label).is_some_and(|by| by == manager),
        // Bytes that are not UTF-8 are not PEM either, which is reported where the PEM is parsed.
        data: data
            .map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes.0).into_owned()))
            .collect(),
    }
}

/// The registration of a Service in the client's own namespace. Needs the right to get and patch this one
/// APIService.
#[derive(Clone, Debug)]
pub struct ServiceRegistration {
    api: Api<APIService>,
    namespace: String,
    service: String,
}

impl ServiceRegistration {
    /// The registration of the Service of this name.
    #[must_use]
    pub fn new(client: Client, service: String) -> Self {
        Self {
            namespace: client.default_namespace().to_owned(),
            api: Api::all(client),
            service,
        }
    }
}

impl Registration for ServiceRegistration {
    async fn publish(
        &self,
        bundle: &str,
        timeout: Duration,
    ) -> Result<PublishOutcome, CertificateStoreError> {
        let found = in_time(timeout, self.api.get_opt(API_SERVICE)).await;
        let Some(found) = found.map_err(to_store_error)? else {
            return Ok(PublishOutcome::Absent);
        };
        let spec = found.spec.unwrap_or_default();
        let reference = spec.service.unwrap_or_default();
        let (namespace, name) = (
            reference.namespace.unwrap_or_default(),
            reference.name.unwrap_or_default(),
        );
        if namespace != self.namespace || name != self.service {
            return Ok(PublishOutcome::OtherService(format!("{namespace}/{name}")));
        }
        let wanted = ByteString(bundle.as_bytes().to_vec());
        if spec.ca_bundle.as_ref() == Some(&wanted) && spec.insecure_skip_tls_verify != Some(true) {
            return Ok(PublishOutcome::Unchanged);
        }
        // With the version, the write fails if the registration was changed in between. The API server rejects caBundle
        // together with insecureSkipTLSVerify.
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "spec": {"caBundle": wanted, "insecureSkipTLSVerify": null},
        }));
        let params = PatchParams::default();
        let patched = in_time(timeout, self.api.patch(API_SERVICE, &params, &patch)).await;
        patched
            .map(|_| PublishOutcome::Updated)
            .map_err(to_store_error)
    }
}

fn to_store_error(error: ApiError) -> CertificateStoreError {
    match error {
        ApiError::Changed => CertificateStoreError::Changed,
        other => CertificateStoreError::Failed(other.to_string()),
    }
}
