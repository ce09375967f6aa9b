//! Arguments that select the Kubernetes cluster.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use crate::config::KubernetesConfig;
use crate::k8s::client::{Client, ClientOptions, connect};

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

    /// A client for the given cluster, otherwise for that of kubectl.
    ///
    /// # Errors
    /// There is no usable kubeconfig or context; with the remedy.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let client = connect(&self.options()).await;
        client.map_err(|error| anyhow!("{error}; {} --kubeconfig and --context", self.verb()))
    }

    /// A client for the given cluster, otherwise for the configured one.
    ///
    /// # Errors
    /// There is no usable kubeconfig or context; with the remedy.
    pub(super) async fn connect_over(
        &self,
        configured: &KubernetesConfig,
    ) -> anyhow::Result<Client> {
        let client = connect(&self.options_over(configured)).await;
        client.map_err(|error| match configured.enabled {
            true => anyhow!(
                "{error}; {} --kubeconfig and --context, or set kubernetes.kubeconfig and kubernetes.context",
                self.verb()
            ),
            false => anyhow!(
                "{error}; this command needs Kubernetes although kubernetes.enabled is false: {} --kubeconfig and --context",
                self.verb()
            ),
        })
    }

    /// What to do with the options if they do not lead to a cluster.
    fn verb(&self) -> &'static str {
        if self.are_given() { "correct" } else { "use" }
    }

    /// The given cluster, otherwise that of kubectl.
    fn options(&self) -> ClientOptions {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> KubeArgs {
        KubeArgs {
            kubeconfig: Some("/nowhere/kubeconfig".into()),
            context: None,
        }
    }

    #[tokio::test]
    async fn errors_name_the_options_of_the_command() {
        let error = nowhere().connect().await.err().unwrap().to_string();
        assert!(
            error.ends_with("; correct --kubeconfig and --context"),
            "{error}"
        );
        assert!(!error.contains("kubernetes.enabled"), "{error}");
    }

    #[tokio::test]
    async fn errors_fit_the_configuration() {
        for (enabled, expected) in [
            (true, "or set kubernetes.kubeconfig and kubernetes.context"),
            (
                false,
                "this command needs Kubernetes although kubernetes.enabled is false",
            ),
        ] {
            let configured = KubernetesConfig {
                enabled,
                ..KubernetesConfig::default()
            };
            let failed = nowhere().connect_over(&configured).await;
            let error = failed.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("enabled: false"), "{error}");
        }
    }
}
