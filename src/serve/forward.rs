//! Forwards metric requests to the leader, the only replica that knows the lag.
//!
//! A follower authenticates and authorizes the caller, then sends its own credential and the header
//! [`FORWARDED`] to the leader. The leader accepts it as a peer if the cluster knows both under the
//! same user name, and does not review the caller again. From anyone else the header is ignored. A
//! forwarded request is never forwarded again, so there are no loops while replicas disagree about
//! the leader.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

use super::api_error::{ApiFailure, json};
use super::bearer_token::BearerToken;
use super::tls::{ServerTls, TlsError};
use crate::authentication::Credential;
use crate::leader_election::Leader;
use crate::telemetry::failure_log::RequestFailureLog;
use crate::telemetry::forward::{Forwarded, ForwardsFailing, ForwardsRestored};

/// Marks a request as forwarded by a follower; in a response it says whether the leader answered.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("x-lagwise-forwarded");

/// Timeout for the leader's response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a metric request may wait during a change of leader. Short, because the HPA controller
/// has only five workers.
pub(super) const ROUTING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request waits for a new leader if the known one cannot be reached; an orderly
/// handover is announced within this time.
pub(super) const HANDOVER_WAIT: Duration = Duration::from_millis(300);

/// HTTP/2 keepalive: interval and timeout.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Maximum size of a response.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Why no leader answered. `Display` is constant text, because it appears in the HPA's conditions
/// and every change there is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeaderUnavailable {
    /// No holder of the Lease is known.
    #[error("no lagwise replica is the leader at present, so the lag is unknown")]
    NoLeader,
    /// This daemon leads but has no snapshot yet.
    #[error("the lagwise leader has just started and has not read the lag yet")]
    Starting,
    /// A forwarded request reached a follower.
    #[error("the lagwise replica that the Lease names as the leader does not lead")]
    NotLeading,
    /// The Lease has no address of the leader.
    #[error("the Lease does not contain the address of the lagwise leader")]
    NoAddress,
    /// The connection failed or is not trusted.
    #[error("cannot connect to the lagwise leader")]
    Unreachable,
    /// The leader did not answer in time.
    #[error("the lagwise leader does not answer")]
    NoAnswer,
    /// The leader answered, but cannot authenticate the request or is overloaded.
    #[error("the lagwise leader cannot answer at present")]
    Unable,
    /// The leader does not accept this daemon as a peer.
    #[error(
        "the lagwise leader does not accept this replica as a peer: run all replicas under one service account, which is not \"default\""
    )]
    Refused,
}

impl LeaderUnavailable {
    fn label(self) -> &'static str {
        match self {
            Self::NoLeader => "no_leader",
            Self::Starting => "beginning",
            Self::NotLeading => "not_leading",
            Self::NoAddress => "no_address",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::Unable => "unable",
            Self::Refused => "refused",
        }
    }
}

impl From<LeaderUnavailable> for ApiFailure {
    fn from(why: LeaderUnavailable) -> Self {
        ApiFailure::unavailable(why.to_string())
    }
}

/// Why forwarding cannot work with any leader.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// The client certificate is invalid.
    #[error("cannot use the client certificate of the kubeconfig: {0}")]
    Credential(rustls::pki_types::pem::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot create an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Forwards requests to the leader.
#[derive(Debug)]
pub struct Forwarder {
    client: reqwest::Client,
    token: BearerToken,
    failures: RequestFailureLog<LeaderUnavailable>,
}

impl Forwarder {
    /// Creates a forwarder to replicas whose certificates match this daemon's, `tls`, identified by
    /// `credential`.
    ///
    /// # Errors
    /// A problem that no leader can solve.
    pub fn new(tls: &ServerTls, credential: Credential) -> Result<Self, ForwarderError> {
        let identity = match &credential {
            Credential::Certificate { chain_pem, key_pem } => {
                let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(ForwarderError::Credential)?;
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                    .map_err(ForwarderError::Credential)?;
                Some((chain, key))
            }
            _ => None,
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.peer_client_config(identity)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            .http2_keep_alive_while_idle(true)
            .build()?;
        Ok(Self {
            client,
            token: BearerToken::new(credential),
            failures: RequestFailureLog::default(),
        })
    }

    /// Returns the leader's response to this path and query, also if its status is an error.
    pub(super) async fn forward(
        &self,
        leader: &Leader,
        path: &str,
    ) -> Result<Response, LeaderUnavailable> {
        let address = leader
            .address
            .as_deref()
            .ok_or(LeaderUnavailable::NoAddress)?;
        let began = Instant::now();
        let sent = self.send(address, path).await;
        let outcome = match &sent {
            Ok(_) => "answered",
            Err((why, _)) => why.label(),
        };
        Forwarded {
            outcome,
            took: began.elapsed(),
        }
        .emit();
        self.log_transition(address, sent.as_ref().err());
        sent.map(|(code, body)| json(code, body))
            .map_err(|(why, _)| why)
    }

    /// Fetches status and body of the leader's response to a request of this replica's own, which is neither counted
    /// nor logged.
    pub(super) async fn fetch(
        &self,
        leader: &Leader,
        path: &str,
    ) -> Result<(StatusCode, Vec<u8>), LeaderUnavailable> {
        let address = leader
            .address
            .as_deref()
            .ok_or(LeaderUnavailable::NoAddress)?;
        self.send(address, path).await.map_err(|(why, _)| why)
    }

    async fn send(
        &self,
        address: &str,
        path: &str,
    ) -> Result<(StatusCode, Vec<u8>), (LeaderUnavailable, String)> {
        let mut request = self
            .client
            .get(format!("https://{address}{path}"))
            .header(header::ACCEPT, "application/json")
            .header(FORWARDED, "1");
        if let Some(token) = self.token.header() {
            request = request.header(header::AUTHORIZATION, token);
        }
        let mut answer = request
            .send()
            .await
            .map_err(|error| describe_failure(&error))?;
        let code = answer.status();
        let why = match (answer.headers().get(FORWARDED), code) {
            (Some(role), _) if role == Role::Leader.header_value() => None,
            (Some(_), _) => Some(LeaderUnavailable::NotLeading),
            (None, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Some(LeaderUnavailable::Refused)
            }
            (None, _) => Some(LeaderUnavailable::Unable),
        };
        if let Some(why) = why {
            return Err((why, format!("status {}", code.as_u16())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| describe_failure(&error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY_BYTES {
                return Err((
                    LeaderUnavailable::NoAnswer,
                    "the response is too long".to_owned(),
                ));
            }
        }
        Ok((code, body))
    }

    /// Logs when forwarding starts to fail and when it works again. A changed leader is not a
    /// failure.
    fn log_transition(&self, leader: &str, failed: Option<&(LeaderUnavailable, String)>) {
        let why = failed.map(|(why, _)| *why);
        if why == Some(LeaderUnavailable::NotLeading)
            || !self.failures.record(why, Instant::now().into_std())
        {
            return;
        }
        match failed {
            Some((reason, detail)) => ForwardsFailing {
                leader,
                reason,
                detail,
            }
            .emit(),
            None => ForwardsRestored { leader }.emit(),
        }
    }
}

/// Classifies a failed request and describes its causes.
fn describe_failure(error: &reqwest::Error) -> (LeaderUnavailable, String) {
    // A connection attempt that times out also counts as no answer: the leader may be there and
    // overloaded.
    let why = if error.is_timeout() {
        LeaderUnavailable::NoAnswer
    } else {
        LeaderUnavailable::Unreachable
    };
    (why, describe_causes(error))
}

/// The causes of a failed request, which contain neither its URL nor headers.
pub(super) fn describe_causes(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push(inner.to_string());
        cause = inner.source();
    }
    words.dedup();
    words.join(": ")
}

/// Whether a request claims to be forwarded.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

/// The role in which a replica answers a forwarded request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// As the leader.
    Leader,
    /// As a follower.
    Follower,
}

impl Role {
    fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Leader => "by the leader",
            Self::Follower => "not by the leader",
        })
    }
}

/// Adds the role to a response.
pub(super) fn mark_role(mut response: Response, role: Role) -> Response {
    response
        .headers_mut()
        .insert(FORWARDED, role.header_value());
    response
}
