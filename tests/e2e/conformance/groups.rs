//! Committed offsets, of groups of every kind.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::sources::{Sources, plan, plan_of};
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::unique;

/// Every partition has a commit.
pub(crate) fn plain_commits(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 5), (1, 7)])?;
    kafka.commit(&group, &topic, &[(0, 2), (1, 7), (2, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(
        &plan,
        &format!("{group} {topic}: 2 7 0\n{topic}: 0..5 0..7 0..0"),
    )?;

    // The next sweep reads new data, not cached data.
    kafka.produce_to(&topic, &[(0, 1), (2, 1)])?;
    kafka.commit(&group, &topic, &[(0, 5)])?;
    sources.expect(
        &plan,
        &format!("{group} {topic}: 5 7 0\n{topic}: 0..6 0..7 0..1"),
    )
}

/// Missing commits are not commits of 0: on some partitions, on a topic, of a group that does not exist.
pub(crate) fn partitions_without_a_commit(kafka: &KafkaCluster) -> Result<()> {
    let (topic, other) = (unique("topic"), unique("topic"));
    let (group, nobody) = (unique("group"), unique("nobody"));
    kafka.create_topics(&[&topic, &other], 4)?;
    kafka.produce_to(&topic, &[(0, 1), (1, 1), (2, 1), (3, 1)])?;
    kafka.commit(&group, &topic, &[(1, 0), (3, 1)])?;
    let mut sources = Sources::new(kafka)?;
    let topics: &[&str] = &[&topic, &other];
    sources.expect(
        &plan_of(&[(&group, topics), (&nobody, topics)]),
        &format!(
            "{group} {topic}: - 0 - 1
             {group} {other}: - - - -
             {nobody} {topic}: - - - -
             {nobody} {other}: - - - -
             {topic}: 0..1 0..1 0..1 0..1
             {other}: 0..0 0..0 0..0 0..0"
        ),
    )
}

/// Without topics named: those with a commit, and no others; a group without any has none.
pub(crate) fn discovery(kafka: &KafkaCluster) -> Result<()> {
    let topics = [unique("topic"), unique("topic"), unique("topic")];
    let [one, two, three] = &topics;
    let (group, nobody) = (unique("group"), unique("nobody"));
    kafka.create_topics(&[one, two, three], 2)?;
    kafka.produce(two, 1, 9)?;
    kafka.commit(&group, one, &[(0, 0)])?;
    kafka.commit(&group, two, &[(0, 0), (1, 4)])?;
    let mut sources = Sources::new(kafka)?;
    let found = format!(
        "{group} {one}: 0 -
         {group} {two}: 0 4
         {one}: 0..0 0..0
         {two}: 0..0 0..9"
    );
    sources.expect(
        &plan_of(&[(&group, &[]), (&nobody, &[])]),
        &format!("{found}\n{nobody}: no topics"),
    )?;
    // A named topic is read in addition to the discovered ones.
    let mut both = plan(&group, &[three]);
    both.groups[0].discover = true;
    sources.expect(
        &both,
        &format!("{found}\n{group} {three}: - -\n{three}: 0..0 0..0"),
    )?;
    // A client that has discovered the topics also finds a topic that the group begins to read.
    kafka.commit(&group, three, &[(1, 0)])?;
    sources.wait_for(
        Duration::from_secs(20),
        "the topic with a first commit",
        &plan_of(&[(&group, &[]), (&nobody, &[])]),
        &format!("{found}\n{group} {three}: - 0\n{three}: 0..0 0..0\n{nobody}: no topics"),
    )?;
    for (client, list) in sources.list_groups() {
        ensure!(
            list.faults.is_empty() && list.connection.is_none(),
            "{client:?}: {list:?}"
        );
        let has = |name: &str| list.groups.iter().any(|group| group.as_str() == name);
        ensure!(
            has(&group) && !has(&nobody),
            "{client:?} lists {:?}",
            list.groups
        );
    }
    Ok(())
}

/// Many groups at once, of all coordinators, with separate and shared topics.
pub(crate) fn many_groups(kafka: &KafkaCluster) -> Result<()> {
    let topics: Vec<String> = (0..3).map(|_| unique("topic")).collect();
    kafka.create_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>(), 3)?;
    let mut expected = String::new();
    for topic in &topics {
        kafka.produce_to(topic, &[(0, 20), (1, 30)])?;
        expected += &format!("{topic}: 0..20 0..30 0..0\n");
    }
    let groups: Vec<(String, &str)> = (0..20)
        .map(|i| (unique("group"), topics[i % 3].as_str()))
        .collect();
    for (i, (group, topic)) in (0_i64..).zip(&groups) {
        kafka.commit(group, topic, &[(0, i), (1, 30 - i)])?;
        expected += &format!("{group} {topic}: {i} {} -\n", 30 - i);
    }
    let wanted: Vec<(&str, [&str; 1])> = groups
        .iter()
        .map(|(group, topic)| (group.as_str(), [*topic]))
        .collect();
    let wanted: Vec<(&str, &[&str])> = wanted
        .iter()
        .map(|(group, topics)| (*group, topics.as_slice()))
        .collect();
    Sources::new(kafka)?.expect(&plan_of(&wanted), &expected)
}

/// Names at the limits of what Kafka accepts.
pub(crate) fn odd_names(kafka: &KafkaCluster) -> Result<()> {
    let short = unique("o");
    let long = format!("{short}{}", "x".repeat(249 - short.len()));
    let dotted = format!("{}.with_dots-and.more", unique("odd"));
    let groups = [
        format!("{} grüße, 組; \"quoted\" {{}}", unique("odd")),
        format!("{} #/?&%41=+:", unique("odd")),
        format!("{}{}", unique("odd"), "g".repeat(1000)),
    ];
    kafka.create_topics(&[&long, &dotted], 1)?;
    let mut expected = format!("{long}: 0..3\n{dotted}: 0..0\n");
    kafka.produce(&long, 0, 3)?;
    for group in &groups {
        kafka.commit(group, &long, &[(0, 1)])?;
        expected += &format!("{group} {long}: 1\n{group} {dotted}: -\n");
    }
    let topics: &[&str] = &[&long, &dotted];
    let wanted: Vec<_> = groups.iter().map(|group| (&**group, topics)).collect();
    let plan = plan_of(&wanted);
    Sources::new(kafka)?.expect(&plan, &expected)
}

/// Members that consume, one that leaves, and the group they leave behind.
pub(crate) fn live_classic_group(kafka: &KafkaCluster) -> Result<()> {
    live(kafka, "classic")
}

/// The same with the protocol of KIP-848.
pub(crate) fn live_group_of_the_consumer_protocol(kafka: &KafkaCluster) -> Result<()> {
    live(kafka, "consumer")
}

fn live(kafka: &KafkaCluster, protocol: &str) -> Result<()> {
    let (topic, group) = (unique("topic"), unique(protocol));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 30), (1, 20)])?;
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: group.clone(),
        topic: topic.clone(),
        per_second: 200,
        properties: vec![("group.protocol".to_owned(), protocol.to_owned())],
    };
    let mut fleet = ConsumerFleet::new(kafka.folder(), options);
    fleet.scale_to(2)?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    let assignor = if protocol == "classic" {
        "range"
    } else {
        "uniform"
    };
    let members = format!(
        "{group} is stable {protocol} by {assignor}, members with 1 2
         {group} member rdkafka reads {topic}
         {group} has {topic}: 0 1 2"
    );
    let drained = format!("{members}\n{group} {topic}: 30 20 -\n{topic}: 0..30 0..20 0..0");
    sources.wait_for(
        Duration::from_secs(40),
        "the group to have caught up",
        &plan,
        &drained,
    )?;
    let in_state = |state: &str| {
        poll_until(
            Duration::from_secs(30),
            &format!("the group to be {state}"),
            || {
                let output =
                    kafka.consumer_groups_tool(&["--describe", "--group", &group, "--state"])?;
                ensure!(output.contains(state), "{output}");
                Ok(())
            },
        )
    };
    in_state("Stable")?;
    kafka.produce_to(&topic, &[(2, 10)])?;
    let more = format!("{group} {topic}: 30 20 10\n{topic}: 0..30 0..20 0..10");
    let live = format!("{members}\n{more}");
    sources.wait_for(Duration::from_secs(20), "what is new", &plan, &live)?;

    fleet.scale_to(0)?;
    in_state("Empty")?;
    // An empty group of the consumer protocol is one still, and its assignor what its last members chose.
    let left = if protocol == "classic" {
        more
    } else {
        format!("{group} is empty consumer by {assignor}, members with\n{more}")
    };
    Sources::new(kafka)?.expect(&plan, &left)?;
    sources.wait_for(
        Duration::from_secs(60),
        "the members to be gone",
        &plan,
        &left,
    )
}
