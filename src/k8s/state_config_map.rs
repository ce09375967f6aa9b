//! What is remembered over a restart, in one ConfigMap of lagwise's own namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, Error};
use serde_json::json;

use crate::persistence::{StateStore, StoreError};

/// The ConfigMap's one key.
const KEY: &str = "state.json";

/// The API server takes 1 MiB of data, keys included; quotes take more room on the way than here.
const BYTES_MAX: usize = 900 * 1024;

/// A ConfigMap. Needs the right to get and patch it, and to create ConfigMaps where it is not there
/// yet.
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

impl StateStore for StateConfigMap {
    fn place(&self) -> String {
        format!("ConfigMap {}/{}", self.namespace, self.name)
    }

    fn bytes_max(&self) -> usize {
        BYTES_MAX
    }

    async fn load(&self) -> Result<Option<String>, StoreError> {
        let found = self.api.get_opt(&self.name).await.map_err(to_store_error)?;
        let data = found.and_then(|found| found.data);
        Ok(data.and_then(|mut data| data.remove(KEY)))
    }

    async fn save(&self, text: String) -> Result<(), StoreError> {
        let patch = Patch::Merge(json!({"data": {KEY: &text}}));
        let params = PatchParams::default();
        let patched = match self.api.patch(&self.name, &params, &patch).await {
            Err(Error::Api(status)) if status.code == 404 => {
                let made = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
                    ..ConfigMap::default()
                };
                self.api.create(&PostParams::default(), &made).await
            }
            other => other,
        };
        patched.map(drop).map_err(to_store_error)
    }
}

/// The server's own words, without what changes from one attempt to the next.
fn to_store_error(error: Error) -> StoreError {
    StoreError(match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    })
}
