//! Simulates an API server that is overloaded, broken or disconnected: a proxy in front of the real one that terminates
//! TLS, classifies requests, and answers some kinds itself.

use std::collections::BTreeMap;
use std::io::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::{StreamExt, stream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::control_plane::ControlPlane;
use super::pki::Identity;
use super::ports::free_port;
use super::unique;

/// Maximum size of a request body.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequestKind {
    /// Token reviews and subject access reviews.
    Review,
    /// Lists.
    List,
    /// Watches.
    Watch,
    /// All other requests.
    Other,
}

/// Treatment of the requests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Respond with this status code and a `Retry-After` of this number of seconds.
    Refuse(u16, Option<u32>),
    /// Do not respond.
    Hang,
}

/// The proxy. When dropped, it closes all connections.
pub(crate) struct ApiProxy {
    address: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    faults: Mutex<BTreeMap<RequestKind, Fault>>,
    counts: Mutex<BTreeMap<RequestKind, usize>>,
    /// How often connections have been cut.
    cuts: watch::Sender<u64>,
}

impl ApiProxy {
    /// A proxy that passes everything on.
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let identity = plane.pki.authority.server(&["localhost", "127.0.0.1"])?;
        let authority = reqwest::Certificate::from_pem(plane.pki.authority.pem.as_bytes())?;
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .http1_only()
            .build()?;
        let shared = Arc::new(Shared {
            server: plane.server.clone(),
            client,
            faults: Mutex::default(),
            counts: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let acceptor = RustlsAcceptor::new(server_config(&identity)?);
        let server = {
            let _inside = runtime.enter();
            axum_server::from_tcp(listener)?.acceptor(acceptor)
        };
        runtime.spawn(server.serve(router.into_make_service()));
        Ok(Self {
            address: format!("https://127.0.0.1:{port}"),
            shared,
            runtime: Some(runtime),
        })
    }

    /// A copy of a kubeconfig that points to this proxy.
    pub(crate) fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let text = std::fs::read_to_string(of)?;
        let path = of.with_file_name(format!("{}.kubeconfig", unique("through-a-proxy")));
        std::fs::write(&path, text.replace(&self.shared.server, &self.address))?;
        Ok(path)
    }

    /// Sets the treatment of requests of these kinds.
    pub(crate) fn set(&self, kinds: &[RequestKind], fault: Fault) {
        let mut faults = locked(&self.shared.faults);
        faults.extend(kinds.iter().map(|kind| (*kind, fault)));
    }

    /// Forwards all new requests again. Requests without a response stay without one.
    pub(crate) fn clear_faults(&self) {
        locked(&self.shared.faults).clear();
    }

    /// Cuts all responses that are still streaming, which are those of watches.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many requests of a kind have come so far.
    pub(crate) fn count(&self, kind: RequestKind) -> usize {
        locked(&self.shared.counts)
            .get(&kind)
            .copied()
            .unwrap_or_default()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn server_config(identity: &Identity) -> Result<RustlsConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the proxy's certificate")?;
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

fn kind(request: &Request) -> RequestKind {
    let path = request.uri().path();
    let is_watch = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let lists = ["/horizontalpodautoscalers", "/configmaps"];
    if path.ends_with("reviews") {
        RequestKind::Review
    } else if is_watch {
        RequestKind::Watch
    } else if request.method() == "GET" && lists.iter().any(|end| path.ends_with(end)) {
        RequestKind::List
    } else {
        RequestKind::Other
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let kind = kind(&request);
    *locked(&shared.counts).entry(kind).or_default() += 1;
    let fault = locked(&shared.faults).get(&kind).copied();
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Refuse(code, after)) => refusal(code, after),
        None => match forwarded(&shared, request).await {
            Ok(answer) => answer,
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
        },
    }
}

/// An error response in the form of the API server.
fn refusal(code: u16, after: Option<u32>) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the proxy of the testbed refuses", "reason": "Testbed", "code": code,
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if let Some(after) = after {
        headers.insert(header::RETRY_AFTER, after.into());
    }
    response
}

async fn forwarded(shared: &Shared, request: Request) -> Result<Response> {
    let cuts = shared.cuts.subscribe();
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().context("no path")?;
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let answer = shared
        .client
        .request(parts.method, format!("{}{target}", shared.server))
        .headers(headers)
        .body(to_bytes(body, MAX_BODY_BYTES).await?)
        .send()
        .await?;
    let (parts, body) = axum::http::Response::from(answer).into_parts();
    let pieces = Body::new(body).into_data_stream();
    let pieces = stream::unfold(Some((pieces, cuts)), |state| async move {
        let (mut pieces, mut cuts) = state?;
        tokio::select! {
            piece = pieces.next() => Some((piece?.map_err(Error::other), Some((pieces, cuts)))),
            _ = cuts.changed() => Some((Err(Error::other("cut")), None)),
        }
    });
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}
