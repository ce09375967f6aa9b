//! Transaction markers that a sleeping workload has left unread.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{COOLDOWN, Scene, WITHIN};
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;

/// Longer than it takes to learn that a group has no members any more.
const ASLEEP_FOR: Duration = Duration::from_secs(36);

/// A workload that reads transactions falls asleep, stays so, also over a restart of the daemon, and wakes with the next
/// transaction.
pub(crate) fn transaction_markers_do_not_wake_it(testbed: &Testbed) -> Result<()> {
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
    let mut until = |what: &str, is: &dyn Fn(i32) -> bool| {
        poll_until(WITHIN, what, || {
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
    until("the workload to fall asleep", &|now| {
        now == 0 && is_read() && scene.is_marked().is_ok_and(|is_marked| is_marked)
    })?;
    // 26 s after falling asleep the same markers woke it once.
    let asleep = series.values().len();
    daemon.let_it_look(u64::try_from(ASLEEP_FOR.as_millis() / 500)?)?;
    drop(api);
    daemon.process.stop(Duration::from_secs(10))?;
    drop(daemon);
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    daemon.let_it_look(20)?;
    ensure!(series.values().len() == asleep, "{:?}", series.timed());
    transact()?;
    until("the workload to wake", &|now| now > 0)?;
    until("the workload to fall asleep again", &|now| now == 0)?;
    println!("spec.replicas: {:?}", series.timed());
    Ok(())
}
