//! `cap`: how the replica ceiling is applied.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::section::Section;
use super::settings;
use crate::model::settings::cap_mode::CapMode;

/// How HPAs are kept at or below the replica ceiling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct CapConfig {
    /// Whether `kafka_lag` is limited to ceiling x target value, so that the metric proposes no more
    /// replicas than can have work. false serves the measured lag.
    pub clamp: bool,
    /// Cap mode of HPAs without the annotation lagwise.dev/cap. lagwise never writes to HPAs that a
    /// controller owns.
    #[schemars(schema_with = "mode_schema")]
    pub default: CapMode,
    /// Stops all writes to HPAs and their scale targets, regardless of their annotations.
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
