//! Special HPAs: copies, HPAs with an owner, paused ones, and ones that lose their metric.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Policy, Scene, WAIT_TIMEOUT, enforced};
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// The HPA of the manifest under another name, for no workload.
pub(super) fn another(scene: &Scene<'_>, name: &str, change: impl Fn(&mut Value)) -> Result<()> {
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["metadata"]["name"] = json!(name);
        hpa["spec"]["scaleTargetRef"]["name"] = json!(name);
        change(hpa);
    })?;
    let list: Value = serde_json::from_str(&manifest)?;
    // Client-side, the next server-side applier would inherit every field, and drop what it does not name.
    let args = ["apply", "--server-side", "-n", &scene.namespace, "-f", "-"];
    let hpa = list["items"][1].to_string();
    scene.plane.kubectl_with_input(&args, &hpa).map(drop)
}

fn max_of(scene: &Scene<'_>, name: &str) -> Result<i64> {
    let hpa = scene.plane.get("hpa", name, Some(&scene.namespace))?;
    hpa["spec"]["maxReplicas"].as_i64().context("no maximum")
}

pub(super) fn wait_until_max_of(scene: &Scene<'_>, name: &str, expected: i64) -> Result<()> {
    poll_until(
        WAIT_TIMEOUT,
        &format!("maximum {expected} of {name}"),
        || {
            let max = max_of(scene, name)?;
            ensure!(max == expected, "{max}");
            Ok(())
        },
    )
}

pub(crate) fn unusual_hpas_are_capped_or_skipped(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "odd", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["spec"]["minReplicas"] = json!(8);
    })?;
    scene.plane.apply(&scene.namespace, &manifest)?;
    {
        let options = Options {
            read_only: true,
            ..Options::main(&scene.kafka.bootstrap())
        };
        let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
        daemon.wait_for_sweeps(8)?;
        ensure!(
            max_of(&scene, "billing")? == 20,
            "read-only, and something was written"
        );
    }
    let owner = scene
        .plane
        .get("deployment", "billing", Some(&scene.namespace))?;
    another(&scene, "owned", |hpa| {
        hpa["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "billing",
            "uid": owner["metadata"]["uid"], "controller": true,
        }]);
    })?;
    another(&scene, "paused", |hpa| {
        hpa["metadata"]["annotations"]["lagwise.dev/paused"] = json!("true");
    })?;
    another(&scene, "bare", |_| {})?;
    let (daemon, _api) = scene.daemon(testbed)?;

    // Never below minReplicas, which the API server would refuse, and after it once that is lowered.
    scene.wait_until_max(8)?;
    scene.patch(r#"{"spec":{"minReplicas":1}}"#)?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("20")?;

    // A copy is made with its annotations and is capped alike. After the release it has the same maximum.
    let mut copy = scene.hpa()?;
    copy["metadata"] = json!({"name": "copy", "annotations": copy["metadata"]["annotations"]});
    copy["spec"]["scaleTargetRef"]["name"] = json!("copy");
    copy["status"] = json!(null);
    let create = ["create", "-n", &scene.namespace, "-f", "-"];
    scene.plane.kubectl_with_input(&create, &copy.to_string())?;
    ensure!(max_of(&scene, "copy")? == 6, "{}", max_of(&scene, "copy")?);
    scene.kubectl(&["annotate", "hpa", "copy", "lagwise.dev/cap-"])?;
    wait_until_max_of(&scene, "copy", 20)?;

    // An HPA that is left without a metric of ours has no ceiling, and never will have.
    wait_until_max_of(&scene, "bare", 6)?;
    let cpu = json!({"spec": {"metrics": [{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }]}});
    scene.kubectl(&[
        "patch",
        "hpa",
        "bare",
        "--type=merge",
        "-p",
        &cpu.to_string(),
    ])?;
    wait_until_max_of(&scene, "bare", 20)?;

    daemon.wait_for_sweeps(8)?;
    ensure!(
        max_of(&scene, "owned")? == 20,
        "a controller's HPA was written"
    );
    ensure!(max_of(&scene, "paused")? == 20, "a paused HPA was written");
    let pause = |to: &str| {
        let paused = format!("lagwise.dev/paused{to}");
        scene.kubectl(&["annotate", "--overwrite", "hpa", "paused", &paused])
    };
    pause("-")?;
    wait_until_max_of(&scene, "paused", 6)?;
    // While paused, nothing changes, whatever the other settings are.
    pause("=true")?;
    scene.kubectl(&["annotate", "hpa", "paused", "lagwise.dev/cap-"])?;
    daemon.wait_for_sweeps(8)?;
    ensure!(
        max_of(&scene, "paused")? == 6,
        "a paused HPA was given back"
    );
    pause("-")?;
    wait_until_max_of(&scene, "paused", 20)
}
