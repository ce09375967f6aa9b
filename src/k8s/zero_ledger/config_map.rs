//! Reads and writes the ConfigMap, with optimistic concurrency.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::json;

use crate::k8s::api_error::{ApiError, in_time};
use crate::k8s::owner::MANAGED_BY;
use crate::model::decisions::zero_ledger::{LedgerChanges, ZeroLedger, ZeroRecord};
use crate::model::units::names::split_namespaced;

/// The namespace and name of the ConfigMap of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKey {
    pub namespace: String,
    pub name: String,
}

/// A text that is not `NAMESPACE/CONFIGMAP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAMESPACE/CONFIGMAP, such as lagwise/lagwise-zero")]
pub struct InvalidLedgerKey;

impl FromStr for LedgerKey {
    type Err = InvalidLedgerKey;

    fn from_str(text: &str) -> Result<Self, InvalidLedgerKey> {
        let (namespace, name) = split_namespaced(text).ok_or(InvalidLedgerKey)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// The ledger as it was read: its records, and the version of the ConfigMap; `None` if there is none.
#[derive(Clone, Debug, Default)]
pub(in crate::k8s) struct StoredLedger {
    pub(in crate::k8s) ledger: Arc<ZeroLedger>,
    pub(super) version: Option<String>,
}

/// The ConfigMap of the ledger. Needs the rights to get and patch it, and to create ConfigMaps if it does not exist.
#[derive(Clone, Debug)]
pub struct LedgerConfigMap {
    api: Api<ConfigMap>,
    name: String,
}

impl LedgerConfigMap {
    /// The ConfigMap of this name in the client's own namespace: in a pod, the pod's.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self {
            api: Api::default_namespaced(client),
            name,
        }
    }

    pub(in crate::k8s) fn of_key(client: Client, key: LedgerKey) -> Self {
        Self {
            api: Api::namespaced(client, &key.namespace),
            name: key.name,
        }
    }

    pub(in crate::k8s) async fn read(&self, timeout: Duration) -> Result<StoredLedger, ApiError> {
        let Some(found) = in_time(timeout, self.api.get_opt(&self.name)).await? else {
            return Ok(StoredLedger::default());
        };
        let data = found.data.unwrap_or_default();
        let texts = data.iter().map(|(uid, text)| (&**uid, &**text));
        Ok(StoredLedger {
            ledger: Arc::new(ZeroLedger::decode(texts)),
            version: found.metadata.resource_version,
        })
    }

    /// Whether the ledger is still as it was read.
    pub(in crate::k8s) async fn is_current(
        &self,
        stored: &StoredLedger,
        timeout: Duration,
    ) -> Result<bool, ApiError> {
        let found = in_time(timeout, self.api.get_metadata_opt(&self.name)).await?;
        let version = found.and_then(|found| found.metadata.resource_version);
        Ok(version == stored.version)
    }

    /// Writes changes, unless the ledger has changed since it was read.
    ///
    /// # Errors
    /// [`ApiError::Changed`] if it has changed, or the error of the API server.
    pub(in crate::k8s) async fn write(
        &self,
        stored: &StoredLedger,
        changes: &LedgerChanges,
        timeout: Duration,
    ) -> Result<StoredLedger, ApiError> {
        let version = match &stored.version {
            Some(version) => {
                let data: BTreeMap<&str, Option<String>> = changes
                    .iter()
                    .map(|(uid, record)| (&**uid, record.as_ref().map(ZeroRecord::encode)))
                    .collect();
                let patch = Patch::Merge(json!({
                    "metadata": {"resourceVersion": version},
                    "data": data,
                }));
                let params = PatchParams::default();
                // Only the metadata is sent back, however large the ledger is.
                let patched = self.api.patch_metadata(&self.name, &params, &patch);
                match in_time(timeout, patched).await {
                    Ok(patched) => patched.metadata.resource_version,
                    // It was deleted.
                    Err(ApiError::Gone(_)) => return Err(ApiError::Changed),
                    Err(error) => return Err(error),
                }
            }
            None => {
                let new = new_config_map(&self.name, changes);
                let params = PostParams::default();
                let created = in_time(timeout, self.api.create(&params, &new)).await?;
                created.metadata.resource_version
            }
        };
        let ledger = ZeroLedger::clone(&stored.ledger).with(changes);
        Ok(StoredLedger {
            ledger: Arc::new(ledger),
            version,
        })
    }

    /// Deletes the ConfigMap if lagwise has created it and it has no data, not even a record that cannot be read.
    ///
    /// # Errors
    /// [`ApiError::Changed`] if it was changed in the meantime, or the error of the API server.
    pub(in crate::k8s) async fn delete_if_empty(&self, timeout: Duration) -> Result<(), ApiError> {
        let Some(found) = in_time(timeout, self.api.get_opt(&self.name)).await? else {
            return Ok(());
        };
        let (label, manager) = MANAGED_BY;
        let labels = found.metadata.labels.unwrap_or_default();
        let is_ours = labels.get(label).is_some_and(|by| by == manager);
        let is_empty = found.data.is_none_or(|data| data.is_empty());
        if !is_ours || !is_empty {
            return Ok(());
        }
        let params = DeleteParams::default().preconditions(Preconditions {
            resource_version: found.metadata.resource_version,
            uid: found.metadata.uid,
        });
        match in_time(timeout, self.api.delete(&self.name, &params)).await {
            Err(ApiError::Gone(_)) => Ok(()),
            deleted => deleted.map(drop),
        }
    }
}

fn new_config_map(name: &str, changes: &LedgerChanges) -> ConfigMap {
    let records = changes
        .iter()
        .filter_map(|(uid, record)| Some((uid.to_string(), record.as_ref()?.encode())));
    let label = MANAGED_BY;
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([label].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some(records.collect()),
        ..ConfigMap::default()
    }
}
