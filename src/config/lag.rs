//! `lag`: thresholds that classify lag, for targets that do not set their own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::section::Section;
use super::settings;
use crate::model::settings::{FileSection, Settings};
use crate::model::units::lag_thresholds::LagThresholds;

/// The section `lag`: thresholds that classify lag as residual, stuck or forgotten. No setting of it is unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagConfig(Settings);

impl Default for LagConfig {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl LagConfig {
    /// Fills in the defaults, so that a default that is left out equals one that is written down.
    fn new(mut settings: Settings) -> Self {
        settings.set_defaults(FileSection::Lag);
        Self(settings)
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = settings::read(&mut section, FileSection::Lag);
        section.finish();
        Self::new(settings)
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0
    }

    #[must_use]
    pub fn thresholds(&self) -> LagThresholds {
        self.0.lag_thresholds(LagThresholds::DEFAULT)
    }
}

impl Serialize for LagConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        settings::serialize(&self.0, FileSection::Lag, serializer)
    }
}

impl JsonSchema for LagConfig {
    fn schema_name() -> Cow<'static, str> {
        "LagConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": Value::Object(settings::schemas(FileSection::Lag)),
            "additionalProperties": false,
        })
    }
}
