//! The parameters of a TriggerAuthentication.

use std::collections::BTreeMap;

use super::{ClusterLogin, LoginReader};
use crate::model::keda::convert::note::Notes;
use crate::model::keda::scaled_object::{ObjectPlace, PodIdentity, TriggerAuthentication};

/// Folder below which the converted configuration expects Secrets.
const SECRETS: &str = "/etc/lagwise/keda";

/// Where the value of an authentication parameter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// In the manifests, in the open.
    Known(String),
    /// In a key of a Secret or in an environment variable: `reference` is for the text of a property, `file` the path of
    /// a file, which a variable does not have.
    Referred {
        reference: String,
        file: Option<String>,
    },
}

impl Parameter {
    /// The text of a property.
    pub(super) fn text(&self) -> String {
        match self {
            // A dollar sign and a brace would be a reference.
            Self::Known(text) => text.replace("${", "$${"),
            Self::Referred { reference, .. } => reference.clone(),
        }
    }
}

impl LoginReader<'_> {
    /// The parameters of the TriggerAuthentication, and its pod identity.
    pub(super) fn authentication(
        &self,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) -> (BTreeMap<String, Parameter>, Option<PodIdentity>) {
        let mut parameters = BTreeMap::new();
        let Some(reference) = &self.trigger.authentication_ref else {
            return (parameters, None);
        };
        let path = format!("{}.authenticationRef", self.path);
        let kind = reference.kind.as_deref().unwrap_or("TriggerAuthentication");
        let namespace = match kind {
            "ClusterTriggerAuthentication" => "",
            _ => self.namespace,
        };
        let place = |namespace: &str, name: &str| ObjectPlace {
            source: self.source.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let found = self
            .manifests
            .authentications
            .find(&place(namespace, &reference.name));
        let spec = match found {
            Ok(TriggerAuthentication { spec, .. }) => spec,
            Err(count) => {
                let text = format!(
                    "{kind} {:?} {} to convert the login",
                    reference.name,
                    absence(count)
                );
                notes.todo(path, text);
                return (parameters, None);
            }
        };
        // KEDA reads the Secrets of a ClusterTriggerAuthentication in its own namespace, of any name.
        let (owner, home) = match namespace {
            "" => ("keda", "KEDA's namespace".to_owned()),
            namespace => (namespace, format!("namespace {namespace}")),
        };
        for key in &spec.secret_target_ref {
            let folder = format!("{SECRETS}/{owner}/{}", key.name);
            let file = format!("{folder}/{}", key.key);
            let reference = format!("${{file:{file}}}");
            login.needs.push(format!(
                "Secret {:?} of {home} at {folder}: copy it to lagwise's namespace, and add it to volumes and volumeMounts of the chart",
                key.name
            ));
            let referred = Parameter::Referred {
                reference,
                file: Some(file),
            };
            parameters.insert(key.parameter.clone(), referred);
        }
        for variable in &spec.env {
            let reference = format!("${{env:{}}}", variable.name);
            login.needs.push(format!(
                "environment variable {} of the scaled container: add it to env of the chart",
                variable.name
            ));
            let referred = Parameter::Referred {
                reference,
                file: None,
            };
            parameters.insert(variable.parameter.clone(), referred);
        }
        for key in &spec.config_map_target_ref {
            let map = self
                .manifests
                .config_maps
                .find(&place(self.namespace, &key.name));
            match map.map(|data| data.get(&key.key)) {
                Ok(Some(value)) => {
                    parameters.insert(key.parameter.clone(), Parameter::Known(value.clone()));
                }
                Ok(None) => notes.todo(
                    path.clone(),
                    format!(
                        "ConfigMap {:?} has no key {:?} for {}",
                        key.name, key.key, key.parameter
                    ),
                ),
                Err(count) => notes.todo(
                    path.clone(),
                    format!(
                        "ConfigMap {:?} {} to convert {}",
                        key.name,
                        absence(count),
                        key.parameter
                    ),
                ),
            }
        }
        for source in spec.others.keys() {
            notes.lost(
                path.clone(),
                format!("lagwise does not read {source}: mount what it holds as a file, and refer to it by ${{file:PATH}}"),
            );
        }
        login.needs.sort();
        login.needs.dedup();
        (parameters, spec.pod_identity.clone())
    }
}

/// Says that there is not exactly one object of a name.
fn absence(count: usize) -> String {
    match count {
        0 => "is not among the files: add it".to_owned(),
        count => format!("is among the files {count} times: convert them one by one"),
    }
}
