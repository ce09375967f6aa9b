//! `kubernetes`: the cluster whose HPAs are served.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::secrets::Environment;
use super::section::Section;
use crate::model::units::names;

/// What lagwise does in the Kubernetes cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KubernetesMode {
    /// Serves external metrics, and writes what its other settings allow.
    #[default]
    Serve,
    /// Only lists and watches HPAs and KEDA's objects. It serves no external metrics, has no Lease, and
    /// writes nothing. `lagwise shadow report` shows the replicas by KEDA and those by lagwise.
    Observe,
}

/// The Kubernetes cluster whose HPAs are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// false watches no HPAs and does not authorize callers.
    pub enabled: bool,
    /// Whether lagwise serves external metrics or only observes.
    pub mode: KubernetesMode,
    /// The namespaces whose HPAs are watched; empty means all.
    pub namespaces: Vec<String>,
    /// The kubeconfig file. Default: that of kubectl (`KUBECONFIG`, then `~/.kube/config`), otherwise the
    /// service account of the pod.
    #[schemars(with = "Option<String>")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current context.
    pub context: Option<String>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: KubernetesMode::default(),
            namespaces: Vec::new(),
            kubeconfig: None,
            context: None,
        }
    }
}

impl KubernetesConfig {
    /// Whether lagwise only observes.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.mode == KubernetesMode::Observe
    }

    pub(super) fn read(mut section: Section<'_>, environment: &dyn Environment) -> Self {
        let default = Self::default();
        let enabled = section.get("enabled").and_then(|field| field.flag());
        let mode_field = section.get("mode");
        let mode = mode_field.as_ref().and_then(|field| {
            field.one_of(&[
                ("serve", KubernetesMode::Serve),
                ("observe", KubernetesMode::Observe),
            ])
        });
        if let (Some(field), Some(KubernetesMode::Observe), Some(false)) =
            (mode_field, mode, enabled)
        {
            field.refuse(
                "kubernetes.enabled is false, so there is nothing to observe",
                "serve, or observe with kubernetes.enabled: true",
            );
        }
        let namespaces = section.get("namespaces").map(|field| {
            field.texts(names::NAMESPACE, |text| {
                names::namespace(text).map(str::to_owned)
            })
        });
        let kubeconfig = section
            .get("kubeconfig")
            .and_then(|field| field.file("the path of a kubeconfig file", environment));
        let context = section
            .get("context")
            .and_then(|field| field.text("the name of a context in the kubeconfig"))
            .map(str::to_owned);
        section.finish();
        Self {
            enabled: enabled.unwrap_or(default.enabled),
            mode: mode.unwrap_or(default.mode),
            namespaces: namespaces.unwrap_or(default.namespaces),
            kubeconfig,
            context,
        }
    }
}
