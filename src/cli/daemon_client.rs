//! Client for the admin endpoints of a running daemon: at a URL, or of the leader through the Kubernetes API.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use clap::Args;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::kube_args::KubeArgs;
use crate::config::AdminConfig;
use crate::k8s::client::connect;
use crate::k8s::leader_pod::{LeaderPod, LeaseKey};

/// Arguments that select a running daemon.
#[derive(Clone, Debug, Args)]
pub(super) struct DaemonArgs {
    /// Ask the leader through a port-forward, or the daemon at URL
    #[arg(long, value_name = "URL", value_parser = url)]
    daemon: Option<Option<String>>,
    /// The Lease that says which daemon leads [default: that of the registered external metrics API]
    #[arg(long, value_name = "NAMESPACE/LEASE", requires = "daemon")]
    lease: Option<LeaseKey>,
    /// Port of the leader's admin endpoints
    #[arg(long, value_name = "PORT", requires = "daemon", default_value_t = AdminConfig::default().listen.port())]
    admin_port: u16,
}

/// A response of a daemon.
pub(super) struct DaemonResponse {
    pub(super) code: StatusCode,
    pub(super) body: Vec<u8>,
    /// Where it comes from, for messages.
    pub(super) origin: String,
}

/// A URL of admin endpoints.
fn url(text: &str) -> Result<String, &'static str> {
    match text.starts_with("http://") || text.starts_with("https://") {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(
            "not a URL; --daemon takes http://HOST:PORT or nothing, so what to explain goes before it",
        ),
    }
}

impl DaemonArgs {
    /// Gets a path with its query, and at most `max_bytes` of the response.
    ///
    /// # Errors
    /// A daemon that cannot be found or does not answer `within` that time.
    pub(super) async fn get(
        &self,
        path: &str,
        kube: &KubeArgs,
        max_bytes: usize,
        within: Duration,
    ) -> anyhow::Result<DaemonResponse> {
        match &self.daemon {
            Some(Some(url)) => get_url(url, path, max_bytes, within).await,
            _ => self.get_from_leader(path, kube, max_bytes, within).await,
        }
    }

    async fn get_from_leader(
        &self,
        path: &str,
        kube: &KubeArgs,
        max_bytes: usize,
        within: Duration,
    ) -> anyhow::Result<DaemonResponse> {
        let client = connect(&kube.options()).await?;
        let pod = LeaderPod::find(&client, self.lease.as_ref(), within).await?;
        let origin = format!(
            "port {} of pod {}/{}",
            self.admin_port, pod.namespace, pod.name
        );
        let stream = pod.connect(&client, self.admin_port, within).await?;
        let asking = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the stream.
            let connection = tokio::spawn(connection);
            let request = Request::get(path).header(header::HOST, "localhost");
            let response = sender.send_request(request.body(Body::empty())?).await?;
            let code = response.status();
            let mut incoming = response.into_body();
            let mut body = Vec::new();
            while let Some(frame) = incoming.frame().await {
                if let Ok(data) = frame?.into_data() {
                    body.extend_from_slice(&data);
                    ensure!(
                        body.len() <= max_bytes,
                        "the response is longer than {max_bytes} bytes"
                    );
                }
            }
            connection.abort();
            anyhow::Ok((code, body))
        };
        let asked = tokio::time::timeout(within, asking).await;
        let (code, body) = asked
            .map_err(|_| anyhow::anyhow!("no response within {}", humantime::format_duration(within)))
            .and_then(|asked| asked)
            .with_context(|| {
                format!("cannot ask {origin}; check that its admin endpoints listen there (server.admin.listen)")
            })?;
        Ok(DaemonResponse { code, body, origin })
    }
}

async fn get_url(
    url: &str,
    path: &str,
    max_bytes: usize,
    within: Duration,
) -> anyhow::Result<DaemonResponse> {
    let client = reqwest::Client::builder()
        .timeout(within)
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let answer = client.get(format!("{url}{path}")).send().await;
    let mut answer = answer.with_context(|| format!("the daemon at {url} does not answer"))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > max_bytes {
            bail!(
                "the response of {url} is longer than {max_bytes} bytes; check that it is the URL of lagwise's admin endpoints"
            );
        }
    }
    Ok(DaemonResponse {
        code: answer.status(),
        body,
        origin: url.to_owned(),
    })
}
