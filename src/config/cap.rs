//! `cap`: how the replica ceiling is applied to what is served.

use schemars::JsonSchema;
use serde::Serialize;

use super::section::Section;

/// How the replica ceiling is applied to what is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct CapConfig {
    /// Whether `kafka_lag` is served as at most ceiling x target value, so that the HPA never asks for
    /// more replicas than can be useful; false serves the lag as it is.
    pub clamp: bool,
}

impl Default for CapConfig {
    fn default() -> Self {
        Self { clamp: true }
    }
}

impl CapConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let clamp = section.get("clamp").and_then(|field| field.flag());
        section.finish();
        Self {
            clamp: clamp.unwrap_or(Self::default().clamp),
        }
    }
}
