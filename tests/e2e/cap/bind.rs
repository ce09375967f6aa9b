//! The admission policy with which an operator makes the cap mandatory for users.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Policy, Scene, WAIT_TIMEOUT, enforced};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// The rendered policy, as long as this lives.
struct BindPolicy<'a> {
    scene: &'a Scene<'a>,
    documents: String,
}

impl<'a> BindPolicy<'a> {
    fn install(scene: &'a Scene<'a>) -> Result<Self> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise");
        let documents = scene.plane.helm(&[
            "template",
            "lagwise",
            &chart.to_string_lossy(),
            "--namespace",
            &scene.namespace,
            "--show-only",
            "templates/bind-users-policy.yaml",
            "--set",
            "config.clusters[0].name=main,config.clusters[0].properties.bootstrap\\.servers=kafka:9092,\
             config.cap.default=enforce,enforce.bindUsers=true,enforce.enabled=true",
        ])?;
        let policy = Self { scene, documents };
        scene
            .plane
            .kubectl_with_input(&["apply", "-f", "-"], &policy.documents)?;
        Ok(policy)
    }
}

impl Drop for BindPolicy<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        let _ = self
            .scene
            .plane
            .kubectl_with_input(&delete, &self.documents);
    }
}

/// A user with all rights on the HPAs of the namespace, and on their status.
fn bobs_kubeconfig(scene: &Scene<'_>) -> Result<String> {
    let subject = format!("--serviceaccount={}:bob", scene.namespace);
    let hpas = "--resource=horizontalpodautoscalers.autoscaling";
    let status = "--resource=horizontalpodautoscalers.autoscaling/status";
    for args in [
        &["create", "serviceaccount", "bob"][..],
        &["create", "role", "hpas", "--verb=*", hpas, status],
        &["create", "rolebinding", "hpas", "--role=hpas", &subject],
    ] {
        scene.kubectl(args)?;
    }
    let kubeconfig = scene.plane.account_kubeconfig(&scene.namespace, "bob")?;
    Ok(kubeconfig.to_string_lossy().into_owned())
}

pub(crate) fn users_can_be_bound(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "bind", PARTITIONS)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let _policy = bind(&scene)?;
    // With the policy that caps in the same write, there is nothing to reject.
    let _cap_policy = Policy::install(&scene)?;
    let patch = json!({"spec": {"maxReplicas": 50}}).to_string();
    let kubeconfig = scene.plane.account_kubeconfig(&scene.namespace, "bob")?;
    let capped = scene.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "--type=merge",
        "-p",
        &patch,
        "--dry-run=server",
        "--kubeconfig",
        &kubeconfig.to_string_lossy(),
        "-o",
        "jsonpath={.spec.maxReplicas}",
    ])?;
    ensure!(capped.trim() == "6", "{capped}");
    follows_new_partitions(&scene)
}

/// Its API server has this kind of policy, and not the one that caps.
pub(crate) fn users_of_an_older_cluster_can_be_bound(testbed: &Testbed) -> Result<()> {
    let scene = Scene::in_older_cluster(testbed, "bind", PARTITIONS)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let _policy = bind(&scene)?;
    follows_new_partitions(&scene)
}

/// lagwise itself is not bound, and continues.
fn follows_new_partitions(scene: &Scene<'_>) -> Result<()> {
    scene.kafka.grow_topic(&scene.topic, 8)?;
    scene.commit_all(8)?;
    scene.wait_until_max(8)
}

/// Binds users to the cap of an HPA that is enforced, and tries which writes are allowed.
fn bind<'a>(scene: &'a Scene<'a>) -> Result<BindPolicy<'a>> {
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["spec"]["maxReplicas"] = json!(50);
    })?;
    scene.plane.apply(&scene.namespace, &manifest)?;
    scene.wait_until_max(6)?;
    let kubeconfig = bobs_kubeconfig(scene)?;
    let policy = BindPolicy::install(scene)?;
    // A dry run: nothing is stored, but admission runs.
    let by = |user: &[&str], args: &[&str], input: &str| {
        let always = ["-n", &*scene.namespace, "--dry-run=server"];
        scene
            .plane
            .kubectl_with_input(&[args, &always, user].concat(), input)
    };
    let bob = ["--kubeconfig", &*kubeconfig];
    let patched = |user: &[&str], patch: &Value| {
        let patch = patch.to_string();
        let args = ["patch", "hpa", "billing", "--type=merge", "-p", &*patch];
        by(user, &args, "")
    };
    let patched_status = |user: &[&str], patch: &Value| {
        let (patch, status) = (patch.to_string(), "--subresource=status");
        let args = [
            "patch",
            "hpa",
            "billing",
            status,
            "--type=merge",
            "-p",
            &*patch,
            "-o",
            "json",
        ];
        by(user, &args, "").and_then(|hpa| Ok(serde_json::from_str::<Value>(&hpa)?))
    };
    let max = |max: u32| json!({"spec": {"maxReplicas": max}});
    let annotation = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    poll_until(WAIT_TIMEOUT, "the policy to act", || {
        ensure!(
            patched(&bob, &max(50)).is_err(),
            "bob may still raise maxReplicas"
        );
        Ok(())
    })?;
    let minimum = json!({"spec": {"minReplicas": 9, "maxReplicas": 6}});
    for (patch, reason) in [
        (max(50), "maxReplicas 50 is above the ceiling 6"),
        (max(7), "maxReplicas 7 is above the ceiling 6"),
        (minimum, "minReplicas"),
        (
            annotation("lagwise.dev/ceiling", json!("99")),
            "only lagwise may set, change or remove lagwise.dev/ceiling",
        ),
        (
            annotation("lagwise.dev/ceiling", json!(null)),
            "lagwise.dev/ceiling",
        ),
        (
            annotation("lagwise.dev/epoch", json!("999999")),
            "lagwise.dev/epoch",
        ),
        (
            annotation("lagwise.dev/zeroed-since", json!("2026-01-01T00:00:00Z")),
            "lagwise.dev/zeroed-since",
        ),
        (
            annotation("lagwise.dev/cap", json!("advise")),
            "lagwise.dev/cap can only be enforce",
        ),
        (
            annotation("lagwise.dev/paused", json!("true")),
            "lagwise.dev/paused",
        ),
        (
            annotation("lagwise.dev/pausd", json!("yes")),
            "lagwise.dev/pausd",
        ),
        (
            annotation("lagwise.dev/paused.billing", json!("1")),
            "lagwise.dev/paused.billing",
        ),
    ] {
        let error = patched(&bob, &patch).err();
        let error = error.with_context(|| format!("{patch} was accepted"))?;
        let error = error.to_string();
        ensure!(error.contains(reason), "{patch}: {error}");
        // A write to the status takes annotations, and nothing of the spec.
        if !patch["metadata"].is_null() {
            let error = patched_status(&bob, &patch).err();
            let error = error.with_context(|| format!("{patch} was accepted with the status"))?;
            ensure!(error.to_string().contains(reason), "{patch}: {error}");
        }
        // An exempt user may write it, if the API server accepts it at all.
        if reason != "minReplicas" {
            patched(&[], &patch).with_context(|| format!("{patch} by an administrator"))?;
        }
    }
    for patch in [
        max(3),
        annotation("lagwise.dev/max-replicas", json!("4")),
        annotation("lagwise.dev/stuck-after", json!("5m")),
        annotation("lagwise.dev/threads-per-replica.billing", json!("2")),
        annotation("lagwise.dev/cap", json!(null)),
        annotation("example.com/paused", json!("true")),
        json!({"metadata": {"labels": {"team": "billing"}}}),
    ] {
        patched(&bob, &patch).with_context(|| format!("{patch} was rejected"))?;
    }
    // The HPA controller writes the status, and bob may.
    let status = json!({"spec": {"maxReplicas": 50}, "status": {"desiredReplicas": 4}});
    let hpa = patched_status(&bob, &status)?;
    let found = (
        &hpa["status"]["desiredReplicas"],
        &hpa["spec"]["maxReplicas"],
    );
    ensure!(found == (&json!(4), &json!(6)), "{hpa}");
    let create = |annotations: Value| {
        let hpa = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "another", "annotations": annotations},
            "spec": {"maxReplicas": 50, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}},
        });
        by(&bob, &["create", "-f", "-"], &hpa.to_string())
    };
    create(json!({"lagwise.dev/cap": "enforce"}))?;
    for annotations in [
        json!({"lagwise.dev/cap": "advise"}),
        json!({"lagwise.dev/paused": "true"}),
        json!({"lagwise.dev/epoch": "999999"}),
    ] {
        ensure!(create(annotations.clone()).is_err(), "{annotations}");
    }
    Ok(policy)
}
