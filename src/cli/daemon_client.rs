//! Client for the admin endpoints of a running daemon: at a URL, or at the leader through a port-forward.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::body::{Body, HttpBody};
use axum::http::{Request, StatusCode, header};
use clap::Args;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use super::kube_args::KubeArgs;
use crate::config::AdminConfig;
use crate::k8s::leader_pod::{DeploymentKey, LeaderPod, LeaseKey};
use crate::model::units::untrusted_text::Printable;

/// Arguments that select a running daemon.
#[derive(Clone, Debug, Args)]
pub(super) struct DaemonArgs {
    /// Ask the leader through a port-forward, or the daemon at URL
    #[arg(long, value_name = "URL", value_parser = url)]
    daemon: Option<Option<String>>,
    /// The Lease that says which daemon leads [default: that of the registered external metrics API]
    #[arg(long, value_name = "NAMESPACE/LEASE", requires = "daemon")]
    lease: Option<LeaseKey>,
    /// The Deployment of a daemon that only observes, and so has no Lease
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        requires = "daemon",
        conflicts_with = "lease"
    )]
    deployment: Option<DeploymentKey>,
    /// Port of the leader's admin endpoints
    #[arg(long, value_name = "PORT", requires = "daemon", default_value_t = AdminConfig::default().listen.port())]
    admin_port: u16,
}

/// What to do about a response that is not in the expected form, for the end of an error message.
pub(super) const UNEXPECTED_RESPONSE: &str = "check that lagwise's admin endpoints listen there (server.admin.listen), and that the daemon and this command have the same version";

/// A response of a daemon.
pub(super) struct DaemonResponse {
    pub(super) code: StatusCode,
    pub(super) body: Vec<u8>,
    /// Where the response comes from, for messages.
    pub(super) origin: String,
}

impl DaemonResponse {
    /// The response to a request for `path` without parameters, as JSON.
    fn parse<T: DeserializeOwned>(self, path: &str) -> anyhow::Result<T> {
        let Self { code, body, origin } = self;
        // An unknown path has an empty body, and another server's page begins with a tag.
        let text = String::from_utf8_lossy(&body);
        let reason = Printable::message(text.trim()).to_string();
        let has_reason = !reason.is_empty() && !reason.starts_with('<');
        if code == StatusCode::NOT_FOUND && has_reason {
            bail!("{origin} answered {code} for {path}: {reason}");
        }
        if code == StatusCode::NOT_FOUND {
            bail!(
                "{origin} has no {path}: upgrade the daemon if it is older than this command, otherwise check that lagwise's admin endpoints listen there (server.admin.listen)"
            );
        }
        if !code.is_success() {
            bail!("{origin} answered {code}: {reason}");
        }
        serde_json::from_slice(&body).with_context(|| {
            format!("cannot parse the response of {origin}; {UNEXPECTED_RESPONSE}")
        })
    }
}

/// Parses the URL of admin endpoints, without the path.
fn url(text: &str) -> Result<String, &'static str> {
    match text.starts_with("http://") || text.starts_with("https://") {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => {
            Err("expected a URL such as http://HOST:PORT; write the name of an HPA before --daemon")
        }
    }
}

impl DaemonArgs {
    /// Requests `path` and parses the response.
    ///
    /// # Errors
    /// The same as [`get`](Self::get)'s, or the response is an error or cannot be parsed.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        kube: &KubeArgs,
        max_bytes: usize,
        timeout: Duration,
    ) -> anyhow::Result<T> {
        let response = self.get(path, kube, max_bytes, timeout);
        response.await?.parse(path)
    }

    /// Whether the command should use a daemon.
    pub(super) fn is_given(&self) -> bool {
        self.daemon.is_some()
    }

    /// Sends a GET request for `path`, which includes the query.
    ///
    /// # Errors
    /// A daemon that cannot be found, does not answer within `timeout`, or sends more than `max_bytes`.
    pub(super) async fn get(
        &self,
        path: &str,
        kube: &KubeArgs,
        max_bytes: usize,
        timeout: Duration,
    ) -> anyhow::Result<DaemonResponse> {
        let (origin, result) = match &self.daemon {
            Some(Some(url)) => {
                let result = tokio::time::timeout(timeout, get_url(url, path, max_bytes)).await;
                (url.clone(), result)
            }
            _ => {
                let port = self.admin_port;
                let client = kube.connect().await?;
                let pod = match &self.deployment {
                    Some(deployment) => {
                        LeaderPod::find_in_deployment(&client, deployment, timeout).await?
                    }
                    None => LeaderPod::find(&client, self.lease.as_ref(), timeout).await?,
                };
                let stream = pod.connect(&client, port, timeout).await?;
                let origin = format!("port {port} of pod {}/{}", pod.namespace, pod.name);
                let result =
                    tokio::time::timeout(timeout, get_from_stream(stream, path, max_bytes)).await;
                (origin, result)
            }
        };
        let timeout = humantime::format_duration(timeout);
        let (code, body) = result
            .map_err(|_| anyhow!("no response within {timeout}"))
            .flatten()
            .with_context(|| {
                format!("cannot read from {origin}; check that the admin endpoints of lagwise listen there (server.admin.listen)")
            })?;
        Ok(DaemonResponse { code, body, origin })
    }
}

async fn get_from_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    max_bytes: usize,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Drives the connection while the response is read.
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "localhost");
    let response = sender.send_request(request.body(Body::empty())?).await?;
    let code = response.status();
    let body = read_body(response.into_body(), max_bytes).await?;
    connection.abort();
    Ok((code, body))
}

pub(super) async fn get_url(
    url: &str,
    path: &str,
    max_bytes: usize,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let response = client.get(format!("{url}{path}")).send().await?;
    let code = response.status();
    let body = read_body(reqwest::Body::from(response), max_bytes).await?;
    Ok((code, body))
}

/// Reads a body, or fails if it is longer than `max_bytes`.
pub(super) async fn read_body<B>(body: B, max_bytes: usize) -> anyhow::Result<Vec<u8>>
where
    B: HttpBody<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            bail!("the response is longer than {max_bytes} bytes")
        }
        Err(error) => Err(anyhow!(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_a_path_that_an_older_daemon_lacks_has_the_remedy() {
        let answer = |code, body: &str| {
            let response = DaemonResponse {
                code,
                body: body.into(),
                origin: "http://daemon:8082".to_owned(),
            };
            let parsed = response.parse::<Vec<u32>>("/api/peaks");
            parsed.map_err(|error| error.to_string())
        };
        assert_eq!(answer(StatusCode::OK, "[7]"), Ok(vec![7]));
        let upgrade = "http://daemon:8082 has no /api/peaks: upgrade the daemon if it is older";
        for (code, body, expected) in [
            (StatusCode::NOT_FOUND, "", upgrade),
            (StatusCode::NOT_FOUND, "<html>not found</html>", upgrade),
            (StatusCode::SERVICE_UNAVAILABLE, "no", "answered 503"),
            (StatusCode::OK, "no", "cannot parse the response"),
        ] {
            let error = answer(code, body).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn error_of_a_missing_path_shows_the_reason_of_the_daemon() {
        for (body, expected) in [
            (
                "not compared; set kubernetes.mode: observe\n",
                "http://daemon:8082 answered 404 Not Found for /shadow: not compared; set kubernetes.mode: observe",
            ),
            (
                "no\u{1b}[31m peaks",
                "http://daemon:8082 answered 404 Not Found for /shadow: no\\u{1b}[31m peaks",
            ),
        ] {
            let response = DaemonResponse {
                code: StatusCode::NOT_FOUND,
                body: body.into(),
                origin: "http://daemon:8082".to_owned(),
            };
            let error = response.parse::<Vec<u32>>("/shadow").unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn bounds_bodies() {
        let read = async |max_bytes| read_body(Body::from("four"), max_bytes).await;
        assert_eq!(read(4).await.unwrap(), b"four");
        let error = read(3).await.unwrap_err().to_string();
        assert_eq!(error, "the response is longer than 3 bytes");
    }
}
