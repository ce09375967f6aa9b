//! Connects to Kubernetes: client, HPAs and request authentication.

use std::sync::Arc;

use anyhow::bail;
use tokio::sync::watch;

use super::{HpaReceiver, HpaSource, Tasks};
use crate::config::{AuthMode, Config};
use crate::model::hpa::facts::HpaMap;
use crate::{k8s, serve};

/// The configured cluster.
pub(super) fn options(config: &Config) -> k8s::client::ClientOptions {
    k8s::client::ClientOptions {
        kubeconfig: config.kubernetes.kubeconfig.clone(),
        context: config.kubernetes.context.clone(),
    }
}

/// Connects to the Kubernetes cluster, if there is one, and watches its HPAs and trusted
/// certificates.
///
/// # Errors
/// No cluster although one is required, or a public listener without authentication.
pub(super) async fn connect(
    config: &Config,
    hpas: HpaSource,
    tasks: &mut Tasks,
) -> anyhow::Result<(
    HpaReceiver,
    serve::auth::RequestAuth,
    Option<k8s::client::Client>,
)> {
    let api = &config.server.external_metrics;
    let (mut auth, mut connected) = (None, None);
    let facts = match hpas {
        HpaSource::Channel(facts) => facts,
        // Without a cluster the list of HPAs is known to be empty.
        HpaSource::Cluster if !config.kubernetes.enabled => {
            watch::channel(Some(HpaMap::default())).1
        }
        HpaSource::Cluster => {
            let (facts_in, facts) = watch::channel(None);
            let options = options(config);
            let client = k8s::client::connect(&options).await?;
            connected = Some(client.clone());
            let namespaces = config.kubernetes.namespaces.clone();
            let watched = k8s::hpa::watch(client.clone(), namespaces, facts_in);
            tasks.spawn(async move {
                ("HPA watch", {
                    watched.await;
                    Ok(())
                })
            });
            if api.auth == AuthMode::Kubernetes {
                let (trust_in, trust) = watch::channel(None);
                let watched = k8s::cluster_trust::watch(client.clone(), trust_in);
                tasks.spawn(async move {
                    ("watch of trusted certificates", {
                        watched.await;
                        Ok(())
                    })
                });
                let reviewer = Arc::new(k8s::reviews::ClusterReviewer::new(client));
                auth = Some(serve::auth::RequestAuth::Kubernetes { trust, reviewer });
            }
            facts
        }
    };
    match (api.auth, auth) {
        (AuthMode::Kubernetes, Some(auth)) => Ok((facts, auth, connected)),
        (AuthMode::Kubernetes, None) => {
            bail!(
                "server.external_metrics.auth is kubernetes, but there is no Kubernetes cluster; enable kubernetes or set auth: none"
            )
        }
        // The parser of the configuration file has checked this already, but the demo builds its own.
        (AuthMode::None, _) if !api.listen.ip().to_canonical().is_loopback() => {
            bail!(
                "server.external_metrics.auth is none, but {} is not a loopback address, so everyone could read the metrics",
                api.listen
            )
        }
        (AuthMode::None, _) => Ok((facts, serve::auth::RequestAuth::None, connected)),
    }
}
