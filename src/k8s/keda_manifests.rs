//! Reads KEDA's objects from a cluster for `lagwise convert`, as manifests. Secrets are never read.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::api_error::{ApiError, in_time};
use crate::model::units::names::split_api_version;

/// Objects in one page of a listing.
const PAGE: u32 = 100;

/// API group and version of KEDA's objects.
const KEDA: (&str, &str) = ("keda.sh", "v1alpha1");

/// Objects that were read.
#[derive(Clone, Debug, Default)]
pub struct KedaListing {
    pub documents: Vec<Value>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// Lists KEDA's objects of a namespace (`None` = of all), with the authentications and ConfigMaps that they refer to.
///
/// # Errors
/// The ScaledObjects cannot be listed.
pub async fn list_keda_objects(
    client: &Client,
    namespace: Option<&str>,
    timeout: Duration,
) -> Result<KedaListing, ApiError> {
    let mut listing = KedaListing {
        documents: list(client, "ScaledObject", namespace, timeout).await?,
        unread: Vec::new(),
    };
    for kind in ["ScaledJob", "TriggerAuthentication"] {
        let listed = list(client, kind, namespace, timeout).await;
        listing.add(kind, listed);
    }
    let kind = "ClusterTriggerAuthentication";
    let listed = list(client, kind, None, timeout).await;
    listing.add(kind, listed);
    for (namespace, name) in config_maps(&listing.documents) {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        // Without it, the conversion says that the ConfigMap is missing.
        if let Ok(Some(map)) = in_time(timeout, api.get_opt(&name)).await {
            listing.documents.push(json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": namespace, "name": name},
                "data": map.data,
            }));
        }
    }
    Ok(listing)
}

impl KedaListing {
    fn add(&mut self, kind: &str, listed: Result<Vec<Value>, ApiError>) {
        match listed {
            Ok(documents) => self.documents.extend(documents),
            // An old version of KEDA does not have it.
            Err(ApiError::NoKind { .. }) => {}
            Err(error) => self.unread.push(format!("cannot list {kind}s: {error}")),
        }
    }
}

/// The object of this kind in a namespace; `None` if there is none.
///
/// # Errors
/// The API server's.
pub async fn get_object(
    client: &Client,
    (api_version, kind): (&str, &str),
    (namespace, name): (&str, &str),
    timeout: Duration,
) -> Result<Option<Value>, ApiError> {
    let (group, version) = split_api_version(api_version);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = in_time(timeout, api.get_opt(name)).await?;
    Ok(found.and_then(|found| serde_json::to_value(found).ok()))
}

async fn list(
    client: &Client,
    kind: &str,
    namespace: Option<&str>,
    timeout: Duration,
) -> Result<Vec<Value>, ApiError> {
    let (group, version) = KEDA;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut page = ListParams::default().limit(PAGE);
    let mut documents = Vec::new();
    loop {
        let listed = match in_time(timeout, api.list(&page)).await {
            Ok(listed) => listed,
            // The path of an unknown kind is 404, with or without a message.
            Err(ApiError::Gone(_)) => return Err(no_kind(kind)),
            Err(ApiError::Refused(message)) if message.ends_with("404") => {
                return Err(no_kind(kind));
            }
            Err(error) => return Err(error),
        };
        for object in listed.items {
            let Ok(mut document) = serde_json::to_value(object) else {
                continue;
            };
            if let Some(document) = document.as_object_mut() {
                document.insert("apiVersion".to_owned(), json!(format!("{group}/{version}")));
                document.insert("kind".to_owned(), json!(kind));
            }
            documents.push(document);
        }
        match listed.metadata.continue_ {
            Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
            _ => return Ok(documents),
        }
    }
}

fn no_kind(kind: &str) -> ApiError {
    let (group, version) = KEDA;
    ApiError::NoKind {
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
    }
}

/// Namespaces and names of the ConfigMaps that TriggerAuthentications refer to.
fn config_maps(documents: &[Value]) -> BTreeSet<(String, String)> {
    let references = documents.iter().flat_map(|document| {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").map(str::to_owned);
        let references = document.pointer("/spec/configMapTargetRef");
        let references = references.and_then(Value::as_array).into_iter().flatten();
        references.filter_map(move |reference| {
            let name = reference.get("name")?.as_str()?;
            Some((namespace.clone()?, name.to_owned()))
        })
    });
    references.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_config_maps_of_authentications() {
        let reference = json!([{"parameter": "ca", "name": "kafka-ca", "key": "ca.crt"}]);
        let documents = [
            json!({"metadata": {"namespace": "shop"}, "spec": {"configMapTargetRef": reference}}),
            json!({"metadata": {"namespace": "pay"}, "spec": {}}),
            json!({"metadata": {}, "spec": {"configMapTargetRef": reference}}),
        ];
        let found = config_maps(&documents);
        assert_eq!(found, [("shop".to_owned(), "kafka-ca".to_owned())].into());
    }
}
