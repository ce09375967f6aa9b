//! Arguments that select the Kubernetes cluster.

use std::path::PathBuf;

use clap::Args;

use crate::config::KubernetesConfig;
use crate::k8s::client::ClientOptions;

/// Arguments that select the Kubernetes cluster.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct KubeArgs {
    /// Kubeconfig file [default: that of the configuration, otherwise as in kubectl]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: that of the configuration, otherwise the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl KubeArgs {
    /// Whether a cluster was given explicitly.
    pub(super) fn are_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// The given cluster, otherwise that of kubectl.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }

    /// The given cluster, otherwise the configured one.
    pub(super) fn options_over(&self, configured: &KubernetesConfig) -> ClientOptions {
        let Self {
            kubeconfig,
            context,
        } = self.clone();
        ClientOptions {
            kubeconfig: kubeconfig.or_else(|| configured.kubeconfig.clone()),
            context: context.or_else(|| configured.context.clone()),
        }
    }
}
