//! The main scenario: the lag of a real group on a real Kafka changes the replicas of a Deployment through the real HPA
//! controller, up to the number of partitions and not beyond.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "scale::replicas_reach_the_partition_count_and_no_more",
        replicas_reach_the_partition_count_and_no_more,
    ),
    (
        "scale::without_the_clamp_replicas_pass_the_partition_count",
        without_the_clamp_replicas_pass_the_partition_count,
    ),
];

const PARTITIONS: i32 = 6;

/// Lag wanted per replica.
const TARGET: usize = 100;

/// A Deployment and an HPA on the lag of that group, with both tolerances 0 and no waiting.
pub(crate) fn workload(name: &str, selector: &[(&str, &str)]) -> String {
    let labels = json!({"app": name});
    let selector: serde_json::Map<_, _> = selector
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    let policy = |kind: &str, value: u32| json!({"tolerance": "0", "stabilizationWindowSeconds": 0, "policies": [{"type": kind, "value": value, "periodSeconds": 2}]});
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "consumer", "image": "consumer"}]},
                    },
                },
            },
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": name},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                    "minReplicas": 1,
                    "maxReplicas": 20,
                    "behavior": {"scaleUp": policy("Pods", 4), "scaleDown": policy("Percent", 100)},
                    "metrics": [{
                        "type": "External",
                        "external": {
                            "metric": {"name": "kafka_lag", "selector": {"matchLabels": selector}},
                            "target": {"type": "AverageValue", "averageValue": TARGET.to_string()},
                        },
                    }],
                },
            },
        ],
    })
    .to_string()
}

/// Reaches the partition count, never passes it, and comes back to one.
fn replicas_reach_the_partition_count_and_no_more(testbed: &Testbed) -> Result<()> {
    let series = run(testbed, true, "wire")?;
    assert_eq!(series.iter().max(), Some(&PARTITIONS), "{series:?}");
    assert_eq!(series.last(), Some(&1), "{series:?}");
    Ok(())
}

/// Without the clamp the same load passes the partition count: the test above can fail.
fn without_the_clamp_replicas_pass_the_partition_count(testbed: &Testbed) -> Result<()> {
    let series = run(testbed, false, "librdkafka")?;
    ensure!(series.iter().max() > Some(&PARTITIONS), "{series:?}");
    Ok(())
}

/// A backlog worth 18 replicas, until it is drained; the values of `status.replicas` in order.
fn run(testbed: &Testbed, clamp: bool, client: &'static str) -> Result<Vec<i32>> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("scale")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let options = Options {
        clamp,
        client,
        ..Options::main(&kafka.bootstrap())
    };
    let (_daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    plane.apply(
        &namespace,
        &workload("billing", &[("group", &group), ("topic", &topic)]),
    )?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    let consumers = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: group.clone(),
        topic: topic.clone(),
        per_second: 30,
        properties: Vec::new(),
    };
    let mut fleet = ConsumerFleet::new(&testbed.folder("consumers")?, consumers);

    // A group at work, with a commit on every partition.
    fleet.scale_to(1)?;
    kafka.produce_to(&topic, &spread(6))?;
    poll_until(
        Duration::from_secs(60),
        "the group to have caught up",
        || is_drained(kafka, &group, &topic),
    )?;
    poll_until(
        Duration::from_secs(60),
        "the aggregated API to say so",
        || {
            let body = plane.get_raw(&metric_path(
                &namespace,
                &format!("group={group},topic={topic}"),
            ))?;
            ensure!(value_of(&body)? == 0, "{body}");
            Ok(())
        },
    )?;

    kafka.produce_to(&topic, &spread(18 * TARGET))?;
    let goal = if clamp { PARTITIONS } else { PARTITIONS + 1 };
    poll_until(Duration::from_secs(120), "replicas to rise", || {
        fleet.scale_to(usize::try_from(series.now())?)?;
        ensure!(series.max() >= goal, "{:?}", series.values());
        Ok(())
    })?;
    poll_until(
        Duration::from_secs(180),
        "the backlog to be drained and replicas to fall",
        || {
            fleet.scale_to(usize::try_from(series.now())?)?;
            is_drained(kafka, &group, &topic)?;
            ensure!(series.now() == 1, "{:?}", series.values());
            Ok(())
        },
    )?;
    still_one(plane, &namespace)?;
    println!("status.replicas with clamp {clamp}: {:?}", series.values());
    Ok(series.values())
}

fn spread(records: usize) -> Vec<(i32, usize)> {
    (0..PARTITIONS)
        .map(|partition| (partition, records / 6))
        .collect()
}

fn is_drained(kafka: &KafkaCluster, group: &str, topic: &str) -> Result<()> {
    let ends: Vec<_> = kafka.end_offsets(topic)?.into_iter().map(Some).collect();
    let committed = kafka.committed(group, topic)?;
    ensure!(committed == ends, "committed {committed:?} of {ends:?}");
    Ok(())
}

/// The status of the HPA agrees with the watch.
fn still_one(plane: &ControlPlane, namespace: &str) -> Result<()> {
    poll_until(
        Duration::from_secs(30),
        "the HPA to want one replica",
        || {
            let hpa = plane.get("hpa", "billing", Some(namespace))?;
            ensure!(hpa["status"]["desiredReplicas"] == 1, "{}", hpa["status"]);
            Ok(())
        },
    )
}
