//! The examples for Argo CD, Flux and Ansible, applied as these tools do: with the admission policy without any
//! settings, and without it with the settings that the examples have for that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::odd::wait_until_max_of;
use super::{PARTITIONS, Policy, Scene};
use crate::testbed::Testbed;

/// How often a tool applies the same again.
const SYNCS: usize = 4;

pub(crate) fn examples_of_gitops_agree_with_the_cap(testbed: &Testbed) -> Result<()> {
    with_the_policy(testbed).context("with the admission policy")?;
    without_the_policy(testbed).context("without the admission policy")
}

fn with_the_policy(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "gitops", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let hpa = kustomized_hpa(&scene)?;
    sync(&scene, "apply", &hpa)?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("12")?;
    let written = || scene.plane.daemon_writes(&scene.namespace, "billing");
    let before = written()?.len();
    for _ in 0..SYNCS {
        sync(&scene, "apply", &hpa)?;
        // Empty, or the exit code of kubectl is 1 and this an error: the tool sees nothing to correct.
        let drift = sync(&scene, "diff", &hpa).context("drift")?;
        ensure!(drift.trim().is_empty(), "{drift}");
        ensure!(scene.max()? == 6, "{}", scene.hpa()?);
    }
    let writes = written()?.len();
    ensure!(writes == before, "{before} writes, then {writes}");
    // Ansible does not apply by force.
    let ansible = ansible_hpa(&scene)?;
    let args = [
        "apply",
        "--server-side",
        "--field-manager=ansible",
        "-f",
        "-",
    ];
    for _ in 0..2 {
        scene
            .plane
            .kubectl_with_input(&args, &ansible.to_string())?;
        wait_until_max_of(&scene, "ansible", 6)?;
    }
    Ok(())
}

fn without_the_policy(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "gitops", PARTITIONS)?;
    let (daemon, _api) = scene.daemon(testbed)?;
    let hpa = kustomized_hpa(&scene)?;
    sync(&scene, "apply", &hpa)?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("12")?;
    let ignored = ignored_by_argo_cd()?;
    let written = || scene.plane.daemon_writes(&scene.namespace, "billing");
    let before = written()?.len();
    for _ in 0..SYNCS {
        sync(&scene, "apply", &with_live_fields(&scene, &hpa, &ignored)?)?;
        daemon.wait_for_sweeps(2)?;
        ensure!(scene.max()? == 6, "{}", scene.hpa()?);
    }
    let writes = written()?.len();
    ensure!(writes == before, "{before} writes, then {writes}");
    scene.wait_until_user_max("12")?;
    // lagwise still follows the partitions, and Argo CD leaves that alone.
    scene.kafka.grow_topic(&scene.topic, 8)?;
    scene.commit_all(8)?;
    scene.wait_until_max(8)?;
    sync(&scene, "apply", &with_live_fields(&scene, &hpa, &ignored)?)?;
    daemon.wait_for_sweeps(2)?;
    ensure!(scene.max()? == 8, "{}", scene.hpa()?);
    scene.wait_until_user_max("12")?;
    // Flux applies such an object only if it does not exist.
    let flux = documents("gitops/flux/kustomization.yaml")?;
    let flux = &flux[0]["spec"]["patches"][0];
    let patch: Value = serde_saphyr::from_str(flux["patch"].as_str().context("no patch")?)?;
    let rule = &patch["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/ssa"];
    ensure!(
        *rule == "IfNotPresent" && flux["target"]["kind"] == "HorizontalPodAutoscaler",
        "{flux}"
    );
    Ok(())
}

fn example(path: &str) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    examples.join(path)
}

/// The documents of an example.
fn documents(path: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(example(path))?;
    let parsed = text.split("\n---\n").map(serde_saphyr::from_str);
    Ok(parsed.collect::<Result<_, _>>()?)
}

/// The HPA of the example for Kustomize, for the group of this scene.
fn kustomized_hpa(scene: &Scene<'_>) -> Result<Value> {
    let app = example("gitops/app");
    let rendered = scene
        .plane
        .kubectl(&["kustomize", &app.to_string_lossy()])?;
    let mut hpas = rendered
        .split("\n---\n")
        .filter(|object| object.contains("kind: HorizontalPodAutoscaler\n"));
    let hpa: Value = serde_saphyr::from_str(hpas.next().context("no HPA")?)?;
    ensure!(hpa["spec"]["maxReplicas"] == 12, "{hpa}");
    Ok(for_scene(scene, hpa))
}

/// The HPA of the playbook, with its number, for the group of this scene.
fn ansible_hpa(scene: &Scene<'_>) -> Result<Value> {
    let plays = documents("ansible/playbook.yaml")?;
    let tasks = plays[0][0]["tasks"].as_array().context("no tasks")?;
    let definitions = tasks
        .iter()
        .map(|task| &task["kubernetes.core.k8s"]["definition"]);
    let mut hpas = definitions.filter(|object| object["kind"] == "HorizontalPodAutoscaler");
    let mut hpa = hpas.next().context("no HPA")?.clone();
    ensure!(
        hpa["spec"]["maxReplicas"] == "{{ replicas | int }}",
        "{hpa}"
    );
    hpa["spec"]["maxReplicas"] = plays[0][0]["vars"]["replicas"].clone();
    hpa["metadata"]["name"] = json!("ansible");
    Ok(for_scene(scene, hpa))
}

fn for_scene(scene: &Scene<'_>, mut hpa: Value) -> Value {
    hpa["metadata"]["namespace"] = json!(scene.namespace);
    let metric = &mut hpa["spec"]["metrics"][0]["external"]["metric"];
    metric["selector"]["matchLabels"] = json!({"group": scene.group, "topic": scene.topic});
    hpa
}

/// Applies or compares the object as Argo CD does with `ServerSideApply=true`, and Flux always.
fn sync(scene: &Scene<'_>, command: &str, hpa: &Value) -> Result<String> {
    let args = [
        command,
        "--server-side",
        "--force-conflicts",
        "--field-manager=argocd-controller",
        "-f",
        "-",
    ];
    scene.plane.kubectl_with_input(&args, &hpa.to_string())
}

/// Fields of HPAs that Argo CD leaves alone by the example.
fn ignored_by_argo_cd() -> Result<Vec<String>> {
    let application = documents("gitops/argo-cd/application.yaml")?.swap_remove(0);
    let spec = &application["spec"];
    let options = spec["syncPolicy"]["syncOptions"].as_array();
    let options = options.context("no options")?;
    ensure!(
        options.contains(&json!("RespectIgnoreDifferences=true")),
        "{options:?}"
    );
    let rules = spec["ignoreDifferences"].as_array().context("no rules")?;
    let mut of_hpas = rules
        .iter()
        .filter(|rule| rule["kind"] == "HorizontalPodAutoscaler");
    let rule = of_hpas.next().context("no rule for HPAs")?;
    Ok(serde_json::from_value(rule["jsonPointers"].clone())?)
}

/// What Argo CD applies with `RespectIgnoreDifferences=true`: these fields are as they are in the cluster.
fn with_live_fields(scene: &Scene<'_>, hpa: &Value, fields: &[String]) -> Result<Value> {
    let (live, mut wanted) = (scene.hpa()?, hpa.clone());
    for field in fields {
        let value = live.pointer(field).context("no such field")?;
        *wanted.pointer_mut(field).context("no such field")? = value.clone();
    }
    Ok(wanted)
}
