//! Selectors that name a group and no topic.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "selectors::a_group_without_commits_has_the_lag_of_no_other_topic",
    a_group_without_commits_has_the_lag_of_no_other_topic,
)];

/// Timeout until a group is read, on two busy cores.
const SOON: Duration = Duration::from_secs(40);

/// The group has no commits and no members, so lagwise cannot know which topics it reads. The metric is an error that
/// says so, and neither 0 nor the lag of other topics. The first commit makes the topic known.
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
        let refused = poll_until(SOON, "the reason", || daemon.refusal(&selector, 404))?;
        ensure!(refused.contains("has committed no offset"), "{refused}");
        daemon.wait_for_sweeps(4)?;
        daemon.refusal(&selector, 404)?;
        kafka.commit(&group, &topic, &[(0, 290), (1, 150)])?;
        poll_until(SOON, "its lag", || {
            let lag = daemon.lag(&selector)?;
            ensure!(lag == 60, "{lag}");
            Ok(())
        })?;
    }
    Ok(())
}
