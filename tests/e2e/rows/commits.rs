//! Groups that have no commit, or none any more.

use std::time::Duration;

use anyhow::Result;
use lagwise::kafka::ClientKind;
use lagwise::model::units::newtypes::OffsetReset;

use super::Row;
use super::work::Worker;
use crate::testbed::kafka::KafkaCluster;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Of a group that never ran nothing is known but where its consumers would begin.
pub(super) fn without_a_commit_the_reset_policy_decides(kafka: &KafkaCluster) -> Result<()> {
    let mut latest = Row::new(kafka, 2)?;
    latest.produce(&[(0, 10), (1, 20)])?;
    kafka.delete_records(&latest.topic, &[(1, 5)])?;
    latest.expect("never_ran, never_ran")?;
    let mut earliest =
        Row::of(kafka, latest.topic.clone())?.read(|plan| plan.reset = OffsetReset::Earliest);
    earliest.expect("from_start 10, from_start 15")
}

/// Records that retention has deleted are nobody's work, wherever consumers begin, and a partition that was never
/// written to has none.
pub(super) fn without_a_commit_deleted_records_are_no_lag(kafka: &KafkaCluster) -> Result<()> {
    let mut latest = Row::new(kafka, 4)?;
    latest.produce(&[(0, 10), (2, 5), (3, 10)])?;
    latest.commit(&[(2, 5)])?;
    kafka.delete_records(&latest.topic, &[(0, 10), (3, 4)])?;
    let mut earliest =
        Row::of(kafka, latest.topic.clone())?.read(|plan| plan.reset = OffsetReset::Earliest);
    earliest.commit(&[(2, 5)])?;
    earliest.expect("from_start 0, from_start 0, measured 0, from_start 6")?;
    // A group that commits is taken for one at work, which has read what was there when it was first seen.
    latest.expect("since_seen 0, since_seen 0, measured 0, since_seen 0")?;
    latest.produce(&[(0, 2), (1, 1)])?;
    latest.expect("since_seen 2, since_seen 1, measured 0, since_seen 0")?;
    earliest.expect("from_start 2, from_start 1, measured 0, from_start 6")
}

/// A member that begins at the end has to read what came since. Who has members only the wire client can tell.
pub(super) fn a_member_without_a_commit_reads_what_came_since(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 10)])?;
    // It commits nothing, ever.
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.subscribe = true;
        worker.commits = false;
        worker.latest = true;
    })?;
    let by = |wire, librdkafka| {
        move |client| match client {
            ClientKind::Wire => wire,
            _ => librdkafka,
        }
    };
    row.until_each("its member to be seen", by("since_seen 0", "never_ran"))?;
    row.produce(&[(0, 7)])?;
    row.until_each("what came since", by("since_seen 7", "never_ran"))?;
    worker.leave()
}

/// A commit that Kafka forgot is not a group that never ran.
pub(super) fn commits_that_vanished_are_remembered(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 10), (1, 20)])?;
    row.commit(&[(0, 4), (1, 20)])?;
    row.expect("measured 6, measured 0")?;
    let deleted = [
        "--delete-offsets",
        "--group",
        &row.group,
        "--topic",
        &row.topic,
    ];
    kafka.consumer_groups_tool(&deleted)?;
    row.until("forgotten 6, forgotten 0")?;
    row.produce(&[(1, 5)])?;
    row.until("forgotten 6, forgotten 5")?;
    row.pass(6 * DAY);
    row.expect("forgotten 6, forgotten 5")?;
    row.pass(2 * DAY);
    row.expect("never_ran, never_ran")?;
    row.commit(&[(0, 5), (1, 20)])?;
    row.expect("measured 5, measured 5")
}

/// A consumer that assigns itself its partitions commits, and is no member.
pub(super) fn a_member_by_manual_assignment(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 10), (1, 20)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.assign = vec![1];
    })?;
    // It never committed on the other one, which nobody reads.
    row.until("since_seen 0, measured 0")?;
    worker.leave()
}
