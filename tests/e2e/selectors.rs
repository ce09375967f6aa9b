//! What counts for a selector that names a group and no topic.

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

/// How soon a group is read, on two busy cores.
const SOON: Duration = Duration::from_secs(40);

/// Nobody has committed in the group's name, so it reads no topics that could be known: that is said, and neither zero
/// nor the lag of whatever else is there. Its first commit makes the topic known.
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
        // Until the brokers have made room for commits, they know no coordinator.
        let refused = poll_until(SOON, "the reason", || daemon.refusal(&selector, 404))?;
        ensure!(refused.contains("has committed no offset"), "{refused}");
        daemon.let_it_look(4)?;
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
