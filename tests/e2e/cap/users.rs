//! The user's maximum under the admission policy: every way to write it is respected, and the user stays the owner of
//! the field.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::odd::{another, wait_until_max_of};
use super::{PARTITIONS, Policy, Scene, WAIT_TIMEOUT, enforced, release};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;

pub(crate) fn the_users_maximum_is_never_lost(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "user", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let manifest = |max: u32| {
        scene.manifest(|hpa| {
            enforced(hpa);
            hpa["spec"]["maxReplicas"] = json!(max);
        })
    };
    let server_side = |max: u32, what: &str| -> Result<String> {
        let args = [what, "--server-side", "-n", &scene.namespace, "-f", "-"];
        scene.plane.kubectl_with_input(&args, &manifest(max)?)
    };
    server_side(20, "apply")?;
    scene.wait_until_max(6)?;
    for (max, live) in [(4, 4), (30, 6), (20, 6)] {
        // Not forced: it would fail if another field manager owned the field.
        server_side(max, "apply")?;
        scene.wait_until_max(live)?;
        let user = scene.user_max()?;
        ensure!(
            user.as_str() == Some(&*max.to_string()),
            "the user's number is {user} after {max}"
        );
        // Empty, or kubectl's exit code is 1 and this an error.
        let drift = server_side(max, "diff").with_context(|| format!("drift after {max}"))?;
        ensure!(drift.trim().is_empty(), "{drift}");
    }
    // All the while the field was the user's alone, and it is afterwards.
    let owners = owners(&scene.hpa()?);
    ensure!(owners == ["kubectl Apply"], "{owners:?}");
    // Exactly the capped value, said outright.
    scene.annotate("max-replicas=6")?;
    scene
        .kafka
        .topics_tool(&["--alter", "--topic", &scene.topic, "--partitions", "12"])?;
    let more: Vec<_> = (PARTITIONS..12).map(|partition| (partition, 0)).collect();
    scene.kafka.commit(&scene.group, &scene.topic, &more)?;
    poll_until(WAIT_TIMEOUT, "the ceiling of twelve", || {
        let ceiling = scene.hpa()?["metadata"]["annotations"]["lagwise.dev/ceiling"].clone();
        ensure!(ceiling == "12" && scene.max()? == 6, "{ceiling}");
        Ok(())
    })?;
    // Who no longer wants it gets theirs back, and no annotation is left.
    scene.annotate("max-replicas=18")?;
    scene.wait_until_max(12)?;
    scene.annotate("max-replicas-")?;
    scene.annotate("cap-")?;
    scene.wait_until_max(18)?;
    scene.wait_until_unmarked()?;
    server_side(17, "apply")?;
    // The manifest sets enforcement again.
    scene.wait_until_max(12)?;
    scene.wait_until_user_max("17")
}

/// Field managers of `spec.maxReplicas`, with the kind of their write.
pub(super) fn owners(hpa: &Value) -> Vec<String> {
    let entries = hpa["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let owning = entries.filter(|entry| !entry["fieldsV1"]["f:spec"]["f:maxReplicas"].is_null());
    let named = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("manager"), text("operation"))
    };
    owning.map(named).collect()
}

/// Another writer applies 50 to an HPA by force every second for half a minute.
pub(super) fn write_repeatedly(scene: &Scene<'_>, hpa: &str) -> Result<()> {
    let theirs = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": hpa},
        "spec": {
            "maxReplicas": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": hpa},
        },
    });
    let args = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=other-writer",
        "-n",
        &scene.namespace,
        "-f",
        "-",
    ];
    let started = Instant::now();
    for second in 1..=30 {
        scene.plane.kubectl_with_input(&args, &theirs.to_string())?;
        // The rate of the writes, not a wait for a state.
        let due = started + Duration::from_secs(second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// A chart of the workload with the value `max`.
fn chart(testbed: &Testbed, scene: &Scene<'_>) -> Result<PathBuf> {
    let folder = testbed.folder("billing-chart")?;
    std::fs::create_dir_all(folder.join("templates"))?;
    let about = json!({"apiVersion": "v2", "name": "billing", "version": "1.0.0"});
    std::fs::write(folder.join("Chart.yaml"), about.to_string())?;
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["spec"]["maxReplicas"] = json!("MAX");
    })?;
    let list: Value = serde_json::from_str(&manifest)?;
    let objects = list["items"].as_array().context("no items")?;
    let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
    let template = documents
        .join("\n---\n")
        .replace("\"MAX\"", "{{ .Values.max }}");
    std::fs::write(folder.join("templates/billing.yaml"), template)?;
    Ok(folder)
}

pub(crate) fn every_way_to_write_max_replicas_keeps_the_users_maximum(
    testbed: &Testbed,
) -> Result<()> {
    let scene = Scene::set(testbed, "ways", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (mut daemon, _api) = scene.daemon(testbed)?;
    another(&scene, "contested", |_| {})?;
    wait_until_max_of(&scene, "contested", 6)?;
    // The conflicting writes are to a separate HPA, in parallel with the edits.
    std::thread::scope(|scope| {
        let conflict = scope.spawn(|| the_admission_policy_ends_a_write_conflict(&scene));
        let edited = every_edit_is_kept(testbed, &scene);
        let conflict = conflict.join();
        edited?;
        conflict.map_err(|_| anyhow::anyhow!("the other writer panicked"))?
    })?;
    // One or both annotations are removed: the user's maximum is kept, and the ceiling is written again.
    for removed in [
        &["lagwise.dev/ceiling-"][..],
        &["lagwise.dev/user-max-replicas-"],
        &["lagwise.dev/ceiling-", "lagwise.dev/user-max-replicas-"],
        &["lagwise.dev/user-max-replicas=many"],
    ] {
        scene.kubectl(&[&["annotate", "--overwrite", "hpa", "billing"], removed].concat())?;
        poll_until(WAIT_TIMEOUT, "the cap to be whole again", || {
            let hpa = scene.hpa()?;
            let of = &hpa["metadata"]["annotations"];
            let now = (
                &hpa["spec"]["maxReplicas"],
                &of["lagwise.dev/ceiling"],
                &of["lagwise.dev/user-max-replicas"],
            );
            ensure!(
                now == (&json!(6), &json!("6"), &json!("25")),
                "{now:?} after {removed:?}"
            );
            Ok(())
        })?;
    }
    // The daemon goes, and the command gives everything back.
    daemon.process.stop(Duration::from_secs(10))?;
    let released = release(testbed, scene.plane, &["--all"])?;
    let ours = released.as_array().into_iter().flatten();
    let mut ours = ours.filter(|one| one["namespace"] == scene.namespace.as_str());
    let one = ours.next().context("the HPA was not released")?;
    ensure!(
        one["user_max_replicas"] == 25 && one["asks_again"] == true,
        "{one}"
    );
    ensure!(scene.max()? == 25, "{}", scene.hpa()?);
    scene.wait_until_unmarked()?;
    let owners = owners(&scene.hpa()?);
    ensure!(
        !owners.iter().any(|owner| owner.starts_with("lagwise")),
        "{owners:?}"
    );
    Ok(())
}

/// Helm, an editor and client-side apply.
fn every_edit_is_kept(testbed: &Testbed, scene: &Scene<'_>) -> Result<()> {
    let chart = chart(testbed, scene)?;
    let chart = chart.to_string_lossy();
    let helm = |what: &str, max: u32| {
        let max = format!("max={max}");
        let args = [
            what,
            "billing",
            &*chart,
            "--namespace",
            &scene.namespace,
            "--set",
            &max,
        ];
        scene.plane.helm(&args)
    };
    helm("install", 20)?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("20")?;
    for (max, live) in [(20, 6), (4, 4), (30, 6), (20, 6)] {
        helm("upgrade", max)?;
        scene.wait_until_max(live)?;
        scene.wait_until_user_max(&max.to_string())?;
    }
    let hpa = ["hpa", "billing", "-n", &scene.namespace];
    // An editor sends the object that it has read, so an edit of another field leaves the number unchanged.
    scene
        .plane
        .edit(&hpa, "s/minReplicas:.*1/minReplicas:\\ 2/")?;
    scene.wait_until_user_max("20")?;
    ensure!(
        scene.hpa()?["spec"]["minReplicas"] == 2,
        "nothing was edited"
    );
    for (from, to, live) in [(6, 9, 6), (6, 5, 5), (5, 15, 6)] {
        scene.plane.edit(
            &hpa,
            &format!("s/maxReplicas:.*{from}$/maxReplicas:\\ {to}/"),
        )?;
        scene.wait_until_max(live)?;
        scene.wait_until_user_max(&to.to_string())?;
    }
    for (max, live) in [(25, 6), (3, 3), (25, 6), (25, 6)] {
        let manifest = scene.manifest(|hpa| {
            enforced(hpa);
            hpa["spec"]["maxReplicas"] = json!(max);
        })?;
        scene.plane.apply(&scene.namespace, &manifest)?;
        scene.wait_until_max(live)?;
        scene.wait_until_user_max(&max.to_string())?;
    }
    // The policy holds it by itself. Each change of the ceiling or of who enforces it is a write; there was one
    // ceiling.
    let writes = scene.plane.daemon_writes(&scene.namespace, "billing")?;
    ensure!(writes.len() <= 2, "{writes:?}");
    Ok(())
}

/// The policy keeps the maximum without a write of lagwise, also against a persistent writer.
fn the_admission_policy_ends_a_write_conflict(scene: &Scene<'_>) -> Result<()> {
    let written = || scene.plane.daemon_writes(&scene.namespace, "contested");
    let before = written()?.len();
    let bound = ReplicaSeries::bound(scene.plane, &scene.namespace, "contested")?;
    write_repeatedly(scene, "contested")?;
    ensure!(bound.values() == [6], "{:?}", bound.timed());
    let user = || -> Result<Value> {
        let hpa = scene
            .plane
            .get("hpa", "contested", Some(&scene.namespace))?;
        Ok(hpa["metadata"]["annotations"]["lagwise.dev/user-max-replicas"].clone())
    };
    poll_until(WAIT_TIMEOUT, "the user's 50 to be kept", || {
        let user = user()?;
        ensure!(user == "50", "{user}");
        Ok(())
    })?;
    let writes = written()?.len();
    println!(
        "lagwise's writes: {before} before the conflict, {} during it",
        writes - before
    );
    ensure!(
        before <= 2 && writes == before,
        "{before} writes, then {writes}"
    );
    Ok(())
}
