//! Passes requests for metrics that are not lagwise's on to another server of external metrics, the upstream.
//!
//! The caller is authenticated and authorized before. The upstream sees only this daemon's identity: no header of the
//! caller reaches it. And of its headers only the type of the body reaches the caller: a `Retry-After`, for example,
//! would block one of the HPA controller's few workers.

mod client;
mod streamed_body;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::client::UpstreamClient;
pub use self::client::{
    CertificateFiles, UpstreamError, UpstreamIdentity, UpstreamOptions, UpstreamTrust,
};
use self::streamed_body::StreamedBody;
use super::api_error::{ApiFailure, json};
use super::connections::PeerRank;
use super::discovery::{ApiResource, DiscoveryDocuments};
use super::forward::describe_causes;
use super::holder_permits::HolderPermits;
use super::route::{GROUP, VERSION};
use crate::model::findings::ReportedFindings;
use crate::model::units::metric::Metric;
use crate::model::units::names;
use crate::telemetry::failure_log::RequestFailureLog;
use crate::telemetry::upstream::{PassedOn, UpstreamFailing, UpstreamRestored};

/// Marks a request that was passed on, so that an upstream that is lagwise itself does not pass it on again.
const PASSED_ON: HeaderName = HeaderName::from_static("x-lagwise-passed-on");

/// Maximum number of answers in progress for the front proxy. One namespace may have half of them, since a user who
/// writes ScaledObjects there decides how slow they are.
const MAX_CONCURRENT_TRUSTED: usize = 64;

/// The same for all other callers, so that they leave room for the front proxy.
const MAX_CONCURRENT_OTHERS: usize = 16;

/// How long the upstream's list of resources is cached.
const MAX_DISCOVERY_AGE: Duration = Duration::from_secs(30);

/// Timeout for its list of resources.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum size of its list of resources, in bytes.
const MAX_DISCOVERY_BYTES: usize = 1024 * 1024;

/// Maximum number of its resources in discovery documents: every `kubectl` loads these.
const MAX_DISCOVERY_RESOURCES: usize = 500;

/// Maximum length of a metric's name, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Characters to escape in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@');

/// Why the upstream's answer cannot be passed back. `Display` is constant text, because it appears in the HPA's
/// conditions and every change there is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpstreamUnavailable {
    /// The connection failed or is not trusted.
    #[error("cannot connect to the upstream server of external metrics")]
    Unreachable,
    /// It did not answer in time.
    #[error("the upstream server of external metrics does not answer")]
    NoAnswer,
    /// It does not accept this daemon's identity.
    #[error(
        "the upstream server of external metrics does not let lagwise read this metric: grant the identity of \
         server.external_metrics.upstream the verb list on external.metrics.k8s.io"
    )]
    Refused,
    /// There is no token to present to it.
    #[error(
        "lagwise has no token for the upstream server of external metrics: the token_file of \
         server.external_metrics.upstream cannot be used"
    )]
    NoToken,
    /// It redirects to another URL.
    #[error(
        "the upstream server of external metrics redirects: set server.external_metrics.upstream.url to the server itself"
    )]
    Redirected,
    /// The request was already passed on by lagwise.
    #[error("the upstream server of external metrics is lagwise itself")]
    Itself,
    /// Too many requests are in progress, in all or for one namespace.
    #[error("too many requests to the upstream server of external metrics are in progress")]
    Busy,
}

impl UpstreamUnavailable {
    fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::NoToken => "no_token",
            Self::Redirected => "redirected",
            Self::Itself => "itself",
            Self::Busy => "busy",
        }
    }
}

impl From<UpstreamUnavailable> for ApiFailure {
    fn from(why: UpstreamUnavailable) -> Self {
        ApiFailure::unavailable(why.to_string())
    }
}

/// Another server of external metrics.
#[derive(Debug)]
pub struct Upstream {
    client: UpstreamClient,
    trusted_permits: HolderPermits,
    other_permits: HolderPermits,
    failures: RequestFailureLog<UpstreamUnavailable>,
    discovery: tokio::sync::Mutex<Discovery>,
}

#[derive(Debug)]
struct Discovery {
    /// When the list was last requested.
    requested: Option<Instant>,
    documents: Arc<DiscoveryDocuments>,
}

impl Upstream {
    /// Prepares connections to the upstream, which need not be reachable yet.
    ///
    /// # Errors
    /// Unusable certificates.
    pub fn new(options: UpstreamOptions) -> Result<Self, UpstreamError> {
        Ok(Self {
            client: UpstreamClient::new(options)?,
            trusted_permits: HolderPermits::new(MAX_CONCURRENT_TRUSTED),
            other_permits: HolderPermits::new(MAX_CONCURRENT_OTHERS),
            failures: RequestFailureLog::default(),
            discovery: tokio::sync::Mutex::new(Discovery {
                requested: None,
                documents: Arc::new(DiscoveryDocuments::new(&[])),
            }),
        })
    }

    /// Receives the problem with its files whenever it changes.
    #[must_use]
    pub fn findings(&self) -> watch::Receiver<ReportedFindings> {
        self.client.findings()
    }

    /// Whether the upstream may have the metric: its own names stay with lagwise, and a name that changes the path of
    /// the request does not exist.
    pub(super) fn may_have(namespace: &str, metric: &str) -> bool {
        names::namespace(namespace).is_ok() && is_foreign_metric(metric)
    }

    /// The upstream's response to a request for a metric that it [may have](Self::may_have), whatever its status; the
    /// body is streamed.
    pub(super) async fn pass_on(
        &self,
        request: &UpstreamRequest<'_>,
    ) -> Result<Response, UpstreamUnavailable> {
        let began = Instant::now();
        let answer = self.send(request).await;
        let outcome = match &answer {
            Ok(_) => "answered",
            Err((why, _)) => why.label(),
        };
        PassedOn {
            outcome,
            took: began.elapsed(),
        }
        .emit();
        self.log_transition(answer.as_ref().err());
        answer.map_err(|(why, _)| why)
    }

    /// Sends the request, unless the upstream is this daemon or has too many requests in progress.
    async fn send(
        &self,
        request: &UpstreamRequest<'_>,
    ) -> Result<Response, (UpstreamUnavailable, String)> {
        let bare = |why| (why, String::new());
        if request.headers.contains_key(PASSED_ON) {
            return Err(bare(UpstreamUnavailable::Itself));
        }
        let permits = match request.rank {
            PeerRank::Trusted => &self.trusted_permits,
            PeerRank::Known | PeerRank::Unknown => &self.other_permits,
        };
        let permit = permits.try_acquire(request.namespace);
        let permit = permit.ok_or_else(|| bare(UpstreamUnavailable::Busy))?;
        let query = match request.query {
            Some(query) => format!("?{query}"),
            None => String::new(),
        };
        let path = format!(
            "/apis/{GROUP}/{VERSION}/namespaces/{}/{}{query}",
            utf8_percent_encode(request.namespace, SEGMENT),
            utf8_percent_encode(request.metric, SEGMENT),
        );
        let answer = self.get(&path).await?;
        let status = answer.status();
        let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
        let body = StreamedBody::new(Body::new(reqwest::Body::from(answer)), permit);
        let mut response = json(status, Body::new(body));
        match content_type {
            Some(kind) => response.headers_mut().insert(header::CONTENT_TYPE, kind),
            None => response.headers_mut().remove(header::CONTENT_TYPE),
        };
        Ok(response)
    }

    /// The response to a path, if the upstream made it for this daemon.
    async fn get(&self, path: &str) -> Result<reqwest::Response, (UpstreamUnavailable, String)> {
        let no_token = |_| (UpstreamUnavailable::NoToken, String::new());
        let token = self.client.token().map_err(no_token)?;
        let mut request = self
            .client
            .current()
            .get(format!("{}{path}", self.client.url()))
            .header(header::ACCEPT, "application/json")
            .header(PASSED_ON, HeaderValue::from_static("1"));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let answer = request.send().await.map_err(|error| {
            let why = match error.is_timeout() {
                true => UpstreamUnavailable::NoAnswer,
                false => UpstreamUnavailable::Unreachable,
            };
            (why, describe_causes(&error))
        })?;
        let status = answer.status();
        let why = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamUnavailable::Refused,
            _ if status.is_redirection() => UpstreamUnavailable::Redirected,
            _ => return Ok(answer),
        };
        Err((why, format!("status {}", status.as_u16())))
    }

    /// The discovery documents, with the list of the upstream.
    pub(super) async fn discovery(&self) -> Arc<DiscoveryDocuments> {
        let mut discovery = self.discovery.lock().await;
        let is_current = |requested: Instant| requested.elapsed() < MAX_DISCOVERY_AGE;
        if !discovery.requested.is_some_and(is_current) {
            // While it does not answer, its last list is used.
            if let Ok(Some(resources)) = timeout(DISCOVERY_TIMEOUT, self.resources()).await {
                discovery.documents = Arc::new(DiscoveryDocuments::new(&resources));
            }
            // Set after the request: if the caller disconnects meanwhile, this future is dropped, and the next caller
            // must request the list again.
            discovery.requested = Some(Instant::now());
        }
        Arc::clone(&discovery.documents)
    }

    async fn resources(&self) -> Option<Vec<ApiResource>> {
        let answer = self.get(&format!("/apis/{GROUP}/{VERSION}")).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(reqwest::Body::from(answer), MAX_DISCOVERY_BYTES);
        let body = body.collect().await.ok()?.to_bytes();
        let list: ResourceList = serde_json::from_slice(&body).ok()?;
        let mut resources = list.resources;
        resources.retain(|resource| is_foreign_metric(&resource.name));
        resources.truncate(MAX_DISCOVERY_RESOURCES);
        Some(resources)
    }

    /// Logs when the upstream starts to fail and when it works again.
    fn log_transition(&self, failed: Option<&(UpstreamUnavailable, String)>) {
        // These two say nothing about the state of the upstream.
        let is_own = |why| matches!(why, UpstreamUnavailable::Busy | UpstreamUnavailable::Itself);
        let why = failed.map(|(why, _)| *why);
        if why.is_some_and(is_own) || !self.failures.record(why, Instant::now().into_std()) {
            return;
        }
        let url = self.client.url();
        match failed {
            Some((reason, detail)) => UpstreamFailing {
                url,
                reason,
                detail,
            }
            .emit(),
            None => UpstreamRestored { url }.emit(),
        }
    }
}

/// A request for a metric that is not lagwise's.
#[derive(Debug)]
pub(super) struct UpstreamRequest<'a> {
    pub(super) namespace: &'a str,
    pub(super) metric: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    /// Rank of the caller's connection.
    pub(super) rank: PeerRank,
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<ApiResource>,
}

/// Whether the name can be that of another server's metric.
fn is_foreign_metric(name: &str) -> bool {
    let changes_path = name
        .chars()
        .any(|c| c == '/' || c == '\\' || c.is_control())
        || matches!(name, "." | "..");
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !changes_path
        && Metric::from_name(name).is_none()
}
