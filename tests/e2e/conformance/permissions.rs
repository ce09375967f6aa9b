//! Groups and topics that a login may not see are reported by name, and do not affect others.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::sources::{Sources, plan, plan_of};
use crate::testbed::broker::SASL_PASSWORD;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::secured::READER;
use crate::testbed::unique;

/// `Describe` on a group and on a topic is all it takes; without either, that group or that topic is denied.
pub(crate) fn denied_groups_and_topics_are_named(kafka: &KafkaCluster) -> Result<()> {
    let (topic, secret) = (unique("topic"), unique("secret"));
    let (group, denied) = (unique("group"), unique("denied"));
    kafka.create_topics(&[&topic, &secret], 2)?;
    for name in [&topic, &secret] {
        kafka.produce_to(name, &[(0, 4), (1, 4)])?;
        kafka.commit(&group, name, &[(0, 1), (1, 2)])?;
        kafka.commit(&denied, name, &[(0, 1), (1, 2)])?;
    }
    let hidden = unique("hidden");
    kafka.allow_describe(&[&topic], &[&group, &hidden])?;
    let mut sources = Sources::connect(&[
        ("bootstrap.servers", &kafka.sasl_bootstrap()),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", READER),
        ("sasl.password", SASL_PASSWORD),
    ])?;
    let allowed = format!("{group} {topic}: 1 2\n{topic}: 0..4 0..4");
    sources.expect(&plan(&group, &[&topic]), &allowed)?;
    sources.expect(
        &plan_of(&[(&group, &[&topic, &secret]), (&denied, &[&topic, &secret])]),
        &format!("{allowed}\n{denied}: !group_denied\n{secret}: topic_denied"),
    )?;
    // Of a group whose members read what may not be seen, the broker reports only the kind; its commits are read.
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: hidden.clone(),
        topic: secret.clone(),
        per_second: 100,
        properties: vec![("group.protocol".to_owned(), "consumer".to_owned())],
    };
    let mut members = ConsumerFleet::new(kafka.folder(), options);
    members.scale_to(1)?;
    poll_until(Duration::from_secs(90), "the member to have joined", || {
        let args = ["--describe", "--group", &hidden, "--state"];
        let output = kafka.consumer_groups_tool(&args)?;
        ensure!(output.contains("Stable"), "{output}");
        Ok(())
    })?;
    sources.expect(
        &plan(&hidden, &[&topic]),
        &format!("{hidden} is !topic_denied\n{hidden} {topic}: - -\n{topic}: 0..4 0..4"),
    )?;
    // Without named topics, denied topics cannot be distinguished from ones without commits.
    sources.expect(
        &plan_of(&[(&group, &[]), (&denied, &[])]),
        &format!("{allowed}\n{denied}: !group_denied"),
    )
}
