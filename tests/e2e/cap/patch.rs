//! The cap without the admission policy: lagwise patches the field, and backs off if another writer keeps changing it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::odd::{another, wait_until_max_of};
use super::users::{owners, write_repeatedly};
use super::{PARTITIONS, Scene, WAIT_TIMEOUT, enforced, release};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

pub(crate) fn without_the_policy_a_patch_applies_the_cap(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "patch", PARTITIONS)?;
    let (mut daemon, _api) = scene.daemon(testbed)?;
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(enforced)?)?;
    scene.wait_until_max(6)?;
    ensure!(scene.user_max()? == "20", "the user's number is lost");
    // Nothing changes while nothing is known, or without the daemon.
    scene.kafka.stop_all()?;
    let held = poll_until(WAIT_TIMEOUT, "the outage to be seen", || {
        ensure!(
            daemon
                .metrics()?
                .contains("lagwise_cluster_up{cluster=\"main\"} 0"),
            "still up"
        );
        Ok(())
    });
    let max = scene.max();
    scene.kafka.start_all()?;
    held?;
    ensure!(max? == 6, "it moved in an outage");
    scene.plane.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "-n",
        &scene.namespace,
        "-p",
        r#"{"spec":{"maxReplicas":30}}"#,
    ])?;
    scene.wait_until_max(6)?;
    ensure!(scene.user_max()? == "30", "the user's new number is lost");
    daemon.process.stop(Duration::from_secs(10))?;
    ensure!(scene.max()? == 6, "it moved with the daemon's end");
    // Without the daemon, by the command.
    let this = format!("{}/billing", scene.namespace);
    let dry = release(testbed, scene.plane, &[&this, "--dry-run"])?;
    ensure!(
        dry[0]["user_max_replicas"] == 30 && dry[0]["asks_again"] == true,
        "{dry}"
    );
    ensure!(scene.max()? == 6, "a dry run has written");
    release(testbed, scene.plane, &[&this])?;
    let hpa = scene.hpa()?;
    let annotations = &hpa["metadata"]["annotations"];
    ensure!(hpa["spec"]["maxReplicas"] == 30, "{hpa}");
    ensure!(
        annotations["lagwise.dev/ceiling"].is_null(),
        "{annotations}"
    );
    ensure!(
        annotations["lagwise.dev/user-max-replicas"].is_null(),
        "{annotations}"
    );
    let again = release(testbed, scene.plane, &[&this])?;
    ensure!(again == json!([]), "{again}");
    let kubeconfig = scene.plane.kubeconfig().to_string_lossy();
    let missing = format!("{}/missing", scene.namespace);
    let mut failed = testbed.lagwise(&["release", "--kubeconfig", &*kubeconfig, &missing]);
    let failed = failed.output()?;
    let printed = String::from_utf8_lossy(&failed.stdout);
    ensure!(
        !failed.status.success() && printed == "no HPA was released\n",
        "{failed:?}"
    );
    Ok(())
}

pub(crate) fn without_the_policy_conflicting_writes_are_bounded(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "conflict", PARTITIONS)?;
    let (daemon, _api) = scene.daemon(testbed)?;
    // Separate HPAs, because after every edit that lagwise has to undo, it waits longer before it undoes the next one
    // of the same HPA. The conflicting writes run in parallel with the edits.
    another(&scene, "contested", |_| {})?;
    wait_until_max_of(&scene, "contested", 6)?;
    std::thread::scope(|scope| {
        let conflict = scope.spawn(|| conflicting_writes_are_bounded(&scene));
        let edited =
            edits_are_answered(&scene).and_then(|()| removed_annotations_are_written_again(&scene));
        let conflict = conflict.join();
        edited?;
        conflict.map_err(|_| anyhow::anyhow!("the other writer panicked"))?
    })?;
    let counted = "lagwise_cap_writes_total{outcome=\"fought\"}";
    ensure!(
        daemon.metrics()?.contains(counted),
        "the conflict was not counted"
    );
    // After the release only the user owns the field: an unforced apply of another number succeeds.
    scene.annotate("cap-")?;
    scene.wait_until_max(20)?;
    scene.wait_until_unmarked()?;
    let owners = owners(&scene.hpa()?);
    ensure!(
        !owners.iter().any(|owner| owner.starts_with("lagwise")),
        "{owners:?}"
    );
    apply(&scene, 17, &[]).map(drop)
}

/// Applies the manifest with that maximum, server-side.
fn apply(scene: &Scene<'_>, max: u32, more: &[&str]) -> Result<String> {
    let manifest = scene.manifest(|hpa| {
        enforced(hpa);
        hpa["spec"]["maxReplicas"] = json!(max);
    })?;
    let args = ["apply", "--server-side", "-n", &scene.namespace, "-f", "-"];
    let args = [&args[..], more].concat();
    scene.plane.kubectl_with_input(&args, &manifest)
}

/// Every way to write the maximum: lagwise keeps the user's number.
fn edits_are_answered(scene: &Scene<'_>) -> Result<()> {
    apply(scene, 20, &[])?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("20")?;
    // The field is lagwise's while it is capped, and the API server says so.
    let conflict = apply(scene, 30, &[]).err().map(|error| error.to_string());
    let is_conflict =
        conflict.is_some_and(|text| text.contains("lagwise") && text.contains("maxReplicas"));
    ensure!(is_conflict, "no conflict with lagwise");
    apply(scene, 30, &["--force-conflicts"])?;
    scene.wait_until_user_max("30")?;
    scene.wait_until_max(6)?;
    // minReplicas holds it up, and lowered again it is no new number.
    scene.patch(r#"{"spec":{"minReplicas":8,"maxReplicas":20}}"#)?;
    scene.wait_until_max(8)?;
    scene.wait_until_user_max("20")?;
    scene.patch(r#"{"spec":{"minReplicas":1}}"#)?;
    scene.wait_until_max(6)?;
    scene.wait_until_user_max("20")
}

/// A user removes both annotations at once.
fn removed_annotations_are_written_again(scene: &Scene<'_>) -> Result<()> {
    another(scene, "bare", |_| {})?;
    wait_until_max_of(scene, "bare", 6)?;
    let bare = ["lagwise.dev/ceiling-", "lagwise.dev/user-max-replicas-"];
    scene.kubectl(&[&["annotate", "hpa", "bare"], &bare[..]].concat())?;
    poll_until(WAIT_TIMEOUT, "the user's 20 to be kept", || {
        let hpa = scene.plane.get("hpa", "bare", Some(&scene.namespace))?;
        let user = &hpa["metadata"]["annotations"]["lagwise.dev/user-max-replicas"];
        ensure!(*user == "20", "{user}");
        Ok(())
    })?;
    wait_until_max_of(scene, "bare", 6)
}

/// Another writer sets the maximum once a second, on an HPA that no user has edited before.
fn conflicting_writes_are_bounded(scene: &Scene<'_>) -> Result<()> {
    let written = || scene.plane.daemon_writes(&scene.namespace, "contested");
    let before = written()?.len();
    write_repeatedly(scene, "contested")?;
    let writes = written()?.len() - before;
    println!(
        "lagwise's writes: {before} before, {writes} in half a minute with one write per second of another writer"
    );
    ensure!((1..=6).contains(&writes), "{writes} writes");
    wait_until_max_of(scene, "contested", 6)?;
    let contested = scene
        .plane
        .get("hpa", "contested", Some(&scene.namespace))?;
    let user = &contested["metadata"]["annotations"]["lagwise.dev/user-max-replicas"];
    ensure!(*user == "50", "the user's number is {user}");
    Ok(())
}
