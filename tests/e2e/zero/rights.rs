//! HPAs for which lagwise cannot or must not write: a right is missing, or a person has paused the writes.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{COOLDOWN, Scene, WAIT_TIMEOUT};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// The finding about a missing right.
const FORBIDDEN: &str = "LW055";

pub(crate) fn a_missing_right_is_reported_and_a_pause_holds_no_replicas(
    testbed: &Testbed,
) -> Result<()> {
    let scene = Scene::set(testbed, "rights")?;
    let options = Options {
        namespaces: vec![scene.namespace.clone()],
        ..scene.options()
    };
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    // Without any right to write.
    scene.apply(1, COOLDOWN)?;
    let note = scene.wait_until_event("billing", "WriteForbidden")?;
    for words in [
        "cannot get resource \"horizontalpodautoscalers\"",
        "scaleToZero.enabled",
    ] {
        ensure!(note.contains(words), "{note}");
    }
    let is_forbidden = || -> Result<bool> {
        let status = daemon.status_of(&scene.namespace, "billing")?;
        let findings = status["findings"].as_array().context("no findings")?;
        Ok(findings.contains(&json!(FORBIDDEN)))
    };
    ensure!(is_forbidden()?, "not in the status");
    // The same holds for an HPA with the cap. It has another selector, because with the same one it would need the same
    // settings.
    let labels = [("group", &*scene.group)];
    let mut capped: Value = serde_json::from_str(&workload("capped", &labels))?;
    capped["items"][1]["metadata"]["annotations"] = json!({"lagwise.dev/cap": "enforce"});
    scene.plane.apply(&scene.namespace, &capped.to_string())?;
    let note = scene.wait_until_event("capped", "WriteForbidden")?;
    for words in ["may not write maxReplicas", "enforce.enabled"] {
        ensure!(note.contains(words), "{note}");
    }

    // The HPA scales although the writes of lagwise are paused.
    let annotate = |change: &str| {
        let args = ["annotate", "hpa", "billing", change, "-n"];
        scene
            .plane
            .kubectl(&[&args[..], &[&scene.namespace]].concat())
    };
    annotate("lagwise.dev/paused=true")?;
    scene.kafka.produce_batch(&scene.topic, 0, 250)?;
    scene.wait_until_wanted(3, false)?;
    let status = daemon.status_of(&scene.namespace, "billing")?;
    ensure!(status["paused"] == true, "{status}");
    annotate("lagwise.dev/paused-")?;

    // With the right, it is scaled to zero as any other.
    scene.allow()?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    poll_until(WAIT_TIMEOUT, "the finding to end", || {
        ensure!(!is_forbidden()?, "still there");
        Ok(())
    })
}
