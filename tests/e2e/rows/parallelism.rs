//! Checks useful parallelism against the real assignors: with more members than partitions, it is the number of members
//! that get partitions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::evaluation::parallelism::Parallelism;
use lagwise::model::evaluation::topic_selection::whole_parallelism;
use lagwise::model::kafka::group::{GroupState, Member};

use super::work::Worker;
use super::{CHANGE_TIMEOUT, Row};
use crate::sources::{Sources, Subject, plan};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::{at_once, poll_until};
use crate::testbed::unique;

/// Partitions of the two topics.
const LARGE: i32 = 4;
const SMALL: i32 = 2;

/// More members than partitions.
const MEMBERS: usize = 7;

/// Useful parallelism by the readings of a client, such as `4 largest_topic`; without a number if there is no limit.
fn shown(useful: Parallelism) -> String {
    match useful.limit.bounded() {
        Some(most) => format!("{most} {}", useful.rule.label()),
        None => useful.rule.label().to_owned(),
    }
}

fn read_parallelism(subject: &Subject, group: &str) -> Result<String> {
    let read = subject.known.groups.get(group).context("no reading")?;
    Ok(whole_parallelism(read).map_or("nothing".to_owned(), shown))
}

/// Waits until the readings of each client give this useful parallelism.
fn wait_for(
    sources: &mut Sources,
    group: &str,
    topics: &[&str],
    expected: impl Fn(ClientKind) -> &'static str,
) -> Result<()> {
    let plan = plan(group, topics);
    poll_until(CHANGE_TIMEOUT, "the group's parallelism", || {
        sources.sweep(&plan)?;
        for subject in &sources.each {
            let seen = read_parallelism(subject, group)?;
            let expected = expected(subject.client);
            ensure!(
                seen == expected,
                "{:?}: {seen}, not {expected}",
                subject.client
            );
        }
        Ok(())
    })
}

fn by(wire: &'static str, librdkafka: &'static str) -> impl Fn(ClientKind) -> &'static str {
    move |client| match client {
        ClientKind::Wire => wire,
        _ => librdkafka,
    }
}

pub(super) fn members_with_partitions_are_the_useful_parallelism(
    kafka: &KafkaCluster,
) -> Result<()> {
    let (large, small) = (unique("large"), unique("small"));
    kafka.create_topic(&large, LARGE)?;
    kafka.create_topic(&small, SMALL)?;
    // A client that does not see members knows the topics of a group by its commits.
    kafka.produce_to(&large, &[(0, 3)])?;
    kafka.produce_to(&small, &[(1, 3)])?;
    let topics = [large.as_str(), small.as_str()];
    let classic = |assignor| vec![("partition.assignment.strategy", assignor)];
    let server_side = |assignor| {
        vec![
            ("group.protocol", "consumer"),
            ("group.remote.assignor", assignor),
        ]
    };
    // All at once, since descriptions of groups are read every thirty seconds.
    let members = [
        ("range", classic("range"), "4 largest_topic"),
        ("roundrobin", classic("roundrobin"), "6 all_topics"),
        (
            "cooperative-sticky",
            classic("cooperative-sticky"),
            "6 all_topics",
        ),
        ("uniform", server_side("uniform"), "6 all_topics"),
        (
            "range of the broker",
            server_side("range"),
            "4 largest_topic",
        ),
    ];
    let members = members.map(|(name, properties, expected)| (name, Some(properties), expected));
    // Only Kafka's Java client has the last one.
    let all = members
        .into_iter()
        .chain([("sticky", None, "6 all_topics")]);
    at_once(all, |(name, properties, expected)| {
        let group = unique("group");
        let found = match properties {
            Some(properties) => {
                let members = members_of(kafka, &group, &topics, &properties)?;
                let found = have_work(kafka, &group, &topics, expected);
                members.into_iter().try_for_each(Worker::leave)?;
                found
            }
            None => {
                let sticky = "org.apache.kafka.clients.consumer.StickyAssignor";
                let mut members = kafka.start_members(&group, MEMBERS, sticky, &topics)?;
                let found = have_work(kafka, &group, &topics, expected);
                members.stop(Duration::from_secs(20))?;
                found
            }
        };
        found.with_context(|| name.to_owned())
    })
}

/// Members of the group, some of them static.
fn members_of(
    kafka: &KafkaCluster,
    group: &str,
    topics: &[&str],
    properties: &[(&str, &str)],
) -> Result<Vec<Worker>> {
    let member = |number: usize| {
        let instance = format!("static-{number}");
        let mut properties = properties.to_vec();
        if number.is_multiple_of(2) {
            properties.push(("group.instance.id", &instance));
        }
        Worker::subscribe(kafka, group, topics, &properties)
    };
    (0..MEMBERS).map(member).collect()
}

/// Checks that the group's parallelism is as expected, that this number of members has partitions, and that the
/// parallelism stays the same after they have left.
fn have_work(
    kafka: &KafkaCluster,
    group: &str,
    topics: &[&str],
    expected: &'static str,
) -> Result<()> {
    let mut sources = Sources::new(kafka)?;
    let plan = plan(group, topics);
    poll_until(CHANGE_TIMEOUT, "all members to be described", || {
        sources.sweep(&plan)?;
        for subject in sources.each.iter().filter(|s| s.client == ClientKind::Wire) {
            let read = subject.known.groups.get(group).context("no reading")?;
            let description = read.description.as_ref().context("no description")?;
            ensure!(
                description.state == GroupState::Stable && description.members.len() == MEMBERS,
                "{description:?}"
            );
            let working = description.members.iter().map(Member::partitions);
            let working = working.filter(|partitions| *partitions > 0).count();
            let seen = read_parallelism(subject, group)?;
            ensure!(
                seen == expected && seen.starts_with(&format!("{working} ")),
                "{working} have work, {seen} is read"
            );
        }
        Ok(())
    })?;
    wait_for(
        &mut sources,
        group,
        topics,
        by(expected, "4 assignor_unknown"),
    )
}

/// A consumer that assigns partitions to itself is not a member, so the partitions with commits count.
pub(super) fn manual_assignment_allows_the_partitions_with_commits(
    kafka: &KafkaCluster,
) -> Result<()> {
    let mut row = Row::new(kafka, LARGE)?;
    row.produce(&[(1, 5), (3, 5)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.assign = vec![1, 3];
    })?;
    row.wait_for("since_seen 0, measured 0, since_seen 0, measured 0")?;
    let (group, topic) = (row.group.clone(), row.topic.clone());
    wait_for(
        &mut row.sources,
        &group,
        &[&topic],
        by("2 manual_assignment", "4 one_topic"),
    )?;
    worker.leave()?;
    // A group that had a member does not count as manually assigned any more, also for clients that start later.
    let worker = Worker::subscribe(kafka, &group, &[&topic], &[])?;
    wait_for(
        &mut row.sources,
        &group,
        &[&topic],
        by("4 one_topic", "4 one_topic"),
    )?;
    worker.leave()?;
    let mut fresh = Sources::new(kafka)?;
    wait_for(
        &mut fresh,
        &group,
        &[&topic],
        by("4 one_topic", "4 one_topic"),
    )
}

/// Records are shared, not partitions.
pub(super) fn a_share_group_has_no_limit(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("share"));
    kafka.create_topic(&topic, SMALL)?;
    let mut consumer = kafka.start_share_consumer(&group, &topic)?;
    let mut sources = Sources::new(kafka)?;
    wait_for(&mut sources, &group, &[&topic], by("shared", "nothing"))?;
    consumer.stop(Duration::from_secs(20))?;
    Ok(())
}

/// Three tasks for the topic's partitions, two more for those of the repartition topic.
pub(super) fn a_streams_group_has_its_tasks(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("streams"));
    kafka.create_topic(&topic, 3)?;
    let mut application = kafka.start_streams(&group, &topic)?;
    let repartition = format!("{group}-halves-repartition");
    // It begins with what comes once it runs.
    poll_until(CHANGE_TIMEOUT, "a commit of the application", || {
        kafka.produce(&topic, 0, 1)?;
        let committed = kafka.committed(&group, &topic)?;
        ensure!(committed[0].is_some(), "there is none");
        Ok(())
    })?;
    let mut sources = Sources::new(kafka)?;
    wait_for(
        &mut sources,
        &group,
        &[&topic, &repartition],
        by("5 tasks", "3 one_topic"),
    )?;
    application.stop(Duration::from_secs(20))?;
    Ok(())
}
