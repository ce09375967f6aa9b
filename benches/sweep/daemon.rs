//! What a whole daemon keeps in memory while it watches the workload.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

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

/// Runs the daemon on all groups of the workload, and prints what it weighs before and after a scrape.
pub(crate) fn measure(testbed: &Testbed, workload: Workload, bootstrap: &str) -> Result<()> {
    let targets: Vec<_> = workload
        .all()
        .into_iter()
        .map(|(group, topics)| json!({"name": group, "group": group, "topics": topics}))
        .collect();
    let http_port = free_port()?;
    let config = json!({
        "clusters": [{
            "name": "main",
            "client": "wire",
            "max_groups": workload.groups,
            "properties": {"bootstrap.servers": bootstrap},
        }],
        "targets": targets,
        "poll": {"interval": humantime::format_duration(INTERVAL).to_string()},
        "kubernetes": {"enabled": false},
        "server": {
            "external_metrics": {"auth": "none", "listen": format!("127.0.0.1:{}", free_port()?)},
            "http": {"listen": format!("127.0.0.1:{http_port}")},
        },
    });
    let folder = testbed.folder("daemon")?;
    let mut daemon = testbed.start_lagwise(&folder, &config.to_string(), None)?;
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
    ensure!(complete.parse::<u32>()? >= POLLS, "{complete} polls");
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
    judge("MB of `lagwise run`, never scraped", before, MOST_MB);
    judge(
        "MB of `lagwise run`, after a scrape",
        resident_mb(&process)?,
        MOST_MB,
    );
    daemon.stop(Duration::from_secs(10))?;
    Ok(())
}
