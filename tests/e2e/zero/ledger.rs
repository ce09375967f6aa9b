//! lagwise wakes only what its ledger records, whatever users with rights on HPAs write to them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{COOLDOWN, LEDGER, Scene, WAIT_TIMEOUT, ZEROED_SINCE, has_scaled};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// A user who may write HPAs in the namespace, and nothing else.
struct Bob<'a> {
    scene: &'a Scene<'a>,
    kubeconfig: PathBuf,
}

impl<'a> Bob<'a> {
    fn new(scene: &'a Scene<'a>) -> Result<Self> {
        let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bob"}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "bob"},
                "rules": [{"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["*"]}],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "bob"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bob"},
                "subjects": [{"kind": "ServiceAccount", "name": "bob", "namespace": scene.namespace}],
            },
        ]});
        scene.plane.apply(&scene.namespace, &rights.to_string())?;
        let kubeconfig = scene.plane.account_kubeconfig(&scene.namespace, "bob")?;
        let bob = Self { scene, kubeconfig };
        let scaled = bob.kubectl(&["scale", "deployment", "billing", "--replicas=1"], "");
        ensure!(scaled.is_err(), "bob may scale");
        Ok(bob)
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let kubeconfig = self.kubeconfig.to_string_lossy();
        let own = ["--kubeconfig", &*kubeconfig, "-n", &self.scene.namespace];
        let all = [args, &own].concat();
        self.scene.plane.kubectl_with_input(&all, input)
    }

    fn annotate(&self, hpa: &str, annotations: &[&str]) -> Result<()> {
        let args = [&["annotate", "--overwrite", "hpa", hpa][..], annotations].concat();
        self.kubectl(&args, "").map(drop)
    }
}

/// What bob writes.
const FORGED: &str = "lagwise.dev/zeroed-since=2026-01-01T00:00:00Z";

impl Scene<'_> {
    fn replicas_of(&self, deployment: &str) -> Result<i64> {
        let found = self
            .plane
            .get("deployment", deployment, Some(&self.namespace))?;
        found["spec"]["replicas"].as_i64().context("no replicas")
    }

    /// Waits for the event with the reason of the finding about an HPA. Returns its note.
    pub(super) fn wait_until_event(&self, hpa: &str, reason: &str) -> Result<String> {
        poll_until(
            WAIT_TIMEOUT,
            &format!("the event {reason} on {hpa}"),
            || {
                let events = self.plane.events(&self.namespace)?;
                let mut events = events.iter();
                let found = events.find(|e| e["regarding"]["name"] == hpa && e["reason"] == reason);
                let note = found.and_then(|event| event["note"].as_str());
                note.map(str::to_owned).context("there is none")
            },
        )
    }

    /// The records, by the UID of their HPA.
    fn records(&self) -> Result<Value> {
        let map = self.plane.get("configmap", LEDGER, Some(&self.namespace))?;
        Ok(map["data"].clone())
    }

    fn uid(&self, what: &str) -> Result<String> {
        let object = self.get(what)?;
        let uid = object["metadata"]["uid"].as_str().context("no UID")?;
        Ok(uid.to_owned())
    }

    fn add_work(&self) -> Result<()> {
        self.kafka.produce_to(&self.topic, &[(0, 250)])
    }

    fn stays_at_zero(&self, daemon: &Daemon, deployments: &[&str]) -> Result<()> {
        // Two sweeps a second, and the daemon reads a workload every ten seconds.
        daemon.wait_for_sweeps(24)?;
        for deployment in deployments {
            let replicas = self.replicas_of(deployment)?;
            ensure!(replicas == 0, "{deployment} was woken: {replicas}");
        }
        Ok(())
    }
}

/// The daemon's options, without the HPAs of other tests.
fn own(scene: &Scene<'_>) -> Options {
    Options {
        namespaces: vec![scene.namespace.clone()],
        ..scene.options()
    }
}

/// Number of findings about annotations or workloads without a record.
fn unrecorded(daemon: &Daemon) -> Result<u32> {
    let metrics = daemon.metrics()?;
    let mut lines = metrics.lines();
    let name = "lagwise_findings_total{kind=\"zero_not_recorded\"} ";
    let count = lines.find_map(|line| line.strip_prefix(name));
    Ok(count.unwrap_or("0").parse()?)
}

/// Bob sets the annotation on HPAs whose workloads an administrator has scaled to zero: one with lag, one without scale
/// to zero, and one without a lagwise metric.
pub(crate) fn a_forged_annotation_wakes_no_workload(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "forged")?;
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &own(&scene))?;
    scene.allow()?;
    scene.add_work()?;
    scene.apply(1, COOLDOWN)?;
    let labels = [("group", &*scene.group), ("topic", &*scene.topic)];
    // With another selector, because otherwise neither would have a value.
    scene
        .plane
        .apply(&scene.namespace, &workload("advised", &labels[..1]))?;
    let mut plain: Value = serde_json::from_str(&workload("plain", &labels))?;
    plain["items"][1]["spec"]["metrics"] = json!([{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }]);
    scene.plane.apply(&scene.namespace, &plain.to_string())?;
    let all = ["billing", "advised", "plain"];
    for deployment in all {
        scene.switch_off(deployment)?;
    }
    let bob = Bob::new(&scene)?;
    for hpa in all {
        bob.annotate(hpa, &[FORGED])?;
    }
    let mut notes = Vec::new();
    for hpa in all {
        notes.push(scene.wait_until_event(hpa, "ZeroNotRecorded")?);
    }
    scene.stays_at_zero(&daemon, &all)?;
    // By whatever he says about it.
    bob.annotate("billing", &["lagwise.dev/scale-to-zero-"])?;
    bob.annotate("advised", &["lagwise.dev/scale-to-zero=true"])?;
    bob.annotate(
        "plain",
        &["lagwise.dev/scale-to-zero=true", "lagwise.dev/cap=enforce"],
    )?;
    scene.stays_at_zero(&daemon, &all)?;
    let metrics = daemon.metrics()?;
    ensure!(!has_scaled(&metrics), "{metrics}");
    ensure!(unrecorded(&daemon)? >= 3, "{metrics}");
    // The finding says how to start it.
    let command = notes[1].split('`').nth(1);
    let command = command.and_then(|command| command.strip_prefix("kubectl "));
    let command = command.with_context(|| notes[1].clone())?;
    let command: Vec<_> = command.split_whitespace().collect();
    println!("kubectl {}", command.join(" "));
    scene.plane.kubectl(&command)?;
    poll_until(
        WAIT_TIMEOUT,
        "the annotation to be gone once it runs",
        || {
            let hpa = scene.plane.get("hpa", "advised", Some(&scene.namespace))?;
            let replicas = scene.replicas_of("advised")?;
            ensure!(replicas > 0, "not started");
            let annotation = &hpa["metadata"]["annotations"][ZEROED_SINCE];
            ensure!(annotation.is_null(), "still annotated: {annotation}");
            Ok(())
        },
    )
}

/// A record is for one HPA object and one workload object, not for later ones of the same names. If the ledger is
/// deleted, its records are lost.
pub(crate) fn a_record_is_for_one_hpa_and_one_workload(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "recorded")?;
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &own(&scene))?;
    scene.allow()?;
    scene.apply(1, COOLDOWN)?;
    scene.wait_until_wanted(0, true)?;
    let (hpa, target) = (scene.uid("hpa")?, scene.uid("deployment")?);
    let records = scene.records()?;
    let record: Value = serde_json::from_str(records[&hpa].as_str().context("no record")?)?;
    println!("{record}");
    ensure!(
        record["target_uid"] == *target && record["replicas"] == 1,
        "{record}"
    );

    // The Deployment is deleted and created again, with zero replicas.
    let namespace = ["-n", &*scene.namespace];
    let delete = |what: &str| {
        let args = [&["delete", what, "billing", "--wait=true"][..], &namespace].concat();
        scene.plane.kubectl(&args)
    };
    delete("deployment")?;
    let labels = [("group", &*scene.group), ("topic", &*scene.topic)];
    let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
    list["items"][0]["spec"]["replicas"] = json!(0);
    scene
        .plane
        .apply(&scene.namespace, &list["items"][0].to_string())?;
    scene.add_work()?;
    let note = scene.wait_until_event("billing", "ZeroNotRecorded")?;
    ensure!(note.contains("another object"), "{note}");
    scene.stays_at_zero(&daemon, &["billing"])?;

    // Started by hand it is as any other: it is recorded by its own UID when it sleeps.
    scene.scale(1)?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    let records = scene.records()?;
    let record = records[&hpa].as_str().context("no record")?;
    ensure!(record.contains(&scene.uid("deployment")?), "{record}");
    // Bob deletes the HPA and creates it again, with the annotation.
    let bob = Bob::new(&scene)?;
    let before = bob.kubectl(&["get", "hpa", "billing", "-o", "json"], "")?;
    let mut forged: Value = serde_json::from_str(&before)?;
    let metadata = json!({
        "name": "billing",
        "annotations": forged["metadata"]["annotations"],
        "uid": hpa,
    });
    ensure!(
        metadata["annotations"][ZEROED_SINCE].is_string(),
        "{metadata}"
    );
    forged["metadata"] = metadata;
    forged["status"] = Value::Null;
    bob.kubectl(&["delete", "hpa", "billing", "--wait=true"], "")?;
    bob.kubectl(&["create", "-f", "-"], &forged.to_string())?;
    ensure!(scene.uid("hpa")? != hpa, "bob chooses UIDs");
    scene.add_work()?;
    scene.stays_at_zero(&daemon, &["billing"])?;
    let metrics = daemon.metrics()?;
    ensure!(
        !metrics.contains("lagwise_zero_scales_total{outcome=\"woken\"}"),
        "{metrics}"
    );

    // The ledger is deleted while something sleeps.
    scene.scale(1)?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    let before = unrecorded(&daemon)?;
    let args = [&["delete", "configmap", LEDGER][..], &namespace].concat();
    scene.plane.kubectl(&args)?;
    poll_until(WAIT_TIMEOUT, "the finding to be there", || {
        let count = unrecorded(&daemon)?;
        ensure!(count > before, "{count}");
        Ok(())
    })?;
    scene.add_work()?;
    scene.stays_at_zero(&daemon, &["billing"])?;
    // A new ledger is created for the next workload that is scaled to zero.
    scene.scale(1)?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    scene.add_work()?;
    scene.wait_until_wanted(3, false)?;
    let records = scene.records()?;
    let left = records.as_object().map_or(0, serde_json::Map::len);
    ensure!(left == 0, "{records}");
    Ok(())
}

/// What one leader has scaled to zero is woken by the next, and after a restart.
pub(crate) fn the_next_leader_wakes_workloads_at_zero(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "handover")?;
    scene.allow()?;
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "leads"},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "create", "update"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "leads"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leads"},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": scene.namespace}],
        },
    ]});
    scene.plane.apply(&scene.namespace, &rights.to_string())?;
    let kubeconfig = scene.plane.daemon_kubeconfig(&scene.namespace)?;
    let mut options = scene.options();
    options.leader = json!({"lease": "lagwise", "duration": "6s"});
    let start = || {
        let watched = json!({"namespaces": [scene.namespace]});
        Daemon::start(testbed, &options, json!({}), watched, Some(&kubeconfig))
    };
    let first = start()?;
    scene.apply(1, COOLDOWN)?;
    scene.wait_until_wanted(0, true)?;
    let mut second = start()?;
    first.process.signal("KILL")?;
    scene.add_work()?;
    scene.wait_until_wanted(3, false)?;
    // Counted once the API server has answered, which may be after the scale is seen here.
    poll_until(WAIT_TIMEOUT, "the second to count the wake", || {
        ensure!(has_scaled(&second.metrics()?), "it is not counted");
        Ok(())
    })?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    // A restart, while there is work already.
    second.process.stop(Duration::from_secs(10))?;
    scene.add_work()?;
    let _third = start()?;
    scene.wait_until_wanted(3, false)
}

/// In a namespace that the operator has not listed nothing is scaled to zero or capped, and a finding says why.
pub(crate) fn only_listed_namespaces_are_written_to(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "unlisted")?;
    let mut options = scene.options();
    options.scale_to_zero["namespaces"] = json!(["elsewhere"]);
    options.enforce = json!({"namespaces": ["elsewhere"]});
    options.namespaces = vec![scene.namespace.clone()];
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.apply(1, COOLDOWN)?;
    let args = ["annotate", "hpa", "billing", "lagwise.dev/cap=enforce"];
    let args = [&args[..], &["-n", &scene.namespace]].concat();
    scene.plane.kubectl(&args)?;
    poll_until(WAIT_TIMEOUT, "both findings", || {
        let metrics = daemon.metrics()?;
        let findings = "lagwise_findings_total{kind=\"writes_not_enabled\"} 2";
        ensure!(metrics.contains(findings), "no {findings}");
        Ok(())
    })?;
    let note = scene.wait_until_event("billing", "WritesNotEnabled")?;
    ensure!(note.contains(&scene.namespace), "{note}");
    daemon.wait_for_sweeps(4 * COOLDOWN.as_secs())?;
    let hpa = scene.get("hpa")?;
    ensure!(
        scene.wanted()? == 1 && hpa["spec"]["maxReplicas"] == 20,
        "{hpa}"
    );
    let annotations = hpa["metadata"]["annotations"].as_object();
    let written: Vec<_> = annotations
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .filter(|key| {
            let own = ["cap", "scale-to-zero", "cooldown"];
            key.strip_prefix("lagwise.dev/")
                .is_some_and(|key| !own.contains(&key))
        })
        .collect();
    ensure!(written.is_empty(), "{written:?} were written");
    let records = scene.records();
    ensure!(records.is_err(), "there is a ledger: {records:?}");
    Ok(())
}
