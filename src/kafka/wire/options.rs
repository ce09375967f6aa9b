//! What the wire client takes from librdkafka's properties.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::sasl::{Login, Mechanism};
use super::tls::{Tls, TlsOptions};
use crate::kafka::login::Tokens;

/// How a broker is spoken to. Holds secrets, hence no `Debug`.
pub(super) struct WireOptions {
    pub(super) bootstrap: Vec<Address>,
    pub(super) client_id: String,
    pub(super) tls: Option<Tls>,
    pub(super) login: Login,
    pub(super) family: Family,
    pub(super) keepalive: bool,
    /// From the first packet to the end of the login.
    pub(super) setup_timeout: Duration,
    /// How old an unanswered request may be before its connection counts as dead.
    pub(super) request_timeout: Duration,
    /// How long an unused connection is kept.
    pub(super) idle: Duration,
    pub(super) backoff: (Duration, Duration),
    /// The longest response that is read.
    pub(super) max_response_bytes: usize,
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

/// What `security.protocol` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) tls: bool,
    pub(super) sasl: bool,
}

/// Reads properties one at a time; the error names the property and never shows its value.
pub(super) struct PropertyReader<'a>(&'a BTreeMap<String, String>);

impl<'a> PropertyReader<'a> {
    pub(super) fn new(properties: &'a BTreeMap<String, String>) -> Self {
        Self(properties)
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn bool(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "t" | "1") => Ok(true),
            Some("false" | "f" | "0") => Ok(false),
            Some(_) => Err(format!("property {name}: neither true nor false")),
        }
    }

    fn millis(&self, name: &str, default: Duration, max: Duration) -> Result<Duration, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        match text.trim().parse().map(Duration::from_millis) {
            Ok(duration) if duration <= max => Ok(duration),
            _ => Err(format!(
                "property {name}: not a number of milliseconds up to {}",
                max.as_millis()
            )),
        }
    }

    pub(super) fn security(&self) -> Result<Security, String> {
        let protocol = self.text("security.protocol").unwrap_or("plaintext");
        let (tls, sasl) = match protocol.to_ascii_lowercase().as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => {
                return Err(
                    "property security.protocol: none of plaintext, ssl, sasl_plaintext, sasl_ssl"
                        .into(),
                );
            }
        };
        Ok(Security { tls, sasl })
    }

    /// The SASL mechanism by either of its property's names.
    pub(super) fn mechanism(&self) -> Option<&'a str> {
        self.text("sasl.mechanism")
            .or_else(|| self.text("sasl.mechanisms"))
    }

    fn login(&self, tokens: Option<&Arc<Tokens>>) -> Result<Login, String> {
        let mechanism = match self.mechanism() {
            Some("OAUTHBEARER") => {
                return tokens.map(|tokens| Login::Token(Arc::clone(tokens))).ok_or(
                    "property sasl.mechanism: OAUTHBEARER needs a token source (token:, beside properties:)"
                        .into(),
                );
            }
            Some("PLAIN") => Mechanism::Plain,
            Some("SCRAM-SHA-256") => Mechanism::ScramSha256,
            Some("SCRAM-SHA-512") => Mechanism::ScramSha512,
            _ => return Err("property sasl.mechanism: none that the wire client knows (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER)".into()),
        };
        let needed = |name: &str| match self.text(name) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(format!(
                "property {name}: missing, and the mechanism needs it"
            )),
        };
        Ok(Login::Password {
            mechanism,
            username: needed("sasl.username")?,
            password: needed("sasl.password")?,
        })
    }
}

impl WireOptions {
    /// Reads the properties, and the files of certificates among them; the error names one of them.
    pub(super) fn read(
        properties: &BTreeMap<String, String>,
        tokens: Option<&Arc<Tokens>>,
    ) -> Result<Self, String> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let reader = PropertyReader(properties);
        let servers = reader.text("bootstrap.servers").unwrap_or_default();
        let entries = servers.split(',').filter(|entry| !entry.trim().is_empty());
        let bootstrap: Option<Vec<_>> = entries.map(Address::written).collect();
        let bootstrap = bootstrap.filter(|addresses| !addresses.is_empty()).ok_or(
            "property bootstrap.servers: not HOST:PORT of one or more brokers, separated by commas",
        )?;
        let security = reader.security()?;
        let family = match reader.text("broker.address.family").unwrap_or("any") {
            "any" => Family::Any,
            "v4" => Family::V4,
            "v6" => Family::V6,
            _ => return Err("property broker.address.family: none of any, v4, v6".into()),
        };
        let max_response_bytes = match reader.text("receive.message.max.bytes") {
            None => 64 * 1024 * 1024,
            Some(text) => text
                .parse()
                .ok()
                .filter(|bytes| (1000..=2_147_483_647).contains(bytes))
                .ok_or(
                    "property receive.message.max.bytes: not a number from 1000 to 2147483647",
                )?,
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
                Login::None
            },
            family,
            keepalive: reader.bool("socket.keepalive.enable", true)?,
            setup_timeout: reader.millis(
                "socket.connection.setup.timeout.ms",
                default(10_000),
                DAY,
            )?,
            request_timeout: reader.millis("socket.timeout.ms", default(10_000), DAY)?,
            // Zero is librdkafka's "never"; load balancers forget connections after 4 minutes.
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

    fn read(pairs: &[(&str, &str)]) -> Result<WireOptions, String> {
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
            let problem = read(&[(name, value)]).err().unwrap();
            assert!(
                problem.contains(name) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
        let sasl = ("security.protocol", "SASL_PLAINTEXT");
        let missing = read(&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u")]);
        assert!(missing.err().unwrap().contains("sasl.password"));
    }

    #[test]
    fn defaults_and_what_is_set() {
        let options =
            read(&[("connections.max.idle.ms", "0"), ("socket.timeout.ms", "7")]).unwrap();
        assert_eq!(options.idle, Duration::from_secs(180));
        assert_eq!(options.request_timeout, Duration::from_millis(7));
        assert_eq!(options.bootstrap.len(), 2);
        assert!(options.tls.is_none() && matches!(options.login, Login::None));
    }
}
