//! The number of requests and connections does not grow with the number of groups.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::observation::{Observation, Traffic};
use lagwise::model::kafka::sweep_plan::SweepPlan;

use crate::Test;
use crate::sources::{Sources, plan_of};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "cost::a_thousand_groups_cost_no_more_than_one",
    a_thousand_groups_cost_no_more_than_one,
)];

const GROUPS: usize = 1000;

/// Number of sweeps that are counted. Some send more requests, for example to refresh metadata.
const SWEEPS: usize = 7;

/// One connection to each broker and at most one more for bootstrapping; at most three requests to each broker in a
/// sweep if nothing has changed before it.
fn a_thousand_groups_cost_no_more_than_one(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let brokers = u64::try_from(kafka.brokers())?;
    let (topic, prefix) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 12)?;
    kafka.produce_to(&topic, &[(0, 3), (7, 5)])?;
    let names: Vec<_> = (0..GROUPS).map(|i| format!("{prefix}-{i}")).collect();
    kafka.commit(&names[0], &topic, &[(0, 1)])?;
    let topics = [topic.as_str()];
    let groups: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), &topics[..]))
        .collect();
    let plan = plan_of(&groups);
    let properties = [("bootstrap.servers", &*kafka.bootstrap())];
    let mut sources = Sources::with(&[ClientKind::Wire], &properties)?;
    let mut traffic = Traffic::default();
    poll_until(Duration::from_secs(60), "every group to be read", || {
        traffic = sweep(&mut sources, &plan)?;
        Ok(())
    })?;
    let mut requests = Vec::new();
    for _ in 0..SWEEPS {
        let now = sweep(&mut sources, &plan)?;
        ensure!(now.connections <= brokers + 1, "{now:?}");
        requests.push(now.requests - traffic.requests);
        traffic = now;
    }
    requests.sort_unstable();
    println!("requests by sweep: {requests:?}; {traffic:?}");
    ensure!(
        requests[SWEEPS / 2] <= 3 * brokers,
        "requests by sweep: {requests:?}"
    );
    Ok(())
}

/// One complete sweep, and what all of them have cost so far.
fn sweep(sources: &mut Sources, plan: &SweepPlan) -> Result<Traffic> {
    let (_, observation) = sources.sweep(plan)?.remove(0);
    let unread = unread(&observation);
    ensure!(unread == 0, "{unread} group-partitions were not read");
    observation.traffic.context("nothing was counted")
}

fn unread(observation: &Observation) -> usize {
    let groups = observation.groups.iter();
    groups
        .map(|group| match &group.committed {
            Ok(topics) => topics
                .values()
                .flat_map(|column| column.iter())
                .filter(Result::is_err)
                .count(),
            Err(_) => 1,
        })
        .sum()
}
