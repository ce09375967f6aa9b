//! Outages of Kafka: the HPA keeps its replicas and shows the reason, and continues when Kafka is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::daemon::{Daemon, MAX_STALENESS, Options, metric_path, value_of};
use crate::scale::workload;
use crate::testbed::kafka::KafkaOptions;
use crate::testbed::kubernetes::{EXTERNAL_METRICS_API, condition};
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::ports::free_port;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "outage::the_aggregated_api_answers_kubectl",
        the_aggregated_api_answers_kubectl,
    ),
    (
        "outage::a_missing_topic_is_named_and_not_created",
        a_missing_topic_is_named_and_not_created,
    ),
    ("outage::starts_before_kafka_does", starts_before_kafka_does),
    (
        "outage::replicas_hold_while_kafka_is_gone",
        replicas_hold_while_kafka_is_gone,
    ),
    (
        "outage::one_unknown_metric_of_two_holds_the_replicas",
        one_unknown_metric_of_two_holds_the_replicas,
    ),
    ("outage::sigterm_ends_it_in_time", sigterm_ends_it_in_time),
    ("outage::a_taken_port_is_named", a_taken_port_is_named),
];

/// The HPA controller's sync period in the testbed.
const SYNC: Duration = Duration::from_secs(2);

/// One metric of an HPA is unknown. If its other metric proposes fewer replicas, the HPA does not scale down. If it
/// proposes more, the HPA scales up.
fn one_unknown_metric_of_two_holds_the_replicas(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.three_brokers()?, testbed.control_plane()?);
    let namespace = plane.namespace("two")?;
    // What one broker alone has goes and comes with it.
    let (known, lost) = (unique("orders"), unique("returns"));
    kafka.create_topic_on(&known, &[1; 6])?;
    kafka.create_topic_on(&lost, &[3; 6])?;
    let group = kafka.group_on(1)?;
    for topic in [&known, &lost] {
        kafka.produce(topic, 0, 400)?;
        let all_behind: Vec<(i32, i64)> = (0..6).map(|partition| (partition, 0)).collect();
        kafka.commit(&group, topic, &all_behind)?;
    }
    let options = Options::main(&kafka.bootstrap());
    let (_daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let selector = |topic| [("group", group.as_str()), ("topic", topic)];
    let mut list: Value = serde_json::from_str(&workload("billing", &selector(&known)))?;
    let second: Value = serde_json::from_str(&workload("billing", &selector(&lost)))?;
    let metrics = list["items"][1]["spec"]["metrics"].as_array_mut();
    metrics
        .context("no metrics")?
        .push(second["items"][1]["spec"]["metrics"][0].clone());
    plane.apply(&namespace, &list.to_string())?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    let wait_until = |replicas: i32| {
        poll_until(
            Duration::from_secs(60),
            &format!("{replicas} replicas"),
            || {
                ensure!(series.now() == replicas, "{:?}", series.values());
                Ok(())
            },
        )
    };
    wait_until(4)?;
    kafka.stop_broker(3)?;
    let held = (|| {
        let path = |topic| metric_path(&namespace, &format!("group={group},topic={topic}"));
        poll_until(
            MAX_STALENESS + Duration::from_secs(60),
            "one metric to be unknown",
            || {
                let refused = plane.get_raw(&path(&lost)).err().context("it is known")?;
                ensure!(refused.to_string().contains("unknown since"), "{refused}");
                Ok(())
            },
        )?;
        kafka.commit(&group, &known, &[(0, 400)])?;
        poll_until(
            Duration::from_secs(60),
            "the other one to be nothing",
            || {
                let body = plane.get_raw(&path(&known))?;
                ensure!(value_of(&body)? == 0, "{body}");
                Ok(())
            },
        )?;
        stays(&series, 4)?;
        let hpa = plane.get("hpa", "billing", Some(&namespace))?;
        let active = condition(&hpa, "ScalingActive").context("no condition")?;
        ensure!(active["status"] == "False", "{active}");
        kafka.produce(&known, 0, 600)?;
        wait_until(6)
    })();
    kafka.restore()?;
    held?;
    kafka.commit(&group, &known, &[(0, 1000)])?;
    kafka.commit(&group, &lost, &[(0, 400)])?;
    wait_until(1)
}

/// Checks that the number of replicas stays this for the time of five syncs of the controller, which cannot be counted.
fn stays(series: &ReplicaSeries, replicas: i32) -> Result<()> {
    let since = std::time::Instant::now();
    poll_until(SYNC * 8, "five syncs to pass", || {
        let now = series.now();
        ensure!(now == replicas, Hopeless(format!("{now} replicas")));
        ensure!(since.elapsed() > SYNC * 5, "not yet");
        Ok(())
    })
}

/// With Kafka stopped the HPA keeps its replicas and carries our message; then Kafka comes back.
fn replicas_hold_while_kafka_is_gone(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let kafka = testbed.start_kafka("outage", &KafkaOptions::default())?;
    let namespace = plane.namespace("outage")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 6)?;
    kafka.produce(&topic, 0, 300)?;
    let all_behind: Vec<(i32, i64)> = (0..6).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &all_behind)?;

    let (daemon, api) = Daemon::registered(
        testbed,
        plane,
        &namespace,
        &Options::main(&kafka.bootstrap()),
    )?;
    plane.apply(
        &namespace,
        &workload("billing", &[("group", &group), ("topic", &topic)]),
    )?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    poll_until(
        Duration::from_secs(60),
        "three replicas for a lag of 300",
        || {
            ensure!(series.now() == 3, "{:?}", series.values());
            Ok(())
        },
    )?;

    kafka.stop_all()?;
    let message = poll_until(
        MAX_STALENESS + Duration::from_secs(60),
        "the HPA to say why it holds",
        || {
            let hpa = plane.get("hpa", "billing", Some(&namespace))?;
            let active = condition(&hpa, "ScalingActive").context("no condition yet")?;
            ensure!(active["status"] == "False", "{active}");
            let message = active["message"].as_str().unwrap_or_default().to_owned();
            ensure!(
                message.contains(&group) && message.contains("unknown since"),
                "{message}"
            );
            Ok(message)
        },
    )?;
    stays(&series, 3)?;
    let hpa = plane.get("hpa", "billing", Some(&namespace))?;
    let after = condition(&hpa, "ScalingActive").context("no condition")?["message"].clone();
    assert_eq!(
        after,
        message.as_str(),
        "a message that changes rewrites the HPA's status at every sync"
    );
    api.wait_available(Duration::from_secs(10))
        .context("the API is to stay available without Kafka")?;
    let path = metric_path("default", &format!("group={group},topic={topic}"));
    let refused = plane.get_raw(&path).unwrap_err().to_string();
    ensure!(refused.contains("unknown since"), "{refused}");
    ensure!(
        daemon
            .metrics()?
            .contains("lagwise_cluster_up{cluster=\"main\"} 0"),
        "the cluster counts as up"
    );

    kafka.start_all()?;
    poll_until(Duration::from_secs(90), "the lag to be known again", || {
        let hpa = plane.get("hpa", "billing", Some(&namespace))?;
        let active = condition(&hpa, "ScalingActive").context("no condition")?;
        ensure!(active["status"] == "True", "{active}");
        Ok(())
    })?;
    let ends: Vec<(i32, i64)> = vec![(0, 300)];
    kafka.commit(&group, &topic, &ends)?;
    poll_until(
        Duration::from_secs(60),
        "replicas to fall once the work is done",
        || {
            ensure!(series.now() == 1, "{:?}", series.values());
            Ok(())
        },
    )
}

/// A daemon that starts before Kafka is ready, responds with the reason, and works once Kafka has started.
fn starts_before_kafka_does(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.start_kafka("late", &KafkaOptions::default())?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce(&topic, 0, 5)?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 0)])?;
    kafka.stop_all()?;

    let selector = format!("group={group},topic={topic}");
    let mut daemons = Vec::new();
    for client in ["wire", "librdkafka"] {
        let options = Options {
            client,
            ..Options::main(&kafka.bootstrap())
        };
        let daemon = Daemon::alone(testbed, &options)?;
        let message = poll_until(Duration::from_secs(30), "the refusal to say why", || {
            let message = daemon.refusal(&selector, 503)?;
            ensure!(message.contains("Connection refused"), "{message}");
            Ok(message)
        })?;
        ensure!(message.contains(&group), "{message}");
        daemons.push(daemon);
    }
    kafka.start_all()?;
    for daemon in &daemons {
        poll_until(Duration::from_secs(60), "the lag to be served", || {
            assert_eq!(daemon.lag(&selector)?, 4);
            Ok(())
        })?;
    }
    Ok(())
}

/// A query for a topic that does not exist is refused with its name, and does not create the topic.
fn a_missing_topic_is_named_and_not_created(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("missing")?;
    let (daemon, _api) = Daemon::registered(
        testbed,
        plane,
        &namespace,
        &Options::main(&kafka.bootstrap()),
    )?;
    let topic = unique("nowhere");
    let path = metric_path(&namespace, &format!("group=billing,topic={topic}"));
    for _ in 0..2 {
        let refused = plane.get_raw(&path).unwrap_err().to_string();
        ensure!(
            refused.contains("NotFound") && refused.contains(&topic),
            "{refused}"
        );
    }
    ensure!(
        !kafka.topics()?.contains(&topic),
        "asking for a topic created it"
    );
    drop(daemon);
    Ok(())
}

/// `kubectl get --raw` and `kubectl get apiservice`, and a query for a group that was not watched before.
fn the_aggregated_api_answers_kubectl(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("kubectl")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce(&topic, 1, 9)?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 2), (2, 0)])?;
    for client in ["librdkafka", "wire"] {
        let options = Options {
            client,
            ..Options::main(&kafka.bootstrap())
        };
        let (_daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
        for selector in [
            format!("group={group}"),
            format!("group={group},topic={topic}"),
        ] {
            let started = std::time::Instant::now();
            // A busy broker may miss the deadline of the first poll.
            let path = metric_path(&namespace, &selector);
            let body = poll_until(Duration::from_secs(60), "the first answer", || {
                plane.get_raw(&path)
            })?;
            println!(
                "{client}: first answer for {selector} after {:?}",
                started.elapsed()
            );
            assert_eq!(value_of(&body)?, 7, "{body}");
            let item = &body["items"][0];
            assert_eq!(item["metricName"], "kafka_lag", "{body}");
            assert_eq!(item["metricLabels"]["group"], group.as_str(), "{body}");
        }
        let service = plane.kubectl(&["get", "apiservice", EXTERNAL_METRICS_API])?;
        ensure!(service.contains("True"), "{service}");
        let resources = plane.kubectl(&["api-resources", "--api-group=external.metrics.k8s.io"])?;
        ensure!(resources.contains("externalmetrics"), "{resources}");
    }
    Ok(())
}

/// SIGTERM ends the daemon within five seconds, with status 0, connections open or not.
fn sigterm_ends_it_in_time(testbed: &Testbed) -> Result<()> {
    // Kafka that never answers: a port that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut daemon = Daemon::alone(testbed, &Options::main(&silent.local_addr()?.to_string()))?;
    let _open = std::net::TcpStream::connect(("127.0.0.1", daemon.api_port))?;
    let _idle = std::net::TcpStream::connect(("127.0.0.1", daemon.http_port))?;
    // An idle connection that has been used, kept by the client.
    let message = daemon.refusal("group=billing,topic=orders", 503)?;
    println!("refused before the signal: {message}");
    let status = daemon.process.stop(Duration::from_secs(5))?;
    ensure!(
        status.success(),
        "{status}: {}",
        daemon.process.log_tail(20)
    );
    Ok(())
}

/// A daemon whose port is in use ends at once, with a message that names the port.
fn a_taken_port_is_named(testbed: &Testbed) -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let config = format!(
        "clusters: [{{name: main, properties: {{bootstrap.servers: '127.0.0.1:1'}}}}]\n\
         kubernetes: {{enabled: false}}\n\
         server: {{external_metrics: {{listen: '{address}', auth: none}}, metrics: {{listen: '127.0.0.1:{}'}}}}\n",
        free_port()?
    );
    let file = testbed.folder("taken")?.join("lagwise.yaml");
    std::fs::write(&file, config)?;
    let output = testbed
        .lagwise(&["run", "--config", &file.to_string_lossy()])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        !output.status.success() && stderr.contains("server.external_metrics.listen"),
        "{stderr}"
    );
    ensure!(stderr.contains(&address.to_string()), "{stderr}");
    Ok(())
}
