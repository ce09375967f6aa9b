//! An external metrics server with a metric of its own, by a script, in front of another server: in a cluster there
//! is one such API, so whoever wants a second metric beside lagwise's stands before it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::kubernetes::ServingCertificate;

/// The name of its metric, whatever the selector.
pub(crate) const METRIC: &str = "scripted_demand";

/// The largest body that is passed on.
const BODY_BYTES: usize = 1 << 20;

/// The server; dropped, it is gone.
pub(crate) struct Adapter {
    pub(crate) port: u16,
    script: Arc<Script>,
    _runtime: tokio::runtime::Runtime,
}

struct Script {
    value: AtomicU64,
    /// How often the metric was asked for.
    asked: AtomicU64,
    behind: String,
    client: reqwest::Client,
}

impl Adapter {
    /// Serves the metric, and passes on whatever else is asked to the server at `behind`: as the API server's front
    /// proxy would, with its certificate and what it says of the caller.
    pub(crate) fn start(
        plane: &ControlPlane,
        certificate: &ServingCertificate,
        behind: u16,
        value: u64,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let folder = &plane.pki.folder;
        let script = Arc::new(Script {
            value: AtomicU64::new(value),
            asked: AtomicU64::new(0),
            behind: format!("https://localhost:{behind}"),
            client: front_proxy(folder, &certificate.ca_pem)?,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let files = (certificate.cert_file.clone(), certificate.key_file.clone());
        let tls = runtime.block_on(RustlsConfig::from_pem_file(files.0, files.1))?;
        let server = {
            let _inside = runtime.enter();
            axum_server::from_tcp_rustls(listener, tls)?.handle(Handle::new())
        };
        runtime.spawn(server.serve(router.into_make_service()));
        Ok(Self {
            port,
            script,
            _runtime: runtime,
        })
    }

    /// Serves this from now on.
    pub(crate) fn set(&self, value: u64) {
        self.script.value.store(value, Ordering::Relaxed);
    }

    /// How often the metric was asked for so far.
    pub(crate) fn asked(&self) -> u64 {
        self.script.asked.load(Ordering::Relaxed)
    }
}

fn front_proxy(folder: &Path, ca_pem: &str) -> Result<reqwest::Client> {
    let mut identity = std::fs::read(folder.join("front-proxy.crt"))?;
    identity.extend(std::fs::read(folder.join("front-proxy.key"))?);
    let authority = reqwest::Certificate::from_pem(ca_pem.as_bytes())?;
    reqwest::Client::builder()
        .tls_certs_only([authority])
        .identity(reqwest::Identity::from_pem(&identity)?)
        .build()
        .context("a client as the front proxy")
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let is_ours = request.uri().path().ends_with(&format!("/{METRIC}"));
    let answered = if is_ours {
        script.asked.fetch_add(1, Ordering::Relaxed);
        own(script.value.load(Ordering::Relaxed))
    } else {
        pass_on(&script, request).await
    };
    answered.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("{error:#}")));
        *response.status_mut() = axum::http::StatusCode::BAD_GATEWAY;
        response
    })
}

fn own(value: u64) -> Result<Response> {
    let list = json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{
            "metricName": METRIC,
            "metricLabels": {},
            "timestamp": "2026-01-01T00:00:00Z",
            "value": value.to_string(),
        }],
    });
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Body::from(list.to_string()))?)
}

async fn pass_on(script: &Script, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().context("no path")?;
    let body = axum::body::to_bytes(body, BODY_BYTES).await?;
    let mut headers = head.headers;
    headers.remove("host");
    let url = format!("{}{path}", script.behind);
    let passed = script.client.request(head.method, url).headers(headers);
    let answer = passed.body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "connection" {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(answer.bytes().await?))?)
}
