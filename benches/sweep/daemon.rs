//! What a whole daemon keeps in memory while it watches the workload.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::figures::{judge, resident_mb};
use crate::testbed::Testbed;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::{PARTITIONS, Workload};

/// Sweeps before it is weighed.
const POLLS: u32 = 20;

const INTERVAL: Duration = Duration::from_secs(1);

/// More than this W2 should not take.
const MOST_MB: f64 = 40.0;

/// Runs the daemon with a target for each group of the workload, then with an HPA for each, and prints what it weighs
/// before and after a scrape.
pub(crate) fn measure(testbed: &Testbed, workload: Workload, bootstrap: &str) -> Result<()> {
    weigh(testbed, workload, bootstrap, None)?;
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("sweep")?;
    let hpas: Vec<_> = workload.all().iter().map(hpa).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string();
    plane.kubectl_with_input(&["create", "--namespace", &namespace, "-f", "-"], &list)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    weigh(testbed, workload, bootstrap, Some(&kubeconfig))
}

fn weigh(
    testbed: &Testbed,
    workload: Workload,
    bootstrap: &str,
    kubeconfig: Option<&Path>,
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
            "http": {"listen": format!("127.0.0.1:{http_port}")},
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
    // Counting the polls would be a scrape.
    std::thread::sleep(INTERVAL * (POLLS + 1));
    let process = daemon.pid().to_string();
    let before = resident_mb(&process)?;
    let (_, metrics) = http_get(http_port, "/metrics")?;
    let complete = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("lagwise_polls_total{cluster=\"main\",outcome=\"complete\"} ")
        })
        .context("no poll was complete")?;
    println!("`lagwise run` with {watched} is weighed after {complete} complete polls");
    let partitions = metrics
        .lines()
        .filter(|line| line.starts_with("kafka_consumergroup_lag{"))
        .count();
    let expected = workload.group_partitions();
    ensure!(
        partitions == expected,
        "lag of {partitions} partitions, not of {expected} ({PARTITIONS} a topic)"
    );
    std::thread::sleep(INTERVAL * 2);
    judge(
        &format!("MB with {watched}, never scraped"),
        before,
        MOST_MB,
    );
    judge(
        &format!("MB with {watched}, after a scrape"),
        resident_mb(&process)?,
        MOST_MB,
    );
    daemon.stop(Duration::from_secs(10))?;
    Ok(())
}

/// The group and its topics as the configuration names them.
fn target((group, topics): &(String, Vec<String>)) -> Value {
    json!({"name": group, "group": group, "topics": topics})
}

/// An HPA on the lag of the group on each of these topics, for a Deployment that is not there.
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
