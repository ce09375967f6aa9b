//! Checks the testbed itself, on which all scenarios rely.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use crate::Test;
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::{poll_until, poll_until_async};
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    ("smoke::three_brokers_answer", three_brokers_answer),
    ("smoke::every_listener_answers", every_listener_answers),
    (
        "smoke::control_plane_runs_a_deployment",
        control_plane_runs_a_deployment,
    ),
    (
        "smoke::daemon_account_may_do_its_work_and_no_more",
        daemon_account_may_do_its_work_and_no_more,
    ),
];

/// Parts of the testbed that scenarios of outages and of the HPA use.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "smoke::broker_is_killed_and_comes_back",
        broker_is_killed_and_comes_back,
    ),
    (
        "smoke::simulated_consumers_follow_the_replicas",
        simulated_consumers_follow_the_replicas,
    ),
];

/// Topics, records, commits, and the same numbers from Kafka's own tool.
fn three_brokers_answer(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 5), (1, 7)])?;
    kafka.commit(&group, &topic, &[(0, 2), (1, 7)])?;

    assert_eq!(kafka.end_offsets(&topic)?, [5, 7, 0]);
    assert_eq!(kafka.committed(&group, &topic)?, [Some(2), Some(7), None]);
    let described = kafka.describe_groups(&[&group])?;
    let lags: Vec<_> = described
        .iter()
        .map(|row| (row.partition, row.committed_offset, row.lag))
        .collect();
    assert_eq!(
        lags,
        [(0, Some(2), Some(3)), (1, Some(7), Some(0))],
        "{described:?}"
    );

    kafka.delete_topic(&topic)?;
    Ok(())
}

/// The plain, the SASL and the SSL listener. The latter two refuse clients without valid credentials.
fn every_listener_answers(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    assert_eq!(brokers(kafka, &[])?, 3);
    let (sasl, ssl, ca) = (
        kafka.sasl_bootstrap(),
        kafka.ssl_bootstrap(),
        kafka.ca_file(),
    );
    let login = |password| {
        [
            ("bootstrap.servers", sasl.as_str()),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", SASL_USER),
            ("sasl.password", password),
        ]
    };
    assert_eq!(brokers(kafka, &login(SASL_PASSWORD))?, 3);
    ensure!(
        brokers(kafka, &login("wrong")).is_err(),
        "a wrong password was taken"
    );

    let tls = [
        ("bootstrap.servers", ssl.as_str()),
        ("security.protocol", "SSL"),
    ];
    let ca = ca.to_string_lossy();
    assert_eq!(
        brokers(kafka, &[tls[0], tls[1], ("ssl.ca.location", &ca)])?,
        3
    );
    ensure!(
        brokers(kafka, &tls).is_err(),
        "an unknown authority was trusted"
    );
    Ok(())
}

fn brokers(kafka: &KafkaCluster, properties: &[(&str, &str)]) -> Result<usize> {
    let mut config = kafka.client_config();
    for (key, value) in properties {
        config.set(*key, *value);
    }
    let client: BaseConsumer = config.create()?;
    Ok(client
        .fetch_metadata(None, Duration::from_secs(5))?
        .brokers()
        .len())
}

/// If one broker of three stops, the others take over its partitions. It has its data when it starts again.
fn broker_is_killed_and_comes_back(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let topic = unique("orders");
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 10), (1, 10), (2, 10)])?;

    kafka.stop_broker(2)?;
    kafka.wait_for_leaders(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 1), (1, 1), (2, 1)])?;
    kafka.start_broker(2)?;
    assert_eq!(kafka.end_offsets(&topic)?, [11, 11, 11]);
    Ok(())
}

/// A fleet of real consumers grows, shares the partitions, drains them and leaves.
fn simulated_consumers_follow_the_replicas(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 4)?;
    kafka.produce_to(&topic, &[(0, 50), (1, 50), (2, 50), (3, 50)])?;
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: group.clone(),
        topic: topic.clone(),
        per_second: 100,
        properties: Vec::new(),
    };
    let mut fleet = ConsumerFleet::new(&testbed.folder("consumers")?, options);
    fleet.scale_to(2)?;
    poll_until(
        Duration::from_secs(30),
        "two consumers to drain the topic",
        || {
            let committed = kafka.committed(&group, &topic)?;
            ensure!(committed == [Some(50); 4], "committed is {committed:?}");
            Ok(())
        },
    )?;
    let members: std::collections::BTreeSet<_> = kafka
        .describe_groups(&[&group])?
        .into_iter()
        .filter_map(|row| row.consumer_id)
        .collect();
    assert_eq!(members.len(), 2);

    fleet.scale_to(0)?;
    let described = kafka.describe_groups(&[&group])?;
    ensure!(
        described.iter().all(|row| row.consumer_id.is_none()),
        "a member stayed: {described:?}"
    );
    Ok(())
}

/// The API server takes objects and the controllers act on them: a Deployment's pods appear and follow its scale.
fn control_plane_runs_a_deployment(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("smoke")?;
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "worker"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "worker"}},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{"name": "worker", "image": "worker"}]},
            },
        },
    });
    plane.apply(&namespace, &deployment.to_string())?;
    let series = ReplicaSeries::record(plane, &namespace, "worker")?;
    for replicas in [1, 3, 2] {
        plane.kubectl(&[
            "scale",
            "deployment/worker",
            "--namespace",
            &namespace,
            &format!("--replicas={replicas}"),
        ])?;
        poll_until(
            Duration::from_secs(30),
            "the Deployment to have its replicas",
            || {
                let status = &plane.get("deployment", "worker", Some(&namespace))?["status"];
                ensure!(status["replicas"] == replicas, "status is {status}");
                Ok(())
            },
        )?;
    }
    poll_until(
        Duration::from_secs(10),
        "the watch to have seen them all",
        || {
            ensure!(series.now() == 2, "it saw {:?}", series.timed());
            Ok(())
        },
    )?;
    assert_eq!(series.max(), 3);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(poll_until_async(
        Duration::from_secs(10),
        "the Rust client to be answered",
        async || {
            plane
                .client()
                .await?
                .apiserver_version()
                .await
                .context("asking for the version")
        },
    ))?;

    // Registered without a server, the API exists and reports that it does not answer. Then it is removed again.
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let api = plane.register_api(
        &namespace,
        "lagwise",
        crate::testbed::ports::free_port()?,
        &certificate.ca_pem,
    )?;
    poll_until(
        Duration::from_secs(30),
        "the API server to try the unanswered API",
        || {
            let (status, message) = api.available()?;
            ensure!(
                status == "False" && message.contains("refused"),
                "{status}: {message}"
            );
            Ok(())
        },
    )?;
    drop(api);
    plane.kubectl(&["delete", "namespace", &namespace, "--timeout=60s"])?;
    Ok(())
}

/// The account that lagwise runs under in these tests.
fn daemon_account_may_do_its_work_and_no_more(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("account")?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let may = |args: &[&str]| {
        let kubeconfig = kubeconfig.to_string_lossy();
        let all: Vec<&str> = ["auth", "can-i"]
            .iter()
            .chain(args)
            .copied()
            .chain(["--kubeconfig", &kubeconfig])
            .collect();
        plane
            .kubectl(&all)
            .is_ok_and(|answer| answer.trim() == "yes")
    };
    ensure!(
        may(&["watch", "hpa", "--all-namespaces"]),
        "it cannot watch HPAs"
    );
    let front_proxy = [
        "get",
        "configmap/extension-apiserver-authentication",
        "--namespace",
        "kube-system",
    ];
    ensure!(
        may(&front_proxy),
        "it cannot read the front proxy's configuration"
    );
    for reviews in [
        "tokenreviews.authentication.k8s.io",
        "subjectaccessreviews.authorization.k8s.io",
    ] {
        ensure!(may(&["create", reviews]), "it cannot create {reviews}");
    }
    ensure!(
        !may(&["patch", "hpa", "--all-namespaces"]),
        "it may change HPAs"
    );
    ensure!(
        !may(&["list", "secrets", "--all-namespaces"]),
        "it may read secrets"
    );
    Ok(())
}
