//! The queries of the dashboard, run on a real Prometheus that scrapes a real daemon.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::{Value, json};

use super::chart;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// Queries of kafka_exporter's dashboard (7589 at grafana.com), which people already have: its panels and its
/// variables. It selects one instance by its address.
const OF_KAFKA_EXPORTER: &[(&str, &str)] = &[
    (
        "messages in per second",
        "sum(rate(kafka_topic_partition_current_offset{instance=\"$instance\", topic=~\"$topic\"}[1m])) by (topic)",
    ),
    (
        "lag by group",
        "sum(kafka_consumergroup_lag{instance=\"$instance\",topic=~\"$topic\"}) by (consumergroup, topic)",
    ),
    (
        "messages in per minute",
        "sum(delta(kafka_topic_partition_current_offset{instance=~'$instance', topic=~\"$topic\"}[5m])/5) by (topic)",
    ),
    (
        "messages consumed per minute",
        "sum(delta(kafka_consumergroup_current_offset{instance=~'$instance',topic=~\"$topic\"}[5m])/5) by (consumergroup, topic)",
    ),
    (
        "partitions per topic",
        "sum by(topic) (kafka_topic_partitions{instance=\"$instance\",topic=~\"$topic\"})",
    ),
    (
        "job",
        "label_values(kafka_consumergroup_current_offset, job)",
    ),
    (
        "instance",
        "label_values(kafka_consumergroup_current_offset{job=~\"$job\"}, instance)",
    ),
    (
        "topic",
        "label_values(kafka_topic_partition_current_offset{instance='$instance',topic!='__consumer_offsets',topic!='--kafka'}, topic)",
    ),
];

/// Queries for the panels and variables of kminion's dashboards (14012, 14013 and 14014 at grafana.com) that the guide
/// promises data for, with the metrics and labels of kminion's documentation. The other panels show what lagwise does
/// not read.
const OF_KMINION: &[(&str, &str)] = &[
    (
        "cluster: messages in per second",
        "sum(rate(kminion_kafka_topic_high_water_mark_sum[$__rate_interval]))",
    ),
    (
        "cluster: messages in per second by topic",
        "topk(15, sum by (topic_name) (rate(kminion_kafka_topic_high_water_mark_sum[$__rate_interval])))",
    ),
    (
        "topic: message count",
        "sum(kminion_kafka_topic_high_water_mark_sum{topic_name=~\"$topic\"}) - sum(kminion_kafka_topic_low_water_mark_sum{topic_name=~\"$topic\"})",
    ),
    (
        "topic: partition count",
        "kminion_kafka_topic_info{topic_name=~\"$topic\", partition_count!=\"\"}",
    ),
    (
        "topic: messages in per second",
        "sum(rate(kminion_kafka_topic_high_water_mark_sum{topic_name=~\"$topic\"}[$__rate_interval]))",
    ),
    (
        "topic: subscribed groups",
        "sum by (group_id, topic_name) (kminion_kafka_consumer_group_topic_lag{topic_name=~\"$topic\"})",
    ),
    (
        "topic: low water mark of partitions",
        "sum by (partition_id) (kminion_kafka_topic_partition_low_water_mark{topic_name=~\"$topic\"})",
    ),
    (
        "topic: high water mark of partitions",
        "sum by (partition_id) (kminion_kafka_topic_partition_high_water_mark{topic_name=~\"$topic\"})",
    ),
    (
        "topic: message count of partitions",
        "sum by (partition_id) (kminion_kafka_topic_partition_high_water_mark - kminion_kafka_topic_partition_low_water_mark)",
    ),
    (
        "groups: lag of group and topic",
        "sum by (group_id, topic_name) (kminion_kafka_consumer_group_topic_lag{group_id=~\"$group\", topic_name=~\"$topic\"})",
    ),
    (
        "groups: lag of partitions",
        "max by (partition_id) (kminion_kafka_consumer_group_topic_partition_lag{group_id=~\"$group\"})",
    ),
    (
        "groups: messages in",
        "sum by (topic_name) (rate(kminion_kafka_topic_high_water_mark_sum{topic_name=~\"$topic\"}[$__rate_interval]))",
    ),
    (
        "groups: messages consumed",
        "sum by (group_id, topic_name) (rate(kminion_kafka_consumer_group_topic_offset_sum{group_id=~\"$group\", topic_name=~\"$topic\"}[$__rate_interval]))",
    ),
    (
        "groups: members",
        "kminion_kafka_consumer_group_members{group_id=~\"$group\"}",
    ),
    (
        "group",
        "label_values(kminion_kafka_consumer_group_topic_lag, group_id)",
    ),
    (
        "topic",
        "label_values(kminion_kafka_consumer_group_topic_lag{group_id=~\"$group\"}, topic_name)",
    ),
    (
        "topic",
        "label_values(kminion_kafka_topic_info, topic_name)",
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// The titles of panels and names of variables, each with a query.
fn queries() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(chart().join("files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    let mut add = |place: &Value, query: &Value| -> Result<()> {
        let place = place.as_str().context("no title")?.to_owned();
        found.push((place, query.as_str().context("no query")?.to_owned()));
        Ok(())
    };
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            add(&panel["title"], &target["expr"])?;
        }
    }
    let variables = &dashboard["templating"]["list"];
    for variable in variables.as_array().context("no variables")? {
        if variable["type"] == "query" {
            add(&variable["name"], &variable["query"]["query"])?;
        }
    }
    Ok(found)
}

/// The query that Grafana sends with everything selected, and with this instance.
fn as_sent(query: &str, instance: &str) -> Result<String> {
    let variable = Regex::new(r"\$(cluster|group|namespace|hpa|topic|job)\b")?;
    let values = Regex::new(r"^label_values\((.*), \w+\)$")?;
    let query = query.replace("$__rate_interval", "20s");
    let query = query.replace("$instance", instance);
    let query = variable.replace_all(&query, ".*");
    Ok(values.replace(&query, "$1").into_owned())
}

/// Lets the daemon lead, without which it reads nothing, write to HPAs, and scale Deployments to zero.
fn allow(plane: &ControlPlane, namespace: &str) -> Result<()> {
    crate::leader::allow(plane, namespace)?;
    crate::leader::allow_state(plane, namespace)?;
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "scales"},
            "rules": [{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "scales"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "scales"},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}],
        },
    ]});
    plane.apply(namespace, &rights.to_string())
}

/// With an HPA that is capped, one whose workload is scaled to zero, and a group whose topic was replaced.
pub(super) fn every_query_has_data(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("dashboard")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 300), (1, 20), (2, 20)])?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 1), (2, 1)])?;
    let (idle, replaced) = (unique("idle"), unique("replaced"));
    kafka.commit(&idle, &topic, &[(0, 300), (1, 20), (2, 20)])?;
    kafka.commit(&replaced, &topic, &[(0, 1), (1, 1), (2, 1)])?;
    let options = Options {
        leader: json!({"lease": "lagwise"}),
        targets: vec![json!({"name": "replaced", "group": replaced, "topics": [topic]})],
        scale_to_zero: json!({"config_map": "lagwise-zero"}),
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    allow(plane, &namespace)?;
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    for (name, group, annotations) in [
        ("billing", &group, json!({"lagwise.dev/cap": "enforce"})),
        (
            "idle",
            &idle,
            json!({"lagwise.dev/scale-to-zero": "true", "lagwise.dev/cooldown": "2s"}),
        ),
    ] {
        let selector = [("group", group.as_str()), ("topic", topic.as_str())];
        let mut list: Value = serde_json::from_str(&workload(name, &selector))?;
        list["items"][1]["metadata"]["annotations"] = annotations;
        plane.apply(&namespace, &list.to_string())?;
    }
    poll_until(WAIT_TIMEOUT, "all groups to be read", || {
        let metrics = daemon.metrics()?;
        for group in [&group, &idle, &replaced] {
            let of_group = format!("consumergroup=\"{group}\"");
            let mut sums = metrics.lines().filter(|line| {
                line.starts_with("kafka_consumergroup_lag_sum{") && line.contains(&of_group)
            });
            ensure!(sums.next().is_some(), "{group} is not read");
        }
        Ok(())
    })?;
    // Beyond the end of the log, as after the topic was created again.
    kafka.commit(&replaced, &topic, &[(0, 1_000_000)])?;

    let folder = testbed.folder("prometheus")?;
    let port = free_port()?;
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [chart().join("files/alerts.yaml"), chart().join("files/kminion-names.yaml")],
        "scrape_configs": [{
            "job_name": "lagwise",
            "honor_labels": true,
            "static_configs": [{"targets": [format!("127.0.0.1:{}", daemon.http_port)]}],
        }],
    });
    let file = folder.join("prometheus.json");
    fs::write(&file, config.to_string())?;
    let mut command = Command::new(&testbed.artifacts()?.prometheus);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let mut prometheus = Process::start("prometheus", &folder, &command)?;
    let client = reqwest::blocking::Client::new();
    let run_query = |query: &str| -> Result<Value> {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let url = format!("http://127.0.0.1:{port}/api/v1/query?query={encoded}");
        let answer: Value = serde_json::from_str(&client.get(url).send()?.text()?)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"].clone())
    };
    let mut queries = queries()?;
    ensure!(queries.len() > 30, "only {} queries", queries.len());
    let of_others = OF_KAFKA_EXPORTER.iter().chain(OF_KMINION);
    queries.extend(of_others.map(|(place, query)| ((*place).to_owned(), (*query).to_owned())));
    let instance = format!("127.0.0.1:{}", daemon.http_port);
    poll_until(WAIT_TIMEOUT, "data for every query", || {
        prometheus.expect_running()?;
        let mut missing = Vec::new();
        for (place, query) in &queries {
            let sent = as_sent(query, &instance)?;
            let found = run_query(&sent)?;
            if found.as_array().is_none_or(Vec::is_empty) {
                missing.push(format!("{place}: {sent}"));
            }
        }
        ensure!(missing.is_empty(), "no data for {missing:#?}");
        Ok(())
    })?;
    // The rules are loaded, and none fires.
    let firing = run_query("ALERTS{alertstate=\"firing\"}")?;
    ensure!(firing == json!([]), "{firing}");
    Ok(())
}
