//! Twenty HPAs on the live control plane: compares `lagwise explain`, and the model's prediction of every sync since
//! the HPA was created, with the log of the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lagwise::k8s::live_hpa::spec_of;
use lagwise::model::diagnostics::explain::Explanation;
use lagwise::model::hpa::controller::memory::Recommendations;
use lagwise::model::hpa::controller::stage::Verdict;
use lagwise::model::hpa::controller::{HpaSpec, MetricReading, ObservedScale};
use lagwise::model::units::quantity::Milli;
use serde_json::{Value, json};

use super::logged::{Sync, syncs_of};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, is_full_tier, unique};

const PARTITIONS: i32 = 12;
const RECORDS: i64 = 60;
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Commands that run at the same time.
const AT_ONCE: usize = 3;

/// How far the controller's own clock readings may be from the times it logs, where nothing is written in between.
const BLUR: Duration = Duration::from_millis(300);

/// Offsets that are committed on each partition, one phase after the other: no lag, some, much, little.
const COMMITTED: [i64; 4] = [60, 44, 11, 55];

/// One for every variant of `behavior`; with `--full` two, with another target each.
fn series_count() -> usize {
    if is_full_tier() { 20 } else { 10 }
}

struct One {
    name: String,
    group: String,
    spec: HpaSpec,
    /// The value that is served in each phase.
    values: Vec<Milli>,
    /// Explanations, and the number of syncs before each.
    explained: Vec<(usize, Explanation)>,
}

/// `behavior`, or none, and the lag wanted per replica. Windows and periods are no multiples of the sync period, so that
/// no sync falls on the edge of one.
fn variant(number: usize) -> (Option<Value>, &'static str) {
    let policy = |kind: &str, value: u32, period: u32| json!({"type": kind, "value": value, "periodSeconds": period});
    let rules = |tolerance: &str, window: u32, select: &str, policies: Vec<Value>| json!({"tolerance": tolerance, "stabilizationWindowSeconds": window, "selectPolicy": select, "policies": policies});
    let swift = || rules("0", 0, "Max", vec![policy("Percent", 900, 1)]);
    let (up, down) = match number % 10 {
        0 => return (None, "60"),
        1 => return (Some(json!({})), "31"),
        2 => (swift(), swift_down("0", 0)),
        3 => (
            rules("0", 0, "Max", vec![policy("Pods", 2, 3)]),
            swift_down("0", 5),
        ),
        4 => (
            rules(
                "100m",
                0,
                "Min",
                vec![policy("Pods", 3, 5), policy("Percent", 50, 7)],
            ),
            swift_down("100m", 3),
        ),
        5 => (
            rules("50m", 5, "Max", vec![policy("Percent", 100, 3)]),
            swift_down("50m", 7),
        ),
        6 => (swift(), rules("0", 0, "Max", vec![policy("Pods", 1, 3)])),
        7 => (
            swift(),
            rules(
                "0",
                3,
                "Min",
                vec![policy("Pods", 2, 5), policy("Percent", 40, 9)],
            ),
        ),
        8 => (
            swift(),
            rules("0", 0, "Disabled", vec![policy("Pods", 2, 5)]),
        ),
        _ => (
            rules("300m", 3, "Max", vec![policy("Pods", 5, 9)]),
            swift_down("300m", 0),
        ),
    };
    let per_replica = ["17", "50", "33", "100"][number / 10 + number % 3];
    (Some(json!({"scaleUp": up, "scaleDown": down})), per_replica)
}

fn swift_down(tolerance: &str, window: u32) -> Value {
    json!({"tolerance": tolerance, "stabilizationWindowSeconds": window,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]})
}

pub(super) fn the_explanation_matches_the_live_controller(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("explain")?;
    let topic = unique("orders");
    kafka.create_topic(&topic, PARTITIONS)?;
    let records = usize::try_from(RECORDS)?;
    let all: Vec<_> = (0..PARTITIONS)
        .map(|partition| (partition, records))
        .collect();
    kafka.produce_to(&topic, &all)?;
    let mut series = Vec::new();
    for number in 0..series_count() {
        let (name, group) = (format!("billing-{number}"), unique("billing"));
        commit(testbed, &group, &topic, COMMITTED[0])?;
        let mut list: Value =
            serde_json::from_str(&workload(&name, &[("group", &group), ("topic", &topic)]))?;
        let hpa = &mut list["items"][1];
        let (behavior, per_replica) = variant(number);
        hpa["spec"]["behavior"] = behavior.unwrap_or(Value::Null);
        hpa["spec"]["metrics"][0]["external"]["target"]["averageValue"] = json!(per_replica);
        let spec = spec_of(&serde_json::from_value(hpa.clone())?);
        series.push((
            One {
                name,
                group,
                spec,
                values: Vec::new(),
                explained: Vec::new(),
            },
            list,
        ));
    }
    let (daemon, _api) = Daemon::registered(
        testbed,
        plane,
        &namespace,
        &Options::main(&kafka.bootstrap()),
    )?;
    for (_, list) in &series {
        plane.apply(&namespace, &list.to_string())?;
    }
    let mut series: Vec<One> = series.into_iter().map(|(one, _)| one).collect();
    for committed in COMMITTED {
        for one in &series {
            commit(testbed, &one.group, &topic, committed)?;
        }
        let lag = u64::try_from((RECORDS - committed) * i64::from(PARTITIONS))?;
        explain_all(&mut series, |one| {
            explain(testbed, plane, &daemon, &namespace, lag, one)
        })?;
        let before = syncs_of(&plane.controllers_log(), &namespace);
        poll_until(WAIT_TIMEOUT, "four syncs of every HPA", || {
            let now = syncs_of(&plane.controllers_log(), &namespace);
            for one in &series {
                let count =
                    |all: &BTreeMap<String, Vec<Sync>>| all.get(&one.name).map_or(0, Vec::len);
                ensure!(
                    count(&now) >= count(&before) + 4,
                    "{}: {}",
                    one.name,
                    count(&now)
                );
            }
            Ok(())
        })?;
    }
    let decided = syncs_of(&plane.controllers_log(), &namespace);
    check(&series, &decided)?;
    by_a_single_reading(testbed, plane, &namespace, &topic, &series[4])
}

/// Without a daemon the command gives the same result, for the HPA and for its group, and reports unknown subjects.
fn by_a_single_reading(
    testbed: &Testbed,
    plane: &ControlPlane,
    namespace: &str,
    topic: &str,
    one: &One,
) -> Result<()> {
    let cluster =
        json!({"name": "main", "properties": {"bootstrap.servers": testbed.kafka()?.bootstrap()}});
    let config = testbed.folder("explain")?.join("lagwise.yaml");
    // The group is read for this topic anyway.
    let target = json!({"name": "explained", "group": one.group, "topics": [topic]});
    let text = json!({"clusters": [cluster], "targets": [target]}).to_string();
    std::fs::write(&config, text)?;
    let (config, kubeconfig) = (
        config.display().to_string(),
        plane.kubeconfig().display().to_string(),
    );
    let run = |what: &[&str]| {
        let rest = [
            "--config",
            &config,
            "--kubeconfig",
            &kubeconfig,
            "--timeout",
            "60s",
        ];
        testbed
            .lagwise(&[&["explain"], what, &rest].concat())
            .output()
    };
    let hpa = format!("{namespace}/{}", one.name);
    let output = run(&[&hpa, "-o", "json"])?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let explained: Explanation = serde_json::from_slice(&output.stdout)?;
    let (_, last) = one.explained.last().context("nothing explained")?;
    let (here, there) = (&explained.metrics[0], &last.metrics[0]);
    ensure!(
        (&here.value, &here.rule, here.lag, here.ceiling)
            == (&there.value, &there.rule, there.lag, there.ceiling),
        "{here:#?} {there:#?}"
    );
    let verdict = format!("HPA {hpa} ");
    ensure!(
        explained.verdict.starts_with(&verdict),
        "{}",
        explained.verdict
    );
    ensure!(
        explained
            .outcome
            .is_some_and(|outcome| outcome.next.is_some())
    );
    let group = run(&["--group", &one.group, "-o", "yaml"])?;
    let yaml = String::from_utf8(group.stdout)?;
    ensure!(
        group.status.success() && yaml.contains("ceiling: 12"),
        "{yaml}"
    );
    println!("{}", String::from_utf8_lossy(&run(&[&hpa])?.stdout));
    for (what, problem) in [
        (&[&*format!("{namespace}/nothing")][..], "does not exist"),
        (
            &["--group", "g", "--cluster", "other"],
            "not in the configuration",
        ),
    ] {
        let refused = run(what)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && said.contains(problem),
            "{said}"
        );
    }
    Ok(())
}

fn commit(testbed: &Testbed, group: &str, topic: &str, offset: i64) -> Result<()> {
    let offsets: Vec<_> = (0..PARTITIONS)
        .map(|partition| (partition, offset))
        .collect();
    testbed.kafka()?.commit(group, topic, &offsets)
}

/// Explains several at a time, because each waits for a sync of its HPA. More at a time would take longer than the time
/// between two syncs.
fn explain_all(
    series: &mut [One],
    explain: impl Fn(&mut One) -> Result<()> + std::marker::Sync,
) -> Result<()> {
    let (each, explain) = (series.len().div_ceil(AT_ONCE), &explain);
    std::thread::scope(|scope| {
        let parts = series.chunks_mut(each);
        let running: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter_mut().try_for_each(explain)))
            .collect();
        running.into_iter().try_for_each(|part| {
            let ended = part.join();
            ended.map_err(|_| anyhow!("explaining panicked"))?
        })
    })
}

/// The explanation once the daemon has read that lag, with no sync of the HPA in between.
fn explain(
    testbed: &Testbed,
    plane: &ControlPlane,
    daemon: &Daemon,
    namespace: &str,
    lag: u64,
    one: &mut One,
) -> Result<()> {
    let hpa = format!("{namespace}/{}", one.name);
    let (url, kubeconfig) = (
        format!("http://127.0.0.1:{}", daemon.admin_port),
        plane.kubeconfig().display().to_string(),
    );
    let count = || {
        syncs_of(&plane.controllers_log(), namespace)
            .get(&one.name)
            .map_or(0, Vec::len)
    };
    let found = poll_until(WAIT_TIMEOUT, &format!("{hpa} to be explained"), || {
        // Right after a sync there is the most time until the next.
        let seen = count();
        poll_until(WAIT_TIMEOUT, "a sync", || {
            ensure!(count() > seen, "{seen} so far");
            Ok(())
        })?;
        let before = count();
        let args = [
            "explain",
            &hpa,
            "--daemon",
            &url,
            "--kubeconfig",
            &kubeconfig,
            "-o",
            "json",
        ];
        let run = testbed.lagwise(&args).output()?;
        let stdout = String::from_utf8_lossy(&run.stdout).into_owned();
        let explained: Explanation = serde_json::from_str(&stdout)
            .with_context(|| format!("{stdout}{}", String::from_utf8_lossy(&run.stderr)))?;
        let outcome = explained.outcome.as_ref().context("no outcome")?;
        ensure!(
            explained.metrics[0].lag == Some(lag),
            "lag {:?}",
            explained.metrics[0].lag
        );
        ensure!(
            outcome.spec_replicas == outcome.status_replicas,
            "its pods are not all there"
        );
        ensure!(before > 0 && count() == before, "a sync came in between");
        Ok((before, explained))
    })?;
    let value = found.1.metrics[0].value;
    one.values.push(value.context("no value")?);
    one.explained.push(found);
    Ok(())
}

fn check(series: &[One], decided: &BTreeMap<String, Vec<Sync>>) -> Result<()> {
    let (mut syncs, mut moved, mut blurred, mut exact) = (0, 0, 0, 0);
    let mut sizes = BTreeSet::new();
    for one in series {
        let all = decided.get(&one.name).context("no syncs")?;
        for (count, explained) in &one.explained {
            let outcome = explained.outcome.as_ref().context("no outcome")?;
            let next = all.get(*count).context("no sync after it was explained")?;
            let shown = || format!("{}, sync {count}: {next:?}\n{outcome:#?}", one.name);
            ensure!(!next.failed, "{}", shown());
            ensure!(
                next.stage == outcome.metric_stage_replicas,
                "metric stage of {}",
                shown()
            );
            let (low, high) = outcome.next.context("no range")?;
            let after = next
                .after
                .or(outcome.spec_replicas)
                .context("no replicas")?;
            ensure!((low..=high).contains(&after), "{after} of {}", shown());
            ensure!(
                low == high || !outcome.because.is_empty(),
                "no reason in {}",
                shown()
            );
            exact += usize::from(low == high);
        }
        let replayed = replay(one, all).with_context(|| one.name.clone())?;
        syncs += all.len();
        moved += replayed.moved;
        blurred += replayed.blurred;
        sizes.extend(all.iter().filter_map(|sync| sync.after));
    }
    let readings: usize = series.iter().map(|one| one.explained.len()).sum();
    println!(
        "{syncs} syncs replayed, {moved} moved replicas, {blurred} near an edge of time; {readings} explained, {exact} of them exactly"
    );
    ensure!(
        readings == series_count() * COMMITTED.len() && moved >= series_count() * 2,
        "too little happened"
    );
    ensure!(blurred * 10 < syncs, "{blurred} of {syncs} near an edge");
    ensure!(sizes.len() > 6, "only {sizes:?}");
    Ok(())
}

#[derive(Default)]
struct Replayed {
    moved: usize,
    blurred: usize,
}

/// The model, from the HPA's first sync on.
fn replay(one: &One, all: &[Sync]) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    // Possible states of the controller's memory: it records the time when a change is written, which is between the
    // logged times.
    let mut memories = vec![Recommendations::default()];
    let (mut current, mut before, mut phase) = (1, 1, 0);
    for (number, sync) in all.iter().enumerate() {
        let seen = |status: u32, phase: usize| ObservedScale {
            spec_replicas: current,
            status_replicas: status,
            pods: None,
            readings: vec![match sync.failed {
                true => MetricReading::Failed,
                false => MetricReading::Value(one.values[phase]),
            }],
            scaled_to_zero: false,
        };
        // The value is a later phase's from some sync on, and the pods follow soon after a change.
        let mut candidates =
            (phase..one.values.len()).flat_map(|phase| [(current, phase), (before, phase)]);
        let wants = |(status, phase): &(u32, usize)| {
            let result =
                Recommendations::default().sync(&one.spec, &seen(*status, *phase), Duration::ZERO);
            match result.verdict {
                Some(Verdict::Wants { replicas, .. }) => Some(replicas) == sync.stage,
                _ => sync.failed,
            }
        };
        let shown = || {
            format!(
                "sync {number} at {current} in phase {phase}: {sync:?} of {all:#?}\n{:?} {:?}",
                one.spec, one.values
            )
        };
        let (status, found) = candidates
            .find(wants)
            .with_context(|| format!("metric stage: {}", shown()))?;
        let after = sync.after.unwrap_or(current);
        let fitting = |times: &[Duration]| {
            let mut kept: Vec<Recommendations> = Vec::new();
            for (memory, now) in memories
                .iter()
                .flat_map(|m| times.iter().map(move |now| (m, *now)))
            {
                let mut memory = memory.clone();
                let decided = memory.sync(&one.spec, &seen(status, found), now);
                if decided.replicas == Some(after) && !kept.contains(&memory) {
                    kept.push(memory);
                }
            }
            kept
        };
        let mut kept = fitting(&[sync.at, sync.done]);
        if kept.is_empty() {
            // The clock is read a little after the line is logged.
            replayed.blurred += 1;
            kept = fitting(&[sync.at + BLUR]);
        }
        ensure!(!kept.is_empty(), "replicas: {}", shown());
        memories = kept;
        replayed.moved += usize::from(after != current);
        (before, phase) = (current, found);
        current = after;
    }
    Ok(replayed)
}
