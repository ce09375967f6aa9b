//! What the daemon has of the Kubernetes cluster: its HPAs, who may ask, and a client.

use std::sync::Arc;

use anyhow::bail;
use tokio::sync::watch;

use super::{Hpas, Tasks};
use crate::config::{AuthMode, Config};
use crate::model::hpa::facts::HpaFacts;
use crate::{k8s, serve};

type KnownHpas = watch::Receiver<Option<Vec<Arc<HpaFacts>>>>;

/// Which cluster the configuration says.
pub(super) fn options(config: &Config) -> k8s::client::ClientOptions {
    k8s::client::ClientOptions {
        kubeconfig: config.kubernetes.kubeconfig.clone(),
        context: config.kubernetes.context.clone(),
    }
}

/// Watches the Kubernetes cluster, where there is one: its HPAs, and who may ask.
///
/// # Errors
/// No cluster where one is wanted, or nobody to ask who may read what all can reach.
pub(super) async fn connect(
    config: &Config,
    hpas: Hpas,
    tasks: &mut Tasks,
) -> anyhow::Result<(
    KnownHpas,
    serve::auth::AuthMode,
    Option<k8s::client::Client>,
)> {
    let api = &config.server.external_metrics;
    let (mut auth, mut connected) = (None, None);
    let facts = match hpas {
        Hpas::Given(facts) => facts,
        // Where there is no cluster there are none to list.
        Hpas::Cluster if !config.kubernetes.enabled => watch::channel(Some(Vec::new())).1,
        Hpas::Cluster => {
            let (facts_in, facts) = watch::channel(None);
            let options = options(config);
            let client = k8s::client::connect(&options).await?;
            connected = Some(client.clone());
            let namespaces = config.kubernetes.namespaces.clone();
            let watched = k8s::hpa::watch(client.clone(), namespaces, facts_in);
            tasks.spawn(async move {
                ("watch of HPAs", {
                    watched.await;
                    Ok(())
                })
            });
            if api.auth == AuthMode::Kubernetes {
                let (trust_in, trust) = watch::channel(None);
                let watched = k8s::cluster_trust::watch(client.clone(), trust_in);
                tasks.spawn(async move {
                    ("watch of the cluster's authorities", {
                        watched.await;
                        Ok(())
                    })
                });
                let reviewer = Arc::new(k8s::reviews::ClusterReviewer::new(client));
                auth = Some(serve::auth::AuthMode::Kubernetes { trust, reviewer });
            }
            facts
        }
    };
    match (api.auth, auth) {
        (AuthMode::Kubernetes, Some(auth)) => Ok((facts, auth, connected)),
        (AuthMode::Kubernetes, None) => {
            bail!("server.external_metrics.auth is kubernetes, but there is no cluster to ask")
        }
        // The configuration says so already; one that was not read from a file has not been asked.
        (AuthMode::None, _) if !api.listen.ip().to_canonical().is_loopback() => {
            bail!(
                "server.external_metrics.auth is none, but {} is no loopback address",
                api.listen
            )
        }
        (AuthMode::None, _) => Ok((facts, serve::auth::AuthMode::None, connected)),
    }
}
