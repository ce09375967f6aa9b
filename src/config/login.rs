//! Checks that the properties of a login fit together, before a client says the same in its own words.

use std::collections::BTreeMap;

use super::properties::Properties;
use super::section::Field;
use crate::model::units::spelling::did_you_mean;

const PROTOCOL: &str = "security.protocol";
pub(super) const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const MECHANISM_NAMES: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
pub(super) const MECHANISMS: [&str; 5] = [
    "PLAIN",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "OAUTHBEARER",
    "GSSAPI",
];

/// Names of other programs for a mechanism or a protocol, in lower case, and the names here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("aws_msk_iam", MSK_IAM),
    ("aws-msk-iam", MSK_IAM),
    ("awsiam", MSK_IAM),
    ("iam", MSK_IAM),
    ("plaintext", "PLAIN"),
    ("sha256", "SCRAM-SHA-256"),
    ("sha512", "SCRAM-SHA-512"),
    ("scram", "SCRAM-SHA-512 or SCRAM-SHA-256"),
    ("kerberos", "GSSAPI"),
    ("oauth", "OAUTHBEARER, with token: beside properties"),
    ("oauth2", "OAUTHBEARER, with token: beside properties"),
    (
        "none",
        "no sasl.mechanism, and security.protocol: SSL or PLAINTEXT",
    ),
    ("tls", "SSL"),
    (
        "mtls",
        "SSL, with ssl.certificate.location and ssl.key.location",
    ),
    ("sasl_tls", "SASL_SSL"),
    ("sasl", "SASL_SSL, or SASL_PLAINTEXT without TLS"),
];
const MSK_IAM: &str = "token: {aws_msk_iam: {region: ...}} beside properties, with security.protocol: SASL_SSL and without sasl.mechanism";

/// Properties that only a login uses.
const OF_SASL: [&str; 4] = [
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
];
/// Properties that only TLS uses.
const OF_TLS: [&str; 7] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.keystore.location",
];

/// The properties that have no effect without a protocol, for the JSON Schema.
pub(super) fn needs_protocol() -> BTreeMap<&'static str, [&'static str; 1]> {
    let names = OF_SASL.into_iter().chain(OF_TLS);
    names.map(|name| (name, [PROTOCOL])).collect()
}

/// The properties of a cluster and where they are written.
pub(super) struct LoginCheck<'a> {
    pub(super) properties: &'a Properties,
    pub(super) fields: &'a [(&'a str, Field<'a>)],
    /// Whether the cluster has a token source.
    pub(super) has_token: bool,
}

impl LoginCheck<'_> {
    /// Records what does not fit together.
    pub(super) fn run(&self) {
        let known = self.check_names();
        if !known {
            return;
        }
        let protocol = self.properties.get(PROTOCOL).unwrap_or_default();
        let protocol = protocol.to_ascii_uppercase();
        match protocol.starts_with("SASL") {
            true => self.check_mechanism(),
            false => self.check_sasl_is_used(),
        }
        if self.field(PROTOCOL).is_none()
            && let Some((name, field)) = self.first(&OF_TLS)
            && self.first(&OF_SASL).is_none()
        {
            field.refuse_unseen(
                format!("{name} has no effect without TLS, and {PROTOCOL} is PLAINTEXT if it is left out"),
                format!("{PROTOCOL}: SSL beside it, or SASL_SSL with a login"),
            );
        }
    }

    fn field(&self, name: &str) -> Option<&Field<'_>> {
        let mut fields = self.fields.iter();
        fields.find(|(key, _)| *key == name).map(|(_, field)| field)
    }

    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &Field<'_>)> {
        names
            .iter()
            .find_map(|name| Some((*name, self.field(name)?)))
    }

    /// Whether protocol and mechanism have names that exist.
    fn check_names(&self) -> bool {
        let mut known = true;
        for (names, allowed) in [
            (&[PROTOCOL][..], &PROTOCOLS[..]),
            (&MECHANISM_NAMES[..], &MECHANISMS[..]),
        ] {
            let Some((name, field)) = self.first(names) else {
                continue;
            };
            // A value that could not be read has its problem already.
            let Some(value) = self.properties.get(name) else {
                known = false;
                continue;
            };
            let is_protocol = name == PROTOCOL;
            let is_known = allowed.iter().any(|allowed| match is_protocol {
                // librdkafka ignores the case of protocols only.
                true => allowed.eq_ignore_ascii_case(value),
                false => *allowed == value,
            });
            if !is_known {
                known = false;
                refuse_name(field, value, allowed);
            }
        }
        known
    }

    /// A login with a password, but by which mechanism?
    fn check_mechanism(&self) {
        let has_method = self.properties.get("sasl.oauthbearer.method").is_some();
        if self.first(&MECHANISM_NAMES).is_some() || self.has_token || has_method {
            return;
        }
        if let Some((_, field)) = self.first(&["sasl.username", "sasl.password"]) {
            field.refuse_unseen(
                "sasl.mechanism is missing, without which the login would be by Kerberos",
                "sasl.mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 beside it",
            );
        }
    }

    /// A login is configured, but the protocol has none.
    fn check_sasl_is_used(&self) {
        let Some((name, field)) = self.first(&OF_SASL) else {
            return;
        };
        let allowed = format!("{PROTOCOL}: SASL_SSL, or SASL_PLAINTEXT without TLS");
        match self.field(PROTOCOL) {
            Some(protocol) => protocol.refuse(
                format!("has no login, but {name} is set"),
                format!("{allowed}; or remove the properties sasl.*"),
            ),
            None => field.refuse_unseen(
                format!("has no effect without {PROTOCOL}, which is PLAINTEXT if it is left out"),
                format!("{allowed} beside it"),
            ),
        }
    }
}

fn refuse_name(field: &Field<'_>, value: &str, allowed: &[&str]) {
    let all = allowed.join(", ");
    let small = value.trim().to_ascii_lowercase();
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == small);
    match (other, did_you_mean(value, allowed.iter().copied())) {
        (Some((_, meant)), _) => field.refuse(format!("unknown; write {meant}"), all),
        (None, Some(meant)) => field.refuse(format!("unknown, did you mean {meant}?"), all),
        (None, None) => field.refuse("unknown", all),
    }
}
