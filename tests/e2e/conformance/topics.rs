//! Topics that come, go and grow while a source lives.

use std::time::Duration;

use anyhow::{Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::Observation;
use lagwise::model::units::newtypes::TopicId;

use crate::sources::{Sources, plan, plan_of};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::unique;

/// How long a source may use what it knows of topics, and a look or two.
const REFRESH: Duration = Duration::from_secs(20);

/// A topic that is not there is named as such, beside others that are; asking for it does not create it, though
/// these brokers create what is asked for by those who let them.
pub(crate) fn missing_topic_is_not_created(kafka: &KafkaCluster) -> Result<()> {
    let (topic, missing, group) = (unique("topic"), unique("missing"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let mut sources = Sources::of(kafka)?;
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
    // Asked about nothing else, again and again: that nobody has anything to say is no outage.
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
    sources.until(
        REFRESH,
        "the topic that was missing",
        &both,
        &format!(
            "{group} {topic}: 0\n{group} {missing}: - -\n{nobody} {missing}: - -\n{topic}: 0..0\n{missing}: 0..0 0..0"
        ),
    )
}

/// A topic that is deleted is missing, and one made anew under its name starts anew. A commit that stands beyond the
/// new log's end is never a number.
pub(crate) fn topic_deleted_and_recreated(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 10), (1, 10)])?;
    kafka.commit(&group, &topic, &[(0, 5), (1, 10)])?;
    let mut sources = Sources::of(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(
        &plan,
        &format!("{group} {topic}: 5 10\n{topic}: 0..10 0..10"),
    )?;

    let first = ids(&sources.look(&plan)?, &topic);

    kafka.delete_topic(&topic)?;
    sources.until(
        REFRESH,
        "the topic to be missing",
        &plan,
        &format!("{topic}: topic_missing"),
    )?;
    ensure!(!kafka.topics()?.contains(&topic), "a look brought it back");
    kafka.create_topic(&topic, 3)?;
    kafka.produce(&topic, 0, 3)?;
    sources.until(
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
    for (client, id) in ids(&sources.look(&plan)?, &topic) {
        // librdkafka tells no topic's ID, so of it there is nothing to say.
        let is_told = client == ClientKind::Wire;
        ensure!(id.is_some() == is_told, "{client:?}: {id:?}");
        ensure!(!is_told || !first.contains(&(client, id)), "{id:?} again");
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

/// Partitions that are added are seen with the next metadata, with all that is in them.
pub(crate) fn partitions_added(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 4), (1, 4)])?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 1)])?;
    let mut sources = Sources::of(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(&plan, &format!("{group} {topic}: 1 1\n{topic}: 0..4 0..4"))?;

    kafka.grow_topic(&topic, 5)?;
    kafka.produce_to(&topic, &[(3, 6)])?;
    kafka.commit(&group, &topic, &[(3, 2)])?;
    sources.until(
        REFRESH,
        "the new partitions",
        &plan,
        &format!("{group} {topic}: 1 1 - 2 -\n{topic}: 0..4 0..4 0..0 0..6 0..0"),
    )
}
