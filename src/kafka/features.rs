//! Optional parts of this binary (cargo features), and the error for settings that need a part left
//! out.

use super::librdkafka::kerberos;
use super::login::TokenSource;
use super::{ClientKind, ClientSettings};

/// An optional part of the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Logins to Amazon MSK by IAM.
    AwsMskIam,
    /// TLS, SCRAM and OAUTHBEARER in librdkafka; the wire client always has them.
    LibrdkafkaTls,
    /// Kerberos in librdkafka.
    Gssapi,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AwsMskIam, Self::LibrdkafkaTls, Self::Gssapi];

    /// Cargo's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsMskIam => "aws-msk-iam",
            Self::LibrdkafkaTls => "librdkafka-tls",
            Self::Gssapi => "gssapi",
        }
    }

    /// Whether this binary has it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Self::AwsMskIam => cfg!(feature = "aws-msk-iam"),
            Self::LibrdkafkaTls => cfg!(feature = "librdkafka-tls"),
            Self::Gssapi => cfg!(feature = "gssapi"),
        }
    }

    /// The error for settings that need this feature in a binary without it.
    pub(super) fn missing(self) -> String {
        let (what, more) = match self {
            Self::AwsMskIam => ("the token source aws_msk_iam", ""),
            Self::LibrdkafkaTls => (
                "TLS, SCRAM or OAUTHBEARER with librdkafka",
                "; the wire client (client: auto or wire) needs no feature for them",
            ),
            Self::Gssapi => (
                "Kerberos (sasl.mechanism GSSAPI)",
                ", which needs the headers of libsasl2 (Debian: libsasl2-dev)",
            ),
        };
        let name = self.name();
        format!(
            "{what} is not built into this lagwise: build it with cargo's --features {name}{more}"
        )
    }
}

/// Checks that this binary has the features that the settings need with that client.
///
/// # Errors
/// The feature to build it with.
pub(super) fn check(settings: &ClientSettings, client: ClientKind) -> Result<(), String> {
    check_in(settings, client, Feature::is_built_in)
}

fn check_in(
    settings: &ClientSettings,
    client: ClientKind,
    is_built_in: fn(Feature) -> bool,
) -> Result<(), String> {
    let needed = needed(settings, client);
    match needed.into_iter().find(|feature| !is_built_in(*feature)) {
        // Nothing of the configuration is about Kerberos, so it is likely that the mechanism was forgotten.
        Some(Feature::Gssapi) if kerberos::is_by_default(settings) => Err(format!(
            "sasl.mechanism is not set, so the login would be by its default, GSSAPI; set sasl.mechanism to PLAIN, \
             SCRAM-SHA-256 or SCRAM-SHA-512, or set token beside properties; {}",
            Feature::Gssapi.missing()
        )),
        Some(feature) => Err(feature.missing()),
        None => Ok(()),
    }
}

fn needed(settings: &ClientSettings, client: ClientKind) -> Vec<Feature> {
    let mut needed = Vec::new();
    let source = settings.token.as_ref().map(|token| &token.source);
    if matches!(source, Some(TokenSource::AwsMskIam { .. })) {
        needed.push(Feature::AwsMskIam);
    }
    if client == ClientKind::Librdkafka {
        if kerberos::is_selected(settings) {
            needed.push(Feature::Gssapi);
        }
        if needs_openssl(settings) {
            needed.push(Feature::LibrdkafkaTls);
        }
    }
    needed
}

/// Whether librdkafka needs OpenSSL for these settings. It does not need OpenSSL for SASL PLAIN and Kerberos without
/// TLS.
fn needs_openssl(settings: &ClientSettings) -> bool {
    let get = |name: &str| {
        settings
            .properties
            .get(name)
            .map(|value| value.to_ascii_uppercase())
    };
    let protocol = get("security.protocol").unwrap_or_default();
    let mechanism = get("sasl.mechanisms").or_else(|| get("sasl.mechanism"));
    protocol.ends_with("SSL")
        || protocol.starts_with("SASL")
            && mechanism.is_some_and(|name| name.starts_with("SCRAM") || name == "OAUTHBEARER")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::login::TokenSettings;

    fn settings(properties: &[(&str, &str)], token: Option<TokenSource>) -> ClientSettings {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ClientSettings {
            name: "main".into(),
            properties: properties.iter().map(owned).collect(),
            max_groups: 1,
            token: token.map(TokenSettings::new),
            renew: None,
            allowed_hosts: Vec::new(),
            client: ClientKind::Auto,
        }
    }

    /// Properties, a token source, and the features that librdkafka needs for them.
    type Case<'a> = (
        &'a [(&'a str, &'a str)],
        Option<&'a TokenSource>,
        &'a [Feature],
    );

    #[test]
    fn settings_need_the_features_that_their_client_uses() {
        use Feature::{AwsMskIam, Gssapi, LibrdkafkaTls};
        let aws = TokenSource::AwsMskIam {
            region: "eu-central-1".into(),
            role_arn: None,
        };
        let ssl = ("security.protocol", "ssl");
        let sasl = ("security.protocol", "SASL_PLAINTEXT");
        let sasl_ssl = ("security.protocol", "sasl_ssl");
        let cases: [Case<'_>; 9] = [
            (&[], None, &[]),
            (&[("security.protocol", "plaintext")], None, &[]),
            (&[ssl], None, &[LibrdkafkaTls]),
            (&[sasl, ("sasl.mechanism", "PLAIN")], None, &[]),
            (
                &[sasl_ssl, ("sasl.mechanism", "PLAIN")],
                None,
                &[LibrdkafkaTls],
            ),
            (
                &[sasl, ("sasl.mechanisms", "SCRAM-SHA-256")],
                None,
                &[LibrdkafkaTls],
            ),
            (&[sasl], None, &[Gssapi]),
            (
                &[sasl_ssl, ("sasl.mechanism", "GSSAPI")],
                None,
                &[Gssapi, LibrdkafkaTls],
            ),
            (
                &[sasl_ssl, ("sasl.mechanism", "OAUTHBEARER")],
                Some(&aws),
                &[AwsMskIam, LibrdkafkaTls],
            ),
        ];
        for (properties, token, expected) in cases {
            let settings = settings(properties, token.cloned());
            assert_eq!(
                needed(&settings, ClientKind::Librdkafka),
                expected,
                "{properties:?}"
            );
            // The wire client brings its own TLS and logins.
            let expected = if token.is_some() {
                &[AwsMskIam][..]
            } else {
                &[]
            };
            assert_eq!(
                needed(&settings, ClientKind::Wire),
                expected,
                "{properties:?}"
            );
        }
    }

    #[test]
    fn a_binary_without_a_feature_says_which() {
        let kerberos = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.kerberos.keytab", "hunter2"),
        ];
        let kerberos = settings(&kerberos, None);
        let tls = settings(&[("security.protocol", "SSL")], None);
        let aws = TokenSource::AwsMskIam {
            region: "eu-central-1".into(),
            role_arn: None,
        };
        let aws = settings(&[("security.protocol", "SASL_SSL")], Some(aws));
        let refused = [
            (&aws, ClientKind::Wire),
            (&tls, ClientKind::Librdkafka),
            (&kerberos, ClientKind::Librdkafka),
        ]
        .map(|(settings, client)| check_in(settings, client, |_| false).unwrap_err());
        insta::assert_snapshot!(refused.join("\n"), @"
        the token source aws_msk_iam is not built into this lagwise: build it with cargo's --features aws-msk-iam
        TLS, SCRAM or OAUTHBEARER with librdkafka is not built into this lagwise: build it with cargo's --features librdkafka-tls; the wire client (client: auto or wire) needs no feature for them
        Kerberos (sasl.mechanism GSSAPI) is not built into this lagwise: build it with cargo's --features gssapi, which needs the headers of libsasl2 (Debian: libsasl2-dev)
        ");
        assert!(!refused.concat().contains("hunter2"));
        for settings in [&kerberos, &tls, &aws] {
            let all = check_in(settings, ClientKind::Librdkafka, |_| true);
            assert_eq!(all, Ok(()));
        }
    }

    #[test]
    fn a_forgotten_mechanism_is_named_before_kerberos() {
        for (properties, is_forgotten) in [
            (&[("security.protocol", "SASL_SSL")][..], true),
            (&[("security.protocol", "sasl_plaintext")], true),
            (
                &[
                    ("security.protocol", "SASL_SSL"),
                    ("sasl.mechanism", "GSSAPI"),
                ],
                false,
            ),
            (
                &[
                    ("security.protocol", "SASL_SSL"),
                    ("sasl.kerberos.service.name", "kafka"),
                ],
                false,
            ),
        ] {
            let settings = settings(properties, None);
            let error = check_in(&settings, ClientKind::Librdkafka, |_| false).unwrap_err();
            let says = error.starts_with("sasl.mechanism is not set");
            assert_eq!(says, is_forgotten, "{error}");
            assert!(error.contains("--features gssapi"), "{error}");
        }
    }

    #[test]
    fn a_token_source_is_refused_if_its_feature_is_missing() {
        let sasl = settings(
            &[
                ("bootstrap.servers", "127.0.0.1:1"),
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.kerberos.keytab", "k"),
            ],
            None,
        );
        for client in [ClientKind::Auto, ClientKind::Librdkafka] {
            let settings = ClientSettings {
                client,
                ..sasl.clone()
            };
            let checked = crate::kafka::check(settings, true).map_err(|error| error.to_string());
            let expected = match Feature::Gssapi.is_built_in() {
                true => Ok(ClientKind::Librdkafka),
                false => Err(format!("cluster \"main\": {}", Feature::Gssapi.missing())),
            };
            assert_eq!(checked, expected, "{client:?}");
        }
    }
}
