//! Logs that change under a group's commits: deletion, recreation, compaction, new partitions.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::units::newtypes::Isolation;

use super::Row;
use super::work::Worker;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::{Hopeless, poll_until};

/// Unread messages that retention deleted are no lag, and are reported.
pub(super) fn retention_overtook_the_group(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 100), (1, 10)])?;
    row.commit(&[(0, 20), (1, 4)])?;
    row.expect("measured 80, measured 6")?;
    kafka.delete_records(&row.topic, &[(0, 50)])?;
    // Log starts are read once a minute while nothing indicates a change.
    row.wait_for("lost 50, 30 gone, measured 6")?;
    row.commit(&[(0, 60)])?;
    row.expect("measured 40, measured 6")
}

/// A commit on a deleted topic is not used for the recreated one. Only the wire client notices that a topic with more
/// records than before is a new one. Kafka itself deletes the commits with the topic.
pub(super) fn a_topic_recreated_is_unknown_until_the_next_commit(
    kafka: &KafkaCluster,
) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 30)])?;
    row.commit(&[(0, 25)])?;
    row.expect("measured 5")?;
    kafka.delete_topic(&row.topic)?;
    row.wait_for("!topic_missing")?;
    kafka.create_topic(&row.topic, 1)?;
    row.produce(&[(0, 7)])?;
    // The group has no commit on this topic: its commits on the other topic do not count here.
    row.wait_for("never_ran")?;
    row.commit(&[(0, 3)])?;
    row.wait_for("measured 4")
}

/// A topic is deleted and recreated between two sweeps, with fewer partitions and more records than before. Its topic
/// ID shows that the group has no commits on it. librdkafka gets no topic IDs: for a minute the reading counts as
/// incomplete, and then the commits as expired.
pub(super) fn a_topic_recreated_between_two_sweeps_is_detected(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 3)?;
    row.produce(&[(0, 30), (2, 30)])?;
    row.commit(&[(0, 25), (1, 0), (2, 30)])?;
    row.expect("measured 5, measured 0, measured 0")?;
    kafka.delete_topic(&row.topic)?;
    kafka.create_topic(&row.topic, 1)?;
    row.produce(&[(0, 40)])?;
    let by = |librdkafka: &'static str| {
        move |client| match client {
            ClientKind::Librdkafka => librdkafka,
            _ => "never_ran",
        }
    };
    poll_until(super::CHANGE_TIMEOUT, "the new topic", || {
        for (client, seen) in row.readings()? {
            if seen != by("!no_answer")(client) {
                // One unknown partition, and the sum is unknown.
                ensure!(seen.contains('!'), Hopeless(format!("{client:?}: {seen}")));
                bail!("{client:?}: {seen}");
            }
        }
        Ok(())
    })?;
    row.advance_clock(Duration::from_secs(60));
    row.expect_each(by("forgotten 15"))?;
    row.commit(&[(0, 33)])?;
    row.wait_for("measured 7")
}

/// Retention has deleted all records and none are written: an old commit is no lag, and later records are counted
/// correctly.
pub(super) fn a_topic_whose_records_are_all_gone_has_no_lag(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 100), (1, 100)])?;
    row.commit(&[(0, 20), (1, 100)])?;
    row.expect("measured 80, measured 0")?;
    kafka.delete_records(&row.topic, &[(0, 100), (1, 100)])?;
    row.wait_for("lost 0, 80 gone, measured 0")?;
    row.produce(&[(0, 3)])?;
    row.wait_for("lost 3, 80 gone, measured 0")?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.wait_for("measured 0, measured 0")?;
    worker.leave()
}

/// A commit beyond the log end belongs to another log.
pub(super) fn a_commit_beyond_the_end_is_unknown(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 10), (1, 10)])?;
    row.commit(&[(0, 25), (1, 10)])?;
    row.expect("!commit_beyond_end, measured 0")?;
    // Even when the log has grown past it: its messages were never this group's.
    row.produce(&[(0, 20)])?;
    row.expect("!log_replaced, measured 0")?;
    row.commit(&[(0, 28)])?;
    row.expect("measured 2, measured 0")
}

/// A reader of committed records has nothing to read beyond the last stable offset.
pub(super) fn committed_records_only(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 3)?.read(|plan| plan.isolation = Isolation::ReadCommitted);
    let (committed, aborted, open) = (
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
    );
    row.produce(&[(2, 5)])?;
    committed.produce(&row.topic, 0, 3)?;
    aborted.produce(&row.topic, 1, 4)?;
    open.produce(&row.topic, 2, 6)?;
    row.commit(&[(0, 0), (1, 0), (2, 2)])?;
    row.expect("measured 0, measured 0, measured 3")?;
    committed.commit()?;
    aborted.abort()?;
    // Markers and aborted records have offsets as all others do.
    row.wait_for("measured 4, measured 5, measured 3")?;
    row.commit(&[(2, 7)])?;
    row.expect("measured 4, measured 5, beyond_stable")?;
    open.commit()?;
    row.wait_for("measured 4, measured 5, measured 5")
}

/// The offsets that compaction took away count until the group has passed them.
pub(super) fn a_compacted_topic_counts_its_gaps(kafka: &KafkaCluster) -> Result<()> {
    let (topic, written) = kafka.compacted_topic()?;
    let mut row = Row::on_topic(kafka, topic)?;
    row.commit(&[(0, 1)])?;
    row.expect(&format!("measured {}", written - 1))?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.wait_for("measured 0")?;
    worker.leave()
}

/// Messages on new partitions count as lag of a live group before it has these partitions assigned.
pub(super) fn partitions_added_under_a_live_group(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    // The interval at which the consumer checks for new partitions.
    let often = [("topic.metadata.refresh.interval.ms", "1000")];
    row.produce(&[(0, 3)])?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &often)?;
    row.wait_for("measured 0")?;
    let added = ["--alter", "--topic", &row.topic, "--partitions", "3"];
    kafka.topics_tool(&added)?;
    kafka.wait_for_leaders(&row.topic, 3)?;
    row.produce(&[(1, 5), (2, 7)])?;
    row.wait_for("measured 0, measured 0, measured 0")?;
    worker.leave()?;
    row.produce(&[(2, 4)])?;
    row.expect("measured 0, measured 0, measured 4")?;
    for (client, lag) in row.lags()? {
        ensure!(
            client == ClientKind::Librdkafka || lag.offsets.id.is_some(),
            "no topic ID"
        );
    }
    Ok(())
}
