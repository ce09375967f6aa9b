//! CPU time for capping many HPAs at once: the watch returns each write of the daemon, which must not make it process
//! all HPAs again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Scene};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

const FEW: u32 = 300;
const MANY: u32 = 1500;

/// Groups of these HPAs.
const GROUPS: u32 = 20;

/// Factor by which the CPU time for each HPA may be larger if there are many.
const FACTOR: u32 = 2;

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

pub(super) fn cost_the_same_each(testbed: &Testbed) -> Result<()> {
    let few = cost_per_hpa(testbed, FEW)?;
    let many = cost_per_hpa(testbed, MANY)?;
    println!(
        "CPU time per HPA: {few:?} with {FEW}, {many:?} with {MANY}, {:.2} times as much (limit {FACTOR})",
        many.as_secs_f64() / few.as_secs_f64()
    );
    ensure!(many <= few * FACTOR, "{many:?}, and {few:?} with few");
    Ok(())
}

/// The daemon's CPU time for each HPA, when this number of HPAs is switched to enforcement.
fn cost_per_hpa(testbed: &Testbed, count: u32) -> Result<Duration> {
    let scene = Scene::set(testbed, "many", PARTITIONS)?;
    let (plane, namespace, prefix) = (scene.plane, &scene.namespace, unique("many"));
    let zeros: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    for number in 0..GROUPS {
        let group = format!("{prefix}-{number}");
        scene.kafka.commit(&group, &scene.topic, &zeros)?;
    }
    let hpas: Vec<Value> = (0..count)
        .map(|i| hpa(&scene, &prefix, i))
        .collect::<Result<_>>()?;
    for some in hpas.chunks(250) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": some}).to_string();
        plane.kubectl_with_input(&["create", "-n", namespace, "-f", "-"], &list)?;
    }
    let options = Options {
        namespaces: vec![namespace.clone()],
        // Sweeps of all groups, which take their time whether anything is written or not.
        interval: "3s",
        ..Options::main(&scene.kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, namespace, &options)?;
    poll_until(WAIT_TIMEOUT, "a ceiling for each HPA", || {
        let known = ceilings(&daemon)?;
        ensure!(known == count, "{known} of {count}");
        Ok(())
    })?;
    let idle = idle(&daemon)?;
    let (begun, before) = (Instant::now(), daemon.process.cpu()?);
    let switch = ["lagwise.dev/cap=enforce", "-n", namespace];
    plane.kubectl(&[&["annotate", "hpa", "--all"], &switch[..]].concat())?;
    let annotated = begun.elapsed();
    poll_until(WAIT_TIMEOUT, "each HPA to be capped", || {
        let written = written(&daemon)?;
        ensure!(written >= count, "{written} of {count}");
        Ok(())
    })?;
    let (took, used) = (begun.elapsed(), daemon.process.cpu()? - before);
    let capped = capped(&scene)?;
    ensure!(capped == count as usize, "{capped} of {count} are capped");
    println!(
        "{count} HPAs: annotated in {annotated:.1?}, capped in {took:.1?} with {used:.1?} of CPU; before, {idle:.3} s of CPU in each second"
    );
    Ok(used / count)
}

/// An HPA of one of the groups.
fn hpa(scene: &Scene<'_>, prefix: &str, number: u32) -> Result<Value> {
    let (name, group) = (
        format!("{prefix}-{number}"),
        format!("{prefix}-{}", number % GROUPS),
    );
    let selector = [("group", &*group), ("topic", &*scene.topic)];
    let mut list: Value = serde_json::from_str(&workload(&name, &selector))?;
    Ok(list["items"][1].take())
}

/// Number of known ceilings.
fn ceilings(daemon: &Daemon) -> Result<u32> {
    let metrics = daemon.metrics()?;
    let ceilings = metrics
        .lines()
        .filter(|line| line.starts_with("lagwise_target_ceiling{"));
    Ok(u32::try_from(ceilings.count())?)
}

fn written(daemon: &Daemon) -> Result<u32> {
    let metrics = daemon.metrics()?;
    let family = "lagwise_cap_writes_total{outcome=\"written\"} ";
    let mut lines = metrics.lines();
    let written = lines.find_map(|line| line.strip_prefix(family));
    Ok(written.map_or(Ok(0), str::parse)?)
}

/// Number of HPAs whose maximum is the ceiling.
fn capped(scene: &Scene<'_>) -> Result<usize> {
    let list = scene.kubectl(&["get", "hpa", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let hpas = list["items"].as_array().context("no list")?;
    let capped = hpas
        .iter()
        .filter(|hpa| hpa["spec"]["maxReplicas"] == PARTITIONS);
    Ok(capped.count())
}

/// The seconds of CPU time that the daemon uses in each second while nothing changes.
fn idle(daemon: &Daemon) -> Result<f64> {
    let (begun, before) = (Instant::now(), daemon.process.cpu()?);
    daemon.wait_for_sweeps(3)?;
    let used = daemon.process.cpu()? - before;
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64())
}
