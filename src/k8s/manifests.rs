//! HPAs and workloads in manifests, for checks before they are applied.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::hpa::facts_of;
use super::workload::{facts_from_deployment, facts_from_stateful_set};
use crate::model::diagnostics::workload_findings::WorkloadFacts;
use crate::model::findings::{BoundedFindings, Finding};
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::manifest::{find_in_manifest, find_reserved_annotations};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::names::split_api_version;
use crate::model::units::spelling::did_you_mean;

/// The HPAs and workloads of some manifests.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub hpas: Vec<HpaFacts>,
    pub workloads: Vec<WorkloadFacts>,
    /// Mistakes in HPAs that their facts do not show.
    pub findings: Vec<Finding>,
    /// HPAs that have findings instead of facts, because a value has a wrong type.
    pub unreadable_hpas: usize,
}

/// The kind of an HPA.
const HPA_KIND: &str = "HorizontalPodAutoscaler";

/// Why a manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// An HPA of an API version that lacks the checked fields.
    #[error("{kind} {name:?} is of {api_version}: write it as autoscaling/v2")]
    OldVersion {
        kind: String,
        name: String,
        /// Its API group and version.
        api_version: String,
    },
    /// An HPA without an API version.
    #[error("{HPA_KIND} {name:?} has no apiVersion: write apiVersion: autoscaling/v2")]
    NoVersion { name: String },
    /// A kind that does not exist, but is close to that of HPAs.
    #[error("{kind} {name:?} is of no known kind (did you mean {HPA_KIND}?)")]
    UnknownKind { kind: String, name: String },
    /// An object that does not match its kind.
    #[error("{kind} {name:?} cannot be read: {reason}")]
    Unreadable {
        kind: String,
        name: String,
        /// Why.
        reason: String,
    },
}

impl Manifests {
    /// Adds one document, which may be a List. Other kinds are skipped. An object without a namespace is in
    /// `namespace`.
    ///
    /// # Errors
    /// An HPA or workload that cannot be read.
    pub fn add(&mut self, document: &Value, namespace: &str) -> Result<(), ManifestError> {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let api_version = text("/apiVersion").unwrap_or_default();
        let (api_group, _) = split_api_version(api_version);
        let is_in = |group: &str| api_group == group;
        match kind {
            "List" | "HorizontalPodAutoscalerList" | "DeploymentList" | "StatefulSetList" => {
                let items = document.get("items").and_then(Value::as_array);
                for item in items.into_iter().flatten() {
                    self.add(item, namespace)?;
                }
            }
            HPA_KIND if api_version == "autoscaling/v2" => {
                self.add_hpa(document, namespace)?;
            }
            HPA_KIND if is_in("autoscaling") => {
                return Err(ManifestError::OldVersion {
                    kind: kind.to_owned(),
                    name: name(document),
                    api_version: api_version.to_owned(),
                });
            }
            HPA_KIND if api_version.is_empty() => {
                return Err(ManifestError::NoVersion {
                    name: name(document),
                });
            }
            "Deployment" if api_version == "apps/v1" => {
                let mut deployment: Deployment = read(document, kind)?;
                let metadata = &mut deployment.metadata;
                metadata
                    .namespace
                    .get_or_insert_with(|| namespace.to_owned());
                self.push(facts_from_deployment(&deployment), document);
            }
            "StatefulSet" if api_version == "apps/v1" => {
                let mut set: StatefulSet = read(document, kind)?;
                set.metadata
                    .namespace
                    .get_or_insert_with(|| namespace.to_owned());
                self.push(facts_from_stateful_set(&set), document);
            }
            _ => {
                let may_be_hpa =
                    kind != HPA_KIND && (api_version.is_empty() || is_in("autoscaling"));
                if may_be_hpa && did_you_mean(kind, [HPA_KIND]).is_some() {
                    return Err(ManifestError::UnknownKind {
                        kind: kind.to_owned(),
                        name: name(document),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether nothing was found that can be checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hpas.is_empty() && self.unreadable_hpas == 0 && self.workloads.is_empty()
    }

    fn add_hpa(&mut self, document: &Value, namespace: &str) -> Result<(), ManifestError> {
        let problems = find_in_manifest(document);
        let has_problems = !problems.is_empty();
        let own = document.pointer("/metadata/namespace");
        let namespace = own.and_then(Value::as_str).unwrap_or(namespace);
        let key = HpaKey::new(namespace, name(document));
        let mut found = BoundedFindings::default();
        for problem in problems
            .into_iter()
            .chain(find_reserved_annotations(document))
        {
            found.insert(Finding::new(problem.code, &key, problem.message));
        }
        self.findings.extend(found.into_findings(&key));
        match read::<HorizontalPodAutoscaler>(document, HPA_KIND) {
            Ok(mut hpa) => {
                hpa.metadata.namespace = Some(namespace.to_owned());
                self.hpas.push(facts_of(&hpa));
            }
            // The findings say more than the error.
            Err(_) if has_problems => self.unreadable_hpas += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn push(&mut self, mut facts: WorkloadFacts, document: &Value) {
        if document
            .pointer("/spec/replicas")
            .is_some_and(|r| !r.is_null())
        {
            facts.replicas_owner = Some("its manifest".to_owned());
        }
        self.workloads.push(facts);
    }
}

fn name(document: &Value) -> String {
    let name = document.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

fn read<T: DeserializeOwned>(document: &Value, kind: &str) -> Result<T, ManifestError> {
    T::deserialize(document).map_err(|error| ManifestError::Unreadable {
        kind: kind.to_owned(),
        name: name(document),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_lists_and_namespaces_and_skips_other_kinds() {
        let hpa = |metadata: Value| {
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
                "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
            })
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            hpa(json!({"name": "a"})),
            hpa(json!({"name": "b", "namespace": "own"})),
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2}},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}},
            {"apiVersion": "example.com/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}},
        ]});
        let mut manifests = Manifests::default();
        manifests.add(&list, "shop").unwrap();
        let names: Vec<_> = manifests
            .hpas
            .iter()
            .map(|h| (&*h.namespace, &*h.name))
            .collect();
        assert_eq!(names, [("shop", "a"), ("own", "b")]);
        let owners = manifests
            .workloads
            .iter()
            .map(|w| (&*w.namespace, &*w.kind, w.replicas_owner.is_some()));
        let expected = [("shop", "Deployment", true), ("shop", "StatefulSet", false)];
        assert_eq!(owners.collect::<Vec<_>>(), expected);
        assert!(manifests.workloads[0].is_target_of(&manifests.hpas[0]));
        assert!(!manifests.workloads[0].is_target_of(&manifests.hpas[1]));
    }

    #[test]
    fn unreadable_manifest_is_an_error_that_names_it() {
        let mut manifests = Manifests::default();
        let old = json!({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}});
        let error = manifests.add(&old, "shop").unwrap_err().to_string();
        assert_eq!(
            error,
            "HorizontalPodAutoscaler \"a\" is of autoscaling/v2beta2: write it as autoscaling/v2"
        );
        for (version, kind, expected) in [
            (
                None,
                "HorizontalPodAutoscaler",
                "has no apiVersion: write apiVersion: autoscaling/v2",
            ),
            (
                Some("autoscaling/v2"),
                "HorizontalPodAutoScaler",
                "is of no known kind (did you mean HorizontalPodAutoscaler?)",
            ),
            (
                None,
                "HorizontalPodAutoscalr",
                "is of no known kind (did you mean HorizontalPodAutoscaler?)",
            ),
        ] {
            let wrong = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
            let error = manifests.add(&wrong, "shop").unwrap_err().to_string();
            assert_eq!(error, format!("{kind} \"a\" {expected}"));
        }
        let odd = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": "two"}});
        let error = manifests.add(&odd, "shop").unwrap_err().to_string();
        assert!(
            error.starts_with("Deployment \"a\" cannot be read: "),
            "{error}"
        );
        assert!(manifests.hpas.is_empty() && manifests.workloads.is_empty());
    }
}
