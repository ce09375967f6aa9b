//! Groups without commits, or whose commits were deleted.

use std::time::Duration;

use anyhow::Result;
use lagwise::kafka::ClientKind;
use lagwise::model::units::newtypes::OffsetReset;

use super::Row;
use super::work::Worker;
use crate::testbed::kafka::KafkaCluster;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// For a group that never ran, only the reset policy of its consumers determines the lag.
pub(super) fn without_a_commit_the_reset_policy_decides(kafka: &KafkaCluster) -> Result<()> {
    let mut latest = Row::new(kafka, 2)?;
    latest.produce(&[(0, 10), (1, 20)])?;
    kafka.delete_records(&latest.topic, &[(1, 5)])?;
    latest.expect("never_ran, never_ran")?;
    let mut earliest =
        Row::on_topic(kafka, latest.topic.clone())?.read(|plan| plan.reset = OffsetReset::Earliest);
    earliest.expect("from_start 10, from_start 15")
}

/// Records that retention has deleted are no lag, wherever consumers start, and a partition without records has no lag.
pub(super) fn without_a_commit_deleted_records_are_no_lag(kafka: &KafkaCluster) -> Result<()> {
    let mut latest = Row::new(kafka, 4)?;
    latest.produce(&[(0, 10), (2, 5), (3, 10)])?;
    latest.commit(&[(2, 5)])?;
    kafka.delete_records(&latest.topic, &[(0, 10), (3, 4)])?;
    let mut earliest =
        Row::on_topic(kafka, latest.topic.clone())?.read(|plan| plan.reset = OffsetReset::Earliest);
    earliest.commit(&[(2, 5)])?;
    earliest.expect("from_start 0, from_start 0, measured 0, from_start 6")?;
    // A group that commits is assumed to be working and to have read the messages that were there when it was first
    // seen.
    latest.expect("since_seen 0, since_seen 0, measured 0, since_seen 0")?;
    latest.produce(&[(0, 2), (1, 1)])?;
    latest.expect("since_seen 2, since_seen 1, measured 0, since_seen 0")?;
    earliest.expect("from_start 2, from_start 1, measured 0, from_start 6")
}

/// The lag of a member that starts at the log end is the number of messages written since. Only the wire client sees
/// members.
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
    row.wait_for_each("its member to be seen", by("since_seen 0", "never_ran"))?;
    row.produce(&[(0, 7)])?;
    row.wait_for_each("what came since", by("since_seen 7", "never_ran"))?;
    worker.leave()
}

/// A group whose commits Kafka deleted is distinguished from one that never ran.
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
    row.wait_for("forgotten 6, forgotten 0")?;
    row.produce(&[(1, 5)])?;
    row.wait_for("forgotten 6, forgotten 5")?;
    row.advance_clock(6 * DAY);
    row.expect("forgotten 6, forgotten 5")?;
    row.advance_clock(2 * DAY);
    row.expect("never_ran, never_ran")?;
    row.commit(&[(0, 5), (1, 20)])?;
    row.expect("measured 5, measured 5")
}

/// A consumer that assigns partitions to itself commits, but is not a member.
pub(super) fn a_member_by_manual_assignment(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 10), (1, 20)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.assign = vec![1];
    })?;
    // It never committed on the other partition, which no consumer reads.
    row.wait_for("since_seen 0, measured 0")?;
    worker.leave()
}
