//! State that survives a restart of the daemon, in a file and in a ConfigMap.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::k8s::state_config_map::StateConfigMap;
use lagwise::persistence::location::StateLocation;
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "state::a_deleted_commit_is_remembered_after_a_restart",
        a_deleted_commit_is_remembered_after_a_restart,
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
