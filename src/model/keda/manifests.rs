//! KEDA's objects in manifests, and the objects that these refer to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::scaled_object::{ObjectMetadata, ScaledObject, TriggerAuthentication};

/// An object of which only the name matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NamedObject {
    metadata: ObjectMetadata,
}

/// An object that does not match its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?} cannot be read: {reason}")]
pub struct UnreadableObject {
    pub kind: String,
    pub name: String,
    pub reason: String,
}

/// KEDA's objects of some manifests, and the objects that these refer to.
#[derive(Clone, Debug, Default)]
pub struct KedaManifests {
    /// Each with where it was found.
    pub scaled_objects: Vec<(String, ScaledObject)>,
    /// The same objects as they were written.
    pub documents: Vec<Value>,
    /// Namespaces and names.
    pub scaled_jobs: Vec<(String, ObjectMetadata)>,
    /// The namespace is empty for a ClusterTriggerAuthentication.
    pub authentications: PlacedObjects<TriggerAuthentication>,
    /// The data of ConfigMaps.
    pub config_maps: PlacedObjects<BTreeMap<String, String>>,
}

/// Objects of one kind, of which files for several environments may have several with one name.
#[derive(Clone, Debug)]
pub struct PlacedObjects<T>(Vec<(ObjectPlace, T)>);

impl<T> Default for PlacedObjects<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Where an object was found, its namespace and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPlace {
    pub source: String,
    pub namespace: String,
    pub name: String,
}

impl<T> PlacedObjects<T> {
    /// The object of this namespace and name, preferably of the same file.
    ///
    /// # Errors
    /// How many there are, if it is not one.
    pub fn find(&self, place: &ObjectPlace) -> Result<&T, usize> {
        let is_named = |found: &&(ObjectPlace, T)| {
            found.0.namespace == place.namespace && found.0.name == place.name
        };
        let named = Vec::from_iter(self.0.iter().filter(is_named));
        let here = Vec::from_iter(named.iter().filter(|found| found.0.source == place.source));
        match (here.as_slice(), named.as_slice()) {
            ([(_, only)], _) | ([], [(_, only)]) => Ok(only),
            ([], others) => Err(others.len()),
            (several, _) => Err(several.len()),
        }
    }
}

impl KedaManifests {
    /// Adds one document, which may be a List. Other kinds are skipped; Secrets are, too, so that no secret can be
    /// copied. `from` says where it was found. An object without a namespace is in `namespace`.
    ///
    /// # Errors
    /// An object of KEDA that cannot be read.
    pub fn add(
        &mut self,
        document: &Value,
        from: &str,
        namespace: &str,
    ) -> Result<(), UnreadableObject> {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let api_version = text("/apiVersion").unwrap_or_default();
        if let ("v1" | "keda.sh/v1alpha1", Some(items)) = (api_version, document.get("items"))
            && kind.ends_with("List")
        {
            let mut items = items.as_array().into_iter().flatten();
            return items.try_for_each(|item| self.add(item, from, namespace));
        }
        let place = |metadata: &ObjectMetadata| {
            let namespace = metadata.namespace.as_deref().unwrap_or(namespace);
            ObjectPlace {
                source: from.to_owned(),
                namespace: namespace.to_owned(),
                name: metadata.name.clone(),
            }
        };
        match (api_version, kind) {
            ("keda.sh/v1alpha1", "ScaledObject") => {
                let object: ScaledObject = read(document, kind)?;
                self.scaled_objects.push((from.to_owned(), object));
                self.documents.push(document.clone());
            }
            ("keda.sh/v1alpha1", "ScaledJob") => {
                let object: NamedObject = read(document, kind)?;
                self.scaled_jobs.push((from.to_owned(), object.metadata));
            }
            ("keda.sh/v1alpha1", "TriggerAuthentication") => {
                let object: TriggerAuthentication = read(document, kind)?;
                let place = place(&object.metadata);
                self.authentications.0.push((place, object));
            }
            ("keda.sh/v1alpha1", "ClusterTriggerAuthentication") => {
                let object: TriggerAuthentication = read(document, kind)?;
                let place = ObjectPlace {
                    namespace: String::new(),
                    ..place(&object.metadata)
                };
                self.authentications.0.push((place, object));
            }
            ("v1", "ConfigMap") => {
                // ConfigMaps of others are none of KEDA's concern.
                let Ok(object) = read::<NamedObject>(document, kind) else {
                    return Ok(());
                };
                let data = document.get("data").and_then(Value::as_object);
                let texts = data
                    .into_iter()
                    .flatten()
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                let place = place(&object.metadata);
                self.config_maps.0.push((place, texts.collect()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is nothing to convert.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scaled_objects.is_empty() && self.scaled_jobs.is_empty()
    }
}

fn read<T: DeserializeOwned>(document: &Value, kind: &str) -> Result<T, UnreadableObject> {
    T::deserialize(document).map_err(|error| {
        let name = document.pointer("/metadata/name").and_then(Value::as_str);
        UnreadableObject {
            kind: kind.to_owned(),
            name: name.unwrap_or_default().to_owned(),
            reason: error.to_string(),
        }
    })
}
