//! Residual lag of a workload at zero replicas: unread transaction markers, and commits that Kafka deletes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{COOLDOWN, Scene, WAIT_TIMEOUT};
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;

/// Longer than lagwise takes to notice that a group has no members any more.
const ASLEEP_FOR: Duration = Duration::from_secs(36);

/// A workload that reads transactions is scaled to zero, stays at zero, also over a restart of the daemon, and wakes
/// with the next transaction.
pub(crate) fn transaction_markers_do_not_wake_the_workload(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "markers")?;
    let file = testbed.folder("state")?.join("state.json");
    let options = Options {
        // Long enough for a consumer to read before its backlog is taken for a residue.
        lag: json!({"residual_after": "8s"}),
        state: json!({"file": file}),
        ..scene.options()
    };
    let transact = || {
        let transaction = scene.kafka.begin_transaction()?;
        transaction.produce(&scene.topic, 0, 3)?;
        transaction.produce(&scene.topic, 1, 3)?;
        transaction.commit()
    };
    transact()?;
    let (mut daemon, api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.apply(1, COOLDOWN)?;
    let series = ReplicaSeries::wanted(scene.plane, &scene.namespace, "billing")?;
    let mut fleet = scene.fleet(
        testbed,
        &scene.topic,
        &[
            ("isolation.level", "read_committed"),
            // So that the markers stay unread.
            ("enable.auto.commit", "false"),
        ],
    )?;
    let mut wait_until = |what: &str, is: &dyn Fn(i32) -> bool| {
        poll_until(WAIT_TIMEOUT, what, || {
            fleet.scale_to(usize::try_from(series.now()).unwrap_or(0))?;
            ensure!(is(series.now()), "{:?}", series.timed());
            Ok(())
        })
    };
    // All records are read, and the markers are left.
    let is_read = || {
        let committed = scene.kafka.committed(&scene.group, &scene.topic);
        committed.is_ok_and(|committed| committed[..2] == [Some(3); 2])
    };
    wait_until("the workload to be scaled to zero", &|now| {
        now == 0 && is_read() && scene.is_annotated().is_ok_and(|is_annotated| is_annotated)
    })?;
    // In an earlier version the same markers woke it after 26 s.
    let asleep = series.values().len();
    daemon.wait_for_sweeps(u64::try_from(ASLEEP_FOR.as_millis() / 500)?)?;
    drop(api);
    daemon.process.stop(Duration::from_secs(10))?;
    drop(daemon);
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    daemon.wait_for_sweeps(20)?;
    ensure!(series.values().len() == asleep, "{:?}", series.timed());
    transact()?;
    wait_until("the workload to wake", &|now| now > 0)?;
    wait_until("the workload to fall asleep again", &|now| now == 0)?;
    println!("spec.replicas: {:?}", series.timed());
    Ok(())
}

/// Kafka deletes the offsets of a group that is at zero replicas for long. Messages that it had read must not count as
/// unread then, also after `forget-after`. A new message still wakes it.
pub(crate) fn offsets_that_kafka_deleted_do_not_wake_the_workload(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "deleted")?;
    for partition in 0..2 {
        scene.kafka.produce_batch(&scene.topic, partition, 300)?;
    }
    scene.catch_up()?;
    let options = scene.options();
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.apply(1, COOLDOWN)?;
    let annotate = ["annotate", "hpa", "billing", "-n", &scene.namespace];
    let forget = [
        "lagwise.dev/forget-after=2s",
        "lagwise.dev/offset-reset=earliest",
    ];
    scene
        .plane
        .kubectl(&[&annotate[..], &forget[..]].concat())?;
    let series = ReplicaSeries::wanted(scene.plane, &scene.namespace, "billing")?;
    scene.wait_until_wanted(0, true)?;
    // The HPA reports that it has no replicas any more.
    poll_until(WAIT_TIMEOUT, "the HPA to see the zero", || {
        let hpa = scene.get("hpa")?;
        // Zero is left out.
        let current = hpa["status"]["currentReplicas"].as_i64().unwrap_or(0);
        ensure!(current == 0, "{}", hpa["status"]);
        Ok(())
    })?;
    let asleep = series.values().len();
    let delete = ["--delete-offsets", "--group", &scene.group, "--topic"];
    scene
        .kafka
        .consumer_groups_tool(&[&delete[..], &[&scene.topic]].concat())?;
    daemon.wait_for_sweeps(40)?;
    ensure!(series.values().len() == asleep, "{:?}", series.timed());
    scene.kafka.produce_batch(&scene.topic, 0, 250)?;
    poll_until(WAIT_TIMEOUT, "the workload to wake", || {
        ensure!(series.now() > 0, "{:?}", series.timed());
        Ok(())
    })
}
