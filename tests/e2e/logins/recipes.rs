//! The logins of the chart's examples, each on a listener of its kind: what an example sets is kept, except for addresses,
//! names, passwords and files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Files, files};
use crate::sources::{Sources, clients, plan};
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::{Testbed, unique};

/// Examples whose logins other tests have: those with a token source, beside each source in `src/kafka/login` and with an
/// issuer in `renewal`, and Kerberos in `kerberos`.
const ELSEWHERE: &[&str] = &[
    "confluent-cloud-oauth",
    "event-hubs-workload-identity",
    "google-managed-kafka",
    "hdinsight-esp",
    "msk-iam-irsa",
    "msk-iam-pod-identity",
    "msk-iam-role-arn",
    "msk-serverless",
];

pub(super) fn each_recipe_logs_in(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce_to(&topic, &[(0, 4)])?;
    kafka.commit(&group, &topic, &[(0, 1)])?;
    let files = files(kafka, &testbed.folder("recipes")?)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise/examples");
    let mut left_out = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().context("no name")?.to_string_lossy();
        let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path)?)?;
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
    left_out.sort();
    ensure!(left_out == ELSEWHERE, "left out: {left_out:?}");
    Ok(())
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
        set("sasl.username", SASL_USER);
        set("sasl.password", SASL_PASSWORD);
    }
    if has_certificate {
        set("ssl.certificate.location", &files.certificate.0);
        set("ssl.key.location", &files.certificate.1);
    }
    Ok(properties)
}
