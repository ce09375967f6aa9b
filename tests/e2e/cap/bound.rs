//! The enforced maximum: it bounds all metrics of the HPA, follows the partitions, and does not change while anything
//! is unknown.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Policy, Scene, WAIT_TIMEOUT, enforced};
use crate::daemon::{Daemon, Options, cluster, metric_path};
use crate::testbed::adapter::METRIC;
use crate::testbed::broker::SASL_PASSWORD;
use crate::testbed::pods::ReadyPods;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::secured::READER;
use crate::testbed::{Testbed, unique};

/// A second metric from another server, which proposes as many replicas as its value.
fn with_the_adapters_metric(hpa: &mut Value) {
    let metrics = hpa["spec"]["metrics"].as_array_mut().expect("metrics");
    metrics.push(json!({
        "type": "External",
        "external": {
            "metric": {"name": METRIC},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }));
}

pub(crate) fn holds_against_another_metric_and_follows_new_partitions(
    testbed: &Testbed,
) -> Result<()> {
    let scene = Scene::set(testbed, "enforce", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (daemon, adapter, _api) = scene.daemon_before_adapter(testbed, 50)?;
    // A real member: a group without one never has work on partitions that it has not committed on.
    let refresh = ("topic.metadata.refresh.interval.ms", "1000");
    let mut fleet = scene.fleet(testbed, &scene.topic, refresh)?;
    fleet.scale_to(1)?;
    let mut list: Value = serde_json::from_str(&scene.manifest(|hpa| {
        with_the_adapters_metric(hpa);
        hpa["spec"]["behavior"]["scaleUp"]["tolerance"] = json!("0.1");
    })?)?;
    list["items"][0]["spec"]["strategy"] =
        json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}});
    let ready = ReadyPods::keep(scene.plane, &scene.namespace)?;
    scene.plane.apply(&scene.namespace, &list.to_string())?;
    let wanted = ReplicaSeries::wanted(scene.plane, &scene.namespace, "billing")?;
    let running = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    // With `advise` the other metric determines the replicas, and a finding says that this is possible.
    poll_until(WAIT_TIMEOUT, "the other metric's number", || {
        ensure!(wanted.now() == 20, "{:?}", wanted.timed());
        Ok(())
    })?;
    let finding = "lagwise_findings_total{kind=\"tolerance_above\"}";
    poll_until(WAIT_TIMEOUT, "the finding", || {
        ensure!(daemon.metrics()?.contains(finding), "no {finding}");
        Ok(())
    })?;

    let bound = ReplicaSeries::bound(scene.plane, &scene.namespace, "billing")?;
    scene.annotate("cap=enforce")?;
    scene.wait_until_max(6)?;
    let before = wanted.values().len();
    poll_until(WAIT_TIMEOUT, "the HPA to cut it", || {
        ensure!(wanted.now() == PARTITIONS, "{:?}", wanted.timed());
        Ok(())
    })?;
    scene.kubectl(&["rollout", "status", "deployment/billing", "--timeout=60s"])?;

    // A rollout, with the surge standing for several syncs of the HPA, until its pods are ready.
    drop(ready);
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}});
    scene.kubectl(&[
        "patch",
        "deployment",
        "billing",
        "-p",
        &template.to_string(),
    ])?;
    poll_until(WAIT_TIMEOUT, "the surge", || {
        ensure!(running.now() > PARTITIONS, "{:?}", running.timed());
        Ok(())
    })?;
    let surge = running.now();
    let requests_before = adapter.request_count();
    poll_until(WAIT_TIMEOUT, "the HPA to see the surge", || {
        let more = adapter.request_count() - requests_before;
        ensure!(more >= 3, "{more} syncs");
        Ok(())
    })?;
    ensure!(
        running.now() == surge,
        "the surge is over: {:?}",
        running.timed()
    );
    let _ready = ReadyPods::keep(scene.plane, &scene.namespace)?;
    scene.kubectl(&["rollout", "status", "deployment/billing", "--timeout=60s"])?;
    let requests_before = adapter.request_count();
    poll_until(WAIT_TIMEOUT, "two more syncs", || {
        ensure!(adapter.request_count() >= requests_before + 2, "not yet");
        Ok(())
    })?;
    // The sync that was under way when the maximum was written may be one of the old one.
    let since: Vec<i32> = wanted.values().split_off(before.saturating_sub(1));
    let passed = since.iter().skip_while(|n| **n > PARTITIONS);
    ensure!(
        passed.clone().all(|n| *n <= PARTITIONS),
        "{since:?} from the write on"
    );

    // New partitions raise it, and the other metric takes them at once.
    let altered = Instant::now();
    scene
        .kafka
        .topics_tool(&["--alter", "--topic", &scene.topic, "--partitions", "12"])?;
    scene.wait_until_max(12)?;
    let followed = altered.elapsed();
    poll_until(WAIT_TIMEOUT, "the new ceiling to be reached", || {
        ensure!(wanted.now() == 12, "{:?}", wanted.timed());
        Ok(())
    })?;
    let reached = altered.elapsed();
    // A user scales above it by hand: the next sync scales back, whatever the metrics are.
    scene.kubectl(&["scale", "deployment", "billing", "--replicas=15"])?;
    poll_until(WAIT_TIMEOUT, "the HPA to cut it", || {
        let is_cut = wanted.values().ends_with(&[12, 15, 12]);
        ensure!(is_cut, "{:?}", wanted.timed());
        Ok(())
    })?;
    // Every maximum there ever was.
    ensure!(bound.values() == [20, 6, 12], "{:?}", bound.timed());
    scene.wait_until_user_max("20")?;
    println!("spec.replicas: {:?}", wanted.timed());
    println!("new partitions: maximum after {followed:?}, replicas after {reached:?}");
    Ok(())
}

/// Outage of a broker and of all brokers, a killed daemon, and another daemon that starts during the outage.
pub(crate) fn nothing_changes_while_anything_is_unknown(testbed: &Testbed) -> Result<()> {
    let scene = Scene::on(testbed, testbed.three_brokers()?, "unknown")?;
    // One replica of each partition: without its broker, a partition is unknown.
    scene
        .kafka
        .create_topic_on(&scene.topic, &[1, 2, 3, 1, 2, 3])?;
    scene.commit_all(PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (mut daemon, api) = scene.daemon(testbed)?;
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(enforced)?)?;
    let bound = ReplicaSeries::bound(scene.plane, &scene.namespace, "billing")?;
    scene.wait_until_max(6)?;
    let wait_until = |daemon: &Daemon, what: &str| {
        poll_until(WAIT_TIMEOUT, what, || {
            let metrics = daemon.metrics()?;
            ensure!(
                metrics.lines().any(|line| line.starts_with(what)),
                "no {what}"
            );
            Ok(())
        })
    };
    let outages = || -> Result<()> {
        scene.kafka.stop_broker(2)?;
        poll_until(WAIT_TIMEOUT, "its partitions to be unknown", || {
            let faults = daemon.faults()?;
            ensure!(faults > 0, "none is");
            Ok(())
        })?;
        // Also after the time for which the last complete reading is served.
        daemon.wait_for_sweeps(20)?;
        scene.kafka.stop_all()?;
        wait_until(&daemon, "lagwise_cluster_up{cluster=\"main\"} 0")?;
        daemon.wait_for_sweeps(4)?;
        // The daemon is killed in between. The policy records the user's number during that time.
        daemon.process.kill();
        drop(api);
        scene.patch(r#"{"spec":{"maxReplicas":30}}"#)?;
        let (again, _api) = scene.daemon(testbed)?;
        wait_until(&again, "lagwise_cluster_up{cluster=\"main\"} 0")?;
        again.wait_for_sweeps(4)?;
        scene.kafka.start_all()?;
        wait_until(&again, "lagwise_cluster_up{cluster=\"main\"} 1")?;
        again.wait_for_sweeps(8)
    };
    let held = outages();
    scene.kafka.restore()?;
    held?;
    ensure!(bound.values() == [20, 6], "{:?}", bound.timed());
    scene.wait_until_user_max("30")
}

pub(crate) fn a_forbidden_topic_changes_nothing(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let scene = Scene::on(testbed, kafka, "acl")?;
    kafka.create_topic(&scene.topic, PARTITIONS)?;
    scene.commit_all(PARTITIONS)?;
    let other = unique("returns");
    kafka.create_topic(&other, 3)?;
    let zeros: Vec<_> = (0..3).map(|partition| (partition, 0)).collect();
    kafka.commit(&scene.group, &other, &zeros)?;
    kafka.allow_describe(&[&scene.topic, &other], &[&scene.group])?;
    let bootstrap = kafka.listener_bootstrap("SASL");
    let login = [
        ("bootstrap.servers", bootstrap.as_str()),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", READER),
        ("sasl.password", SASL_PASSWORD),
    ];
    let options = Options {
        clusters: vec![cluster("main", &login)],
        ..Options::main(&bootstrap)
    };
    let _policy = Policy::install(&scene)?;
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    // Of two topics, by two metrics: without the larger one only three replicas would be of use.
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        let metrics = hpa["spec"]["metrics"].as_array_mut().expect("metrics");
        let mut second = metrics[0].clone();
        second["external"]["metric"]["selector"]["matchLabels"]["topic"] = json!(other);
        metrics.push(second);
    })?;
    scene.plane.apply(&scene.namespace, &manifest)?;
    let bound = ReplicaSeries::bound(scene.plane, &scene.namespace, "billing")?;
    scene.wait_until_max(6)?;
    kafka.forbid_describe(&scene.topic)?;
    let selector = format!("group={},topic={}", scene.group, scene.topic);
    let path = metric_path(&scene.namespace, &selector);
    let answer = || {
        scene
            .plane
            .get_raw(&path)
            .map_err(|error| error.to_string())
    };
    poll_until(WAIT_TIMEOUT, "the topic to be unknown", || {
        let answer = answer();
        let refused = answer.as_ref().is_err_and(|text| text.contains("Describe"));
        ensure!(refused, "{answer:?}");
        Ok(())
    })?;
    daemon.wait_for_sweeps(10)?;
    kafka.allow_describe(&[&scene.topic], &[])?;
    poll_until(WAIT_TIMEOUT, "the topic to be known again", || {
        answer().map(drop).map_err(anyhow::Error::msg)
    })?;
    daemon.wait_for_sweeps(8)?;
    ensure!(bound.values() == [20, 6], "{:?}", bound.timed());
    Ok(())
}

/// A second lagwise metric that proposes 50 replicas, of a group with a high ceiling.
fn with_a_greedy_metric(hpa: &mut Value, group: &str, topic: &str) {
    let metrics = hpa["spec"]["metrics"].as_array_mut().expect("metrics");
    metrics.push(json!({
        "type": "External",
        "external": {
            "metric": {"name": "kafka_lag", "selector": {"matchLabels": {"group": group, "topic": topic}}},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }));
}

pub(crate) fn advise_writes_nothing(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "advise", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (daemon, _api) = scene.daemon(testbed)?;
    // A group of one partition more than this one allows.
    let (topic, group) = (unique("orders"), unique("greedy"));
    scene.kafka.create_topic(&topic, 9)?;
    let commits: Vec<_> = (0..9).map(|partition| (partition, 0)).collect();
    scene.kafka.commit(&group, &topic, &commits)?;
    scene.kafka.produce_to(&topic, &[(0, 50)])?;
    let greedy = |hpa: &mut Value| {
        with_a_greedy_metric(hpa, &group, &topic);
        hpa["spec"]["behavior"]["scaleUp"]["tolerance"] = json!("0.1");
    };
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(greedy)?)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(WAIT_TIMEOUT, "the larger ceiling to be reached", || {
        ensure!(series.now() >= 8, "{:?}", series.timed());
        Ok(())
    })?;
    let finding = "lagwise_findings_total{kind=\"tolerance_above\"}";
    poll_until(WAIT_TIMEOUT, "the finding", || {
        ensure!(daemon.metrics()?.contains(finding), "no {finding}");
        Ok(())
    })?;
    ensure!(
        scene.max()? == 20 && scene.user_max()?.is_null(),
        "something was written"
    );
    ensure!(
        !daemon
            .metrics()?
            .contains("lagwise_cap_writes_total{outcome=\"written\"}"),
        "a write"
    );
    Ok(())
}
