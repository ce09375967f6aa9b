//! Connects to Kubernetes: client, HPAs and request authentication.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use tokio::sync::watch;

use super::{HpaReceiver, HpaSource, Tasks};
use crate::config::{AuthMode, Config};
use crate::k8s;
use crate::model::hpa::facts::HpaMap;
use crate::serve::auth::RequestAuth;

/// What to do in the configuration if there is no client.
pub(super) const REMEDY: &str = "set kubernetes.kubeconfig and kubernetes.context, or kubernetes.enabled: false to run without Kubernetes";

/// The kubeconfig and context to connect with.
pub(super) fn options(config: &Config) -> k8s::client::ClientOptions {
    k8s::client::ClientOptions {
        kubeconfig: config.kubernetes.kubeconfig.clone(),
        context: config.kubernetes.context.clone(),
    }
}

/// The Kubernetes cluster, if there is one.
pub(super) struct Connected {
    pub(super) hpas: HpaReceiver,
    pub(super) client: Option<k8s::client::Client>,
    /// How the external metrics API authenticates its callers; `None` if lagwise only observes and serves none.
    pub(super) api_auth: Option<RequestAuth>,
    /// How the metrics listener authenticates its callers.
    pub(super) metrics_auth: RequestAuth,
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
) -> anyhow::Result<Connected> {
    let (api, metrics) = (&config.server.external_metrics, &config.server.metrics);
    let observes = config.kubernetes.observes();
    let (mut kubernetes_auth, mut connected) = (None, None);
    let hpas = match hpas {
        HpaSource::Channel(facts) => facts,
        // Without a cluster the list of HPAs is known to be empty.
        HpaSource::Cluster if !config.kubernetes.enabled => {
            watch::channel(Some(HpaMap::default())).1
        }
        HpaSource::Cluster => {
            let (facts_in, facts) = watch::channel(None);
            let options = options(config);
            let connected_client = k8s::client::connect(&options).await;
            let client = connected_client.map_err(|error| anyhow!("{error}; {REMEDY}"))?;
            connected = Some(client.clone());
            let namespaces = config.kubernetes.namespaces.clone();
            let watched = k8s::hpa::watch(client.clone(), namespaces, facts_in);
            tasks.spawn(async move {
                ("HPA watch", {
                    watched.await;
                    Ok(())
                })
            });
            if !observes && [api.auth, metrics.auth].contains(&AuthMode::Kubernetes) {
                kubernetes_auth = Some(cluster_auth(client, tasks));
            }
            facts
        }
    };
    // The parser of the configuration file has checked this already, but the demo builds its own.
    if !observes && api.auth == AuthMode::None && !api.listen.ip().to_canonical().is_loopback() {
        bail!(
            "server.external_metrics.auth is none, but {} is not a loopback address, so everyone could read the metrics",
            api.listen
        )
    }
    let auth = |mode, key: &str| match mode {
        AuthMode::None => Ok(RequestAuth::None),
        AuthMode::Kubernetes => kubernetes_auth.clone().with_context(|| {
            format!(
                "{key} is kubernetes, but there is no Kubernetes cluster; \
                 enable kubernetes or set auth: none"
            )
        }),
    };
    Ok(Connected {
        api_auth: match observes {
            true => None,
            false => Some(auth(api.auth, "server.external_metrics.auth")?),
        },
        metrics_auth: auth(metrics.auth, "server.metrics.auth")?,
        hpas,
        client: connected,
    })
}

/// Authentication by the cluster; watches the certificate authorities that it trusts.
fn cluster_auth(client: k8s::client::Client, tasks: &mut Tasks) -> RequestAuth {
    let (trust_in, trust) = watch::channel(None);
    let watched = k8s::cluster_trust::watch(client.clone(), trust_in);
    tasks.spawn(async move {
        ("watch of trusted certificates", {
            watched.await;
            Ok(())
        })
    });
    let reviewer = Arc::new(k8s::reviews::ClusterReviewer::new(client));
    RequestAuth::Kubernetes { trust, reviewer }
}
