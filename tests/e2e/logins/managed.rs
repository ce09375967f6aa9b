//! The chart's examples for Amazon and Google, whose tokens no ordinary broker accepts: with a fake of the servers that
//! give credentials to a pod, and a broker that checks the tokens as those of the service do
//! (`tests/testbed/kafka/ManagedTokens.java`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::recipes::{check_lines, example, is_passed};
use super::token_endpoint::TokenEndpoint;
use crate::testbed::broker::Listener;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::{Testbed, unique};

/// The examples.
pub(super) const RECIPES: &[&str] = &[
    "google-managed-kafka",
    "msk-iam-irsa",
    "msk-iam-pod-identity",
    "msk-iam-role-arn",
    "msk-serverless",
];

/// The secret of Amazon's access keys, and Google's access token.
const SECRET: &str = "secret-of-the-role";
const LISTENER: &str = "MANAGED";

/// Each example logs in with the credentials of its service and reads a lag. The broker refuses other credentials.
pub(super) fn each_recipe_logs_in(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.start_kafka(&unique("managed"), &broker())?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    for name in RECIPES {
        for (secret, is_right) in [(SECRET, true), ("another", false)] {
            let pod = Pod::new(testbed, name, secret)?;
            let lines = pod.check(testbed, &kafka, &group, &topic);
            let lines = lines.context(*name)?;
            for check in ["login", "fetch offsets", "list offsets"] {
                ensure!(
                    is_passed(&lines, check) == is_right,
                    "{name}, {secret}: {check}: {lines:#?}"
                );
            }
            let login = lines.iter().find(|line| line["check"] == "login");
            let code = &login.context("no line about the login")?["code"];
            ensure!(is_right || code == "kafka_login_refused", "{name}: {code}");
            let requests = pod.endpoint.requests();
            for wanted in pod.expected_requests() {
                ensure!(
                    requests.iter().any(|request| request.contains(&wanted)),
                    "{name}: {wanted} is not in {requests:?}"
                );
            }
        }
    }
    Ok(())
}

fn broker() -> KafkaOptions {
    let source = "tests/testbed/kafka/ManagedTokens.java";
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let property = |key: &'static str, value: &str| (key, value.to_owned());
    KafkaOptions {
        listeners: vec![Listener {
            name: LISTENER,
            protocol: "SASL_SSL",
            properties: vec![
                property("ssl.keystore.type", "PEM"),
                property("ssl.keystore.location", "{folder}/broker-1.pem"),
                property("sasl.enabled.mechanisms", "OAUTHBEARER"),
                property(
                    "oauthbearer.sasl.jaas.config",
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
                ),
                property(
                    "oauthbearer.sasl.server.callback.handler.class",
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
                ),
                property(
                    "sasl.oauthbearer.jwt.validator.class",
                    "ManagedTokens$Validator",
                ),
            ],
            proxied: false,
        }],
        // Java compiles the source, and passes it the following arguments: the broker's class and properties.
        java: vec![
            format!("-Dmanaged.secret={SECRET}"),
            format!("-Dmanaged.access={SECRET}"),
            source.to_string_lossy().into_owned(),
        ],
        ..KafkaOptions::default()
    }
}

/// A pod with the values of an example, and the credentials of its service.
struct Pod {
    values: Value,
    endpoint: TokenEndpoint,
    /// The token of the service account.
    token: PathBuf,
}

impl Pod {
    /// Creates a pod whose credentials have this secret.
    fn new(testbed: &Testbed, name: &str, secret: &'static str) -> Result<Self> {
        let values = example(name)?;
        let account = values["podIdentity"]["gcpServiceAccount"].clone();
        let token = testbed.folder("managed")?.join("token");
        std::fs::write(&token, "token-of-the-pod")?;
        let endpoint = TokenEndpoint::start(move |path, form| match path {
            "/v1/credentials" => json!({
                "AccessKeyId": "ASIAPOD",
                "SecretAccessKey": secret,
                "Token": "session/of+the=pod",
                "Expiration": "2999-01-01T00:00:00Z",
            })
            .to_string(),
            path if path.ends_with("/token") => {
                json!({"access_token": secret, "expires_in": 3600}).to_string()
            }
            path if path.ends_with("/email") => account.as_str().unwrap_or_default().to_owned(),
            _ if form.contains("Action=AssumeRole&") => role("AssumeRole", secret),
            _ => role("AssumeRoleWithWebIdentity", secret),
        })?;
        Ok(Self {
            values,
            endpoint,
            token,
        })
    }

    fn cluster(&self) -> &Value {
        &self.values["config"]["clusters"][0]
    }

    /// The role of the service account.
    fn role(&self) -> Option<&str> {
        self.values["podIdentity"]["awsRoleArn"].as_str()
    }

    fn is_of_google(&self) -> bool {
        !self.cluster()["token"]["gcp"].is_null()
    }

    /// The environment variables that the service sets in a pod, with the addresses of its servers.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let token = || self.token.to_string_lossy().into_owned();
        match self.role() {
            _ if self.is_of_google() => vec![("GCE_METADATA_HOST", self.endpoint.host())],
            Some(role) => vec![
                ("AWS_ROLE_ARN", role.to_owned()),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token()),
                ("AWS_ENDPOINT_URL_STS", self.endpoint.url("")),
            ],
            None => vec![
                (
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    self.endpoint.url("/v1/credentials"),
                ),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token()),
            ],
        }
    }

    /// Parts of the requests that the login must send.
    fn expected_requests(&self) -> Vec<String> {
        let of = |action: &str, role: &str| {
            let role: String = form_urlencoded::byte_serialize(role.as_bytes()).collect();
            format!("Action={action}&Version=2011-06-15&RoleArn={role}&")
        };
        let mut expected = match self.role() {
            _ if self.is_of_google() => vec!["/service-accounts/default/token".to_owned()],
            Some(role) => vec![of("AssumeRoleWithWebIdentity", role)],
            None => vec!["/v1/credentials".to_owned()],
        };
        let further = self.cluster()["token"]["aws_msk_iam"]["role_arn"].as_str();
        expected.extend(further.map(|role| of("AssumeRole", role)));
        expected
    }

    /// The lines of `lagwise check` in this pod.
    fn check(
        &self,
        testbed: &Testbed,
        kafka: &KafkaCluster,
        group: &str,
        topic: &str,
    ) -> Result<Vec<Value>> {
        let mut cluster = self.cluster().clone();
        let properties = &mut cluster["properties"];
        properties["bootstrap.servers"] = json!(kafka.listener_bootstrap(LISTENER));
        properties["ssl.ca.location"] = json!(kafka.ca_file());
        cluster["allowed_broker_hosts"] = json!(["127.0.0.1"]);
        let mut command = testbed.lagwise(&["check", "-o", "json"]);
        command
            // No credentials of this machine.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.environment());
        let folder = self.token.with_file_name("lagwise.json");
        check_lines(command, &folder, &cluster, group, topic)
    }
}

/// The credentials of a role, as Amazon's security token service gives them.
fn role(action: &str, secret: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>session/of+the=role</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/lagwise/s</Arn>\
         <AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser></{action}Result></{action}Response>"
    )
}
