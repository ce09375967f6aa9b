//! CPU time and resident memory of a whole daemon that watches the workload.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::figures::{Bounds, cpu, resident_mb};
use crate::testbed::Testbed;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::{PARTITIONS, Workload};

/// Sweeps before and during the measurement of CPU time.
const WARM_UP_POLLS: u32 = 10;
const POLLS: u32 = 30;

const INTERVAL: Duration = Duration::from_secs(1);

/// Scrapes between the two measurements of memory.
const SCRAPES: u32 = 5;

/// Bound of resident memory on W2.
const MAX_MB: f64 = 45.0;

/// Bound of what scrapes leave behind.
const MAX_SCRAPES_MB: f64 = 2.0;

/// Bound of the CPU time of a sweep, in raw exchanges.
const MAX_CPU: f64 = 4.0;

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
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("sweep")?;
    let hpas: Vec<_> = workload.all().iter().map(hpa).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string();
    plane.kubectl_with_input(&["create", "--namespace", &namespace, "-f", "-"], &list)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    weigh(
        testbed,
        workload,
        bootstrap,
        limit_cpu_ms,
        Some(&kubeconfig),
        bounds,
    )
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
    let http_port = free_port()?;
    let config = json!({
        "kubernetes": {"enabled": kubeconfig.is_some()},
        "targets": targets,
        "clusters": [{
            "name": "main",
            "client": "wire",
            "max_groups": workload.groups,
            "properties": {"bootstrap.servers": bootstrap},
        }],
        "poll": {"interval": humantime::format_duration(INTERVAL).to_string()},
        "server": {
            "external_metrics": {"auth": "none", "listen": format!("127.0.0.1:{}", free_port()?)},
            "metrics": {"listen": format!("127.0.0.1:{http_port}")},
            "probes": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
        },
    });
    let folder = testbed.folder("daemon")?;
    let mut daemon = testbed.start_lagwise(&folder, &config.to_string(), kubeconfig)?;
    poll_until(Duration::from_secs(60), "lagwise to be ready", || {
        daemon.expect_running()?;
        let (code, body) = http_get(http_port, "/readyz")?;
        ensure!(code == 200, "{code}: {body}");
        Ok(())
    })?;
    // By time, because reading the number of polls would be a scrape.
    std::thread::sleep(INTERVAL * WARM_UP_POLLS);
    let process = daemon.pid().to_string();
    let began_cpu = cpu(&process)?;
    std::thread::sleep(INTERVAL * POLLS);
    let spent = (cpu(&process)?.saturating_sub(began_cpu) / POLLS).as_secs_f64() * 1000.0;
    let before = resident_mb(&process)?;
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
fn hpa((group, topics): &(String, Vec<String>)) -> Value {
    let metric = |topic: &String| {
        json!({
            "type": "External",
            "external": {
                "metric": {
                    "name": "kafka_lag",
                    "selector": {"matchLabels": {"group": group, "topic": topic}},
                },
                "target": {"type": "AverageValue", "averageValue": "100"},
            },
        })
    };
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": group},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group},
            "maxReplicas": 100,
            "metrics": topics.iter().map(metric).collect::<Vec<_>>(),
        },
    })
}
