//! Descriptions of groups: kind, state, assignor, members and their partitions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::group::{GroupKind, GroupState};

use super::capabilities::{Fact, sees};
use crate::sources::{Sources, plan, plan_of};
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::{at_once, poll_until};
use crate::testbed::unique;

/// Timeout until a group has assigned its partitions and is described again, on two busy cores.
const SETTLE: Duration = Duration::from_secs(90);

/// With assignors of both rebalance protocols, a static member and one that is not.
pub(crate) fn classic_groups(kafka: &KafkaCluster) -> Result<()> {
    at_once(["range", "cooperative-sticky"], |assignor| {
        let properties = [("partition.assignment.strategy", assignor)];
        live(kafka, "classic", assignor, &properties)
    })
}

/// The same with both assignors that brokers have.
pub(crate) fn groups_of_the_consumer_protocol(kafka: &KafkaCluster) -> Result<()> {
    at_once(["uniform", "range"], |assignor| {
        let properties = [
            ("group.protocol", "consumer"),
            ("group.remote.assignor", assignor),
        ];
        live(kafka, "consumer", assignor, &properties)
    })
}

fn live(
    kafka: &KafkaCluster,
    kind: &str,
    assignor: &str,
    properties: &[(&str, &str)],
) -> Result<()> {
    let (topic, group) = (unique("topic"), unique(kind));
    kafka.create_topic(&topic, 3)?;
    let fleet = |own: &[(&str, &str)]| {
        let all = properties.iter().chain(own);
        let options = ConsumerOptions {
            bootstrap: kafka.bootstrap(),
            group: group.clone(),
            topic: topic.clone(),
            per_second: 100,
            properties: all
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let mut fleet = ConsumerFleet::new(kafka.folder(), options);
        fleet.scale_to(1)?;
        anyhow::Ok(fleet)
    };
    let _one = fleet(&[("client.id", "one"), ("group.instance.id", "first")])?;
    let mut two = fleet(&[("client.id", "two")])?;
    let plan = plan(&group, &[&topic]);
    let offsets = format!("{group} {topic}: - - -\n{topic}: 0..0 0..0 0..0");
    let one = format!("{group} member one first reads {topic}\n{group} has {topic}: 0 1 2");
    let both = format!(
        "{group} is stable {kind} by {assignor}, members with 1 2
         {group} member two reads {topic}"
    );
    let mut sources = Sources::new(kafka)?;
    let expected = format!("{both}\n{one}\n{offsets}");
    sources.wait_for(SETTLE, "both members", &plan, &expected)?;
    // A cached description is read again in time.
    two.scale_to(0)?;
    let expected =
        format!("{group} is stable {kind} by {assignor}, members with 3\n{one}\n{offsets}");
    sources.wait_for(SETTLE, "one member to have left", &plan, &expected)
}

/// A group with commits and without members, and one that does not exist.
pub(crate) fn empty_and_unknown_groups(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group, nobody) = (unique("topic"), unique("group"), unique("nobody"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan_of(&[(&group, &[&topic]), (&nobody, &[&topic])]);
    for (client, seen) in sources.sweep(&plan)? {
        let described: Vec<_> = seen
            .groups
            .iter()
            .map(|group| {
                let description = group.description.as_ref();
                description
                    .map(|description| {
                        (
                            description.kind,
                            description.state,
                            description.members.len(),
                        )
                    })
                    .map_err(|fault| *fault)
            })
            .collect();
        let expected = if sees(client, Fact::Descriptions) {
            [GroupState::Unjoined, GroupState::NotReady]
                .map(|state| Ok((GroupKind::Classic, state, 0)))
        } else {
            [Err(Fault::Unsupported); 2]
        };
        ensure!(described == expected, "{client:?}: {described:?}");
    }
    Ok(())
}

/// Its position is the one that the broker has persisted. It moves when records have been acknowledged.
pub(crate) fn share_groups(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("share"));
    kafka.create_topic(&topic, 2)?;
    let mut consumer = kafka.start_share_consumer(&group, &topic)?;
    let plan = plan(&group, &[&topic]);
    let live = format!(
        "{group} is stable share by simple, members with 2
         {group} member console-share-consumer reads {topic}
         {group} has {topic}: 0 1"
    );
    let mut sources = Sources::new(kafka)?;
    // A group that begins at the end has begun with the first record that comes.
    let at_first = format!("{live}\n{group} {topic}: - -\n{topic}: 0..0 0..0");
    sources.wait_for(SETTLE, "the member", &plan, &at_first)?;

    // The broker writes down how far a batch got with the batch after it.
    let stands = poll_until(SETTLE, "records to be acknowledged", || {
        kafka.produce(&topic, 0, 10)?;
        let offsets = kafka.share_offsets(&group)?;
        let stands = offsets.first().and_then(|(_, offset)| *offset);
        stands
            .filter(|stands| *stands > 0)
            .context("it has not moved")
    });
    stands?;
    consumer.stop(Duration::from_secs(20))?;
    poll_until(SETTLE, "the members to be gone", || {
        let fresh = Sources::new(kafka)?.sweep(&plan)?;
        for (client, seen) in fresh {
            let description = seen.groups[0].description.as_ref();
            let is_empty =
                description.is_ok_and(|description| description.state == GroupState::Empty);
            ensure!(
                is_empty || !sees(client, Fact::Descriptions),
                "{description:?}"
            );
        }
        Ok(())
    })?;
    let stands = kafka.share_offsets(&group)?;
    let stands = stands[0].1.context("no start offset")?;
    let end = kafka.end_offsets(&topic)?[0];
    ensure!(stands > 0 && stands <= end, "{stands} of {end}");
    let expected = format!(
        "{group} is empty share by simple, members with
         {group} {topic}: {stands} -
         {topic}: 0..{end} 0..0"
    );
    Sources::new(kafka)?.expect(&plan, &expected)?;

    // Named or not, and listed.
    let mut sources = Sources::new(kafka)?;
    let discover = plan_of(&[(&group, &[])]);
    for (client, seen) in sources.sweep(&discover)? {
        let columns = seen.groups[0].committed.as_ref();
        let found = columns.is_ok_and(|columns| columns.contains_key(topic.as_str()));
        ensure!(
            found == sees(client, Fact::ShareOffsets),
            "{client:?}: {seen:?}"
        );
    }
    for (client, list) in sources.list_groups() {
        let is_listed = list.groups.iter().any(|listed| listed.as_str() == group);
        ensure!(
            is_listed == sees(client, Fact::ShareOffsets),
            "{client:?}: {list:?}"
        );
    }
    Ok(())
}

/// Its tasks are those of its parts; its offsets are commits as any group's.
pub(crate) fn streams_groups(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("streams"));
    kafka.create_topic(&topic, 3)?;
    let _application = kafka.start_streams(&group, &topic)?;
    let repartition = format!("{group}-halves-repartition");
    let live = format!(
        "{group} is stable streams by none, members with 5
         {group} member one-StreamThread-1-consumer
         {group} has {topic}: 0 1 2
         {group} has {repartition}: 0 1
         {group} runs 0 of {topic}:3
         {group} runs 1 of {repartition}:2"
    );
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    let started = format!("{live}\n{group} {topic}: - - -\n{topic}: 0..0 0..0 0..0");
    sources.wait_for(SETTLE, "its tasks", &plan, &started)?;
    kafka.produce_to(&topic, &[(0, 4), (2, 3)])?;
    let done = format!("{live}\n{group} {topic}: 4 - 3\n{topic}: 0..4 0..0 0..3");
    sources.wait_for(SETTLE, "its commits", &plan, &done)
}
