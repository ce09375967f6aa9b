//! Requests for metrics go to the daemon that leads: of several, only that one knows the lag.
//!
//! Whoever does not lead has authenticated and authorised the caller, and shows the leader its own
//! credential with the header [`FORWARDED`]. The leader takes it for one of its own when the cluster knows
//! both by the same name, and then does not ask the cluster about the caller again. From anybody else
//! the header means nothing. What was passed on once is not passed on again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

use super::api_error::{ApiFailure, json};
use super::tls::{ServerTls, TlsError};
use crate::authentication::Credential;
use crate::leader_election::Leader;
use crate::telemetry::forward::{Forwarded, ForwardsFailing, ForwardsRestored};

/// Says that a request is passed on by a daemon that does not lead; and, in an answer, whether it is that
/// of the one that does.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("x-lagwise-forwarded");

/// How long the leader may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long a request for a metric may take on the way from one leader to the next. The HPA controller
/// has five workers.
pub(super) const LED_WITHIN: Duration = Duration::from_secs(2);

/// How long a request waits for another leader when the one that is known cannot be reached: one that
/// hands over says so within this.
pub(super) const HANDED_OVER_WITHIN: Duration = Duration::from_millis(300);

/// How often a connection without requests is looked at, and how long the peer has to say something.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The most bytes of an answer.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long the text of a file with a token is not read again.
const TOKEN_LASTS: Duration = Duration::from_secs(10);

/// Why nobody who leads has answered. `Display` is constant text: it reaches the HPA's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeaderUnavailable {
    /// Nobody holds the Lease, as far as is known.
    #[error("no lagwise daemon leads at present, so that the lag is not known")]
    NoLeader,
    /// This one leads and has not begun.
    #[error("the lagwise daemon that leads has just begun to")]
    Beginning,
    /// A request that was passed on came to one that does not lead.
    #[error("the lagwise daemon that was taken for the leader does not lead")]
    NotLeading,
    /// The Lease does not say where the leader is asked.
    #[error("the lagwise daemon that leads does not say where it can be reached")]
    NoAddress,
    /// No connection to it, or an untrusted one.
    #[error("the lagwise daemon that leads cannot be reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the lagwise daemon that leads does not answer")]
    NoAnswer,
    /// It answers, but cannot say who asks, or has too much to do.
    #[error("the lagwise daemon that leads cannot answer at present")]
    Unable,
    /// It does not know this daemon for one of its own.
    #[error("the lagwise daemon that leads does not take this one for one of its own")]
    Refused,
}

impl LeaderUnavailable {
    fn label(self) -> &'static str {
        match self {
            Self::NoLeader => "no_leader",
            Self::Beginning => "beginning",
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

/// Why nothing can be passed on, whoever leads.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// The credential cannot be shown.
    #[error("cannot use the client certificate of the kubeconfig: {0}")]
    Credential(rustls::pki_types::pem::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Passes requests on.
#[derive(Debug)]
pub struct Forwarder {
    client: reqwest::Client,
    credential: Credential,
    token: Mutex<Option<(Instant, HeaderValue)>>,
    failing: Mutex<Option<LeaderUnavailable>>,
}

impl Forwarder {
    /// To daemons whose certificates are as this one's, `tls`, showing them this credential.
    ///
    /// # Errors
    /// What cannot work whoever leads.
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
            .tls_backend_preconfigured(tls.to_peers(identity)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            .http2_keep_alive_while_idle(true)
            .build()?;
        Ok(Self {
            client,
            credential,
            token: Mutex::new(None),
            failing: Mutex::new(None),
        })
    }

    /// The leader's answer to this path and query, whatever its code.
    pub(super) async fn ask(
        &self,
        leader: &Leader,
        path: &str,
    ) -> Result<Response, LeaderUnavailable> {
        let address = leader
            .address
            .as_deref()
            .ok_or(LeaderUnavailable::NoAddress)?;
        let began = Instant::now();
        let asked = self.ask_at(address, path).await;
        let outcome = match &asked {
            Ok(_) => "answered",
            Err((why, _)) => why.label(),
        };
        Forwarded {
            outcome,
            took: began.elapsed(),
        }
        .emit();
        self.tell(address, asked.as_ref().err());
        asked.map_err(|(why, _)| why)
    }

    async fn ask_at(
        &self,
        address: &str,
        path: &str,
    ) -> Result<Response, (LeaderUnavailable, String)> {
        let mut request = self
            .client
            .get(format!("https://{address}{path}"))
            .header(header::ACCEPT, "application/json")
            .header(FORWARDED, "1");
        if let Some(token) = self.token() {
            request = request.header(header::AUTHORIZATION, token);
        }
        let mut answer = request
            .send()
            .await
            .map_err(|error| describe_failure(&error))?;
        let code = answer.status();
        let why = match (answer.headers().get(FORWARDED), code) {
            (Some(role), _) if role == Role::Leader.text() => None,
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
            if body.len() > BODY_BYTES_MAX {
                return Err((
                    LeaderUnavailable::NoAnswer,
                    "its answer is too long".to_owned(),
                ));
            }
        }
        Ok(json(code, body))
    }

    /// The header with the own token. A file is read again every few seconds: it is replaced long before
    /// its token ends.
    fn token(&self) -> Option<HeaderValue> {
        let mut known = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, token)) = &*known
            && read.elapsed() < TOKEN_LASTS
        {
            return Some(token.clone());
        }
        let text = match &self.credential {
            Credential::Token(token) => token.clone(),
            Credential::TokenFile(file) => std::fs::read_to_string(file).ok()?,
            Credential::None | Credential::Certificate { .. } => return None,
        };
        let mut token = HeaderValue::try_from(format!("Bearer {}", text.trim())).ok()?;
        token.set_sensitive(true);
        *known = Some((Instant::now(), token.clone()));
        Some(token)
    }

    /// Tells once what begins or ends. That somebody else leads by now is no failure.
    fn tell(&self, leader: &str, failed: Option<&(LeaderUnavailable, String)>) {
        let now = failed.map(|(why, _)| *why);
        if now == Some(LeaderUnavailable::NotLeading) {
            return;
        }
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *failing, now);
        drop(failing);
        match failed {
            Some((reason, detail)) if before != now => ForwardsFailing {
                leader,
                reason,
                detail,
            }
            .emit(),
            None if before.is_some() => ForwardsRestored { leader }.emit(),
            _ => {}
        }
    }
}

/// Why there was no answer, and the causes in words. None of them shows a header.
fn describe_failure(error: &reqwest::Error) -> (LeaderUnavailable, String) {
    let mut words = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words.push(inner.to_string());
        cause = inner.source();
    }
    words.dedup();
    // One that hangs is connected to within the deadline or not at all.
    let why = if error.is_timeout() {
        LeaderUnavailable::NoAnswer
    } else {
        LeaderUnavailable::Unreachable
    };
    (why, words.join(": "))
}

/// Whether a request says that it was passed on.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

/// As what a daemon answers a request that was passed on to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// As the one that leads.
    Leader,
    /// As one that does not.
    Other,
}

impl Role {
    fn text(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Leader => "by the leader",
            Self::Other => "not by the leader",
        })
    }
}

/// Says in an answer as what it is given.
pub(super) fn mark(mut response: Response, role: Role) -> Response {
    response.headers_mut().insert(FORWARDED, role.text());
    response
}
