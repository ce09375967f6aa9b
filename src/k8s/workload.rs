//! Facts of the Deployments and StatefulSets that HPAs scale.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client};
use serde_json::Value;

use super::api_error::{ApiError, in_time};
use crate::model::diagnostics::workload_findings::{Surge, WorkloadFacts};
use crate::model::hpa::facts::HpaFacts;

/// The annotation in which `kubectl apply` stores the manifest that was last applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The surge of a Deployment that does not set one.
const DEFAULT_SURGE: Surge = Surge::Percent(25);

/// Extracts the facts of a Deployment.
#[must_use]
pub fn facts_from_deployment(deployment: &Deployment) -> WorkloadFacts {
    let strategy = deployment.spec.strategy.as_ref();
    let recreates = strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = match rolling.and_then(|rolling| rolling.max_surge.as_ref()) {
        _ if recreates => Surge::None,
        None => DEFAULT_SURGE,
        Some(IntOrString::Int(pods)) => Surge::Pods(u32::try_from(*pods).unwrap_or(0)),
        Some(IntOrString::String(share)) => {
            let percent = share.strip_suffix('%').and_then(|n| n.trim().parse().ok());
            percent.map_or(Surge::None, Surge::Percent)
        }
    };
    WorkloadFacts {
        surge,
        ..facts_from_metadata("Deployment", &deployment.metadata)
    }
}

/// Extracts the facts of a StatefulSet.
#[must_use]
pub fn facts_from_stateful_set(set: &StatefulSet) -> WorkloadFacts {
    let policy = set.spec.pod_management_policy.as_deref();
    WorkloadFacts {
        ordered: policy.unwrap_or("OrderedReady") == "OrderedReady",
        ..facts_from_metadata("StatefulSet", &set.metadata)
    }
}

fn facts_from_metadata(kind: &str, metadata: &ObjectMeta) -> WorkloadFacts {
    WorkloadFacts {
        namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
        kind: kind.into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
        replicas_owner: replicas_owner(metadata),
        ..WorkloadFacts::default()
    }
}

/// The field manager that applies `spec.replicas`. A manager that updates the object also owns the defaults
/// that the API server has filled in, so only an apply shows what a manifest sets.
fn replicas_owner(metadata: &ObjectMeta) -> Option<String> {
    let mut entries = metadata.managed_fields.iter().flatten();
    let applies = entries.find(|entry| {
        let whole = entry.subresource.as_deref().unwrap_or_default().is_empty();
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let owns = fields.is_some_and(|f| f.pointer("/f:spec/f:replicas").is_some());
        whole && owns && entry.operation.as_deref() == Some("Apply")
    });
    if let Some(entry) = applies {
        let manager = entry.manager.as_deref().unwrap_or("an unnamed manager");
        return Some(manager.to_owned());
    }
    let last = metadata.annotations.as_ref()?.get(LAST_APPLIED)?;
    let last: Value = serde_json::from_str(last).ok()?;
    let replicas = last.pointer("/spec/replicas")?;
    (!replicas.is_null()).then(|| "kubectl apply".to_owned())
}

/// Reads the Deployments and StatefulSets that these HPAs scale, and their pods. Also returns which could
/// not be read and why.
pub async fn fetch(
    client: &Client,
    hpas: &[&HpaFacts],
    timeout: Duration,
) -> (Vec<WorkloadFacts>, BTreeSet<String>) {
    let mut found = Vec::new();
    let mut unread = BTreeSet::new();
    for hpa in hpas {
        let target = &hpa.scale_target;
        let shown = format!("{} {}/{}", target.kind, hpa.namespace, target.name);
        match fetch_one(client, hpa, timeout).await {
            Ok(None) => {}
            Ok(Some((mut facts, selector))) => {
                match pods(client, &hpa.namespace, &selector, timeout).await {
                    Ok(pods) => facts.pods = pods,
                    Err(error) => {
                        unread.insert(format!("pods of {shown}: {error}"));
                    }
                }
                found.push(facts);
            }
            Err(error) => {
                unread.insert(format!("{shown}: {error}"));
            }
        }
    }
    (found, unread)
}

/// Reads a scale target; `None` if it is of another kind.
async fn fetch_one(
    client: &Client,
    hpa: &HpaFacts,
    timeout: Duration,
) -> Result<Option<(WorkloadFacts, LabelSelector)>, ApiError> {
    let target = &hpa.scale_target;
    target.check().map_err(ApiError::Refused)?;
    let (namespace, name) = (&*hpa.namespace, &*target.name);
    match (&*target.api_version, &*target.kind) {
        ("apps/v1", "Deployment") => {
            let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            let read = in_time(timeout, api.get(name)).await?;
            let selector = read.spec.selector.clone();
            Ok(Some((facts_from_deployment(&read), selector)))
        }
        ("apps/v1", "StatefulSet") => {
            let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
            let read = in_time(timeout, api.get(name)).await?;
            let selector = read.spec.selector.clone();
            Ok(Some((facts_from_stateful_set(&read), selector)))
        }
        _ => Ok(None),
    }
}

/// The addresses of the pods that a workload's selector matches; `None` if it matches all pods.
async fn pods(
    client: &Client,
    namespace: &str,
    selector: &LabelSelector,
    timeout: Duration,
) -> Result<Option<BTreeSet<IpAddr>>, ApiError> {
    let refused = |error: kube::core::ParseExpressionError| ApiError::Refused(error.to_string());
    let picks: Selector = selector.clone().try_into().map_err(refused)?;
    if picks.selects_all() {
        return Ok(None);
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels_from(&picks);
    let listed = in_time(timeout, api.list(&params)).await?;
    let statuses = listed.items.into_iter().filter_map(|pod| pod.status);
    let texts = statuses.flat_map(|status| {
        let all = status.pod_ips.into_iter().flatten().map(|ip| ip.ip);
        all.chain(status.pod_ip)
    });
    let addresses = texts.filter_map(|text| text.parse().ok());
    Ok(Some(
        addresses.map(|ip: IpAddr| ip.to_canonical()).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_replicas_and_strategy() {
        let deployment = |spec: Value| {
            let object =
                json!({"metadata": {"namespace": "shop", "name": "billing"}, "spec": spec});
            facts_from_deployment(&serde_json::from_value(object).unwrap())
        };
        let rolling = |surge: Value| {
            deployment(
                json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}}}),
            )
        };
        for (facts, surge) in [
            (deployment(json!({})), Surge::Percent(25)),
            (rolling(json!(2)), Surge::Pods(2)),
            (rolling(json!(0)), Surge::Pods(0)),
            (rolling(json!("50%")), Surge::Percent(50)),
            (rolling(json!("odd")), Surge::None),
            (
                deployment(json!({"strategy": {"type": "Recreate"}})),
                Surge::None,
            ),
        ] {
            assert_eq!(facts.surge, surge);
            assert_eq!((&*facts.kind, &*facts.name), ("Deployment", "billing"));
        }
        for (spec, ordered) in [
            (json!({}), true),
            (json!({"podManagementPolicy": "OrderedReady"}), true),
            (json!({"podManagementPolicy": "Parallel"}), false),
        ] {
            let set = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(facts_from_stateful_set(&set).ordered, ordered);
        }
    }

    #[test]
    fn finds_who_applies_replicas() {
        let entry = |operation: &str, subresource: &str, spec: Value| {
            json!({
                "manager": "argocd", "operation": operation, "subresource": subresource,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": spec},
            })
        };
        let replicas = || json!({"f:replicas": {}});
        for (managed, last, expected) in [
            (json!([]), "", None),
            (json!([entry("Apply", "", replicas())]), "", Some("argocd")),
            (
                json!([entry("Apply", "", json!({"f:template": {}}))]),
                "",
                None,
            ),
            (json!([entry("Apply", "scale", replicas())]), "", None),
            // The creator of the object owns the API server's default.
            (json!([entry("Update", "", replicas())]), "", None),
            (
                json!([]),
                r#"{"spec": {"replicas": 3}}"#,
                Some("kubectl apply"),
            ),
            (json!([]), r#"{"spec": {"template": {}}}"#, None),
            (json!([]), "no JSON", None),
        ] {
            let metadata = json!({"managedFields": managed, "annotations": {LAST_APPLIED: last}});
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            assert_eq!(
                replicas_owner(&metadata).as_deref(),
                expected,
                "{managed} {last}"
            );
        }
    }
}
