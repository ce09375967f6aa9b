//! A broker with every kind of login, and with authorization.

use super::broker::{Listener, SASL_PASSWORD, SASL_USER};
use super::kafka::{KafkaCluster, KafkaOptions};
use super::tokens::{AUDIENCE, SESSION};
use anyhow::Result;

/// A user with only the rights that [`KafkaCluster::allow_describe`] gives; the password is [`SASL_PASSWORD`].
pub(crate) const READER: &str = "reader";
/// The common name of a client certificate whose owner may do everything.
pub(crate) const CERTIFIED: &str = "certified";
/// A user who may do everything, by PLAIN only: that of Azure Event Hubs, whose name looks like a variable.
pub(crate) const EVENT_HUBS_USER: &str = "$ConnectionString";
/// The scope without which the broker refuses a token.
pub(crate) const SCOPE: &str = "lag";

/// Users who may do everything, for SCRAM, whose passwords a test may change.
pub(crate) const ROTATING: &str = "rotating";

/// One broker; `SASL` and `SASLSSL` take PLAIN, SCRAM and OAUTHBEARER, `MTLS` requires a certificate. `TOKEN` takes
/// SCRAM and the tokens of [`KafkaCluster::issuer`], ends a session after [`SESSION`], and sends its clients to where a
/// proxy may listen.
pub(super) fn options() -> KafkaOptions {
    let certificates = || {
        vec![
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", "{folder}/broker-1.pem".to_owned()),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", "{folder}/ca.crt".to_owned()),
        ]
    };
    let mut mtls = certificates();
    mtls.push(("ssl.client.auth", "required".to_owned()));
    let mut saslssl = certificates();
    saslssl.push(("ssl.client.auth", "none".to_owned()));
    let mechanisms = mechanisms();
    saslssl.extend(mechanisms.iter().cloned());
    let session = SESSION.as_millis().to_string();
    let token = vec![
        (
            "sasl.enabled.mechanisms",
            "SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        ),
        (
            "scram-sha-512.sasl.jaas.config",
            module("scram.ScramLoginModule", ""),
        ),
        ("scram-sha-512.connections.max.reauth.ms", session.clone()),
        (
            "oauthbearer.sasl.jaas.config",
            module("oauthbearer.OAuthBearerLoginModule", ""),
        ),
        (
            "oauthbearer.sasl.server.callback.handler.class",
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
                .to_owned(),
        ),
        // The default one of Kafka 4.1.0 does not verify signatures.
        (
            "sasl.oauthbearer.jwt.validator.class",
            "org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator".to_owned(),
        ),
        ("oauthbearer.connections.max.reauth.ms", session),
        (
            "sasl.oauthbearer.jwks.endpoint.url",
            "file:{folder}/jwks.json".to_owned(),
        ),
        ("sasl.oauthbearer.expected.audience", AUDIENCE.to_owned()),
    ];
    let listener = |name, protocol, properties| Listener {
        name,
        protocol,
        properties,
        proxied: false,
    };
    // The listener SASL is in every broker's properties already, with PLAIN alone.
    let mut properties: Vec<(String, String)> = mechanisms
        .into_iter()
        .map(|(key, value)| (format!("listener.name.sasl.{key}"), value))
        .collect();
    let of = |key: &str, value: String| (key.to_owned(), value);
    properties.extend([
        of(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        ),
        // The tests themselves and the brokers among one another come without a login.
        of(
            "super.users",
            format!(
                "User:ANONYMOUS;User:{SASL_USER};User:{ROTATING};User:CN={CERTIFIED};User:{EVENT_HUBS_USER}"
            ),
        ),
    ]);
    let scram =
        |mechanism: &str| format!("{mechanism}=[name={SASL_USER},password={SASL_PASSWORD}]");
    KafkaOptions {
        listeners: vec![
            listener("SASLSSL", "SASL_SSL", saslssl),
            listener("MTLS", "SSL", mtls),
            Listener {
                proxied: true,
                ..listener("TOKEN", "SASL_PLAINTEXT", token)
            },
        ],
        format: ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .iter()
            .flat_map(|mechanism| ["--add-scram".to_owned(), scram(mechanism)])
            .collect(),
        properties,
        ..KafkaOptions::default()
    }
}

fn module(path: &str, rest: &str) -> String {
    format!("org.apache.kafka.common.security.{path} required {rest};")
}

fn mechanisms() -> Vec<(&'static str, String)> {
    let scram = || module("scram.ScramLoginModule", "");
    vec![
        (
            "sasl.enabled.mechanisms",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        ),
        (
            "plain.sasl.jaas.config",
            module(
                "plain.PlainLoginModule",
                &[SASL_USER, READER, EVENT_HUBS_USER]
                    .map(|user| format!("user_{user}=\"{SASL_PASSWORD}\""))
                    .join(" "),
            ),
        ),
        ("scram-sha-256.sasl.jaas.config", scram()),
        ("scram-sha-512.sasl.jaas.config", scram()),
        (
            "oauthbearer.sasl.jaas.config",
            module(
                "oauthbearer.OAuthBearerLoginModule",
                &format!(
                    "unsecuredLoginStringClaim_sub=\"broker\" unsecuredValidatorRequiredScope=\"{SCOPE}\""
                ),
            ),
        ),
    ]
}

impl KafkaCluster {
    /// Gives [`ROTATING`] this password, for SCRAM-SHA-512.
    pub(crate) fn set_password(&self, password: &str) -> Result<()> {
        let config = format!("SCRAM-SHA-512=[password={password}]");
        let user = ["--entity-type", "users", "--entity-name", ROTATING];
        let args = [&["--alter", "--add-config", &config][..], &user].concat();
        self.tool("kafka.admin.ConfigCommand", &args).map(drop)
    }

    /// Lets [`READER`] describe these topics and groups.
    pub(crate) fn allow_describe(&self, topics: &[&str], groups: &[&str]) -> Result<()> {
        let principal = format!("User:{READER}");
        let mut args = vec!["--add", "--allow-principal", &principal];
        args.extend(["--operation", "Describe"]);
        args.extend(topics.iter().flat_map(|topic| ["--topic", topic]));
        args.extend(groups.iter().flat_map(|group| ["--group", group]));
        self.tool("org.apache.kafka.tools.AclCommand", &args)
            .map(drop)
    }

    /// Lets [`READER`] see the configuration of this topic.
    pub(crate) fn allow_describe_configs(&self, topic: &str) -> Result<()> {
        let principal = format!("User:{READER}");
        let mut args = vec!["--add", "--allow-principal", &principal];
        args.extend(["--operation", "DescribeConfigs", "--topic", topic]);
        self.tool("org.apache.kafka.tools.AclCommand", &args)
            .map(drop)
    }

    /// Revokes the right on a topic that [`Self::allow_describe`] gave.
    pub(crate) fn forbid_describe(&self, topic: &str) -> Result<()> {
        let principal = format!("User:{READER}");
        let mut args = vec!["--remove", "--force", "--allow-principal", &principal];
        args.extend(["--operation", "Describe", "--topic", topic]);
        self.tool("org.apache.kafka.tools.AclCommand", &args)
            .map(drop)
    }
}
