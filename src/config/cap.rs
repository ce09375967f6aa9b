//! `cap`: how the replica ceiling is applied.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::scale_to_zero::read_scope;
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
    /// Where the annotation lagwise.dev/cap may enforce the cap.
    pub enforce: EnforceConfig,
    /// Stops all writes to HPAs and their scale targets, regardless of their annotations.
    pub read_only: bool,
}

/// Where the cap may be enforced. Elsewhere it is advice, and a finding says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct EnforceConfig {
    /// Whether the cap may be enforced at all.
    pub enabled: bool,
    /// The namespaces in which it may be; empty means all.
    pub namespaces: Vec<String>,
}

impl Default for EnforceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            namespaces: Vec::new(),
        }
    }
}

fn mode_schema(_: &mut SchemaGenerator) -> Schema {
    settings::variants_schema::<CapMode>()
}

impl Default for CapConfig {
    fn default() -> Self {
        Self {
            clamp: true,
            default: CapMode::Advise,
            enforce: EnforceConfig::default(),
            read_only: false,
        }
    }
}

impl CapConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let clamp = section.get("clamp").and_then(|field| field.flag());
        let mode_field = section.get("default");
        let mode = mode_field.as_ref().and_then(settings::variant);
        let mut enforce = section.section("enforce");
        let (enabled, namespaces) = read_scope(&mut enforce);
        enforce.finish();
        if let (Some(field), Some(CapMode::Enforce), false) = (mode_field, mode, enabled) {
            field.refuse(
                "cap.enforce.enabled is false",
                "advise, or cap.enforce.enabled: true",
            );
        }
        let read_only = section.get("read_only").and_then(|field| field.flag());
        section.finish();
        let default = Self::default();
        Self {
            clamp: clamp.unwrap_or(default.clamp),
            default: mode.unwrap_or(default.default),
            enforce: EnforceConfig {
                enabled,
                namespaces,
            },
            read_only: read_only.unwrap_or(default.read_only),
        }
    }
}
