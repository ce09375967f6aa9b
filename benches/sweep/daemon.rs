//! CPU time and resident memory of a whole daemon that watches the workload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::figures::{Bounds, cpu, resident_mb, resident_mb_of_files};
use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::traffic::GroupTraffic;
use crate::{PARTITIONS, Workload};

/// Sweeps before and during the measurement of CPU time.
const WARM_UP_POLLS: u32 = 10;
const POLLS: u32 = 30;

const INTERVAL: Duration = Duration::from_secs(1);

/// Scrapes between the two measurements of memory.
const SCRAPES: u32 = 5;

/// Maximum resident memory on W2.
const MAX_MB: f64 = 45.0;

/// Maximum memory that scrapes leave behind.
const MAX_SCRAPES_MB: f64 = 2.0;

/// Maximum CPU time of a sweep, in raw exchanges.
const MAX_CPU: f64 = 4.0;

/// Sweeps before CPU time is measured where groups have a policy: it needs 40 s of consumption, and a minute of
/// messages for the shares of partitions.
const WARM_UP_POLLS_OF_POLICIES: u32 = 90;

/// Maximum CPU time of a sweep with every group under the rate policy, in that of a sweep without.
const MAX_POLICY: f64 = 1.3;

/// Runs the daemon with a target for each group of the workload, then with an HPA for each, and prints its CPU time
/// per sweep and its resident memory before and after scrapes.
pub(crate) fn measure(
    testbed: &Testbed,
    workload: Workload,
    bootstrap: &str,
    limit_cpu_ms: Option<f64>,
    bounds: &mut Bounds,
) -> Result<()> {
    weigh(testbed, workload, bootstrap, limit_cpu_ms, None, bounds)?;
    let kubeconfig = create_hpas(testbed, workload, hpa_on_lag)?;
    weigh(
        testbed,
        workload,
        bootstrap,
        limit_cpu_ms,
        Some(&kubeconfig),
        bounds,
    )
}

/// Runs the daemon with an HPA on the replicas of each group, which have members and messages: without a policy, and
/// then with all groups under the rate policy. Prints the CPU time of a sweep of both.
pub(crate) fn compare_policies(
    testbed: &Testbed,
    workload: Workload,
    (bootstrap, traffic): (&str, &GroupTraffic),
    polls: u32,
    bounds: &mut Bounds,
) -> Result<()> {
    let kubeconfig = create_hpas(testbed, workload, hpa_on_replicas)?;
    let mut spent = BTreeMap::new();
    for policy in ["lag", "rate"] {
        let config = json!({"policy": {"default": policy}});
        let (mut daemon, http_port) =
            start_daemon(testbed, workload, bootstrap, config, Some(&kubeconfig))?;
        std::thread::sleep(INTERVAL * WARM_UP_POLLS_OF_POLICIES);
        let before = traffic.rounds();
        let each = measure_cpu(&daemon, polls)?;
        let rounds = traffic.rounds() - before;
        let (_, metrics) = http_get(http_port, "/metrics")?;
        let rules = count_rules(&metrics);
        let decided: usize = rules.values().sum();
        println!(
            "`lagwise run` under {policy}: {each:.1} ms of CPU in each of {polls} sweeps, with {rounds} rounds of messages; groups by the rule that decided: {rules:?}"
        );
        let expected = if policy == "rate" { workload.groups } else { 0 };
        ensure!(
            decided == expected,
            "the rate policy decides about {decided} groups, not about {expected}"
        );
        ensure!(
            rounds >= polls / 2,
            "messages were written too slowly for the sweeps to find new ones"
        );
        spent.insert(policy, each);
        daemon.stop(Duration::from_secs(10))?;
    }
    bounds.check(
        "CPU of a sweep under rate, in that under lag",
        spent["rate"] / spent["lag"],
        MAX_POLICY,
    );
    Ok(())
}

/// Groups by the rule of the rate policy that decided about them.
fn count_rules(metrics: &str) -> BTreeMap<&str, usize> {
    let mut rules = BTreeMap::new();
    for line in metrics.lines() {
        if line.starts_with("lagwise_target_rate_replicas{")
            && let Some((_, rest)) = line.split_once("rule=\"")
            && let Some((rule, _)) = rest.split_once('"')
        {
            *rules.entry(rule).or_default() += 1;
        }
    }
    rules
}

/// Creates an HPA for each group, and waits for the first write of the HPA controller to each. Returns a kubeconfig for
/// the daemon.
fn create_hpas(
    testbed: &Testbed,
    workload: Workload,
    hpa: impl Fn(&(String, Vec<String>)) -> Value,
) -> Result<PathBuf> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("sweep")?;
    let hpas: Vec<_> = workload.all().iter().map(hpa).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string();
    plane.kubectl_with_input(&["create", "--namespace", &namespace, "-f", "-"], &list)?;
    wait_for_statuses(plane, &namespace)?;
    plane.daemon_kubeconfig(&namespace)
}

/// Waits until the HPA controller has written the first status of each HPA, so that these changes do not count as cost
/// of sweeps.
fn wait_for_statuses(plane: &ControlPlane, namespace: &str) -> Result<()> {
    let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
    poll_until(Duration::from_secs(120), "a status of each HPA", || {
        let found = plane.get_raw(&path)?;
        let all = found["items"].as_array().context("no HPAs")?;
        let has_none = |hpa: &&Value| hpa["status"]["conditions"].is_null();
        let missing = all.iter().filter(has_none).count();
        ensure!(missing == 0, "{missing} of {} have none", all.len());
        Ok(())
    })
}

/// Starts the daemon with this configuration in addition to the common one, and waits until it is ready. Returns it
/// with the port of its metrics.
fn start_daemon(
    testbed: &Testbed,
    workload: Workload,
    bootstrap: &str,
    mut config: Value,
    kubeconfig: Option<&Path>,
) -> Result<(Process, u16)> {
    let http_port = free_port()?;
    config["kubernetes"] = json!({"enabled": kubeconfig.is_some()});
    config["clusters"] = json!([{
        "name": "main",
        "client": "wire",
        "max_groups": workload.groups,
        "properties": {"bootstrap.servers": bootstrap},
    }]);
    config["poll"] = json!({"interval": humantime::format_duration(INTERVAL).to_string()});
    config["server"] = json!({
        "external_metrics": {"auth": "none", "listen": format!("127.0.0.1:{}", free_port()?)},
        "metrics": {"listen": format!("127.0.0.1:{http_port}")},
        "probes": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
    });
    let folder = testbed.folder("daemon")?;
    let mut daemon = testbed.start_lagwise(&folder, &config.to_string(), kubeconfig)?;
    poll_until(Duration::from_secs(60), "lagwise to be ready", || {
        daemon.expect_running()?;
        let (code, body) = http_get(http_port, "/readyz")?;
        ensure!(code == 200, "{code}: {body}");
        Ok(())
    })?;
    Ok((daemon, http_port))
}

/// CPU time of a sweep in milliseconds: the mean of the next ones.
fn measure_cpu(daemon: &Process, polls: u32) -> Result<f64> {
    let process = daemon.pid().to_string();
    let began = cpu(&process)?;
    std::thread::sleep(INTERVAL * polls);
    let spent = cpu(&process)?.saturating_sub(began) / polls;
    Ok(spent.as_secs_f64() * 1000.0)
}

fn weigh(
    testbed: &Testbed,
    workload: Workload,
    bootstrap: &str,
    limit_cpu_ms: Option<f64>,
    kubeconfig: Option<&Path>,
    bounds: &mut Bounds,
) -> Result<()> {
    let watched = if kubeconfig.is_some() {
        "HPAs"
    } else {
        "targets"
    };
    let all = workload.all();
    let targets = all.iter().filter(|_| kubeconfig.is_none());
    let targets: Vec<_> = targets.map(target).collect();
    let config = json!({"targets": targets});
    let (mut daemon, http_port) = start_daemon(testbed, workload, bootstrap, config, kubeconfig)?;
    // By time, because reading the number of polls would be a scrape.
    std::thread::sleep(INTERVAL * WARM_UP_POLLS);
    let spent = measure_cpu(&daemon, POLLS)?;
    let process = daemon.pid().to_string();
    let before = resident_mb(&process)?;
    let of_files = resident_mb_of_files(&process)?;
    let (_, metrics) = http_get(http_port, "/metrics")?;
    let complete = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("lagwise_polls_total{cluster=\"main\",outcome=\"complete\"} ")
        })
        .context("no poll was complete")?;
    println!(
        "`lagwise run` with {watched}, after {complete} complete polls: {spent:.1} ms of CPU a sweep"
    );
    if let Some(limit) = limit_cpu_ms {
        bounds.check("CPU time of a sweep, in limits", spent / limit, MAX_CPU);
    }
    let partitions = metrics
        .lines()
        .filter(|line| line.starts_with("kafka_consumergroup_lag{"))
        .count();
    let expected = workload.group_partitions();
    ensure!(
        partitions == expected,
        "lag of {partitions} partitions, not of {expected} ({PARTITIONS} a topic)"
    );
    for _ in 1..SCRAPES {
        http_get(http_port, "/metrics")?;
    }
    std::thread::sleep(INTERVAL * 2);
    let grown = resident_mb(&process)? - before;
    bounds.check(&format!("MB with {watched}"), before, MAX_MB);
    println!("Of these, {of_files:.1} MB are pages of the binary and of libraries.");
    bounds.check(
        &format!("MB more after {SCRAPES} scrapes"),
        grown,
        MAX_SCRAPES_MB,
    );
    daemon.stop(Duration::from_secs(10))?;
    Ok(())
}

/// Configured target for a group on its topics.
fn target((group, topics): &(String, Vec<String>)) -> Value {
    json!({"name": group, "group": group, "topics": topics})
}

/// An HPA on the lag of the group on each of its topics, for a Deployment that does not exist.
fn hpa_on_lag((group, topics): &(String, Vec<String>)) -> Value {
    let metric =
        |topic: &String| metric("kafka_lag", &json!({"group": group, "topic": topic}), "100");
    hpa(
        group,
        &json!({"name": group}),
        topics.iter().map(metric).collect(),
    )
}

/// An HPA on the replicas that the group needs, for a Deployment that does not exist.
fn hpa_on_replicas((group, _): &(String, Vec<String>)) -> Value {
    let annotations = json!({"lagwise.dev/lag-per-replica": "100"});
    let metadata = json!({"name": group, "annotations": annotations});
    let metric = metric("kafka_desired_replicas", &json!({"group": group}), "1");
    hpa(group, &metadata, vec![metric])
}

fn metric(name: &str, labels: &Value, target: &str) -> Value {
    json!({
        "type": "External",
        "external": {
            "metric": {"name": name, "selector": {"matchLabels": labels}},
            "target": {"type": "AverageValue", "averageValue": target},
        },
    })
}

fn hpa(deployment: &str, metadata: &Value, metrics: Vec<Value>) -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
            "maxReplicas": 100,
            "metrics": metrics,
        },
    })
}
