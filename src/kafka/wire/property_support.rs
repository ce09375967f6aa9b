//! Which librdkafka properties the wire client supports or can ignore, and which require
//! librdkafka.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::options::PropertyReader;
use crate::kafka::SettingError;
use crate::model::units::spelling::did_you_mean;

/// Effect of a property on the choice of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PropertyUse {
    /// Implemented by the wire client.
    Supported,
    /// Concerns what lagwise never does (producing, consuming) or librdkafka's internals.
    Irrelevant,
    /// Only librdkafka implements it; the text names the feature.
    RequiresLibrdkafka(&'static str),
}

use PropertyUse::{Irrelevant, RequiresLibrdkafka, Supported};

const KERBEROS: PropertyUse = RequiresLibrdkafka("Kerberos");
const OAUTH: PropertyUse = RequiresLibrdkafka("librdkafka's own OAUTHBEARER settings");
const PKCS12: PropertyUse = RequiresLibrdkafka("a PKCS#12 keystore");
const OPENSSL: PropertyUse = RequiresLibrdkafka("an OpenSSL setting");

/// Property names; `*` at the end matches any suffix. The first match counts.
const TABLE: &[(&str, PropertyUse)] = &[
    ("bootstrap.servers", Supported),
    ("broker.address.family", Supported),
    ("client.id", Supported),
    ("connections.max.idle.ms", Supported),
    ("enable.ssl.certificate.verification", Supported),
    ("receive.message.max.bytes", Supported),
    ("reconnect.backoff.max.ms", Supported),
    ("reconnect.backoff.ms", Supported),
    ("sasl.mechanism", Supported),
    ("sasl.mechanisms", Supported),
    ("sasl.password", Supported),
    ("sasl.username", Supported),
    ("security.protocol", Supported),
    ("socket.connection.setup.timeout.ms", Supported),
    ("socket.keepalive.enable", Supported),
    ("socket.timeout.ms", Supported),
    ("ssl.ca.location", Supported),
    ("ssl.ca.pem", Supported),
    ("ssl.certificate.location", Supported),
    ("ssl.certificate.pem", Supported),
    ("ssl.endpoint.identification.algorithm", Supported),
    ("ssl.key.location", Supported),
    ("ssl.key.pem", Supported),
    (
        "client.dns.lookup",
        RequiresLibrdkafka("resolving canonical names"),
    ),
    ("enable.sasl.oauthbearer.unsecure.jwt", OAUTH),
    ("https.ca.location", Supported),
    ("https.ca.*", OAUTH),
    (
        "plugin.library.paths",
        RequiresLibrdkafka("librdkafka plugins"),
    ),
    ("sasl.kerberos.*", KERBEROS),
    ("sasl.oauthbearer.client.id", Supported),
    ("sasl.oauthbearer.client.secret", Supported),
    ("sasl.oauthbearer.extensions", Supported),
    ("sasl.oauthbearer.method", Supported),
    ("sasl.oauthbearer.scope", Supported),
    ("sasl.oauthbearer.token.endpoint.url", Supported),
    ("sasl.oauthbearer.*", OAUTH),
    ("ssl.ca.certificate.stores", OPENSSL),
    ("ssl.cipher.suites", OPENSSL),
    (
        "ssl.crl.location",
        RequiresLibrdkafka("a certificate revocation list"),
    ),
    ("ssl.curves.list", OPENSSL),
    ("ssl.engine.*", OPENSSL),
    ("ssl.key.password", RequiresLibrdkafka("an encrypted key")),
    ("ssl.keystore.*", PKCS12),
    ("ssl.providers", OPENSSL),
    ("ssl.sigalgs.list", OPENSSL),
    ("acks", Irrelevant),
    ("api.version.*", Irrelevant),
    ("auto.commit.*", Irrelevant),
    ("auto.offset.reset", Irrelevant),
    ("batch.*", Irrelevant),
    ("broker.address.ttl", Irrelevant),
    ("broker.version.fallback", Irrelevant),
    ("check.crcs", Irrelevant),
    ("client.rack", Irrelevant),
    ("compression.*", Irrelevant),
    ("consume.callback.max.messages", Irrelevant),
    ("coordinator.query.interval.ms", Irrelevant),
    ("debug", Irrelevant),
    ("delivery.*", Irrelevant),
    ("enable.gapless.guarantee", Irrelevant),
    ("enable.idempotence", Irrelevant),
    ("enable.metrics.push", Irrelevant),
    ("enable.partition.eof", Irrelevant),
    ("enable.random.seed", Irrelevant),
    ("enabled_events", Irrelevant),
    ("fetch.*", Irrelevant),
    ("group.*", Irrelevant),
    ("heartbeat.interval.ms", Irrelevant),
    ("internal.termination.signal", Irrelevant),
    ("isolation.level", Irrelevant),
    ("linger.ms", Irrelevant),
    ("log.*", Irrelevant),
    ("log_level", Irrelevant),
    ("max.in.flight", Irrelevant),
    ("max.in.flight.requests.per.connection", Irrelevant),
    ("max.partition.fetch.bytes", Irrelevant),
    ("max.poll.interval.ms", Irrelevant),
    ("message.*", Irrelevant),
    ("metadata.max.age.ms", Irrelevant),
    ("metadata.recovery.*", Irrelevant),
    ("offset.store.*", Irrelevant),
    ("partition.assignment.strategy", Irrelevant),
    ("partitioner", Irrelevant),
    ("queue.buffering.*", Irrelevant),
    ("queued.*", Irrelevant),
    ("queuing.strategy", Irrelevant),
    ("reconnect.backoff.jitter.ms", Irrelevant),
    ("request.*", Irrelevant),
    ("retries", Irrelevant),
    ("retry.backoff.*", Irrelevant),
    ("session.timeout.ms", Irrelevant),
    ("socket.blocking.max.ms", Irrelevant),
    ("socket.max.fails", Irrelevant),
    ("socket.nagle.disable", Irrelevant),
    ("socket.receive.buffer.bytes", Irrelevant),
    ("socket.send.buffer.bytes", Irrelevant),
    ("statistics.interval.ms", Irrelevant),
    ("sticky.partitioning.linger.ms", Irrelevant),
    ("topic.blacklist", Irrelevant),
    ("topic.metadata.*", Irrelevant),
    ("transaction.timeout.ms", Irrelevant),
    ("transactional.id", Irrelevant),
];

/// Which client supports a cluster's properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertySupport {
    /// The wire client supports all properties.
    Wire,
    /// Only librdkafka does; each reason names a property and the unsupported feature.
    Librdkafka(Vec<String>),
}

impl PropertySupport {
    /// Decides from the properties alone.
    #[must_use]
    pub fn for_properties(properties: &BTreeMap<String, String>) -> Self {
        let mut reasons: Vec<_> = properties
            .iter()
            .filter_map(|(name, value)| reason(name, value))
            .collect();
        reasons.extend(mechanism(&PropertyReader::new(properties)));
        if reasons.is_empty() {
            Self::Wire
        } else {
            Self::Librdkafka(reasons)
        }
    }
}

/// Checks that librdkafka has the properties. Those that no client would use are not checked.
///
/// # Errors
/// The first property that does not exist.
pub(in crate::kafka) fn check_names(
    properties: &BTreeMap<String, String>,
) -> Result<(), SettingError> {
    for name in properties.keys() {
        if matches!(meaning(name), Some(Supported | Irrelevant)) || exists(name) {
            continue;
        }
        let known = TABLE.iter().map(|(pattern, _)| *pattern);
        let known = known.filter(|pattern| !pattern.ends_with('*'));
        let problem = match did_you_mean(name, known) {
            Some(meant) => format!("no such property, did you mean {meant}?"),
            None => "no such property; allowed are those of librdkafka's CONFIGURATION.md".into(),
        };
        return Err(SettingError::property(name, problem));
    }
    for (name, alias) in ALIASES {
        let values = properties.get(name).zip(properties.get(alias));
        if values.is_some_and(|(value, other)| value != other) {
            let problem = format!("{name} is the same property and has another value; remove one");
            return Err(SettingError::property(alias, problem));
        }
    }
    Ok(())
}

/// Properties with two names. If both are set, the client uses either of the two values.
const ALIASES: [(&str, &str); 2] = [
    ("sasl.mechanism", "sasl.mechanisms"),
    ("bootstrap.servers", "metadata.broker.list"),
];

/// Whether librdkafka has the property, also if it is left out of this binary.
fn exists(name: &str) -> bool {
    let mut config = ClientConfig::new();
    config.set(name, "");
    !matches!(
        config.create_native_config(),
        Err(KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
            ..
        ))
    )
}

fn meaning(name: &str) -> Option<PropertyUse> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    TABLE
        .iter()
        .find(|(pattern, _)| fits(pattern))
        .map(|(_, meaning)| *meaning)
}

fn reason(name: &str, value: &str) -> Option<String> {
    match (name, value) {
        // These are the defaults, written out.
        ("client.dns.lookup", "use_all_dns_ips") | ("plugin.library.paths", "") => return None,
        ("enable.sasl.oauthbearer.unsecure.jwt", "false") => return None,
        _ => {}
    }
    match meaning(name) {
        Some(Supported | Irrelevant) => None,
        Some(RequiresLibrdkafka(what)) => Some(format!("{name} ({what})")),
        // Leave it to librdkafka to accept or reject an unknown property.
        None => Some(format!("{name} (not supported)")),
    }
}

fn mechanism(reader: &PropertyReader<'_>) -> Option<String> {
    // An invalid security.protocol is reported by the wire client.
    if !reader.security().ok()?.sasl {
        return None;
    }
    match reader.mechanism() {
        Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" | "OAUTHBEARER") => None,
        // The default in librdkafka.
        None | Some("GSSAPI") => Some("sasl.mechanism (Kerberos)".into()),
        Some(_) => Some("sasl.mechanism (not supported)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn support(pairs: &[(&str, &str)]) -> PropertySupport {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        PropertySupport::for_properties(&owned.collect())
    }

    #[test]
    fn logins_of_known_services_are_supported() {
        let sasl = ("security.protocol", "SASL_SSL");
        let forced = |reason: &str| PropertySupport::Librdkafka(vec![reason.into()]);
        for (pairs, expected) in [
            (&[("bootstrap.servers", "b:1")][..], PropertySupport::Wire),
            (
                &[
                    ("security.protocol", "SSL"),
                    ("ssl.certificate.location", "c"),
                    ("ssl.key.location", "k"),
                ],
                PropertySupport::Wire,
            ),
            (
                &[
                    sasl,
                    ("sasl.mechanism", "SCRAM-SHA-512"),
                    ("sasl.username", "u"),
                ],
                PropertySupport::Wire,
            ),
            (
                &[
                    sasl,
                    ("sasl.mechanisms", "PLAIN"),
                    ("metadata.max.age.ms", "180000"),
                ],
                PropertySupport::Wire,
            ),
            (
                &[("client.dns.lookup", "use_all_dns_ips")],
                PropertySupport::Wire,
            ),
            (
                &[("debug", "all"), ("fetch.min.bytes", "1")],
                PropertySupport::Wire,
            ),
            (&[sasl], forced("sasl.mechanism (Kerberos)")),
            (
                &[sasl, ("sasl.mechanism", "OAUTHBEARER")],
                PropertySupport::Wire,
            ),
            (
                &[
                    sasl,
                    ("sasl.mechanism", "OAUTHBEARER"),
                    ("sasl.oauthbearer.method", "oidc"),
                    ("sasl.oauthbearer.token.endpoint.url", "https://id/t"),
                    ("sasl.oauthbearer.client.id", "lag"),
                    ("sasl.oauthbearer.client.secret", "s"),
                    ("sasl.oauthbearer.extensions", "logicalCluster=lkc"),
                ],
                PropertySupport::Wire,
            ),
            (
                &[("enable.sasl.oauthbearer.unsecure.jwt", "true")],
                forced(
                    "enable.sasl.oauthbearer.unsecure.jwt (librdkafka's own OAUTHBEARER settings)",
                ),
            ),
            (
                &[sasl, ("sasl.mechanism", "hunter2")],
                forced("sasl.mechanism (not supported)"),
            ),
            (
                &[("sasl.kerberos.keytab", "k")],
                forced("sasl.kerberos.keytab (Kerberos)"),
            ),
            (
                &[("ssl.key.password", "p")],
                forced("ssl.key.password (an encrypted key)"),
            ),
            (
                &[("ssl.keystore.location", "k")],
                forced("ssl.keystore.location (a PKCS#12 keystore)"),
            ),
            (
                &[("no.such.property", "x")],
                forced("no.such.property (not supported)"),
            ),
        ] {
            assert_eq!(support(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_table_names_properties_that_librdkafka_has() {
        for (name, _) in TABLE.iter().filter(|(name, _)| !name.ends_with('*')) {
            assert!(exists(name), "{name}");
        }
    }

    #[test]
    fn a_misspelled_property_is_refused_with_the_right_one() {
        let check = |name: &str| {
            let properties = BTreeMap::from([(name.to_owned(), "hunter2".to_owned())]);
            check_names(&properties).map_err(|error| error.to_string())
        };
        for (name, meant) in [
            ("ssl.ca.locaton", "ssl.ca.location"),
            ("ssl.certificate.file", "ssl.certificate.pem"),
            ("sasl.user.name", "sasl.username"),
            ("security.protcol", "security.protocol"),
        ] {
            let problem = format!("property {name}: no such property, did you mean {meant}?");
            assert_eq!(check(name), Err(problem));
        }
        let none = check("colour").unwrap_err();
        assert!(
            none.contains("CONFIGURATION.md") && !none.contains("hunter2"),
            "{none}"
        );
        for name in [
            "ssl.crl.location",
            "sasl.kerberos.keytab",
            "fetch.min.bytes",
        ] {
            assert_eq!(check(name), Ok(()));
        }
    }

    #[test]
    fn two_names_of_a_property_must_have_the_same_value() {
        for (name, alias, value, other) in [
            (
                "sasl.mechanism",
                "sasl.mechanisms",
                "PLAIN",
                "SCRAM-SHA-512",
            ),
            (
                "bootstrap.servers",
                "metadata.broker.list",
                "a:9092",
                "b:9092",
            ),
        ] {
            let checked = |of_alias: &str| {
                let pairs = [(name, value), (alias, of_alias)];
                let properties = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
                check_names(&properties.into()).map_err(|error| error.to_string())
            };
            assert_eq!(checked(value), Ok(()));
            let refused = checked(other).unwrap_err();
            let expected = format!("{name} is the same property and has another value");
            assert!(
                refused.contains(alias) && refused.contains(&expected),
                "{refused}"
            );
        }
    }

    #[test]
    fn no_property_is_listed_twice() {
        for (i, (name, _)) in TABLE.iter().enumerate() {
            assert!(
                TABLE[i + 1..].iter().all(|(other, _)| other != name),
                "{name}"
            );
        }
    }
}
