//! Sets up librdkafka clients and receives their callbacks.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::CString;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::faults;
use super::ffi::{HostFilter, connect_to_allowed_hosts};
use super::kerberos::{self, KinitOutput};
use crate::kafka::health::ConnectionHealth;
use crate::kafka::login::{TokenCache, TokenSettings};
use crate::kafka::{ClientSettings, SettingError, SetupError, wire};
use crate::model::kafka::fault::Fault;
use crate::model::units::file_path::{ShownPath, looks_like_path};
use crate::model::units::host_pattern::{HostPattern, allows_host};

/// How long to wait for the first token: as long as its source may take. If librdkafka gets none, it tries again only
/// after ten seconds.
const FIRST_TOKEN_WAIT: Duration = Duration::from_secs(10);
/// Maximum token lifetime reported to librdkafka. It requests a new token after four fifths of it, which is cheap, so a
/// corrected token is used long before the wrong one expires.
const MAX_REPORTED_LIFETIME: Duration = Duration::from_secs(20);
/// How often to check for the token during that time.
const TOKEN_POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct ClientCallbacks {
    health: Arc<ConnectionHealth>,
    /// Output of the Kerberos ticket command, if this client runs it.
    kinit_output: Option<KinitOutput>,
    tokens: Option<Arc<TokenCache>>,
    /// Hosts to connect to besides those of `bootstrap`; empty means all.
    allowed_hosts: Vec<HostPattern>,
    bootstrap: Vec<Arc<str>>,
}

impl ClientContext for ClientCallbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Called by the polling thread before the current token expires.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self
            .tokens
            .as_ref()
            .ok_or("no token source is configured")?;
        let started = Instant::now();
        let token = loop {
            if let Some(token) = tokens.current() {
                break token;
            }
            if let Some(failure) = tokens.failure() {
                faults::report(&self.health, AUTHENTICATION, &failure.to_string());
                return Err(failure.into());
            }
            if started.elapsed() > FIRST_TOKEN_WAIT {
                return Err("the token source has not answered yet".into());
            }
            thread::sleep(TOKEN_POLL_INTERVAL);
        };
        let expires = token.expires.min(SystemTime::now() + MAX_REPORTED_LIFETIME);
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(OAuthToken {
            token: token.value().to_owned(),
            principal_name: token.principal.clone(),
            lifetime_ms: i64::try_from(expires.as_millis())?,
        })
    }

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Relevant messages arrive as errors too; the rest is for debugging.
        let message = kerberos::without_command(facility, message);
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(kinit_output) = &self.kinit_output {
            // The output of kinit explains more than the error that follows from it, so report it
            // first.
            kinit_output.drain();
        }
        let code = code_of(&error);
        faults::report(&self.health, code, reason);
        if code == AUTHENTICATION
            && let Some(tokens) = &self.tokens
            && let Some(token) = tokens.current()
        {
            tokens.report_refusal(&token);
        }
    }
}

impl ConsumerContext for ClientCallbacks {}

impl HostFilter for ClientCallbacks {
    fn allows_host(&self, host: &str) -> bool {
        let bootstrap = self.bootstrap.iter().map(|server| &**server);
        let is_allowed = allows_host(&self.allowed_hosts, bootstrap, host);
        if !is_allowed {
            let (fault, now) = (Fault::HostNotAllowed, Instant::now());
            self.health.report(fault, &format!("{host}: {fault}"), now);
        }
        is_allowed
    }
}

/// A consumer that never subscribes: it reads offsets, metadata and watermarks, not messages.
pub(super) type OffsetConsumer = BaseConsumer<ClientCallbacks>;

/// librdkafka's code for a failed login (`RD_KAFKA_RESP_ERR__AUTHENTICATION`).
const AUTHENTICATION: i32 = -169;

/// The error code; librdkafka's "generic failure" if there is none.
pub(super) fn code_of(error: &KafkaError) -> i32 {
    // The enum's values are the protocol's codes.
    error.rdkafka_error_code().map_or(-196, |code| code as i32)
}

/// Whether brokers are verified against the system's root certificates, because no others are
/// configured.
pub(super) fn trusts_system_roots(settings: &ClientSettings) -> bool {
    let has = |name: &str| settings.properties.contains_key(name);
    let protocol = settings.properties.get("security.protocol");
    let is_tls = protocol.is_some_and(|protocol| protocol.to_ascii_uppercase().contains("SSL"));
    is_tls && !has("ssl.ca.location") && !has("ssl.ca.pem") && !has("ssl.ca.certificate.stores")
}

/// Creates a client for the cluster, with the group ID `group` if given.
pub(super) fn client(
    settings: &ClientSettings,
    health: &Arc<ConnectionHealth>,
    group: Option<&str>,
) -> Result<OffsetConsumer, SetupError> {
    let by_kerberos = kerberos::is_selected(settings);
    let mut config = ClientConfig::new();
    // Defaults that the configuration may override.
    config.set("client.id", "lagwise");
    if group.is_none() {
        // While a request waits for a connection, librdkafka retries twice per backoff, by default
        // every 50 ms, whatever the backoff has grown to. A group's client is used only after this
        // one got an answer, and its first read must not wait, so it keeps the default.
        config.set("reconnect.backoff.ms", "1000");
    }
    config.set("reconnect.backoff.max.ms", "5000");
    config.set("log.connection.close", "false");
    if trusts_system_roots(settings) {
        // The linked OpenSSL knows no distribution's certificate paths; librdkafka does.
        config.set("ssl.ca.location", "probe");
    }
    // Nothing is produced, and a codec for it may not be built in.
    let is_used = |name: &str| !name.starts_with("compression.");
    for (name, value) in settings.properties.iter().filter(|(name, _)| is_used(name)) {
        config.set(name, value);
    }
    // Settings that keep reads free of side effects cannot be overridden.
    config.set("allow.auto.create.topics", "false");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // Otherwise fetching committed offsets waits for open transactions.
    config.set("isolation.level", "read_uncommitted");
    if let Some(group) = group {
        config.set("group.id", group);
    }
    let listens = by_kerberos && group.is_none();
    let kinit_output = listens
        .then(|| KinitOutput::start(settings, health))
        .flatten();
    if let Some(kinit_output) = &kinit_output {
        match kinit_output.command(settings) {
            Some(command) => config.set(kerberos::COMMAND, command),
            None => config.set(kerberos::RELOGIN_INTERVAL, "0"),
        };
    } else if by_kerberos && group.is_some() {
        // The ticket is shared by the process and refreshed by the cluster's main client.
        config.set(kerberos::RELOGIN_INTERVAL, "0");
    }
    let tokens = settings.token.as_ref().and_then(TokenSettings::tokens);
    let is_limited = !settings.allowed_hosts.is_empty();
    if is_limited {
        // They are added once hosts are limited.
        config.remove("bootstrap.servers");
        config.remove("metadata.broker.list");
    }
    let callbacks = ClientCallbacks {
        health: Arc::clone(health),
        kinit_output,
        tokens: tokens.cloned(),
        allowed_hosts: settings.allowed_hosts.clone(),
        bootstrap: wire::bootstrap_hosts(settings.bootstrap()),
    };
    let made = config.create_with_context(callbacks);
    let client: OffsetConsumer = made.map_err(|error| {
        settings.setup_error(match error {
            // `Display` would show the value, which may be a secret.
            KafkaError::ClientConfig(_, reason, name, _) => SettingError::property(name, reason),
            other => without_odd_paths(other.to_string(), &settings.properties).into(),
        })
    })?;
    if is_limited {
        let servers = CString::new(settings.bootstrap()).ok();
        if !servers.is_some_and(|servers| connect_to_allowed_hosts(&client, &servers)) {
            let problem = "has no server to connect to";
            return Err(settings.setup_error(SettingError::property("bootstrap.servers", problem)));
        }
    }
    Ok(client)
}

/// Checks the properties as [`client`] does. Contacts no broker, and runs no command for Kerberos.
pub(super) fn check(settings: &ClientSettings) -> Result<(), SetupError> {
    let mut settings = settings.clone();
    // Without an address there is nothing to connect to.
    settings.properties.remove("bootstrap.servers");
    if kerberos::is_selected(&settings) {
        kerberos::disarm(&mut settings.properties);
    }
    client(&settings, &Arc::default(), None).map(drop)
}

/// A message of librdkafka without the values of path properties that do not look like paths: a secret may have been
/// written in the place of its path.
fn without_odd_paths(message: String, properties: &BTreeMap<String, String>) -> String {
    let is_path = |name: &str| name.ends_with(".location") || name == "sasl.kerberos.keytab";
    let paths = properties.iter().filter(|(name, _)| is_path(name));
    let odd = paths.filter(|(_, value)| !value.is_empty() && !looks_like_path(value));
    odd.fold(message, |message, (_, value)| {
        message.replace(value, &ShownPath(value).to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::ClientKind;

    #[test]
    fn errors_of_librdkafka_do_not_show_a_secret_given_as_a_path() {
        let connect = |name: &str, value: &str| {
            let pairs = [
                ("bootstrap.servers", "127.0.0.1:1"),
                ("security.protocol", "SSL"),
                (name, value),
            ];
            let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let settings = ClientSettings {
                name: "main".into(),
                properties: owned.into(),
                max_groups: 1,
                token: None,
                renew: None,
                allowed_hosts: Vec::new(),
                client: ClientKind::Librdkafka,
            };
            let client = client(&settings, &Arc::default(), None);
            client.err().unwrap().to_string()
        };
        for secret in ["hunter2", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIifQ.c2ln"] {
            for name in ["ssl.ca.location", "ssl.key.location"] {
                let error = connect(name, secret);
                assert!(error.contains("ssl.") && !error.contains(secret), "{error}");
            }
        }
    }
}
