//! Unknown lag neither scales a workload to zero nor wakes it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{COOLDOWN, Scene, WAIT_TIMEOUT};
use crate::daemon::{Daemon, MAX_STALENESS, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

pub(crate) fn nothing_scales_to_zero_while_kafka_is_unknown(testbed: &Testbed) -> Result<()> {
    let scene = Scene::on(
        testbed.three_brokers()?,
        testbed.control_plane()?,
        "unknown",
    )?;
    let options = Options {
        // Stuck lag adds no replicas, but keeps the last one.
        lag: json!({"stuck_after": "2s", "stuck_counts": false}),
        ..scene.options()
    };
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    // For twice the cooldown, and longer than the last complete reading is served.
    let lasts = (2 * COOLDOWN).max(MAX_STALENESS + Duration::from_secs(2));
    let stays_up = |why: &str| -> Result<()> {
        // Two sweeps a second.
        daemon.wait_for_sweeps(lasts.as_secs() * 2)?;
        let now = (scene.wanted()?, scene.is_annotated()?);
        ensure!(now == (1, false), "{now:?} although {why}");
        Ok(())
    };
    let wait_until_reported = |start: &str| {
        poll_until(WAIT_TIMEOUT, start, || {
            let metrics = daemon.metrics()?;
            ensure!(
                metrics.lines().any(|line| line.starts_with(start)),
                "no {start}"
            );
            Ok(())
        })
    };
    // A partition makes no progress while another does.
    scene.kafka.produce_to(&scene.topic, &[(0, 50), (1, 1)])?;
    scene.apply(1, COOLDOWN)?;
    poll_until(WAIT_TIMEOUT, "the partition to be stuck", || {
        scene.kafka.produce(&scene.topic, 1, 1)?;
        let ends = scene.kafka.end_offsets(&scene.topic)?;
        scene
            .kafka
            .commit(&scene.group, &scene.topic, &[(1, ends[1])])?;
        let stuck = daemon.metrics()?;
        let mut stuck = stuck.lines().filter(|line| line.contains("rule=\"stuck\""));
        ensure!(stuck.any(|line| line.ends_with(" 1")), "it is not");
        Ok(())
    })?;
    stays_up("a partition is stuck")?;
    // Caught up, but one partition is unknown, and then all are.
    let held = (|| -> Result<()> {
        scene.catch_up()?;
        scene.kafka.stop_broker(3)?;
        poll_until(WAIT_TIMEOUT, "its partition to be unknown", || {
            let faults = daemon.faults()?;
            ensure!(faults > 0, "none is");
            Ok(())
        })?;
        stays_up("a broker is down")?;
        scene.kafka.stop_all()?;
        wait_until_reported("lagwise_cluster_up{cluster=\"main\"} 0")?;
        stays_up("nothing is known")
    })();
    scene.kafka.restore()?;
    held?;
    scene.wait_until_wanted(0, true)?;
    // It does not wake a workload at zero either, until there is a message.
    scene.kafka.stop_all()?;
    let held = wait_until_reported("lagwise_cluster_up{cluster=\"main\"} 0")
        .and_then(|()| daemon.wait_for_sweeps(4))
        .and_then(|()| scene.wanted());
    scene.kafka.restore()?;
    ensure!(held? == 0, "woken by an outage");
    scene.kafka.produce(&scene.topic, 1, 1)?;
    scene.wait_until_wanted(1, false)
}
