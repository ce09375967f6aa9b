//! `cap`: how the replica ceiling is applied.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::section::Section;
use super::settings;
use crate::model::settings::cap_mode::CapMode;

/// How the replica ceiling is applied, to what is served and to the HPAs themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct CapConfig {
    /// Whether `kafka_lag` is clamped to ceiling x target value, so that the HPA never asks for more
    /// replicas than are useful. false serves the lag as it is.
    pub clamp: bool,
    /// Cap mode of HPAs without the annotation lagwise.dev/cap. HPAs that a controller owns are never
    /// written.
    #[schemars(schema_with = "mode_schema")]
    pub default: CapMode,
    /// Whether lagwise writes nothing to HPAs and their scale targets, whatever their annotations say.
    pub read_only: bool,
}

fn mode_schema(_: &mut SchemaGenerator) -> Schema {
    settings::variants_schema::<CapMode>()
}

impl Default for CapConfig {
    fn default() -> Self {
        Self {
            clamp: true,
            default: CapMode::Advise,
            read_only: false,
        }
    }
}

impl CapConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let clamp = section.get("clamp").and_then(|field| field.flag());
        let mode = section
            .get("default")
            .and_then(|field| settings::variant(&field));
        let read_only = section.get("read_only").and_then(|field| field.flag());
        section.finish();
        let default = Self::default();
        Self {
            clamp: clamp.unwrap_or(default.clamp),
            default: mode.unwrap_or(default.default),
            read_only: read_only.unwrap_or(default.read_only),
        }
    }
}
