//! The logins of the chart's examples, each on a listener of its kind. The settings of an example are kept, except for
//! addresses, names, passwords and files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use axum::http::Uri;
use serde_json::{Value, json};

use super::token_endpoint::TokenEndpoint;
use super::{Files, files, managed};
use crate::sources::{Sources, clients, plan};
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::ports::free_port;
use crate::testbed::proxy::Proxy;
use crate::testbed::secured::EVENT_HUBS_USER;
use crate::testbed::{Testbed, unique};

/// Examples whose tokens any broker can check by the keys of their issuer.
const WITH_TOKENS: &[&str] = &["confluent-cloud-oauth", "event-hubs-workload-identity"];

/// The example that logs in by Kerberos, which `kerberos` does.
pub(crate) const WITH_KERBEROS: &str = "hdinsight-esp";

pub(super) fn each_recipe_logs_in(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce_to(&topic, &[(0, 4)])?;
    kafka.commit(&group, &topic, &[(0, 1)])?;
    let files = files(kafka, &testbed.folder("recipes")?)?;
    let mut left_out = Vec::new();
    for entry in std::fs::read_dir(examples())? {
        let path = entry?.path();
        let name = path.file_stem().context("no name")?.to_string_lossy();
        let values = example(&name)?;
        let cluster = &values["config"]["clusters"][0];
        let is_kerberos = cluster["properties"]["sasl.mechanism"] == "GSSAPI";
        if !cluster["token"].is_null() || is_kerberos {
            left_out.push(name.into_owned());
            continue;
        }
        let properties = properties(kafka, &files, &cluster["properties"])?;
        let all: Vec<_> = properties
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let expected = format!("{group} {topic}: 1\n{topic}: 0..4");
        Sources::with(&clients()?, &all)
            .and_then(|mut sources| sources.expect(&plan(&group, &[&topic]), &expected))
            .with_context(|| format!("{name}: {properties:?}"))?;
    }
    let mut elsewhere = [WITH_TOKENS, managed::RECIPES, &[WITH_KERBEROS]].concat();
    elsewhere.sort_unstable();
    left_out.sort();
    ensure!(left_out == elsewhere, "left out: {left_out:?}");
    Ok(())
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise/examples")
}

/// The values of an example.
pub(crate) fn example(name: &str) -> Result<Value> {
    let text = std::fs::read_to_string(examples().join(format!("{name}.yaml")))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// Each with a token endpoint of its shape, whose tokens the broker checks.
pub(super) fn each_recipe_with_tokens_logs_in(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    // The proxy that the broker sends everybody to.
    let proxy = Proxy::of_broker(kafka, 1, "TOKEN")?;
    let folder = testbed.folder("recipes")?;
    let federated = folder.join("federated");
    std::fs::write(&federated, "token-of-the-pod")?;
    for name in WITH_TOKENS {
        let token = json!({
            "access_token": kafka.issuer().token(SASL_USER, 600)?,
            "expires_in": 600,
            "token_type": "Bearer",
        });
        let endpoint = TokenEndpoint::start(move |_, _| token.to_string())?;
        let values = example(name)?;
        let mut cluster = values["config"]["clusters"][0].clone();
        cluster["properties"]["bootstrap.servers"] = json!(proxy.address());
        cluster["properties"]["security.protocol"] = json!("SASL_PLAINTEXT");
        cluster["allowed_broker_hosts"] = json!(["127.0.0.1"]);
        let mut command = testbed.lagwise(&["check", "-o", "json"]);
        let expected = if let Some(oidc) = cluster["token"].get_mut("oidc") {
            let url = oidc["token_url"].as_str().context("no token_url")?;
            let url: Uri = url.parse()?;
            oidc["token_url"] = json!(endpoint.url(url.path()));
            oidc["client_secret"] = json!("the-secret");
            format!("{} grant_type=client_credentials&scope=kafka", url.path())
        } else {
            // By itself that of the namespace in bootstrap.servers.
            let scope = "https://orders.servicebus.windows.net/.default";
            cluster["token"]["azure_workload_identity"]["scope"] = json!(scope);
            let id = values["podIdentity"]["azureClientId"].as_str();
            let id = id.context("no azureClientId")?;
            // As the webhook of the workload identity sets them.
            command
                .env("AZURE_CLIENT_ID", id)
                .env("AZURE_TENANT_ID", "tenant")
                .env("AZURE_FEDERATED_TOKEN_FILE", &federated)
                .env("AZURE_AUTHORITY_HOST", endpoint.url("/"));
            format!("/tenant/oauth2/v2.0/token client_id={id}&")
        };
        let file = folder.join(format!("{name}.json"));
        let lines = check_lines(command, &file, &cluster, &group, &topic).context(*name)?;
        for check in ["login", "fetch offsets", "list offsets"] {
            ensure!(is_passed(&lines, check), "{name}: {check}: {lines:#?}");
        }
        let requests = endpoint.requests();
        ensure!(
            requests
                .iter()
                .any(|request| request.starts_with(&expected)),
            "{name}: {requests:?}"
        );
    }
    Ok(())
}

/// Whether `lagwise check` says that this check has passed.
pub(super) fn is_passed(lines: &[Value], check: &str) -> bool {
    lines
        .iter()
        .any(|line| line["check"] == check && line["status"] == "passed")
}

/// The output of the command `lagwise check -o json` for this Kafka cluster and a group that reads a topic. Writes the
/// configuration to the file.
pub(super) fn check_lines(
    mut command: Command,
    file: &Path,
    cluster: &Value,
    group: &str,
    topic: &str,
) -> Result<Vec<Value>> {
    let config = json!({
        "clusters": [cluster],
        "targets": [{"name": "billing", "group": group, "topics": [topic]}],
        "kubernetes": {"enabled": false},
        "server": {"external_metrics": {
            "listen": format!("127.0.0.1:{}", free_port()?),
            "auth": "none",
        }},
    });
    std::fs::write(file, config.to_string())?;
    let output = command.arg("--config").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The properties of an example, for the listener of its kind.
fn properties(
    kafka: &KafkaCluster,
    files: &Files,
    example: &Value,
) -> Result<BTreeMap<String, String>> {
    let example = example.as_object().context("no properties")?;
    let mut properties: BTreeMap<String, String> = example
        .iter()
        .map(|(key, value)| {
            let text = value.as_str().map(str::to_owned);
            (key.clone(), text.unwrap_or_else(|| value.to_string()))
        })
        .collect();
    let protocol = properties.get("security.protocol").cloned();
    let protocol = protocol.unwrap_or_else(|| "PLAINTEXT".to_owned());
    let has_certificate = properties.contains_key("ssl.certificate.location");
    // Others name a file with the user.
    let has_user = properties.get("sasl.username").map(String::as_str) == Some(EVENT_HUBS_USER);
    let listener = match protocol.as_str() {
        "SSL" if has_certificate => "MTLS",
        "SASL_SSL" => "SASLSSL",
        "SASL_PLAINTEXT" => "SASL",
        same => same,
    };
    let mut set = |key: &str, value: &str| properties.insert(key.to_owned(), value.to_owned());
    set("bootstrap.servers", &kafka.listener_bootstrap(listener));
    if protocol.ends_with("SSL") {
        set("ssl.ca.location", &files.ca);
    }
    if protocol.starts_with("SASL") {
        if !has_user {
            set("sasl.username", SASL_USER);
        }
        set("sasl.password", SASL_PASSWORD);
    }
    if has_certificate {
        set("ssl.certificate.location", &files.certificate.0);
        set("ssl.key.location", &files.certificate.1);
    }
    Ok(properties)
}
