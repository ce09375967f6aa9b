//! State that survives a restart of the daemon, in a file and in a ConfigMap.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::k8s::state_config_map::StateConfigMap;
use lagwise::persistence::location::StateLocation;
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "state::a_deleted_commit_is_remembered_after_a_restart",
        a_deleted_commit_is_remembered_after_a_restart,
    ),
    (
        "state::lag_in_seconds_is_true_after_a_restart",
        lag_in_seconds_is_true_after_a_restart,
    ),
    (
        "state::a_config_map_stores_the_state",
        a_config_map_stores_the_state,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The commits are deleted while the daemon is down, so that it knows them only from its state file.
fn a_deleted_commit_is_remembered_after_a_restart(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 9)?;
    kafka.commit(&group, &topic, &[(0, 2)])?;
    let file = testbed.folder("state")?.join("state.json");
    let options = Options {
        targets: vec![json!({"name": "kept", "group": group, "topics": [topic]})],
        state: json!({"file": file}),
        ..Options::main(&kafka.bootstrap())
    };
    let labels = format!("{{cluster=\"main\",consumergroup=\"{group}\",topic=\"{topic}\"");
    let shows = |daemon: &Daemon, rule: &str| {
        poll_until(WAIT_TIMEOUT, &format!("a lag that is {rule}"), || {
            let metrics = daemon.metrics()?;
            let line = format!("lagwise_consumergroup_partitions{labels},rule=\"{rule}\"}} 1");
            ensure!(metrics.contains(&line), "no {line}");
            let line = format!("kafka_consumergroup_lag_sum{labels}}} 7");
            ensure!(metrics.contains(&line), "no {line}");
            Ok(())
        })
    };
    let mut daemon = Daemon::alone(testbed, &options)?;
    shows(&daemon, "measured")?;
    daemon.process.stop(Duration::from_secs(10))?;
    drop(daemon);
    ensure!(file.exists(), "no state was saved");
    kafka.consumer_groups_tool(&["--delete-offsets", "--group", &group, "--topic", &topic])?;
    shows(&Daemon::alone(testbed, &options)?, "forgotten")
}

/// The age of the oldest unread message, of a daemon without a saved state and of one that restarts with its state. In
/// an earlier version a new message was ten minutes old after each start, until the backlog had been read.
fn lag_in_seconds_is_true_after_a_restart(testbed: &Testbed) -> Result<()> {
    const MINUTE: Duration = Duration::from_secs(60);
    let kafka = testbed.kafka()?;
    let (new, old, group) = (unique("topic"), unique("topic"), unique("group"));
    kafka.create_topics(&[&new, &old], 1)?;
    let (hour, now) = (60 * MINUTE, Duration::ZERO);
    let produced = Instant::now();
    kafka.produce_at(&new, 0, &[hour, hour, now])?;
    kafka.produce_at(&old, 0, &[hour * 30, 20 * MINUTE, 20 * MINUTE, now])?;
    // The group has read the old messages of the first topic, and the oldest of the second.
    kafka.commit(&group, &new, &[(0, 2)])?;
    kafka.commit(&group, &old, &[(0, 1)])?;
    let file = json!({"file": testbed.folder("state")?.join("state.json")});
    for state in [json!({}), file.clone(), file] {
        let options = Options {
            targets: vec![json!({"name": "aged", "group": group, "topics": [new, old]})],
            state,
            ..Options::main(&kafka.bootstrap())
        };
        let mut daemon = Daemon::alone(testbed, &options)?;
        for (topic, age_at_first) in [(&new, now), (&old, 20 * MINUTE)] {
            let labels =
                format!("{{cluster=\"main\",consumergroup=\"{group}\",topic=\"{topic}\"}} ");
            let what = format!("the age of the lag on {topic}");
            poll_until(WAIT_TIMEOUT, &what, || {
                let metrics = daemon.metrics()?;
                let sample = |family: &str| -> Result<f64> {
                    let start = format!("{family}{labels}");
                    let mut lines = metrics.lines();
                    let value = lines.find_map(|line| line.strip_prefix(start.as_str()));
                    Ok(value.with_context(|| format!("no {start}"))?.parse()?)
                };
                let age = sample("lagwise_consumergroup_lag_seconds")?;
                let is_bound = sample("lagwise_consumergroup_lag_seconds_is_lower_bound")? == 1.0;
                let least = age_at_first.as_secs_f64();
                let most = least + produced.elapsed().as_secs_f64() + 1.0;
                // Never a wrong value, not even for a moment.
                if age > most || (age < least && !is_bound) {
                    let text = format!("{age} s, lower bound: {is_bound}, of {least} to {most} s");
                    return Err(Hopeless(text).into());
                }
                ensure!(!is_bound, "at least {age} s");
                Ok(())
            })?;
        }
        daemon.process.stop(Duration::from_secs(10))?;
    }
    Ok(())
}

/// The ConfigMap is created if it does not exist, and patched from then on.
fn a_config_map_stores_the_state(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let name = unique("state");
    runtime.block_on(async {
        let store = StateConfigMap::new(plane.client().await?, name.clone());
        ensure!(store.load().await?.is_none(), "{name} is there already");
        for text in ["{\"version\":1}", "another"] {
            store.save(text.to_owned()).await?;
            let loaded = store.load().await?.context("nothing was saved")?;
            ensure!(loaded == text, "{loaded}");
        }
        let largest = "\"".repeat(store.max_bytes());
        store.save(largest).await.context("the largest state")
    })
}
