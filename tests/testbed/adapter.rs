//! A fake external metrics server with one metric whose value a test sets. lagwise forwards requests to it, as it does
//! to KEDA's metrics server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Value, json};

use super::http::runtime_and_listener;
use super::kubernetes::ServingCertificate;

/// The name of its metric, whatever the selector.
pub(crate) const METRIC: &str = "scripted_demand";

/// Credentials that callers must present.
const TOKEN: &str = "token-of-the-adapter";

/// The server. It stops when dropped.
pub(crate) struct Adapter {
    port: u16,
    script: Arc<Script>,
    _runtime: tokio::runtime::Runtime,
}

struct Script {
    value: AtomicU64,
    /// How often the metric was requested.
    requests: AtomicU64,
}

impl Adapter {
    /// Serves the metric, with a certificate for localhost.
    pub(crate) fn start(certificate: &ServingCertificate, value: u64) -> Result<Self> {
        let (runtime, listener, port) = runtime_and_listener()?;
        let script = Arc::new(Script {
            value: AtomicU64::new(value),
            requests: AtomicU64::new(0),
        });
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

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The section `server.external_metrics.upstream` for it, with its files in `folder`.
    pub(crate) fn upstream(
        &self,
        certificate: &ServingCertificate,
        folder: &Path,
    ) -> Result<Value> {
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            std::fs::write(&file, text)?;
            Ok(file)
        };
        Ok(json!({
            "url": format!("https://localhost:{}", self.port),
            "ca_file": write("upstream-ca.crt", &certificate.ca_pem)?,
            "token_file": write("upstream-token", TOKEN)?,
        }))
    }

    /// Sets the value to serve.
    pub(crate) fn set(&self, value: u64) {
        self.script.value.store(value, Ordering::Relaxed);
    }

    /// How often the metric was requested so far.
    pub(crate) fn request_count(&self) -> u64 {
        self.script.requests.load(Ordering::Relaxed)
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let presented = request.headers().get(header::AUTHORIZATION);
    if presented.is_none_or(|token| token != &format!("Bearer {TOKEN}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !request.uri().path().ends_with(&format!("/{METRIC}")) {
        return StatusCode::NOT_FOUND.into_response();
    }
    script.requests.fetch_add(1, Ordering::Relaxed);
    let list = json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{
            "metricName": METRIC,
            "metricLabels": {},
            "timestamp": "2026-01-01T00:00:00Z",
            "value": script.value.load(Ordering::Relaxed).to_string(),
        }],
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, Body::from(list.to_string())).into_response()
}
