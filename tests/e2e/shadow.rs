//! A daemon that only observes, installed by the chart next to a KEDA that the testbed simulates.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::keda::{KafkaTriggerServer, KedaKinds};
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// The tests of this file.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "shadow::the_chart_grants_reading_only",
        the_chart_grants_reading_only,
    ),
    (
        "shadow::replicas_of_keda_and_lagwise_are_compared_without_writes",
        replicas_of_keda_and_lagwise_are_compared_without_writes,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(150);
const RELEASE: &str = "lagwise";
const READS: [&str; 2] = ["list", "watch"];

fn chart() -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise");
    chart.to_string_lossy().into_owned()
}

/// The verbs of all roles that the chart renders with these values.
fn verbs(plane: &ControlPlane, set: &str) -> Result<BTreeSet<String>> {
    let values = format!("{}/ci/observe-values.yaml", chart());
    let rendered = plane.helm(&[
        "template",
        RELEASE,
        &chart(),
        "--values",
        &values,
        "--set",
        set,
    ])?;
    ensure!(!rendered.contains("kind: APIService"), "{rendered}");
    ensure!(!rendered.contains("kind: Certificate"), "{rendered}");
    ensure!(rendered.contains("replicas: 1\n"), "{rendered}");
    let lines = rendered.lines().map(str::trim);
    let lists = lines.filter_map(|line| line.strip_prefix("verbs:"));
    let listed = lists.flat_map(|list| list.split(['[', ']', ',', ' ', '"']));
    Ok(listed
        .filter(|verb| !verb.is_empty())
        .map(str::to_owned)
        .collect())
}

fn the_chart_grants_reading_only(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let reads = BTreeSet::from(READS.map(str::to_owned));
    for set in [
        "replicaCount=2",
        "config.kubernetes.namespaces={shop,pay}",
        "tls.type=selfSigned",
    ] {
        let verbs = verbs(plane, set)?;
        ensure!(verbs == reads, "{set}: {verbs:?}");
    }
    for (set, named) in [
        ("enforce.enabled=true", "enforce.enabled"),
        ("scaleToZero.enabled=true", "scaleToZero.enabled"),
        (
            "mode=serve,config.kubernetes.mode=observe",
            "config.kubernetes.mode",
        ),
        ("mode=shadow", "mode"),
    ] {
        let refused = verbs(plane, set)
            .err()
            .with_context(|| format!("{set} was accepted"))?;
        ensure!(refused.to_string().contains(named), "{set}: {refused}");
    }
    Ok(())
}

/// With 5 partitions, a threshold of 5 and a lag of 28, KEDA's HPA has 6 replicas, and lagwise would have 5.
fn replicas_of_keda_and_lagwise_are_compared_without_writes(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("shadow")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 5)?;
    let zeros: Vec<_> = (0..5).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;
    kafka.produce_to(&topic, &[(0, 28)])?;

    // KEDA has the slot.
    let certificate = plane.serving_certificate(&namespace, "keda-metrics")?;
    let keda = KafkaTriggerServer::start(&certificate, 28)?;
    let api = plane.register_api(&namespace, "keda-metrics", keda.port, &certificate.ca_pem)?;
    api.wait_available(WAIT_TIMEOUT)?;

    let mut daemon = Observer::install(testbed, plane, &namespace, &kafka.bootstrap())?;
    // KEDA's kinds are missing as yet, which is a finding and no error.
    poll_until(WAIT_TIMEOUT, "a report about missing kinds", || {
        let report = daemon.report()?;
        let problems = report["problems"].to_string();
        ensure!(
            problems.contains("no ScaledObjects of keda.sh/v1alpha1"),
            "{report}"
        );
        ensure!(
            problems.contains("no ScaledJobs of keda.sh/v1alpha1"),
            "{report}"
        );
        let (_, metrics) = http_get(daemon.metrics_port, "/metrics")?;
        ensure!(metrics.contains("keda_unread"), "no finding");
        Ok(())
    })?;

    let _kinds = KedaKinds::define(plane)?;
    let trigger = json!({"type": "kafka", "authenticationRef": {"name": "kafka"}, "metadata": {
        "bootstrapServers": kafka.bootstrap(), "consumerGroup": group, "topic": topic, "lagThreshold": "5",
    }});
    let authentication = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": "kafka"},
        "spec": {"secretTargetRef": [{"parameter": "username", "name": "kafka-user", "key": "u"}]},
    });
    let scaled_object = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "billing"},
        "spec": {
            "scaleTargetRef": {"name": "billing"},
            "minReplicaCount": 1,
            "maxReplicaCount": 20,
            // lagwise starts from the replicas that run. With the default window it would keep KEDA's for five minutes.
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {
                "scaleDown": {"stabilizationWindowSeconds": 0},
            }}},
            "triggers": [trigger],
        },
    });
    let scaled_job = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledJob",
        "metadata": {"name": "import"},
        "spec": {"triggers": [trigger], "maxReplicaCount": 20},
    });
    poll_until(WAIT_TIMEOUT, "the API server to know KEDA's kinds", || {
        plane.apply(&namespace, &authentication.to_string())?;
        plane.apply(&namespace, &scaled_object.to_string())?;
        plane.apply(&namespace, &scaled_job.to_string())
    })?;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: billing}\nspec:\n  replicas: 1\n  \
                      selector: {matchLabels: {app: billing}}\n  template:\n    metadata: {labels: {app: billing}}\n    \
                      spec: {containers: [{name: consumer, image: consumer}]}\n";
    plane.apply(&namespace, deployment)?;
    let known = plane.get("scaledobject", "billing", Some(&namespace))?;
    let hpa = KafkaTriggerServer::hpa(&known, &format!("s0-kafka-{topic}"));
    plane.apply(&namespace, &hpa.to_string())?;

    poll_until(WAIT_TIMEOUT, "both numbers", || {
        let report = daemon.report()?;
        let objects = report["objects"].as_array().context("no objects")?;
        ensure!(
            objects.len() == 2 && report["problems"] == json!([]),
            "{report}"
        );
        let (job, billing) = (&objects[1], &objects[0]);
        let jobs = [&job["kind"], &job["keda"], &job["lagwise"]];
        ensure!(jobs == [&json!("ScaledJob"), &json!(6), &json!(5)], "{job}");
        let login = billing["logins"][0].as_str().unwrap_or_default();
        let expected = "username from Secret kafka-user, by TriggerAuthentication kafka";
        ensure!(login.contains(expected), "{billing}");
        let numbers = [&billing["running"], &billing["keda"], &billing["lagwise"]];
        ensure!(numbers == [&json!(6), &json!(6), &json!(5)], "{billing}");
        ensure!(
            billing["reasons"] == json!(["one_beyond_partitions"]),
            "{billing}"
        );
        let totals = &billing["totals"];
        let more = totals["keda_more_replica_millis"]
            .as_u64()
            .context("no sum")?;
        let held = totals["reason_millis"]["one_beyond_partitions"].as_u64();
        ensure!(
            more > 0 && held.is_some_and(|held| held >= more),
            "{totals}"
        );
        Ok(())
    })?;

    // The commands and the metrics have the same numbers.
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let hpa = format!("{namespace}/keda-hpa-billing");
    let mut said = Vec::new();
    for args in [
        &["shadow", "report"][..],
        &["status"],
        &["explain", &hpa, "--kubeconfig", &kubeconfig],
    ] {
        let done = testbed
            .lagwise(&[args, &["--daemon", &url]].concat())
            .output()?;
        said.push(String::from_utf8(done.stdout)?);
    }
    let [report, status, explanation] = said.as_slice() else {
        anyhow::bail!("{said:?}");
    };
    for text in [report, status] {
        ensure!(text.contains("rounds down and the HPA rounds up"), "{text}");
        ensure!(text.contains("ScaledJob/import"), "{text}");
    }
    ensure!(
        explanation.contains("replicas: 6 run, KEDA asks for 6, lagwise would ask for 5"),
        "{explanation}"
    );
    let (_, metrics) = http_get(daemon.metrics_port, "/metrics")?;
    let job = format!("namespace=\"{namespace}\",scaled_job=\"import\",by=\"lagwise\"");
    let job = format!("lagwise_shadow_jobs{{{job}}} 5\n");
    ensure!(metrics.contains(&job), "no {job}");
    for (by, replicas) in [("running", 6), ("keda", 6), ("lagwise", 5)] {
        let labels = format!("namespace=\"{namespace}\",scaled_object=\"billing\",by=\"{by}\"");
        let sample = format!("lagwise_shadow_replicas{{{labels}}} {replicas}\n");
        ensure!(metrics.contains(&sample), "no {sample}");
    }

    daemon.process.stop(Duration::from_secs(10))?;
    let requests = plane.requests(&namespace, RELEASE)?;
    let others = requests
        .iter()
        .filter(|r| !READS.contains(&&*r.verb) || r.is_forbidden);
    let others: Vec<_> = others.collect();
    ensure!(others.is_empty(), "it asked for {others:?}");
    let resources: BTreeSet<_> = requests.iter().map(|r| r.resource.as_str()).collect();
    let expected = BTreeSet::from([
        "clustertriggerauthentications",
        "horizontalpodautoscalers",
        "scaledjobs",
        "scaledobjects",
        "triggerauthentications",
    ]);
    ensure!(resources == expected, "it read {resources:?}");
    Ok(())
}

/// The release of the chart, as long as this lives.
struct Release<'a> {
    plane: &'a ControlPlane,
    namespace: &'a str,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let args = ["uninstall", RELEASE, "--namespace", self.namespace];
        let _ = self.plane.helm(&args);
    }
}

/// A daemon with the account and the configuration that the chart has made.
struct Observer<'a> {
    _release: Release<'a>,
    process: Process,
    admin_port: u16,
    metrics_port: u16,
}

impl<'a> Observer<'a> {
    fn install(
        testbed: &Testbed,
        plane: &'a ControlPlane,
        namespace: &'a str,
        bootstrap: &str,
    ) -> Result<Self> {
        let values = testbed.folder("shadow")?.join("values.json");
        let given = json!({
            "mode": "observe",
            "config": {
                "clusters": [{"name": "main", "properties": {"bootstrap.servers": bootstrap}}],
                "poll": {"interval": "500ms"},
            },
        });
        std::fs::write(&values, given.to_string())?;
        let values = values.to_string_lossy();
        plane.helm(&[
            "install",
            RELEASE,
            &chart(),
            "--values",
            &values,
            "--namespace",
            namespace,
        ])?;
        let release = Release { plane, namespace };
        let kubeconfig = plane.account_kubeconfig(namespace, RELEASE)?;
        let map = plane.get("configmap", RELEASE, Some(namespace))?;
        let text = map["data"]["lagwise.yaml"]
            .as_str()
            .context("no configuration")?;
        let mut config: Value = serde_saphyr::from_str(text)?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let [probe_port, admin_port, metrics_port] = ports;
        for (listener, port) in ["probes", "admin", "metrics"].into_iter().zip(ports) {
            config["server"][listener]["listen"] = json!(format!("127.0.0.1:{port}"));
        }
        let logs = testbed.folder("shadow-daemon")?;
        let mut process = testbed.start_lagwise(&logs, &config.to_string(), Some(&kubeconfig))?;
        poll_until(WAIT_TIMEOUT, "lagwise to be ready", || {
            process.expect_running()?;
            let (code, body) = http_get(probe_port, "/readyz")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        Ok(Self {
            _release: release,
            process,
            admin_port,
            metrics_port,
        })
    }

    fn report(&self) -> Result<Value> {
        let (code, body) = http_get(self.admin_port, "/shadow")?;
        ensure!(code == 200, "{code}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}
