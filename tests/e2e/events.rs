//! Reports about an HPA on the real API server: events, `lagwise lint` and `lagwise status`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options, cluster};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "events::a_finding_is_one_event_however_long_it_lasts",
    a_finding_is_one_event_however_long_it_lasts,
)];

const WITHIN: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 6;

/// An HPA that may go to 20 by a metric of others, with an annotation that means nothing.
fn manifest(group: &str, topic: &str) -> Result<Value> {
    let labels = [("group", group), ("topic", topic)];
    let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
    let hpa = &mut list["items"][1];
    hpa["metadata"]["annotations"] = json!({"lagwise.dev/evn": "true"});
    let metrics = hpa["spec"]["metrics"].as_array_mut().context("metrics")?;
    metrics.push(json!({
        "type": "External",
        "external": {
            "metric": {"name": "queue_length"},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }));
    Ok(list)
}

/// lagwise's events on the HPA: reason, and how often it was counted up.
fn events(plane: &ControlPlane, namespace: &str) -> Result<BTreeMap<String, i64>> {
    let all = plane.get_raw(&format!(
        "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    ))?;
    let all = all["items"].as_array().context("no items")?;
    let ours: Vec<_> = all
        .iter()
        .filter(|event| event["reportingController"] == "lagwise.dev/lagwise")
        .collect();
    let mut found = BTreeMap::new();
    for event in &ours {
        let regarding = &event["regarding"];
        ensure!(
            regarding["kind"] == "HorizontalPodAutoscaler" && regarding["name"] == "billing",
            "{event}"
        );
        let reason = event["reason"].as_str().context("no reason")?.to_owned();
        let count = event["series"]["count"].as_i64().unwrap_or(1);
        ensure!(found.insert(reason, count).is_none(), "twice: {event}");
    }
    Ok(found)
}

fn counter(daemon: &Daemon, series: &str) -> Result<u64> {
    let metrics = daemon.metrics()?;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series));
    value.map_or(Ok(0), |value| Ok(value.trim().parse()?))
}

/// Sweeps so far, complete or not: HPAs of other tests may ask for what is gone.
fn sweeps(daemon: &Daemon) -> Result<u64> {
    let of = |outcome: &str| {
        let series = format!("lagwise_polls_total{{cluster=\"main\",outcome=\"{outcome}\"}}");
        counter(daemon, &series)
    };
    Ok(of("complete")? + of("incomplete")?)
}

fn written(daemon: &Daemon, outcome: &str) -> Result<u64> {
    let series = format!("lagwise_kubernetes_events_total{{outcome=\"{outcome}\"}}");
    counter(daemon, &series)
}

fn a_finding_is_one_event_however_long_it_lasts(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("events")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let commits: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &commits)?;
    kafka.produce_to(&topic, &[(0, 50)])?;
    plane.apply(&namespace, &manifest(&group, &topic)?.to_string())?;

    let options = Options {
        // What it reports is counted.
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let expected = |count: i64| -> BTreeMap<String, i64> {
        ["OthersAbove", "UnknownAnnotation"]
            .map(|reason| (reason.to_owned(), count))
            .into()
    };
    poll_until(WITHIN, "the events", || {
        let events = events(plane, &namespace)?;
        ensure!(events == expected(1), "{events:?}");
        Ok(())
    })?;
    let before = sweeps(&daemon)?;
    poll_until(WITHIN, "many sweeps", || {
        let swept = sweeps(&daemon)?;
        ensure!(swept >= before + 20, "{swept} after {before}");
        Ok(())
    })?;
    let lasting = events(plane, &namespace)?;
    ensure!(lasting == expected(1), "{lasting:?}");
    for (outcome, count) in [("written", 2), ("repeated", 0), ("failed", 0)] {
        let is = written(&daemon, outcome)?;
        ensure!(is == count, "{outcome} {is} times, not {count}");
    }
    commands_report_the_same(testbed, plane, &namespace, &kafka.bootstrap(), &daemon)?;

    // Whoever comes next finds them there.
    drop((daemon, api));
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    poll_until(WITHIN, "the events to be counted up", || {
        let again = written(&daemon, "repeated")?;
        ensure!(again == 2, "{again}");
        Ok(())
    })?;
    let again = events(plane, &namespace)?;
    ensure!(again == expected(2), "{again:?}");
    ensure!(written(&daemon, "written")? == 0, "another event");

    // What is mended and broken again within the hour is the same event.
    let patch = |max: u32| {
        let patch = json!({"spec": {"maxReplicas": max}}).to_string();
        plane.kubectl(&["patch", "hpa", "billing", "-n", &namespace, "-p", &patch])
    };
    patch(6)?;
    let before = sweeps(&daemon)?;
    poll_until(WITHIN, "a sweep that finds nothing", || {
        let swept = sweeps(&daemon)?;
        ensure!(swept >= before + 4, "{swept} after {before}");
        Ok(())
    })?;
    patch(20)?;
    poll_until(WITHIN, "it to be counted up", || {
        let again = written(&daemon, "repeated")?;
        ensure!(again == 3, "{again}");
        Ok(())
    })?;
    let last = events(plane, &namespace)?;
    ensure!(last == expected(2), "{last:?}");
    Ok(())
}

/// `lagwise lint` and `lagwise status` report the same about an HPA as its events.
fn commands_report_the_same(
    testbed: &Testbed,
    plane: &ControlPlane,
    namespace: &str,
    bootstrap: &str,
    daemon: &Daemon,
) -> Result<()> {
    let folder = testbed.folder("commands")?;
    let file = folder.join("lagwise.yaml");
    let config = json!({"clusters": [cluster("main", &[("bootstrap.servers", bootstrap)])]});
    std::fs::write(&file, config.to_string())?;
    let (file, kubeconfig) = (file.to_string_lossy(), plane.kubeconfig().to_string_lossy());
    let run = |args: &[&str], exit: i32| -> Result<Value> {
        let common = ["-o", "json", "-n", namespace, "--kubeconfig", &kubeconfig];
        let all = [args, &common].concat();
        let done = testbed.lagwise(&all).output()?;
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.code() == Some(exit),
            "{:?}: {errors}",
            done.status
        );
        ensure!(errors.is_empty(), "{errors}");
        Ok(serde_json::from_slice(&done.stdout)?)
    };
    let codes = |findings: &Value| -> Vec<String> {
        let findings = findings.as_array().into_iter().flatten();
        findings
            .filter_map(|f| Some(f["code"].as_str()?.to_owned()))
            .collect()
    };
    let lint = ["lint", "--config", &*file];
    // The Deployment was applied with its replicas, and surges by default.
    let expected = ["LW009", "LW024", "LW034", "LW036"];
    let found = run(&lint, 0)?;
    ensure!(codes(&found) == expected, "{found}");
    ensure!(
        found[0]["object"] == format!("hpa/{namespace}/billing"),
        "{found}"
    );
    run(&[&lint[..], &["--fail-on", "warning"]].concat(), 1)?;

    let looked = run(&["status", "--config", &*file], 0)?;
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    let asked = run(&["status", "--daemon", &url], 0)?;
    for (who, all) in [("its own look", looked), ("the daemon", asked)] {
        let [hpa] = all.as_array().context("no list")?.as_slice() else {
            anyhow::bail!("{who}: {all}");
        };
        ensure!(hpa["lag"] == 50 && hpa["desired"] == 1, "{who}: {hpa}");
        ensure!(
            hpa["ceiling"]["bounded"] == 6 && hpa["partitions"] == 6,
            "{who}: {hpa}"
        );
        ensure!(
            hpa["cap"] == "advise" && hpa["cap_observed"] == false,
            "{who}: {hpa}"
        );
        ensure!(hpa["reason"] == "as_measured", "{who}: {hpa}");
        ensure!(hpa["findings"] == json!(["LW009", "LW024"]), "{who}: {hpa}");
        ensure!(
            hpa["replicas"].is_u64() && hpa["age_millis"].is_u64(),
            "{who}: {hpa}"
        );
    }
    Ok(())
}
