//! HPAs for which lagwise cannot or must not write: a right is missing, or a person has paused the writes.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{COOLDOWN, Scene, WITHIN};
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// The finding about a missing right.
const FORBIDDEN: &str = "LW055";

pub(crate) fn a_missing_right_is_said_and_a_pause_holds_no_replicas(
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

    // With the right, it is as any other.
    scene.allow()?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    poll_until(WITHIN, "the finding to end", || {
        ensure!(!is_forbidden()?, "still there");
        Ok(())
    })
}
