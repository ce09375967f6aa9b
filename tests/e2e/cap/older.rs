//! Kubernetes 1.34, whose API server drops the tolerance of HPAs and by default serves no MutatingAdmissionPolicy.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Scene, WAIT_TIMEOUT, enforced};
use crate::daemon::cluster;
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;

/// Advice about the tolerance for an older cluster.
const ADVICE: &str = "Set lagwise.dev/cap: enforce. A tolerance in the HPA's behavior does not help: this cluster drops or refuses it, since \
                      it is older than Kubernetes 1.35.";

/// `lint` of the cluster, `lint` of the manifest and the event give the same advice about an HPA whose manifest sets a
/// tolerance.
pub(crate) fn an_older_cluster_gets_the_advice_that_it_can_follow(testbed: &Testbed) -> Result<()> {
    let scene = Scene::in_older_cluster(testbed, "advice", PARTITIONS)?;
    let version = scene.plane.get_raw("/version")?;
    ensure!(version["minor"] == "34", "{version}");
    let (_daemon, _api) = scene.daemon(testbed)?;
    // This lag needs more replicas than there are partitions.
    scene.kafka.produce_to(&scene.topic, &[(0, 5_000)])?;
    let manifest = scene.manifest(|_| {})?;
    ensure!(manifest.contains("tolerance"), "{manifest}");
    scene.plane.apply(&scene.namespace, &manifest)?;
    let behavior = scene.hpa()?["spec"]["behavior"].clone();
    ensure!(
        !behavior.is_null() && !behavior.to_string().contains("tolerance"),
        "{behavior}"
    );
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(
        WAIT_TIMEOUT,
        "replicas by the lag, up to the partitions",
        || {
            ensure!(series.now() == PARTITIONS, "{:?}", series.timed());
            Ok(())
        },
    )?;
    let of_cluster = poll_until(WAIT_TIMEOUT, "lint of the cluster to find it", || {
        let found = lint(testbed, &scene)?;
        let fixes = fixes(&found, &["LW018", "LW037"])?;
        ensure!(!fixes.is_empty(), "{found}");
        Ok(fixes)
    })?;
    ensure!(of_cluster.iter().all(|fix| fix == ADVICE), "{of_cluster:?}");
    let file = testbed.folder("manifests")?.join("hpa.json");
    std::fs::write(&file, &manifest)?;
    let path = file.to_string_lossy();
    let found = run(
        testbed,
        &["lint", "-o", "json", "--kubernetes", "1.34", "-f", &path],
        None,
    )?;
    let of_file = fixes(&found, &["LW037"])?;
    ensure!(of_file == [ADVICE], "{found}");
    poll_until(WAIT_TIMEOUT, "the event with the advice", || {
        let events = scene.kubectl(&["get", "events.v1.events.k8s.io", "-o", "json"])?;
        ensure!(
            events.contains("ToleranceAbove") && events.contains(ADVICE),
            "{events}"
        );
        Ok(())
    })
}

/// Runs `lagwise lint` on the namespace of the scene, as an administrator.
fn lint(testbed: &Testbed, scene: &Scene<'_>) -> Result<Value> {
    let config = json!({
        "clusters": [cluster("main", &[("bootstrap.servers", &scene.kafka.bootstrap())])],
    });
    let file = testbed.folder("lint")?.join("lagwise.yaml");
    std::fs::write(&file, config.to_string())?;
    let (path, namespace) = (file.to_string_lossy(), &*scene.namespace);
    let args = ["lint", "-o", "json", "--config", &*path, "-n", namespace];
    run(testbed, &args, Some(scene))
}

fn run(testbed: &Testbed, args: &[&str], scene: Option<&Scene<'_>>) -> Result<Value> {
    let mut command = testbed.lagwise(args);
    if let Some(scene) = scene {
        command.env("KUBECONFIG", scene.plane.kubeconfig());
    }
    let done = command.output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    serde_json::from_slice(&done.stdout).with_context(|| format!("{args:?}: {errors}"))
}

/// The `fix` of each finding with one of these codes.
fn fixes(found: &Value, codes: &[&str]) -> Result<Vec<String>> {
    let found = found.as_array().context("no list")?.iter();
    let meant = found.filter(|one| codes.iter().any(|code| one["code"] == *code));
    let fix = |one: &Value| one["fix"].as_str().map(str::to_owned);
    meant.map(|one| fix(one).context("no fix")).collect()
}

/// lagwise patches `maxReplicas`, and the HPA reaches and keeps the ceiling with the controller's default tolerance.
pub(crate) fn an_older_cluster_is_capped_by_patches(testbed: &Testbed) -> Result<()> {
    let ceiling = 24;
    let scene = Scene::in_older_cluster(testbed, "older", ceiling)?;
    let (daemon, _api) = scene.daemon(testbed)?;
    scene.kafka.produce_to(&scene.topic, &[(0, 2200)])?;
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["spec"]["maxReplicas"] = json!(48);
        for direction in ["scaleUp", "scaleDown"] {
            hpa["spec"]["behavior"][direction]["policies"] =
                json!([{"type": "Pods", "value": ceiling, "periodSeconds": 2}]);
        }
    })?;
    scene.plane.apply(&scene.namespace, &manifest)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(WAIT_TIMEOUT, "22 replicas", || {
        ensure!(series.now() == 22, "{:?}", series.timed());
        Ok(())
    })?;
    scene.wait_until_max(ceiling.into())?;
    scene.wait_until_user_max("48")?;
    // From here the tolerance of 10 % would keep a clamped value from reaching the ceiling.
    scene.kafka.produce_to(&scene.topic, &[(0, 800)])?;
    poll_until(WAIT_TIMEOUT, "the ceiling", || {
        ensure!(series.now() == ceiling, "{:?}", series.timed());
        Ok(())
    })?;
    daemon.wait_for_sweeps(6)?;
    ensure!(series.max() == ceiling, "{:?}", series.timed());
    // Without the annotation `cap`, lagwise restores `maxReplicas` and removes the annotations that it has written.
    scene.annotate("cap-")?;
    scene.wait_until_max(48)?;
    scene.wait_until_unmarked()?;
    println!("status.replicas on Kubernetes 1.34: {:?}", series.timed());
    Ok(())
}
