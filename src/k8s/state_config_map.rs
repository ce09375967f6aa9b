//! The saved state in a ConfigMap of lagwise's own namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, Error};
use serde_json::json;

use super::owner::owner_references;
use crate::persistence::location::{StateLocation, StorageError};

/// The ConfigMap's only key.
const KEY: &str = "state.json";

/// Maximum size of the state, in bytes. The API server accepts 1 MiB of data, keys included; the rest is room for the
/// escaped quotes in a request.
const MAX_STATE_BYTES: usize = 900 * 1024;

/// A ConfigMap. Needs the right to get and patch it, and to create ConfigMaps if it does not exist.
#[derive(Clone, Debug)]
pub struct StateConfigMap {
    api: Api<ConfigMap>,
    namespace: String,
    name: String,
}

impl StateConfigMap {
    /// The ConfigMap of this name in the client's own namespace: in a pod, the pod's.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self {
            namespace: client.default_namespace().to_owned(),
            api: Api::default_namespaced(client),
            name,
        }
    }
}

impl StateLocation for StateConfigMap {
    fn description(&self) -> String {
        format!("ConfigMap {}/{}", self.namespace, self.name)
    }

    fn max_bytes(&self) -> usize {
        MAX_STATE_BYTES
    }

    async fn load(&self) -> Result<Option<String>, StorageError> {
        let found = self.api.get_opt(&self.name).await.map_err(storage_error)?;
        let data = found.and_then(|found| found.data);
        Ok(data.and_then(|mut data| data.remove(KEY)))
    }

    async fn save(&self, text: String) -> Result<(), StorageError> {
        let patch = Patch::Merge(json!({"data": {KEY: &text}}));
        let params = PatchParams::default();
        let patched = match self.api.patch(&self.name, &params, &patch).await {
            Err(Error::Api(status)) if status.code == 404 => {
                let client = self.api.clone().into_client();
                let config_map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        owner_references: owner_references(&client).await,
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
                    ..ConfigMap::default()
                };
                self.api.create(&PostParams::default(), &config_map).await
            }
            other => other,
        };
        patched.map(drop).map_err(storage_error)
    }
}

/// The API server's message alone: the other fields of the error may differ between attempts, and a failure is logged
/// only when its text changes.
fn storage_error(error: Error) -> StorageError {
    StorageError(match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    })
}
