//! Options that KEDA accepts, refuses and ignores.

use super::*;

fn parse(kind: TriggerKind, options: &[(&str, &str)], minor: u32) -> Result<KafkaTrigger, String> {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let metadata = options.iter().map(text).collect();
    let parsed = KafkaTrigger::parse(kind, &metadata, KedaVersion { minor });
    parsed.map_err(|problems| {
        let texts = problems.iter().map(|p| format!("{} {}", p.key, p.problem));
        Vec::from_iter(texts).join("; ")
    })
}

#[test]
fn refuses_triggers_that_keda_refuses() {
    use TriggerKind::{ApacheKafka, Kafka};
    let topic = ("topic", "orders");
    let limit = ("limitToPartitionsWithLag", "true");
    let even = ("ensureEvenDistributionOfPartitions", "true");
    for (kind, options, expected) in [
        (
            Kafka,
            &[("lagThreshold", "0")][..],
            Some("lagThreshold \"0\" is not a whole number from 1"),
        ),
        (
            Kafka,
            &[("lagThreshold", "-5")],
            Some("lagThreshold \"-5\""),
        ),
        (
            Kafka,
            &[("lagThreshold", "1.5")],
            Some("lagThreshold \"1.5\""),
        ),
        (
            Kafka,
            &[("lagThreshold", "+5")],
            Some("lagThreshold \"+5\""),
        ),
        (
            Kafka,
            &[("lagThreshold", "99999999999999999999")],
            Some("lagThreshold"),
        ),
        (Kafka, &[("lagThreshold", "")], None),
        (
            Kafka,
            &[("activationLagThreshold", "-1")],
            Some("activationLagThreshold \"-1\" is not a whole number from 0"),
        ),
        (
            Kafka,
            &[("offsetResetPolicy", "none")],
            Some("offsetResetPolicy \"none\" is neither"),
        ),
        (
            Kafka,
            &[("allowIdleConsumers", "yes")],
            Some("allowIdleConsumers \"yes\" is neither true nor false"),
        ),
        (Kafka, &[("allowIdleConsumers", " T ")], None),
        (
            Kafka,
            &[topic, ("partitionLimitation", "1-2-3")],
            Some("partitionLimitation"),
        ),
        (
            Kafka,
            &[topic, ("partitionLimitation", "a")],
            Some("partitionLimitation \"a\" is not a list"),
        ),
        (
            Kafka,
            &[topic, limit, ("allowIdleConsumers", "true")],
            Some("limitToPartitionsWithLag excludes allowIdleConsumers"),
        ),
        (
            Kafka,
            &[limit],
            Some("limitToPartitionsWithLag needs a topic"),
        ),
        (
            Kafka,
            &[topic, limit, even],
            Some("ensureEvenDistributionOfPartitions excludes limitToPartitionsWithLag"),
        ),
        (
            Kafka,
            &[even],
            Some("ensureEvenDistributionOfPartitions needs a topic"),
        ),
        (
            Kafka,
            &[("fullMetadata", "false")],
            Some("topic required with fullMetadata: false"),
        ),
        (
            ApacheKafka,
            &[limit],
            Some("limitToPartitionsWithLag needs a topic"),
        ),
        (ApacheKafka, &[topic, limit, even], None),
        (ApacheKafka, &[even], None),
        (ApacheKafka, &[("fullMetadata", "false")], None),
    ] {
        let found = parse(kind, options, 21);
        match expected {
            Some(problem) => {
                let found = found.unwrap_err();
                assert!(found.starts_with(problem), "{options:?}: {found}");
            }
            None => assert!(found.is_ok(), "{options:?}: {found:?}"),
        }
    }
}

#[test]
fn older_versions_ignore_options_that_they_do_not_have() {
    let options = [
        ("topic", "orders"),
        ("partitionLimitation", "0-2"),
        ("excludePersistentLag", "true"),
        ("limitToPartitionsWithLag", "true"),
    ];
    let at = |minor| {
        let trigger = parse(TriggerKind::Kafka, &options, minor).unwrap();
        let limited = trigger.limit_to_partitions_with_lag;
        (
            trigger.partitions.is_some(),
            trigger.exclude_persistent_lag,
            limited,
        )
    };
    assert_eq!(at(8), (false, false, false));
    assert_eq!(at(12), (true, true, false));
    assert_eq!(at(13), (true, true, true));
    let even = [
        ("topic", "orders"),
        ("ensureEvenDistributionOfPartitions", "true"),
    ];
    assert!(!parse(TriggerKind::Kafka, &even, 17).unwrap().even);
    assert!(parse(TriggerKind::Kafka, &even, 18).unwrap().even);
    assert!(!KedaVersion { minor: 11 }.has_apache_kafka());
}

#[test]
fn prints_the_partitions_as_the_annotation_has_them() {
    let of = |text: &str| {
        let options = [("topic", "orders"), ("partitionLimitation", text)];
        let trigger = parse(TriggerKind::Kafka, &options, 21).unwrap();
        trigger.partitions.unwrap()
    };
    assert_eq!(of("1, 2,10 - 20,31").ranges(), "1,2,10-20,31");
    assert_eq!(of("9-3,4").ranges(), "4");
    assert!(of("9-3").is_empty());
    assert!(of("0-2147483647").contains(2_147_483_647) && !of("0-3").contains(4));
}

#[test]
fn only_apache_kafka_takes_several_topics() {
    let options = [("topic", "orders, mails")];
    let count = |kind| parse(kind, &options, 21).unwrap().topics.len();
    assert_eq!(
        (count(TriggerKind::Kafka), count(TriggerKind::ApacheKafka)),
        (1, 2)
    );
}
