//! Selectors that name a group and no topic.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "selectors::a_group_without_commits_has_the_lag_of_no_other_topic",
        a_group_without_commits_has_the_lag_of_no_other_topic,
    ),
    (
        "selectors::groups_of_configured_targets_are_explained",
        groups_of_configured_targets_are_explained,
    ),
];

/// Timeout until a group is read, on two busy cores.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The group has no commits and no members, so lagwise cannot know which topics it reads. The metric is an error with
/// this reason, and neither 0 nor the lag of other topics. The first commit makes the topic known.
fn a_group_without_commits_has_the_lag_of_no_other_topic(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 300), (1, 200)])?;
    for client in ["wire", "librdkafka"] {
        let options = Options {
            client,
            ..Options::main(&kafka.bootstrap())
        };
        let daemon = Daemon::alone(testbed, &options)?;
        let group = format!("{group}-{client}");
        let selector = format!("group={group}");
        // Brokers have no coordinator until the offsets topic exists.
        let refused = poll_until(TIMEOUT, "the reason", || daemon.refusal(&selector, 404))?;
        ensure!(refused.contains("has committed no offset"), "{refused}");
        daemon.wait_for_sweeps(4)?;
        daemon.refusal(&selector, 404)?;
        kafka.commit(&group, &topic, &[(0, 290), (1, 150)])?;
        poll_until(TIMEOUT, "its lag", || {
            let lag = daemon.lag(&selector)?;
            ensure!(lag == 60, "{lag}");
            Ok(())
        })?;
    }
    Ok(())
}

/// `explain --group` of groups that no HPA uses: a configured target names the topics of the first group, and no topics
/// of the second.
fn groups_of_configured_targets_are_explained(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (orders, refunds) = (unique("orders"), unique("refunds"));
    let (named, discovered) = (unique("named"), unique("discovered"));
    kafka.create_topics(&[&orders, &refunds], 2)?;
    kafka.produce_to(&orders, &[(0, 30), (1, 12)])?;
    kafka.produce_to(&refunds, &[(0, 7)])?;
    kafka.commit(&named, &orders, &[(0, 20), (1, 12)])?;
    kafka.commit(&discovered, &orders, &[(0, 29), (1, 12)])?;
    kafka.commit(&discovered, &refunds, &[(0, 3), (1, 0)])?;
    let options = Options {
        targets: vec![
            json!({"name": "named", "cluster": "main", "group": named, "topics": [orders]}),
            json!({"name": "discovered", "cluster": "main", "group": discovered}),
        ],
        ..Options::main(&kafka.bootstrap())
    };
    let daemon = Daemon::alone(testbed, &options)?;
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    for (group, lag, topics) in [(&named, 10, 1), (&discovered, 5, 2)] {
        let args = ["explain", "--group", group, "--daemon", &url, "-o", "json"];
        poll_until(TIMEOUT, "the explanation", || {
            let output = testbed.lagwise(&args).output()?;
            ensure!(output.status.success(), "{output:?}");
            let explained: Value = serde_json::from_slice(&output.stdout)?;
            let of_group = &explained["metrics"][0]["groups"][0];
            let read = of_group["topics"].as_array().map(Vec::len);
            ensure!(
                of_group["lag"] == lag && read == Some(topics),
                "{explained}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
