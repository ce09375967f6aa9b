//! `state`: where is kept what has to survive a restart.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::section::Section;
use crate::model::units::names;

/// Where is kept what has to survive a restart: the last commits known, and since when they stand
/// still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct StateConfig {
    /// A file, which goes before a ConfigMap; it is replaced as a whole, so its directory has to be
    /// writable. Left out: the ConfigMap below where there is one, else nothing is kept.
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
    /// The name of a ConfigMap in lagwise's own namespace. Left out: `lagwise-state` in a pod, none
    /// elsewhere.
    pub config_map: Option<String>,
}

impl StateConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let file = section
            .get("file")
            .and_then(|field| field.text("the path of a file, which need not exist yet"))
            .map(PathBuf::from);
        let config_map = section.get("config_map").and_then(|field| {
            field.checked(names::CONFIG_MAP, |text| {
                names::config_map(text).map(str::to_owned)
            })
        });
        section.finish();
        Self { file, config_map }
    }
}
