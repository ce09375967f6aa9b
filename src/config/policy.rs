//! `policy`: how the number of replicas is computed.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::section::Section;
use super::settings;
use crate::model::settings::scaling_policy::ScalingPolicy;

/// How the number of replicas of `kafka_desired_replicas` is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Policy of HPAs and targets that do not set lagwise.dev/policy.
    #[schemars(schema_with = "policy_schema")]
    pub default: ScalingPolicy,
}

fn policy_schema(_: &mut SchemaGenerator) -> Schema {
    settings::variants_schema::<ScalingPolicy>()
}

impl PolicyConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = section.get("default");
        let default = default.as_ref().and_then(settings::variant);
        section.finish();
        Self {
            default: default.unwrap_or_default(),
        }
    }
}
