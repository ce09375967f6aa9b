//! Members that subscribe by a pattern which the broker evaluates report no topics (KIP-848). Their assignments show
//! which topics they read, and old commits on other topics do not count.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::evaluation::topic_selection::{pick, whole_parallelism};
use lagwise::model::lag::cluster_snapshot::GroupSnapshot;

use super::CHANGE_TIMEOUT;
use super::work::Worker;
use crate::sources::{Sources, plan_of};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::unique;

/// With the consumer protocol, librdkafka leaves patterns to the broker, as Kafka's own client does.
const PROTOCOL: (&str, &str) = ("group.protocol", "consumer");

/// One member whose pattern matches one topic. The group has old commits on a topic that it has left.
pub(super) fn old_commits_do_not_count_with_a_pattern_subscription(
    kafka: &KafkaCluster,
) -> Result<()> {
    let (topic, left, group) = (unique("billing"), unique("left"), unique("pattern"));
    kafka.create_topic(&topic, 8)?;
    kafka.create_topic(&left, 4)?;
    kafka.produce_to(&left, &[(0, 1000), (1, 1000), (2, 1000), (3, 1000)])?;
    kafka.commit(&group, &left, &[(0, 0), (1, 0), (2, 0), (3, 0)])?;
    kafka.produce_to(&topic, &[(3, 100)])?;
    let pattern = format!("^{topic}$");
    let worker = Worker::start(kafka, &group, &[&pattern], &[PROTOCOL], |behaviour| {
        behaviour.subscribe = true;
        behaviour.poison = Some((3, 8));
    })?;
    wait_for(kafka, &group, &[(&topic, 92)], 8)?;
    worker.leave()
}

/// Several members and patterns, of which some match two topics, and a member that names its topic.
pub(super) fn patterns_of_several_members_are_read_together(kafka: &KafkaCluster) -> Result<()> {
    let prefix = unique("area");
    let topics = ["a", "b", "c"].map(|name| format!("{prefix}-{name}"));
    let [a, b, c] = &topics;
    let (left, group) = (unique("left"), unique("pattern"));
    for (topic, partitions) in [(a, 3), (b, 2), (c, 1), (&left, 7)] {
        kafka.create_topic(topic, partitions)?;
        kafka.produce_to(topic, &[(0, 5)])?;
    }
    kafka.commit(&group, &left, &[(0, 0), (6, 0)])?;
    kafka.commit(&group, a, &[(0, 1)])?;
    kafka.commit(&group, c, &[(0, 2)])?;
    let pattern = format!("^{prefix}-[ab]$");
    // More members than partitions match: some get none.
    let member = |topic: &str| {
        Worker::start(kafka, &group, &[topic], &[PROTOCOL], |behaviour| {
            behaviour.subscribe = true;
            behaviour.commits = false;
        })
    };
    let mut members = Vec::new();
    for _ in 0..6 {
        members.push(member(&pattern)?);
    }
    members.push(member(c)?);
    // What came to the second topic before the members counts only with a commit.
    wait_for(kafka, &group, &[(a, 4), (b, 0), (c, 3)], 6)?;
    members.into_iter().try_for_each(Worker::leave)
}

/// Waits until the wire client reads these topics and lags, and this useful parallelism. librdkafka does not describe
/// groups, so it only knows their commits.
fn wait_for(kafka: &KafkaCluster, group: &str, lags: &[(&str, u64)], members: u32) -> Result<()> {
    let mut plan = plan_of(&[(group, &[])]);
    let mut sources = Sources::with(
        &[ClientKind::Wire],
        &[("bootstrap.servers", &kafka.bootstrap())],
    )?;
    poll_until(CHANGE_TIMEOUT, "what the patterns match", || {
        sources.sweep(&plan)?;
        let known = &sources.each[0].known;
        let read = known.groups.get(group).context("no reading")?;
        // As the daemon does: from then on, the plan has the topics that members read, with or without commits.
        plan.groups[0].topics = Arc::new(read.subscription().topics);
        let seen = counted(read)?;
        let expected: Vec<_> = lags
            .iter()
            .map(|(t, lag)| ((*t).to_owned(), *lag))
            .collect();
        ensure!(seen == expected, "{seen:?} instead of {expected:?}");
        let useful = whole_parallelism(read).and_then(|useful| useful.limit.bounded());
        ensure!(useful == Some(members), "{useful:?} members");
        let description = read.description.as_ref().context("no description")?;
        let by_pattern = description
            .members
            .iter()
            .filter(|m| m.subscribed.is_none());
        ensure!(
            by_pattern.count() > 0,
            "no member has a pattern: {description:?}"
        );
        Ok(())
    })
}

/// The topics that count, each with its lag.
fn counted(group: &GroupSnapshot) -> Result<Vec<(String, u64)>> {
    let picked = pick(group, &BTreeSet::new(), None);
    let each = picked.topics.into_iter().map(|(topic, read)| {
        let lag = read
            .latest
            .as_ref()
            .map_err(|fault| anyhow::anyhow!("{topic}: {fault}"))?;
        let lag = lag
            .total()
            .map_err(|fault| anyhow::anyhow!("{topic}: {fault}"))?;
        Ok((topic.to_string(), lag.0))
    });
    each.collect()
}
