//! The parameters of a TriggerAuthentication.

use std::collections::BTreeMap;

use super::{ClusterLogin, LoginReader};
use crate::model::keda::convert::note::Notes;
use crate::model::keda::manifests::ObjectPlace;
use crate::model::keda::scaled_object::{EnvRef, KeyRef, PodIdentity, TriggerAuthentication};

/// Folder below which the converted configuration expects Secrets.
const SECRETS: &str = "/etc/lagwise/keda";

/// Parameters that are never copied, even if a ConfigMap has them.
const SECRET_PARAMETERS: [&str; 4] = ["password", "key", "keyPassword", "keytab"];

/// Where the value of an authentication parameter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// In plain text in the manifests.
    Known(String),
    /// In a key of a Secret or ConfigMap, or in an environment variable. `reference` stands for the value in the text
    /// of a property. `file` is the path at which the key is mounted; a variable has none.
    Referred {
        reference: String,
        file: Option<String>,
    },
}

impl Parameter {
    /// The text of a property.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Known(text) => escaped(text),
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
        // The objects of a ClusterTriggerAuthentication are in the namespace of KEDA, which no manifest names.
        let (owner, home) = match namespace {
            "" => ("keda", "KEDA's namespace".to_owned()),
            namespace => (namespace, format!("namespace {namespace}")),
        };
        let is_secret = |key: &&KeyRef| SECRET_PARAMETERS.contains(&key.parameter.as_str());
        let secrets = spec.secret_target_ref.iter().map(|key| ("Secret", key));
        let in_maps = spec.config_map_target_ref.iter().filter(is_secret);
        for (kind, key) in secrets.chain(in_maps.map(|key| ("ConfigMap", key))) {
            match mount_parameter(kind, key, (owner, home.as_str()), login) {
                Ok(parameter) => {
                    parameters.insert(key.parameter.clone(), parameter);
                }
                Err(problem) => notes.lost(path.clone(), problem),
            }
        }
        for variable in &spec.env {
            if !is_plain_name(&variable.name) {
                let EnvRef { parameter, name } = variable;
                let text = format!(
                    "{parameter} is left out: {name:?} is not a name of an environment variable"
                );
                notes.lost(path.clone(), text);
                continue;
            }
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
            if is_secret(&key) {
                continue;
            }
            let map = self.manifests.config_maps.find(&place(owner, &key.name));
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

/// Refers to a parameter in a key of a Secret or ConfigMap, and adds the task to mount it.
///
/// # Errors
/// A name that Kubernetes does not allow. No API server has checked the names in files, and such a name could make the
/// path lead to any file of lagwise.
fn mount_parameter(
    kind: &str,
    key: &KeyRef,
    (owner, home): (&str, &str),
    login: &mut ClusterLogin,
) -> Result<Parameter, String> {
    let KeyRef {
        parameter,
        name,
        key,
    } = key;
    if ![owner, name.as_str(), key.as_str()]
        .into_iter()
        .all(is_plain_name)
    {
        return Err(format!(
            "{parameter} is left out: {kind} {name:?} of {home}, or its key {key:?}, does not have a name that Kubernetes allows"
        ));
    }
    let folder = format!("{SECRETS}/{owner}/{name}");
    let file = format!("{folder}/{key}");
    login.needs.push(format!(
        "{kind} {name:?} of {home} at {folder}: copy it to lagwise's namespace, and add it to volumes and volumeMounts of the chart"
    ));
    Ok(Parameter::Referred {
        reference: format!("${{file:{file}}}"),
        file: Some(file),
    })
}

/// Whether the text can be the name of an object, of a key or of an environment variable, so that it neither ends a
/// reference nor leaves its folder.
pub(super) fn is_plain_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !matches!(text, "" | "." | "..") && text.chars().all(is_plain)
}

/// Escapes a text, so that no part of it is taken for a reference.
pub(super) fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

/// Text about a name that not exactly one object has, and what to do about it.
fn absence(count: usize) -> String {
    match count {
        0 => "is not among the files: add it".to_owned(),
        count => format!("is among the files {count} times: convert them one by one"),
    }
}
