//! `state`: storage of the state that survives a restart.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::kubernetes::KubernetesMode;
use super::section::Section;
use crate::model::units::names;

/// Storage of the state that survives a restart: the last known commits, since when they have not moved, and what
/// policies and holds have decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct StateConfig {
    /// A file. It is replaced as a whole, so its directory must be writable. Default: the ConfigMap of `config_map`
    /// if there is one, otherwise nothing is saved.
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
    /// Name of a ConfigMap in lagwise's own namespace. Used if no file is set. Default: `lagwise-state` in a
    /// pod, otherwise, and with `kubernetes.mode: observe`, none.
    pub config_map: Option<String>,
}

impl StateConfig {
    pub(super) fn read(mut section: Section<'_>, mode: KubernetesMode) -> Self {
        let file = section
            .get("file")
            .and_then(|field| field.text("the path of a file, which need not exist yet"))
            .map(PathBuf::from);
        let config_map = section.get("config_map").and_then(|field| {
            if mode == KubernetesMode::Observe {
                field.refuse(
                    "kubernetes.mode is observe, and the ConfigMap would be written",
                    "no value, or state.file instead",
                );
            }
            field.checked(names::OBJECT, |text| names::object(text).map(str::to_owned))
        });
        section.finish();
        Self { file, config_map }
    }
}
