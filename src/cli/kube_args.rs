//! Arguments that select the Kubernetes cluster.

use std::path::PathBuf;

use clap::Args;

use crate::config::KubernetesConfig;
use crate::k8s::client::ClientOptions;

/// Arguments that select the Kubernetes cluster.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct KubeArgs {
    /// The kubeconfig file [default: the configuration's, if there is one, otherwise as for
    /// kubectl]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context [default: the configuration's, if there is one, otherwise the
    /// current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl KubeArgs {
    /// Whether a cluster was named.
    pub(super) fn are_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// The named cluster, otherwise kubectl's.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }

    /// The named cluster, otherwise the configured one.
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
