//! `lagwise topics` on real brokers: compares the partitions of topics with the replicas of HPAs, and adds partitions.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::broker::SASL_PASSWORD;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::secured::READER;
use crate::testbed::{Testbed, unique};

/// The scenarios with Kafka alone.
pub(crate) const KAFKA: &[(&str, Test)] = &[
    (
        "topics::grow_adds_and_never_removes",
        grow_adds_and_never_removes,
    ),
    (
        "topics::a_missing_right_is_reported",
        a_missing_right_is_reported,
    ),
];

/// Scenarios with a Kubernetes cluster.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "topics::a_topic_with_too_few_partitions_is_named",
    a_topic_with_too_few_partitions_is_named,
)];

/// Long scenarios: the history gets a point every 15 seconds.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "topics::past_demand_is_remembered",
    past_demand_is_remembered,
)];

fn config(testbed: &Testbed, properties: &Value) -> Result<String> {
    config_with_hosts(testbed, properties, &[])
}

fn config_with_hosts(testbed: &Testbed, properties: &Value, hosts: &[&str]) -> Result<String> {
    let file = testbed.folder("topics")?.join("lagwise.json");
    let cluster = json!({"name": "main", "properties": properties, "allowed_broker_hosts": hosts});
    let config = json!({"clusters": [cluster]});
    std::fs::write(&file, config.to_string())?;
    Ok(file.to_string_lossy().into_owned())
}

fn text_of(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn grow_adds_and_never_removes(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, compacted, keyed) = (unique("orders"), unique("state"), unique("carts"));
    kafka.create_topics(&[&topic, &compacted, &keyed], 2)?;
    kafka.produce_to(&topic, &[(0, 3), (1, 30)])?;
    kafka.produce_to(&keyed, &[(1, 3)])?;
    kafka.produce_keys(&keyed, &["a"])?;
    let entity = ["--entity-type", "topics", "--entity-name", &compacted];
    let change = ["--alter", "--add-config", "cleanup.policy=compact"];
    kafka.tool(
        "kafka.admin.ConfigCommand",
        &[&change[..], &entity].concat(),
    )?;
    let config = config(testbed, &json!({"bootstrap.servers": kafka.bootstrap()}))?;
    let grow = |topic: &str, more: &[&str]| {
        let args = [&["topics", "grow", topic, "--config", &config][..], more].concat();
        anyhow::Ok(testbed.lagwise(&args).output()?)
    };
    let expect = |output: &Output, succeeds: bool, part: &str| {
        let text = text_of(output);
        ensure!(
            output.status.success() == succeeds && text.contains(part),
            "{text}"
        );
        Ok(())
    };
    let dry = grow(&topic, &["--partitions", "5", "--dry-run"])?;
    expect(&dry, true, "2 -> 5 partitions (3 more)")?;
    expect(&dry, true, "has a key (13 were read)")?;
    expect(&dry, true, "nothing was changed")?;
    ensure!(
        kafka.end_offsets(&topic)?.len() == 2,
        "a dry run has changed it"
    );
    let unconfirmed = grow(&topic, &["--partitions", "5"])?;
    expect(&unconfirmed, false, "--yes")?;
    let threads = ["--for-replicas", "3", "--threads-per-replica", "2", "--yes"];
    expect(&grow(&topic, &threads)?, true, "done")?;
    kafka.wait_for_leaders(&topic, 6)?;
    expect(
        &grow(&topic, &["--partitions", "6", "--yes"])?,
        true,
        "already",
    )?;
    expect(
        &grow(&topic, &["--partitions", "4", "--yes"])?,
        false,
        "cannot remove any",
    )?;

    let kept = ["--partitions", "4", "--yes"];
    expect(&grow(&compacted, &kept)?, false, "is compacted")?;
    let forced = ["--partitions", "4", "--yes", "--force"];
    expect(&grow(&compacted, &forced)?, true, "done")?;
    kafka.wait_for_leaders(&compacted, 4)?;
    expect(&grow(&keyed, &kept)?, false, "have keys")?;
    // Records are read with limited hosts, too.
    let properties = json!({"bootstrap.servers": kafka.bootstrap()});
    let limited = config_with_hosts(testbed, &properties, &["127.0.0.1"])?;
    let args = ["topics", "grow", &keyed, "--config", &limited];
    let limited = testbed.lagwise(&[&args[..], &kept].concat()).output()?;
    expect(&limited, false, "records of topic")?;
    expect(&limited, false, "have keys:")?;
    ensure!(kafka.end_offsets(&keyed)?.len() == 2, "it has grown");
    expect(&grow(&keyed, &forced)?, true, "done")?;
    kafka.wait_for_leaders(&keyed, 4)?;
    let missing = unique("nowhere");
    expect(&grow(&missing, &kept)?, false, "the topic does not exist")
}

fn a_missing_right_is_reported(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let topic = unique("orders");
    kafka.create_topic(&topic, 2)?;
    kafka.allow_describe(&[&topic], &[])?;
    let properties = json!({
        "bootstrap.servers": kafka.sasl_bootstrap(),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": READER,
        "sasl.password": SASL_PASSWORD,
    });
    let config = config(testbed, &properties)?;
    let args = [
        "topics",
        "grow",
        &topic,
        "--config",
        &config,
        "--partitions",
        "4",
    ];
    // Whether it is compacted cannot be seen either.
    let refused = testbed
        .lagwise(&[&args[..], &["--yes"]].concat())
        .output()?;
    ensure!(!refused.status.success(), "{}", text_of(&refused));
    ensure!(
        text_of(&refused).contains("DescribeConfigs"),
        "{}",
        text_of(&refused)
    );
    for more in [["--force", "--yes"], ["--force", "--dry-run"]] {
        let refused = testbed.lagwise(&[&args[..], &more].concat()).output()?;
        let text = text_of(&refused);
        ensure!(!refused.status.success(), "{text}");
        ensure!(
            text.contains("the broker refused it with error code 29"),
            "{text}"
        );
    }
    ensure!(kafka.end_offsets(&topic)?.len() == 2, "it has grown");
    // It may see the configuration now, but not read records.
    kafka.allow_describe_configs(&topic)?;
    let refused = testbed
        .lagwise(&[&args[..], &["--yes"]].concat())
        .output()?;
    let text = text_of(&refused);
    ensure!(
        text.contains("have keys is unknown") && text.contains("allow Read on the topic"),
        "{text}"
    );
    ensure!(!text.contains("error code"), "the broker was asked: {text}");
    Ok(())
}

fn a_topic_with_too_few_partitions_is_named(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("topics")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 600), (1, 600)])?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0)])?;
    plane.apply(
        &namespace,
        &workload("billing", &[("group", &group), ("topic", &topic)]),
    )?;
    let config = config(testbed, &json!({"bootstrap.servers": kafka.bootstrap()}))?;
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let args = [
        "topics",
        "compare",
        "--config",
        &config,
        "--kubeconfig",
        &*kubeconfig,
        "-n",
        &namespace,
        "-o",
        "json",
    ];
    let output = testbed.lagwise(&args).output()?;
    ensure!(output.status.code() == Some(1), "{}", text_of(&output));
    let rows: Value = serde_json::from_slice(&output.stdout)?;
    let row = rows.get(0).with_context(|| text_of(&output))?;
    ensure!(
        row["fit"] == "too_few_partitions" && row["partitions"] == 2,
        "{row}"
    );
    let wanted = row["wanted_partitions"].as_u64().context("no number")?;
    ensure!(
        wanted > 2 && row["wanted_replicas"].as_u64() >= Some(wanted),
        "{row}"
    );
    Ok(())
}

/// The lag is 0 again, but the history has the replicas that it was worth.
fn past_demand_is_remembered(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("wanted")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 600), (1, 600)])?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0)])?;
    let options = Options {
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    plane.apply(
        &namespace,
        &workload("billing", &[("group", &group), ("topic", &topic)]),
    )?;
    let timeout = Duration::from_secs(60);
    let peak = poll_until(timeout, "the history to have the lag", || {
        let (_, peaks) = http_get(daemon.admin_port, "/api/peaks")?;
        let peaks: Value = serde_json::from_str(&peaks)?;
        let peak = peaks["hpas"][0]["uncapped"].as_u64();
        peak.filter(|peak| *peak > 2)
            .with_context(|| peaks.to_string())
    })?;
    kafka.commit(&group, &topic, &[(0, 600), (1, 600)])?;
    poll_until(timeout, "no lag", || {
        let status = daemon.status_of(&namespace, "billing")?;
        ensure!(status["uncapped"] == 0, "{status}");
        Ok(())
    })?;
    let config = config(testbed, &json!({"bootstrap.servers": kafka.bootstrap()}))?;
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    let compare = |more: &[&str]| -> Result<Value> {
        let args = ["topics", "compare", "--config", &config, "-n", &namespace];
        let args = [
            &args[..],
            &["--kubeconfig", &kubeconfig, "-o", "json"],
            more,
        ]
        .concat();
        let output = testbed.lagwise(&args).output()?;
        serde_json::from_slice(&output.stdout).with_context(|| text_of(&output))
    };
    let remembered = compare(&["--daemon", &url])?;
    ensure!(
        remembered[0]["wanted_replicas"] == peak && remembered[0]["fit"] == "too_few_partitions",
        "{remembered}"
    );
    // A single reading has no history.
    let now = compare(&[])?;
    ensure!(now[0]["wanted_replicas"] == 0, "{now}");
    Ok(())
}
