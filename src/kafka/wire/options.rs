//! The librdkafka properties that the wire client supports, parsed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::address::Address;
use super::sasl::{LoginMethod, MAX_CONCURRENT_STEPS, Mechanism};
use super::tls::{Tls, TlsOptions};
use crate::kafka::SettingError;
use crate::kafka::client_certificate::client_certificate;
use crate::kafka::login::TokenCache;
use crate::model::units::host_pattern::{HostPattern, allows_host};

/// Connection options of a cluster. Holds secrets, hence no `Debug`.
pub(super) struct WireOptions {
    pub(super) bootstrap: Vec<Address>,
    pub(super) client_id: String,
    pub(super) tls: Option<Tls>,
    pub(super) login: LoginMethod,
    /// Turns for steps of logins to the brokers.
    pub(super) login_turns: Arc<Semaphore>,
    /// Hosts to connect to besides those of `bootstrap`; empty means all.
    pub(super) allowed_hosts: Vec<HostPattern>,
    /// When lagwise's own certificate expires.
    pub(super) client_certificate_expires: Option<SystemTime>,
    pub(super) family: AddressFamily,
    pub(super) keepalive: bool,
    /// Limit for connecting, TLS and login together.
    pub(super) setup_timeout: Duration,
    /// Age of an unanswered request at which its connection counts as dead.
    pub(super) request_timeout: Duration,
    /// How long an idle connection is kept.
    pub(super) idle: Duration,
    pub(super) backoff: (Duration, Duration),
    /// Maximum response size.
    pub(super) max_response_bytes: usize,
}

/// Address families to use of a host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFamily {
    Any,
    V4,
    V6,
}

/// The parts of `security.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) tls: bool,
    pub(super) sasl: bool,
}

/// Reads properties. Errors name the property and never show its value.
pub(super) struct PropertyReader<'a>(&'a BTreeMap<String, String>);

impl<'a> PropertyReader<'a> {
    pub(super) fn new(properties: &'a BTreeMap<String, String>) -> Self {
        Self(properties)
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn bool(&self, name: &str, default: bool) -> Result<bool, SettingError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "t" | "1") => Ok(true),
            Some("false" | "f" | "0") => Ok(false),
            Some(_) => Err(SettingError::property(name, "must be true or false")),
        }
    }

    fn millis(
        &self,
        name: &str,
        default: Duration,
        max: Duration,
    ) -> Result<Duration, SettingError> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        match text.trim().parse().map(Duration::from_millis) {
            Ok(duration) if duration <= max => Ok(duration),
            _ => {
                let most = max.as_millis();
                let problem = format!("must be a number of milliseconds, at most {most}");
                Err(SettingError::property(name, problem))
            }
        }
    }

    pub(super) fn security(&self) -> Result<Security, SettingError> {
        let protocol = self.text("security.protocol").unwrap_or("plaintext");
        let (tls, sasl) = match protocol.to_ascii_lowercase().as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => {
                return Err(SettingError::property(
                    "security.protocol",
                    "must be plaintext, ssl, sasl_plaintext or sasl_ssl",
                ));
            }
        };
        Ok(Security { tls, sasl })
    }

    /// The SASL mechanism, under either name of its property.
    pub(super) fn mechanism(&self) -> Option<&'a str> {
        self.text("sasl.mechanism")
            .or_else(|| self.text("sasl.mechanisms"))
    }

    /// The name under which the mechanism is configured.
    fn mechanism_name(&self) -> &'static str {
        match (self.text("sasl.mechanism"), self.text("sasl.mechanisms")) {
            (None, Some(_)) => "sasl.mechanisms",
            _ => "sasl.mechanism",
        }
    }

    fn login(&self, tokens: Option<&Arc<TokenCache>>) -> Result<LoginMethod, SettingError> {
        let mechanism = match self.mechanism() {
            Some("OAUTHBEARER") => {
                let login = tokens.map(|tokens| LoginMethod::Token(Arc::clone(tokens)));
                return login.ok_or_else(|| {
                    let problem =
                        "OAUTHBEARER requires a token source; set token: beside properties:";
                    SettingError::property(self.mechanism_name(), problem)
                });
            }
            Some("PLAIN") => Mechanism::Plain,
            Some("SCRAM-SHA-256") => Mechanism::ScramSha256,
            Some("SCRAM-SHA-512") => Mechanism::ScramSha512,
            _ => {
                return Err(SettingError::property(
                    self.mechanism_name(),
                    "the wire client supports PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER",
                ));
            }
        };
        let needed = |name: &str| match self.text(name) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(SettingError::property(name, "required by sasl.mechanism")),
        };
        Ok(LoginMethod::Password {
            mechanism,
            username: needed("sasl.username")?,
            password: needed("sasl.password")?,
        })
    }
}

impl WireOptions {
    /// Whether lagwise may connect to a host that a broker advertises.
    pub(super) fn allows_host(&self, host: &str) -> bool {
        let bootstrap = self.bootstrap.iter().map(|address| &*address.host);
        allows_host(&self.allowed_hosts, bootstrap, host)
    }

    /// Parses the properties and reads the certificate files they name. The error names the
    /// property.
    pub(super) fn read(
        properties: &BTreeMap<String, String>,
        tokens: Option<&Arc<TokenCache>>,
    ) -> Result<Self, SettingError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let reader = PropertyReader(properties);
        let servers = reader.text("bootstrap.servers").unwrap_or_default();
        let entries = servers.split(',').filter(|entry| !entry.trim().is_empty());
        let bootstrap: Option<Vec<_>> = entries.map(Address::parse).collect();
        let bootstrap = bootstrap
            .filter(|addresses| !addresses.is_empty())
            .ok_or_else(|| {
                let problem = "must be a comma-separated list of HOST:PORT";
                SettingError::property("bootstrap.servers", problem)
            })?;
        let security = reader.security()?;
        let family = match reader.text("broker.address.family").unwrap_or("any") {
            "any" => AddressFamily::Any,
            "v4" => AddressFamily::V4,
            "v6" => AddressFamily::V6,
            _ => {
                return Err(SettingError::property(
                    "broker.address.family",
                    "must be any, v4 or v6",
                ));
            }
        };
        let max_response_bytes = match reader.text("receive.message.max.bytes") {
            // Reading and decoding one takes up to six times as much memory.
            None => 32 * 1024 * 1024,
            Some(text) => text
                .parse()
                .ok()
                .filter(|bytes| (1000..=2_147_483_647).contains(bytes))
                .ok_or_else(|| {
                    let problem = "must be a number from 1000 to 2147483647";
                    SettingError::property("receive.message.max.bytes", problem)
                })?,
        };
        let idle = reader.millis("connections.max.idle.ms", Duration::ZERO, DAY)?;
        let default = |millis| Duration::from_millis(millis);
        Ok(Self {
            bootstrap,
            client_id: reader.text("client.id").unwrap_or("lagwise").to_owned(),
            tls: security
                .tls
                .then(|| TlsOptions::read(&reader)?.load())
                .transpose()?,
            login: if security.sasl {
                reader.login(tokens)?
            } else {
                LoginMethod::None
            },
            login_turns: Arc::new(Semaphore::new(MAX_CONCURRENT_STEPS)),
            allowed_hosts: Vec::new(),
            client_certificate_expires: client_certificate(properties).map(|own| own.expires),
            family,
            keepalive: reader.bool("socket.keepalive.enable", true)?,
            setup_timeout: reader.millis(
                "socket.connection.setup.timeout.ms",
                default(10_000),
                DAY,
            )?,
            request_timeout: reader.millis("socket.timeout.ms", default(10_000), DAY)?,
            // 0 disables the timeout in librdkafka; load balancers forget connections after 4
            // minutes.
            idle: if idle.is_zero() {
                default(180_000)
            } else {
                idle
            },
            backoff: (
                reader.millis("reconnect.backoff.ms", default(100), DAY)?,
                reader.millis("reconnect.backoff.max.ms", default(2000), DAY)?,
            ),
            max_response_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<WireOptions, SettingError> {
        let mut properties = BTreeMap::from([("bootstrap.servers".to_owned(), "a:1,b".to_owned())]);
        properties.extend(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        WireOptions::read(&properties, None)
    }

    #[test]
    fn a_problem_names_the_property_and_not_its_value() {
        for (name, value) in [
            ("bootstrap.servers", "hunter2:x"),
            ("bootstrap.servers", ","),
            ("security.protocol", "hunter2"),
            ("socket.timeout.ms", "hunter2"),
            ("socket.keepalive.enable", "hunter2"),
            ("broker.address.family", "hunter2"),
            ("receive.message.max.bytes", "hunter2"),
        ] {
            let problem = read(&[(name, value)]).err().unwrap().to_string();
            assert!(
                problem.contains(name) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
        let sasl = ("security.protocol", "SASL_PLAINTEXT");
        let missing = read(&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u")]);
        let missing = missing.err().unwrap().path();
        assert_eq!(missing.as_deref(), Some("properties.sasl.password"));
    }

    #[test]
    fn bootstrap_servers_are_allowed_beside_the_listed_hosts() {
        let mut options = read(&[]).unwrap();
        assert!(options.allows_host("anything"));
        options.allowed_hosts = vec![HostPattern::parse("*.kafka.svc").unwrap()];
        for (host, expected) in [
            ("a", true),
            ("b", true),
            ("b-1.kafka.svc", true),
            ("c", false),
            ("a.evil.example", false),
        ] {
            assert_eq!(options.allows_host(host), expected, "{host}");
        }
    }

    #[test]
    fn options_have_defaults_and_can_be_set() {
        let options =
            read(&[("connections.max.idle.ms", "0"), ("socket.timeout.ms", "7")]).unwrap();
        assert_eq!(options.idle, Duration::from_secs(180));
        assert_eq!(options.request_timeout, Duration::from_millis(7));
        assert_eq!(options.bootstrap.len(), 2);
        assert!(options.tls.is_none() && matches!(options.login, LoginMethod::None));
    }
}
