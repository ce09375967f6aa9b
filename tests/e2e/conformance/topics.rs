//! Topics that are created, deleted and get partitions while a client runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::Observation;
use lagwise::model::units::newtypes::TopicId;

use crate::sources::{Sources, plan, plan_of};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::unique;

/// Timeout until cached metadata of topics is refreshed, and a sweep or two.
const REFRESH: Duration = Duration::from_secs(20);

/// A topic that does not exist is reported as missing, while others exist. Reading it does not create it, although
/// these brokers have automatic topic creation.
pub(crate) fn missing_topic_is_not_created(kafka: &KafkaCluster) -> Result<()> {
    let (topic, missing, group) = (unique("topic"), unique("missing"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let nobody = unique("nobody");
    let both = plan_of(&[(&group, &[&topic, &missing]), (&nobody, &[&missing])]);
    let impossible = plan(&group, &["no/such name, ever"]);
    for _ in 0..3 {
        sources.expect(
            &both,
            &format!("{group} {topic}: 0\n{topic}: 0..0\n{missing}: topic_missing"),
        )?;
        sources.expect(&impossible, "no/such name, ever: topic_missing")?;
    }
    // Repeatedly asking for missing topics only is not an outage.
    let only_missing = plan(&nobody, &[&missing]);
    let discovered = plan(&nobody, &[]);
    for _ in 0..3 {
        sources.expect(&only_missing, &format!("{missing}: topic_missing"))?;
        sources.expect(&discovered, &format!("{nobody}: no topics"))?;
    }
    ensure!(
        !kafka.topics()?.contains(&missing),
        "asking for {missing} created it"
    );

    // It is there as soon as it is there.
    kafka.create_topic(&missing, 2)?;
    sources.wait_for(
        REFRESH,
        "the topic that was missing",
        &both,
        &format!(
            "{group} {topic}: 0\n{group} {missing}: - -\n{nobody} {missing}: - -\n{topic}: 0..0\n{missing}: 0..0 0..0"
        ),
    )
}

/// A deleted topic is missing, and a recreated one starts with a new log. A commit beyond the new log end never gives a
/// number.
pub(crate) fn topic_deleted_and_recreated(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 10), (1, 10)])?;
    kafka.commit(&group, &topic, &[(0, 5), (1, 10)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(
        &plan,
        &format!("{group} {topic}: 5 10\n{topic}: 0..10 0..10"),
    )?;

    let first = ids(&sources.sweep(&plan)?, &topic);

    kafka.delete_topic(&topic)?;
    sources.wait_for(
        REFRESH,
        "the topic to be missing",
        &plan,
        &format!("{topic}: topic_missing"),
    )?;
    ensure!(
        !kafka.topics()?.contains(&topic),
        "a sweep created it again"
    );
    kafka.create_topic(&topic, 3)?;
    kafka.produce(&topic, 0, 3)?;
    sources.wait_for(
        REFRESH,
        "the new topic",
        &plan,
        &format!("{group} {topic}: - - -\n{topic}: 0..3 0..0 0..0"),
    )?;
    kafka.commit(&group, &topic, &[(0, 8)])?;
    sources.expect(
        &plan,
        &format!("{group} {topic}: 8 - -\n{topic}: 0..3 0..0 0..0"),
    )?;
    for (client, id) in ids(&sources.sweep(&plan)?, &topic) {
        // librdkafka does not report topic IDs.
        let has_ids = client == ClientKind::Wire;
        ensure!(id.is_some() == has_ids, "{client:?}: {id:?}");
        ensure!(!has_ids || !first.contains(&(client, id)), "{id:?} again");
    }
    for subject in &sources.each {
        let known = &subject.known.groups.get(group.as_str()).unwrap().topics[topic.as_str()];
        ensure!(
            known.fault() == Some(Fault::CommitBeyondEnd),
            "{:?}: {known:?}",
            subject.client
        );
    }
    Ok(())
}

fn ids(seen: &[(ClientKind, Observation)], topic: &str) -> Vec<(ClientKind, Option<TopicId>)> {
    let id = |observation: &Observation| observation.topics[topic].as_ref().ok()?.id;
    seen.iter().map(|(client, o)| (*client, id(o))).collect()
}

/// New partitions are read after the next refresh of metadata, with all their records.
pub(crate) fn partitions_added(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 4), (1, 4)])?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 1)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(&plan, &format!("{group} {topic}: 1 1\n{topic}: 0..4 0..4"))?;

    kafka.grow_topic(&topic, 5)?;
    kafka.produce_to(&topic, &[(3, 6)])?;
    kafka.commit(&group, &topic, &[(3, 2)])?;
    sources.wait_for(
        REFRESH,
        "the new partitions",
        &plan,
        &format!("{group} {topic}: 1 1 - 2 -\n{topic}: 0..4 0..4 0..0 0..6 0..0"),
    )
}
