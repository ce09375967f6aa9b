//! librdkafka clients: how they are set up, and how their callbacks reach us.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::faults;
use super::kerberos::{self, Words};
use crate::kafka::health::Health;
use crate::kafka::login::{TokenSettings, Tokens};
use crate::kafka::{ClientSettings, SetupError};

/// How long the first token is waited for: as long as its source may take. librdkafka asks again only
/// ten seconds after it got none.
const TOKEN: Duration = Duration::from_secs(10);
/// How long librdkafka is told that a token lasts, at most. It asks again after four fifths of that,
/// which costs nothing, and so uses a token that was put right long before the wrong one expires.
const TOLD: Duration = Duration::from_secs(20);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Receives what a client says outside of calls.
pub(super) struct Context {
    health: Arc<Health>,
    /// Where this client gets tickets of Kerberos.
    words: Option<Words>,
    tokens: Option<Arc<Tokens>>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Called by the thread that polls, before the token at hand expires.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self.tokens.as_ref().ok_or("there is no token source")?;
        let started = Instant::now();
        let token = loop {
            if let Some(token) = tokens.now() {
                break token;
            }
            if let Some(failure) = tokens.failure() {
                faults::report(&self.health, AUTHENTICATION, &failure.to_string());
                return Err(failure.into());
            }
            if started.elapsed() > TOKEN {
                return Err("the token source has not answered yet".into());
            }
            thread::sleep(LOOK);
        };
        let expires = token.expires.min(SystemTime::now() + TOLD);
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(OAuthToken {
            token: token.value().to_owned(),
            principal_name: token.principal.clone(),
            lifetime_ms: i64::try_from(expires.as_millis())?,
        })
    }

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error, too; the rest is for whoever turns debug on.
        let told = kerberos::without_command(facility, message);
        tracing::debug!(target: "librdkafka", facility, "{told}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(words) = &self.words {
            // Why there is no ticket explains more than that there is none.
            words.hear();
        }
        let code = code_of(&error);
        faults::report(&self.health, code, reason);
        if code == AUTHENTICATION
            && let Some(tokens) = &self.tokens
            && let Some(token) = tokens.now()
        {
            tokens.refused(&token);
        }
    }
}

impl ConsumerContext for Context {}

/// A consumer that never subscribes: it reads offsets, metadata and watermarks, no messages.
pub(super) type LibrdkafkaClient = BaseConsumer<Context>;

/// librdkafka's code for a login that failed (`RD_KAFKA_RESP_ERR__AUTHENTICATION`).
const AUTHENTICATION: i32 = -169;

/// The code of an error; librdkafka's "generic failure" where it has none.
pub(super) fn code_of(error: &KafkaError) -> i32 {
    // The enum's numbers are the protocol's.
    error.rdkafka_error_code().map_or(-196, |code| code as i32)
}

/// Whether brokers are authenticated by the system's certificates, since the configuration names
/// none of its own.
pub(super) fn trusts_system_roots(settings: &ClientSettings) -> bool {
    let has = |name: &str| settings.properties.contains_key(name);
    let protocol = settings.properties.get("security.protocol");
    let is_tls = protocol.is_some_and(|protocol| protocol.to_ascii_uppercase().contains("SSL"));
    is_tls && !has("ssl.ca.location") && !has("ssl.ca.pem") && !has("ssl.ca.certificate.stores")
}

/// Sets up a client for the cluster, as a member-to-be of `group` where one is given.
pub(super) fn client(
    settings: &ClientSettings,
    health: &Arc<Health>,
    group: Option<&str>,
) -> Result<LibrdkafkaClient, SetupError> {
    let refused = |reason| SetupError {
        cluster: settings.name.clone(),
        reason,
    };
    let by_kerberos = kerberos::is_asked_for(settings);
    let mut config = ClientConfig::new();
    // Defaults that a property of the configuration may override.
    config.set("client.id", "lagwise");
    if group.is_none() {
        // A request that waits for a connection has librdkafka try anew twice in this time, whatever
        // the backoff has grown to: by its default, every 50 ms. A group's client is asked only once
        // this one has an answer, and then its first read must not wait.
        config.set("reconnect.backoff.ms", "1000");
    }
    config.set("reconnect.backoff.max.ms", "5000");
    config.set("log.connection.close", "false");
    if trusts_system_roots(settings) {
        // The OpenSSL that is linked in knows no distribution's paths; librdkafka does.
        config.set("ssl.ca.location", "probe");
    }
    // Nothing is produced, and a codec for it may not be built in.
    let is_used = |name: &str| !name.starts_with("compression.");
    for (name, value) in settings.properties.iter().filter(|(name, _)| is_used(name)) {
        config.set(name, value);
    }
    // What keeps reading free of side effects is not up to the configuration.
    config.set("allow.auto.create.topics", "false");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // Otherwise fetching committed offsets waits for open transactions to end.
    config.set("isolation.level", "read_uncommitted");
    if let Some(group) = group {
        config.set("group.id", group);
    }
    let listens = by_kerberos && group.is_none();
    let words = listens.then(|| Words::listen(settings, health)).flatten();
    if let Some(words) = &words {
        match words.command(settings) {
            Some(command) => config.set(kerberos::COMMAND, command),
            None => config.set(kerberos::EVERY, "0"),
        };
    } else if by_kerberos && group.is_some() {
        // The process has one ticket for all, and the cluster's own client keeps it fresh.
        config.set(kerberos::EVERY, "0");
    }
    let tokens = settings.token.as_ref().and_then(TokenSettings::tokens);
    let made = config.create_with_context(Context {
        health: Arc::clone(health),
        words,
        tokens: tokens.cloned(),
    });
    made.map_err(|error| {
        refused(match error {
            // Its Display would show the value, which may be a secret.
            KafkaError::ClientConfig(_, reason, name, _) => format!("property {name}: {reason}"),
            other => other.to_string(),
        })
    })
}
