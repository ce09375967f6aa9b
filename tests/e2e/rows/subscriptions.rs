//! Which topics of a group count while the broker does not report its subscription: during a rebalance, and without
//! members.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::evaluation::topic_selection;
use lagwise::model::kafka::group::GroupState;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::CHANGE_TIMEOUT;
use super::work::Worker;
use crate::sources::{Sources, plan};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::unique;

/// A group with 40 unread messages on a topic that it does not read any more.
struct Left<'a> {
    kafka: &'a KafkaCluster,
    group: String,
    old: String,
    topic: String,
    sources: Sources,
}

impl<'a> Left<'a> {
    fn new(kafka: &'a KafkaCluster) -> Result<Self> {
        let left = Self {
            kafka,
            group: unique("left"),
            old: unique("old"),
            topic: unique("orders"),
            // Only this client describes groups.
            sources: Sources::with(
                &[ClientKind::Wire],
                &[("bootstrap.servers", &kafka.bootstrap())],
            )?,
        };
        for topic in [&left.old, &left.topic] {
            kafka.create_topic(topic, 2)?;
        }
        kafka.produce(&left.old, 0, 40)?;
        kafka.commit(&left.group, &left.old, &[(0, 0)])?;
        Ok(left)
    }

    /// The topics that count, and the state of the group, after a sweep that names no topic.
    fn sweep(&mut self) -> Result<(BTreeSet<String>, GroupState)> {
        self.sources.sweep(&plan(&self.group, &[]))?;
        let known = &self.sources.each[0].known;
        let group = known.groups.get(self.group.as_str());
        let group = group.context("no reading of the group")?;
        // Old commits on a topic that does not count make no series and no events either.
        let picked = topic_selection::pick(group, &BTreeSet::new(), None);
        let counts = |topic: &str| picked.topics.iter().any(|(name, _)| name.as_str() == topic);
        ensure!(
            counts(&self.old) == group.counts(&self.old.as_str().into()),
            "{:?}",
            group.uncounted
        );
        let topics = picked.topics.iter().map(|(topic, _)| topic.to_string());
        let description = group.description.as_ref().context("not described")?;
        Ok((topics.collect(), description.state))
    }

    /// Sweeps until the group has this state. As long as its members were seen, only these topics may count.
    fn wait_for(&mut self, state: GroupState, expected: &[&str], may_change: bool) -> Result<()> {
        let expected: BTreeSet<_> = expected.iter().map(|t| (*t).to_owned()).collect();
        let started = Instant::now();
        loop {
            let (topics, now) = self.sweep()?;
            if topics == expected && now == state {
                return Ok(());
            }
            ensure!(
                (may_change || topics == expected) && started.elapsed() < CHANGE_TIMEOUT,
                "{now:?}: {topics:?} instead of {expected:?}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A member that owns all partitions and does not poll again after its first message, so that a rebalance does not end.
fn busy_member(kafka: &KafkaCluster, group: &str, topic: &str) -> Result<BaseConsumer> {
    let mut config = kafka.client_config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "45000");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[topic])?;
    poll_until(CHANGE_TIMEOUT, "the first message", || {
        let record = consumer.poll(Duration::from_millis(200));
        let record = record.context("no message yet")??;
        ensure!(record.topic() == topic, "{}", record.topic());
        consumer.commit_message(&record, CommitMode::Sync)?;
        Ok(())
    })?;
    Ok(consumer)
}

pub(super) fn a_topic_that_the_group_has_left_never_counts(kafka: &KafkaCluster) -> Result<()> {
    let mut left = Left::new(kafka)?;
    let topic = left.topic.clone();
    kafka.produce_to(&topic, &[(0, 1), (1, 1)])?;
    let busy = busy_member(kafka, &left.group, &topic)?;
    left.wait_for(GroupState::Stable, &[&topic], true)?;
    // While the first member does not poll, the rebalance waits for it, and the broker reports no subscriptions.
    let second = Worker::subscribe(kafka, &left.group, &[&topic], &[])?;
    left.wait_for(GroupState::Rebalancing, &[&topic], false)?;
    drop(busy);
    left.wait_for(GroupState::Stable, &[&topic], false)?;
    second.leave()?;
    left.wait_for(GroupState::Empty, &[&topic], false)
}

pub(super) fn a_topic_with_new_commits_of_an_empty_group_counts(
    kafka: &KafkaCluster,
) -> Result<()> {
    let mut left = Left::new(kafka)?;
    let (topic, old, new) = (left.topic.clone(), left.old.clone(), unique("new"));
    kafka.produce_to(&topic, &[(0, 1), (1, 1)])?;
    let member = Worker::subscribe(kafka, &left.group, &[&topic], &[])?;
    left.wait_for(GroupState::Stable, &[&topic], true)?;
    member.leave()?;
    left.wait_for(GroupState::Empty, &[&topic], false)?;
    // A client commits without being a member.
    kafka.create_topic(&new, 1)?;
    left.kafka.commit(&left.group, &new, &[(0, 0)])?;
    left.wait_for(GroupState::Empty, &[&topic, &new], true)?;
    left.kafka.commit(&left.group, &old, &[(0, 1)])?;
    left.wait_for(GroupState::Empty, &[&topic, &new, &old], true)
}
