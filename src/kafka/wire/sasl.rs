//! Logging in: `SaslHandshake`, then `SaslAuthenticate` as often as the mechanism asks (KIP-152).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, MessageSent, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, OAuthBearerKV, OAuthBearerToken, Password};
use tokio::time::Instant;

use super::handshake::{Broken, HandshakeExchange};
use super::responses;
use super::versions::{ApiVersions, Versions};
use crate::kafka::codes;
use crate::kafka::login::{Token, Tokens};
use crate::model::kafka::fault::Fault;

/// The rounds of hashing that a broker may ask for: fewer than Kafka's own least give the password
/// away, more cost us seconds.
const SCRAM_ITERATIONS: RangeInclusive<u32> = 4096..=1_000_000;

/// Steps that a login may take; SCRAM takes two.
const MAX_STEPS: usize = 8;

/// Who we say we are. Holds a secret, hence no `Debug`.
#[derive(Clone)]
pub(super) enum Login {
    /// Nobody, or who our certificate says.
    None,
    /// By name and password.
    Password {
        mechanism: Mechanism,
        username: String,
        password: String,
    },
    /// By a token, the one that is valid at the time.
    Token(Arc<Tokens>),
}

/// All that one login needs. Holds a secret, hence no `Debug`.
pub(super) enum Proof {
    None,
    Password {
        mechanism: Mechanism,
        username: String,
        password: String,
    },
    Token(Arc<Token>, Arc<Tokens>),
}

impl Login {
    /// What the login needs; a token is waited for until the deadline.
    pub(super) async fn proof(&self, deadline: Instant) -> Result<Proof, Broken> {
        let Login::Token(tokens) = self else {
            return self.proof_now().ok_or_else(|| refused("no login".into()));
        };
        let token = tokens.token(deadline).await;
        let token = token.map_err(|error| refused(error.to_string()))?;
        Ok(Proof::Token(token, Arc::clone(tokens)))
    }

    /// What the login needs, where it is at hand.
    pub(super) fn proof_now(&self) -> Option<Proof> {
        Some(match self {
            Login::None => Proof::None,
            Login::Password {
                mechanism,
                username,
                password,
            } => Proof::Password {
                mechanism: *mechanism,
                username: username.clone(),
                password: password.clone(),
            },
            Login::Token(tokens) => Proof::Token(tokens.now()?, Arc::clone(tokens)),
        })
    }
}

impl Proof {
    fn mechanism(&self) -> Option<&'static str> {
        match self {
            Proof::None => None,
            Proof::Password { mechanism, .. } => Some(mechanism.name()),
            Proof::Token(..) => Some("OAUTHBEARER"),
        }
    }

    /// What rsasl is to ask for it.
    fn answers(&self) -> Option<SaslResponses> {
        match self {
            Proof::None => None,
            Proof::Password {
                username, password, ..
            } => Some(SaslResponses::Password {
                username: username.clone(),
                password: password.clone(),
            }),
            Proof::Token(token, _) => Some(SaslResponses::Token(Arc::clone(token))),
        }
    }
}

/// How a password is proven.
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

/// What rsasl asks for on the way.
enum SaslResponses {
    Password { username: String, password: String },
    Token(Arc<Token>),
}

impl SessionCallback for SaslResponses {
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
                format!("SCRAM by {iterations} iterations, not by {least} to {most}").into(),
            ));
        }
        match self {
            SaslResponses::Password { username, password } => {
                request
                    .satisfy::<AuthId>(username)?
                    .satisfy::<Password>(password.as_bytes())?;
            }
            SaslResponses::Token(token) => {
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

/// Logs in, on a new connection or again on one that is quiet (KIP-368); how long that lasts, where it
/// does not last for ever.
pub(super) async fn log_in(
    proof: &Proof,
    exchange: &mut HandshakeExchange<'_>,
    versions: &Versions,
) -> Result<Option<Duration>, Broken> {
    let (Some(name), Some(answers)) = (proof.mechanism(), proof.answers()) else {
        return Ok(None);
    };
    let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
    let version = supported(versions, ApiVersions::SaslHandshake)?;
    let answer = exchange
        .ask(ApiVersions::SaslHandshake, version, &body)
        .await?;
    let (code, offered) = responses::sasl_handshake(&answer)?;
    if code != codes::NONE {
        return Err(refused(format!(
            "the broker does not take {name} here, but {}",
            offered.join(", ")
        )));
    }
    let mut session = start(answers, name)?;
    let version = supported(versions, ApiVersions::SaslAuthenticate)?;
    let (mut input, mut lasts) = (None::<Vec<u8>>, None);
    for _ in 0..MAX_STEPS {
        let (output, state) = match (proof, input.as_deref()) {
            // A broker says what it has against a token, and refuses it once that was acknowledged
            // (RFC 7628, section 3.2.3). Its words come again with the refusal.
            (Proof::Token(token, tokens), Some([_, ..])) => {
                tokens.refused(token);
                (vec![1], State::Running)
            }
            _ => {
                let stepped = step(session, input).await?;
                session = stepped.session;
                (stepped.output, stepped.state)
            }
        };
        if matches!(state, State::Finished(MessageSent::No)) {
            return Ok(lasts);
        }
        let body = SaslAuthenticateRequest::default().with_auth_bytes(output.into());
        let answer = exchange
            .ask(ApiVersions::SaslAuthenticate, version, &body)
            .await?;
        let found = responses::sasl_authenticate(&answer, version)?;
        if found.code != codes::NONE {
            if let Proof::Token(token, tokens) = proof {
                tokens.refused(token);
            }
            let message = found.message.filter(|message| !message.is_empty());
            return Err(refused(match message {
                Some(message) => message.to_owned(),
                None => format!("{name}: error code {}", found.code),
            }));
        }
        lasts = u64::try_from(found.lifetime_ms)
            .ok()
            .filter(|millis| *millis > 0)
            .map(Duration::from_millis);
        if matches!(state, State::Finished(_)) {
            return Ok(lasts);
        }
        input = Some(found.answer.to_vec());
    }
    Err(refused(format!("{name}: the login does not end")))
}

fn refused(reason: String) -> Broken {
    Broken::new(Fault::Login, reason)
}

fn supported(versions: &Versions, api: ApiVersions) -> Result<i16, Broken> {
    let refusal = |_| refused(format!("the broker is too old: it lacks {api:?}"));
    versions.of(api).map_err(refusal)
}

fn start(answers: SaslResponses, name: &str) -> Result<Session, Broken> {
    let defect = |error: &dyn std::fmt::Display| Broken::new(Fault::Client, error.to_string());
    let config = SASLConfig::builder()
        .with_default_mechanisms()
        .with_callback(answers)
        .map_err(|error| defect(&error))?;
    let mechanism = Mechname::parse(name.as_bytes()).map_err(|error| defect(&error))?;
    SASLClient::new(config)
        .start_suggested(&[mechanism])
        .map_err(|error| defect(&error))
}

struct Stepped {
    session: Session,
    output: Vec<u8>,
    state: State,
}

/// One step of the mechanism, on a thread where its hashing keeps nobody waiting.
async fn step(mut session: Session, input: Option<Vec<u8>>) -> Result<Stepped, Broken> {
    let stepping = tokio::task::spawn_blocking(move || {
        let mut output = Vec::new();
        let state = session.step(input.as_deref(), &mut output);
        state.map(|state| Stepped {
            session,
            output,
            state,
        })
    });
    match stepping.await {
        Ok(Ok(stepped)) => Ok(stepped),
        // What rsasl says names no secret.
        Ok(Err(error)) => Err(refused(format!("the broker's side of the login: {error}"))),
        Err(_) => Err(Broken::new(Fault::Client, "the login's hashing ended")),
    }
}
