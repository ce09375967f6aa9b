//! Logging in: `SaslHandshake`, then `SaslAuthenticate` as often as the mechanism asks (KIP-152).

use std::ops::RangeInclusive;
use std::time::Duration;

use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, MessageSent, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, Password};

use super::responses;
use super::setup::{Broken, Exchange};
use super::versions::{Api, Versions};
use crate::kafka::codes;
use crate::model::fault::Fault;

/// The rounds of hashing that a broker may ask for: fewer than Kafka's own least give the password
/// away, more cost us seconds.
const SCRAM_ITERATIONS: RangeInclusive<u32> = 4096..=1_000_000;

/// Steps that a login may take; SCRAM takes two.
const MAX_STEPS: usize = 8;

/// Who we say we are. Holds a secret, hence no `Debug`. Tokens (OAUTHBEARER) will be one more.
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
struct Answers {
    username: String,
    password: String,
}

impl SessionCallback for Answers {
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
        request
            .satisfy::<AuthId>(&self.username)?
            .satisfy::<Password>(self.password.as_bytes())?;
        Ok(())
    }
}

/// Logs in on a new connection; how long that lasts, where it does not last for ever.
pub(super) async fn log_in(
    login: &Login,
    exchange: &mut Exchange<'_>,
    versions: &Versions,
) -> Result<Option<Duration>, Broken> {
    let Login::Password {
        mechanism,
        username,
        password,
    } = login
    else {
        return Ok(None);
    };
    let name = mechanism.name();
    let body = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
    let version = supported(versions, Api::SaslHandshake)?;
    let answer = exchange.ask(Api::SaslHandshake, version, &body).await?;
    let (code, offered) = responses::sasl_handshake(&answer)?;
    if code != codes::NONE {
        return Err(refused(format!(
            "the broker does not take {name} here, but {}",
            offered.join(", ")
        )));
    }
    let answers = Answers {
        username: username.clone(),
        password: password.clone(),
    };
    let mut session = start(answers, name)?;
    let version = supported(versions, Api::SaslAuthenticate)?;
    let (mut input, mut lasts) = (None, None);
    for _ in 0..MAX_STEPS {
        let stepped = step(session, input).await?;
        session = stepped.session;
        if matches!(stepped.state, State::Finished(MessageSent::No)) {
            return Ok(lasts);
        }
        let body = SaslAuthenticateRequest::default().with_auth_bytes(stepped.output.into());
        let answer = exchange.ask(Api::SaslAuthenticate, version, &body).await?;
        let found = responses::sasl_authenticate(&answer, version)?;
        if found.code != codes::NONE {
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
        if matches!(stepped.state, State::Finished(_)) {
            return Ok(lasts);
        }
        input = Some(found.answer.to_vec());
    }
    Err(refused(format!("{name}: the login does not end")))
}

fn refused(reason: String) -> Broken {
    Broken::new(Fault::Login, reason)
}

fn supported(versions: &Versions, api: Api) -> Result<i16, Broken> {
    let refusal = |_| refused(format!("the broker is too old: it lacks {api:?}"));
    versions.of(api).map_err(refusal)
}

fn start(answers: Answers, name: &str) -> Result<Session, Broken> {
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
