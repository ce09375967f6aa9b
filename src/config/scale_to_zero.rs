//! `scale_to_zero`: whose workloads lagwise may scale to zero, and where it records them.

use schemars::JsonSchema;
use serde::Serialize;

use super::section::Section;
use crate::model::units::names;

/// Scale to zero, for HPAs with the annotation lagwise.dev/scale-to-zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ScaleToZeroConfig {
    /// Whether lagwise scales workloads to zero and wakes them. It does not affect HPAs with minReplicas 0, which do it
    /// themselves.
    pub enabled: bool,
    /// The namespaces in which it does; empty means all.
    pub namespaces: Vec<String>,
    /// Name of a ConfigMap in lagwise's own namespace, in which lagwise records what it has scaled to zero; nothing
    /// else is woken. Default: `lagwise-zero` in a pod, otherwise none, and nothing is scaled to zero or woken.
    pub config_map: Option<String>,
}

impl Default for ScaleToZeroConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            namespaces: Vec::new(),
            config_map: None,
        }
    }
}

impl ScaleToZeroConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let (enabled, namespaces) = read_scope(&mut section);
        let config_map = section.get("config_map").and_then(|field| {
            field.checked(names::OBJECT, |text| names::object(text).map(str::to_owned))
        });
        section.finish();
        Self {
            enabled,
            namespaces,
            config_map,
        }
    }
}

/// Reads `enabled` and `namespaces` of a section about writes.
pub(super) fn read_scope(section: &mut Section<'_>) -> (bool, Vec<String>) {
    let enabled = section.get("enabled").and_then(|field| field.flag());
    let namespaces = section.get("namespaces").map(|field| {
        field.texts(names::NAMESPACE, |text| {
            names::namespace(text).map(str::to_owned)
        })
    });
    (enabled.unwrap_or(true), namespaces.unwrap_or_default())
}
