//! SASL login: `SaslHandshake`, then as many `SaslAuthenticate` as the mechanism needs (KIP-152).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, MessageSent, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, OAuthBearerKV, OAuthBearerToken, Password};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::handshake::{ConnectError, SetupExchange};
use super::responses;
use super::versions::{ApiKey, BrokerVersions};
use crate::kafka::codes;
use crate::kafka::login::{Token, TokenCache};
use crate::kafka::peer_protocol::{login_required_here, no_login_here};
use crate::model::diagnostics::preflight::kafka::SaslLogin;
use crate::model::kafka::fault::Fault;

/// Accepted SCRAM iteration counts. Fewer than Kafka's own minimum would expose the password to a
/// false broker; more would cost seconds of CPU.
const SCRAM_ITERATIONS: RangeInclusive<u32> = 4096..=1_000_000;

/// Maximum round trips of a login; SCRAM needs two.
const MAX_STEPS: usize = 8;

/// Maximum steps of logins to one cluster that are computed at the same time. A hostile cluster has a thousand brokers,
/// each of which may require so many iterations that a step takes a second.
pub(super) const MAX_CONCURRENT_STEPS: usize = 2;

/// The configured login method. Holds a secret, hence no `Debug`.
#[derive(Clone)]
pub(super) enum LoginMethod {
    /// No SASL; a client certificate may identify us.
    None,
    /// Name and password.
    Password {
        mechanism: Mechanism,
        username: String,
        password: String,
    },
    /// The token that is valid at login time.
    Token(Arc<TokenCache>),
}

/// Credentials for one login. Holds a secret, hence no `Debug`.
pub(super) enum LoginCredentials {
    None,
    Password {
        mechanism: Mechanism,
        username: String,
        password: String,
    },
    Token(Arc<Token>, Arc<TokenCache>),
}

impl LoginMethod {
    pub(super) fn is_configured(&self) -> bool {
        !matches!(self, LoginMethod::None)
    }

    /// The credentials for a login. Waits for a token until the deadline.
    pub(super) async fn credentials(
        &self,
        deadline: Instant,
    ) -> Result<LoginCredentials, ConnectError> {
        let LoginMethod::Token(tokens) = self else {
            return self
                .available_credentials()
                .ok_or_else(|| login_error("no credentials are available".into()));
        };
        let token = tokens.wait(deadline).await;
        let token = token.map_err(|error| login_error(error.to_string()))?;
        Ok(LoginCredentials::Token(token, Arc::clone(tokens)))
    }

    /// The credentials for a login, without waiting; `None` if there is no valid token.
    pub(super) fn available_credentials(&self) -> Option<LoginCredentials> {
        Some(match self {
            LoginMethod::None => LoginCredentials::None,
            LoginMethod::Password {
                mechanism,
                username,
                password,
            } => LoginCredentials::Password {
                mechanism: *mechanism,
                username: username.clone(),
                password: password.clone(),
            },
            LoginMethod::Token(tokens) => {
                LoginCredentials::Token(tokens.current()?, Arc::clone(tokens))
            }
        })
    }
}

impl LoginCredentials {
    /// The mechanism and who logs in; `None` without a login.
    pub(super) fn describe(&self) -> Option<SaslLogin> {
        let name = match self {
            LoginCredentials::None => return None,
            LoginCredentials::Password { username, .. } => username,
            LoginCredentials::Token(token, _) => &token.principal,
        };
        Some(SaslLogin {
            mechanism: self.mechanism()?,
            name: name.clone(),
        })
    }

    fn mechanism(&self) -> Option<&'static str> {
        match self {
            LoginCredentials::None => None,
            LoginCredentials::Password { mechanism, .. } => Some(mechanism.name()),
            LoginCredentials::Token(..) => Some("OAUTHBEARER"),
        }
    }

    /// The callback that supplies the credentials to rsasl.
    fn callback(&self) -> Option<SaslCallback> {
        match self {
            LoginCredentials::None => None,
            LoginCredentials::Password {
                username, password, ..
            } => Some(SaslCallback::Password {
                username: username.clone(),
                password: password.clone(),
            }),
            LoginCredentials::Token(token, _) => Some(SaslCallback::Token(Arc::clone(token))),
        }
    }
}

/// SASL mechanisms with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Supplies credentials to rsasl.
enum SaslCallback {
    Password { username: String, password: String },
    Token(Arc<Token>),
}

impl SessionCallback for SaslCallback {
    fn callback(
        &self,
        _session: &SessionData,
        context: &Context,
        request: &mut Request,
    ) -> Result<(), SessionError> {
        if let Some(iterations) = context.get_ref::<Iterations>()
            && !SCRAM_ITERATIONS.contains(iterations)
        {
            let (least, most) = (SCRAM_ITERATIONS.start(), SCRAM_ITERATIONS.end());
            return Err(SessionError::Boxed(
                format!("the broker asks for {iterations} SCRAM iterations; {least} to {most} are accepted").into(),
            ));
        }
        match self {
            SaslCallback::Password { username, password } => {
                request
                    .satisfy::<AuthId>(username)?
                    .satisfy::<Password>(password.as_bytes())?;
            }
            SaslCallback::Token(token) => {
                let pairs = token.extensions.iter();
                let pairs: Vec<_> = pairs.map(|(k, v)| (k.as_str(), v.as_str())).collect();
                request
                    .satisfy::<OAuthBearerKV>(&pairs)?
                    .satisfy::<OAuthBearerToken>(token.value())?;
            }
        }
        Ok(())
    }
}

/// Logs in, on a new connection or as a reauthentication (KIP-368). Returns the login's lifetime,
/// if limited.
pub(super) async fn log_in(
    credentials: &LoginCredentials,
    exchange: &mut SetupExchange<'_>,
    versions: &BrokerVersions,
) -> Result<Option<Duration>, ConnectError> {
    let (Some(name), Some(answers)) = (credentials.mechanism(), credentials.callback()) else {
        return Ok(None);
    };
    let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
    let version = common_version(versions, ApiKey::SaslHandshake)?;
    let answer = exchange
        .send_request(ApiKey::SaslHandshake, version, &body)
        .await?;
    let (code, offered) = responses::sasl_handshake(&answer)?;
    if code == codes::ILLEGAL_SASL_STATE || (code != codes::NONE && offered.is_empty()) {
        return Err(login_error(no_login_here(exchange.has_tls())));
    }
    if code != codes::NONE {
        return Err(login_error(format!(
            "the broker does not support SASL {name} on this listener; set sasl.mechanism to what it offers: {}",
            offered.join(", ")
        )));
    }
    let mut session = start(answers, name)?;
    let version = common_version(versions, ApiKey::SaslAuthenticate)?;
    let (mut input, mut session_lifetime) = (None::<Vec<u8>>, None);
    for _ in 0..MAX_STEPS {
        let (output, state) = match (credentials, input.as_deref()) {
            // A broker explains why it rejects a token and expects an acknowledgement before it
            // fails the login (RFC 7628, section 3.2.3). Its explanation is repeated in the
            // failure.
            (LoginCredentials::Token(token, tokens), Some([_, ..])) => {
                tokens.report_refusal(token);
                (vec![1], State::Running)
            }
            _ => {
                let stepped = step(session, input, exchange.login_turns()).await?;
                session = stepped.session;
                (stepped.output, stepped.state)
            }
        };
        if matches!(state, State::Finished(MessageSent::No)) {
            return Ok(session_lifetime);
        }
        let body = SaslAuthenticateRequest::default().with_auth_bytes(output.into());
        let answer = exchange
            .send_request(ApiKey::SaslAuthenticate, version, &body)
            .await?;
        let found = responses::sasl_authenticate(&answer, version)?;
        if found.code != codes::NONE {
            if let LoginCredentials::Token(token, tokens) = credentials {
                tokens.report_refusal(token);
            }
            let message = found.message.filter(|message| !message.is_empty());
            return Err(login_error(match message {
                Some(message) => message.to_owned(),
                None => format!("{name}: error code {}", found.code),
            }));
        }
        session_lifetime = u64::try_from(found.lifetime_ms)
            .ok()
            .filter(|millis| *millis > 0)
            .map(Duration::from_millis);
        if matches!(state, State::Finished(_)) {
            return Ok(session_lifetime);
        }
        input = Some(found.answer.to_vec());
    }
    Err(login_error(format!(
        "{name}: the login did not finish after {MAX_STEPS} round trips"
    )))
}

/// Finds out whether a broker that refused a connection without a login requires one. Returns what to set if it does.
pub(super) async fn find_required_login(
    exchange: &mut SetupExchange<'_>,
    versions: &BrokerVersions,
) -> Result<Option<ConnectError>, ConnectError> {
    let Ok(version) = versions.highest_common(ApiKey::SaslHandshake) else {
        return Ok(None);
    };
    // Brokers list the mechanisms that they offer, also if they reject the requested one.
    let any = Mechanism::Plain.name();
    let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(any));
    let answer = exchange
        .send_request(ApiKey::SaslHandshake, version, &body)
        .await?;
    let (code, offered) = responses::sasl_handshake(&answer)?;
    let is_required = code != codes::ILLEGAL_SASL_STATE && !offered.is_empty();
    Ok(is_required.then(|| login_error(login_required_here(exchange.has_tls(), &offered))))
}

fn login_error(reason: String) -> ConnectError {
    ConnectError::new(Fault::Login, reason)
}

fn common_version(versions: &BrokerVersions, api: ApiKey) -> Result<i16, ConnectError> {
    let refusal = |_| {
        login_error(format!(
            "the broker is too old: it does not support {api:?}"
        ))
    };
    versions.highest_common(api).map_err(refusal)
}

fn start(answers: SaslCallback, name: &str) -> Result<Session, ConnectError> {
    let defect =
        |error: &dyn std::fmt::Display| ConnectError::new(Fault::Client, error.to_string());
    let config = SASLConfig::builder()
        .with_default_mechanisms()
        .with_callback(answers)
        .map_err(|error| defect(&error))?;
    let mechanism = Mechname::parse(name.as_bytes()).map_err(|error| defect(&error))?;
    SASLClient::new(config)
        .start_suggested(&[mechanism])
        .map_err(|error| defect(&error))
}

struct SaslStep {
    session: Session,
    output: Vec<u8>,
    state: State,
}

/// Runs one step of the mechanism on a blocking thread, because SCRAM hashes for long. Waits for one of `turns`.
async fn step(
    mut session: Session,
    input: Option<Vec<u8>>,
    turns: Arc<Semaphore>,
) -> Result<SaslStep, ConnectError> {
    // Never closed.
    let turn = turns.acquire_owned().await;
    let stepping = tokio::task::spawn_blocking(move || {
        let mut output = Vec::new();
        let state = session.step(input.as_deref(), &mut output);
        // Only now, because the thread continues after its caller has stopped waiting.
        drop(turn);
        state.map(|state| SaslStep {
            session,
            output,
            state,
        })
    });
    match stepping.await {
        Ok(Ok(stepped)) => Ok(stepped),
        // rsasl's errors contain no secrets.
        Ok(Err(error)) => Err(login_error(format!(
            "invalid login response from the broker: {error}"
        ))),
        Err(_) => Err(ConnectError::new(
            Fault::Client,
            "the login task was cancelled",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_waits_for_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let password = SaslCallback::Password {
            username: "u".to_owned(),
            password: "p".to_owned(),
        };
        let session = start(password, Mechanism::Plain.name()).unwrap();
        let mut stepping = pin!(step(session, None, Arc::clone(&turns)));
        let waited = timeout(Duration::from_secs(60), &mut stepping).await;
        assert!(waited.is_err());
        drop(turn);
        assert_eq!(stepping.await.unwrap().output, b"\0u\0p");
        assert_eq!(turns.available_permits(), 1);
    }
}
