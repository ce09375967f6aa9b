//! The lag of share groups. Brokers of Kafka 4.2 and later report it, older ones report only start offsets.

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;

use super::{CHANGE_TIMEOUT, reading};
use crate::sources::{Sources, plan_of};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::unique;

/// Records beyond the group's start offset are acknowledged, while a released record keeps the start offset back.
pub(super) fn lag_is_what_the_broker_reports(kafka: &KafkaCluster) -> Result<()> {
    // Released offset, records of each partition, and the lag of each.
    for (released, records, lags) in [
        (&[0][..], &[1000][..], &[1][..]),
        (&[7, 40], &[300, 20], &[2, 1]),
    ] {
        let (topic, group) = (unique("topic"), unique("share"));
        kafka.create_topic(&topic, i32::try_from(records.len())?)?;
        let counts: Vec<(i32, usize)> = (0..).zip(records.iter().copied()).collect();
        kafka.produce_to(&topic, &counts)?;
        let all: usize = records.iter().sum();
        let left: u64 = lags.iter().sum();
        kafka.share(&group, &topic, all - usize::try_from(left)?, released)?;
        let expected = lags.iter().map(|lag| format!("reported {lag}"));
        let expected = expected.collect::<Vec<_>>().join(", ");
        // Kafka's own tool says the same.
        let by_tool = poll_until(CHANGE_TIMEOUT, "the lag by Kafka's tool", || {
            let by_tool = kafka.share_lags(&group)?;
            let by_tool: Vec<_> = by_tool
                .into_iter()
                .map(|(_, lag)| lag.to_string())
                .collect();
            let expected: Vec<_> = lags.iter().map(u64::to_string).collect();
            ensure!(by_tool == expected, "{by_tool:?} instead of {expected:?}");
            Ok(by_tool)
        })?;
        // Named or discovered, the same.
        for topics in [&[topic.as_str()][..], &[]] {
            wait_for(kafka, &group, &topic, topics, &expected)
                .with_context(|| format!("where Kafka's tool says {by_tool:?}"))?;
        }
    }
    Ok(())
}

/// With the request of Kafka 4.1, no lag is reported.
pub(super) fn lag_is_a_bound_where_the_broker_reports_none(kafka: &KafkaCluster) -> Result<()> {
    for (records, released) in [(50, 0), (30, 12)] {
        let (topic, group) = (unique("topic"), unique("share"));
        kafka.create_topic(&topic, 1)?;
        kafka.produce(&topic, 0, records)?;
        kafka.share(&group, &topic, records - 1, &[released])?;
        // The broker writes down how far a batch got with the batch after it.
        let stands = kafka.share_offsets(&group)?;
        let stands = stands[0].1.context("no start offset")?;
        let most = i64::try_from(records)? - stands;
        wait_for(
            kafka,
            &group,
            &topic,
            &[&topic],
            &format!("upper_bound {most}"),
        )?;
    }
    Ok(())
}

/// Waits until the wire client reads this; librdkafka sees no share groups.
fn wait_for(
    kafka: &KafkaCluster,
    group: &str,
    topic: &str,
    topics: &[&str],
    expected: &str,
) -> Result<()> {
    let mut sources = Sources::with(
        &[ClientKind::Wire],
        &[("bootstrap.servers", &kafka.bootstrap())],
    )?;
    let plan = plan_of(&[(group, topics)]);
    poll_until(CHANGE_TIMEOUT, expected, || {
        sources.sweep(&plan)?;
        let known = &sources.each[0].known;
        let seen = reading(known.groups.get(group).context("no reading")?, topic);
        ensure!(seen == expected, "{seen} instead of {expected}");
        Ok(())
    })
}
