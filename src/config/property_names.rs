//! Names of librdkafka's properties: those that are refused, and those of secrets.

use std::borrow::Cow;

/// Problem, and what is allowed instead.
pub(super) type PropertyRefusal = (String, String);

pub(super) const PROPERTY_NAME: &str = "a property of librdkafka: lower-case letters, digits, . _";

/// Refused properties: name, reason, and what to do instead.
pub(super) const REFUSED: &[(&str, &str, &str)] = &[
    (
        "allow.auto.create.topics",
        "managed by lagwise: reading must never create a topic",
        "remove it",
    ),
    (
        "enable.auto.commit",
        "managed by lagwise: it never commits",
        "remove it",
    ),
    (
        "enable.auto.offset.store",
        "managed by lagwise: it never commits",
        "remove it",
    ),
    ("group.id", "managed by lagwise", "remove it"),
    (
        "isolation.level",
        "managed by lagwise: reading committed offsets must not wait for open transactions",
        "remove it",
    ),
    (
        "metadata.broker.list",
        "an alias of bootstrap.servers",
        "bootstrap.servers",
    ),
    (
        "sasl.client.callback.handler.class",
        "a property of the Java client",
        "remove it",
    ),
    (
        "sasl.jaas.config",
        "a property of the Java client",
        "sasl.username and sasl.password",
    ),
    (
        "sasl.login.callback.handler.class",
        "a property of the Java client",
        "remove it",
    ),
    (
        "ssl.keystore.type",
        "a property of the Java client",
        "ssl.certificate.location and ssl.key.location (PEM), or ssl.keystore.location (PKCS#12)",
    ),
    (
        "ssl.truststore.location",
        "a property of the Java client",
        "ssl.ca.location (PEM)",
    ),
    (
        "ssl.truststore.password",
        "a property of the Java client",
        "ssl.ca.location (PEM), which needs no password",
    ),
    (
        "ssl.truststore.type",
        "a property of the Java client",
        "ssl.ca.location (PEM)",
    ),
];

pub(super) fn check_name(name: &str) -> Result<(), PropertyRefusal> {
    if name.is_empty() || plain_part(name) != name {
        return Err(("not a property name".into(), PROPERTY_NAME.into()));
    }
    match REFUSED.iter().find(|(refused, ..)| *refused == name) {
        Some((_, why, instead)) => Err(((*why).into(), (*instead).into())),
        None => Ok(()),
    }
}

/// The name up to its first invalid character, since a value may follow it.
pub(super) fn plain_part(name: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
    match name.find(|c| !plain(c)) {
        Some(odd) => format!("{}...", &name[..odd]).into(),
        None => name.into(),
    }
}

/// Whether a property's value is a secret by its name.
pub(super) fn is_secret(name: &str) -> bool {
    // A Java client's JAAS line contains the password.
    const PARTS: [&str; 5] = ["password", "passphrase", "secret", "key.pem", "jaas"];
    // The unsecured-token settings may carry a login; ssl_key and the like are its in-memory forms.
    const NAMES: [&str; 2] = ["sasl.oauthbearer.config", "ssl_key"];
    PARTS.iter().any(|part| name.contains(part)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_secrets_by_name() {
        for name in [
            "sasl.password",
            "ssl.key.pem",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "sasl.username",
            "ssl.key.location",
            "ssl.ca.pem",
            "bootstrap.servers",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
