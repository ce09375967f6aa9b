//! `cap`: how the replica ceiling is applied.

use schemars::JsonSchema;
use serde::Serialize;

use super::section::Section;

/// How the replica ceiling is applied, to what is served and to the HPAs themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct CapConfig {
    /// Whether `kafka_lag` is served as at most ceiling x target value, so that the HPA never asks for
    /// more replicas than can be useful; false serves the lag as it is.
    pub clamp: bool,
    /// What is done for HPAs without the annotation lagwise.dev/cap: advise writes nothing; enforce holds
    /// their maxReplicas to the ceiling, but for those that a controller owns.
    pub default: CapDefault,
    /// Whether nothing is written to HPAs and to what they scale, whatever they ask for.
    pub read_only: bool,
}

/// What is done about the ceiling of an HPA that does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CapDefault {
    /// Nothing is written.
    #[default]
    Advise,
    /// maxReplicas is held to the ceiling.
    Enforce,
}

impl Default for CapConfig {
    fn default() -> Self {
        Self {
            clamp: true,
            default: CapDefault::Advise,
            read_only: false,
        }
    }
}

impl CapConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let clamp = section.get("clamp").and_then(|field| field.flag());
        let mode = section.get("default").and_then(|field| {
            field.one_of(&[
                ("advise", CapDefault::Advise),
                ("enforce", CapDefault::Enforce),
            ])
        });
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
