//! Which Kubernetes cluster a command asks: the arguments that several commands have.

use std::path::PathBuf;

use clap::Args;

use crate::config::KubernetesConfig;
use crate::k8s::client::ClientOptions;

/// Which Kubernetes cluster to ask.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct KubeArgs {
    /// The kubeconfig file. Left out: the configuration's, where there is one, else those that kubectl would use
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context. Left out: the configuration's, where there is one, else its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl KubeArgs {
    /// Whether a cluster was named at all.
    pub(super) fn are_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// The cluster that was named, else the one that kubectl would ask.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }

    /// The cluster that was named, else the configuration's.
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
