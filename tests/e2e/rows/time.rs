//! Rules that need time: residual lag, stuck partitions, long jobs, and lag in seconds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::lag::cluster_snapshot::GroupSnapshot;

use super::Row;
use super::work::Worker;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;

const MINUTE: Duration = Duration::from_secs(60);

/// The committed offset of a consumer that has read everything stays before the transaction marker. The lag becomes
/// residual, if the client sees that the group has a member, which only the wire client does.
pub(super) fn a_transaction_marker_is_a_residue(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    let transaction = kafka.begin_transaction()?;
    transaction.produce(&row.topic, 0, 3)?;
    transaction.commit()?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.wait_for("measured 1")?;
    wait_until_described(&mut row)?;
    row.advance_clock(4 * MINUTE);
    row.expect("measured 1")?;
    row.advance_clock(2 * MINUTE);
    row.expect_each(|client| match client {
        ClientKind::Wire => "residual 1",
        _ => "measured 1",
    })?;
    for (client, lag) in row.lags()? {
        ensure!(
            client != ClientKind::Wire || lag.total().is_ok_and(|lag| lag.0 == 0),
            "a residue is no work"
        );
    }
    // New records count again.
    row.produce(&[(0, 20)])?;
    row.wait_for("measured 0")?;
    worker.leave()
}

/// Residual lag stays residual when its consumer has left, until a transaction adds a record and its marker.
pub(super) fn a_residue_outlives_its_consumer(kafka: &KafkaCluster) -> Result<()> {
    for aborted in [false, true] {
        let mut row = Row::new(kafka, 1)?;
        let transact = |aborts: bool| {
            let transaction = kafka.begin_transaction()?;
            transaction.produce(&row.topic, 0, 3)?;
            if aborts {
                transaction.abort()
            } else {
                transaction.commit()
            }
        };
        transact(false)?;
        // Records of aborted transactions are residual, too.
        if aborted {
            transact(true)?;
        }
        let (measured, residual, again) = match aborted {
            false => ("measured 1", "residual 1", "measured 5"),
            true => ("measured 5", "residual 5", "measured 9"),
        };
        let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
        wait_until_described(&mut row)?;
        row.wait_for(measured)?;
        row.advance_clock(6 * MINUTE);
        let expected = |residual: &'static str| {
            move |client| match client {
                ClientKind::Wire => residual,
                _ => measured,
            }
        };
        row.wait_for_each("the residue", expected(residual))?;
        worker.leave()?;
        poll_until(super::CHANGE_TIMEOUT, "the group to be empty", || {
            row.sweep()?;
            let described = wire_group(&row)?.map(|group| group.description.as_deref());
            let is_empty = described.is_none_or(|d| d.is_some_and(|d| d.members.is_empty()));
            ensure!(is_empty, "{described:?}");
            Ok(())
        })?;
        row.expect_each(expected(residual))?;
        row.advance_clock(60 * MINUTE);
        row.expect_each(expected(residual))?;
        let transaction = kafka.begin_transaction()?;
        transaction.produce(&row.topic, 0, 3)?;
        transaction.commit()?;
        row.wait_for(again)?;
    }
    Ok(())
}

/// Waits until the member of the group is seen to have all partitions, by the client that can see members.
fn wait_until_described(row: &mut Row<'_>) -> Result<()> {
    poll_until(super::CHANGE_TIMEOUT, "the member to be described", || {
        row.sweep()?;
        let Some(group) = wire_group(row)? else {
            return Ok(());
        };
        let described = &group.description;
        let partitions = group.topics[row.topic.as_str()].latest.as_ref();
        let all = partitions.map_or(0, |lag| lag.lags.len());
        let has_all = described.as_ref().is_some_and(|group_description| {
            let mut members = group_description.members.iter();
            members.any(|member| member.partitions() == all)
        });
        ensure!(has_all, "{described:?}");
        Ok(())
    })
}

/// The unread markers of a group without members stay residual after Kafka has deleted its commits. (Not with
/// librdkafka, which does not see members.)
pub(super) fn a_residue_outlives_its_commit(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    let transaction = kafka.begin_transaction()?;
    transaction.produce(&row.topic, 0, 3)?;
    transaction.commit()?;
    row.produce(&[(1, 2)])?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.wait_for("measured 1, measured 0")?;
    wait_until_described(&mut row)?;
    row.advance_clock(6 * MINUTE);
    let by = |wire: &'static str, librdkafka: &'static str| {
        move |client| match client {
            ClientKind::Wire => wire,
            _ => librdkafka,
        }
    };
    row.expect_each(by("residual 1, measured 0", "measured 1, measured 0"))?;
    worker.leave()?;
    let delete = ["--delete-offsets", "--group", &row.group, "--topic"];
    poll_until(super::CHANGE_TIMEOUT, "the commits to be deleted", || {
        kafka.consumer_groups_tool(&[&delete[..], &[&row.topic]].concat())?;
        ensure!(
            kafka.committed(&row.group, &row.topic)? == [None; 2],
            "they are there"
        );
        Ok(())
    })?;
    row.wait_for_each(
        "the commits to be gone",
        by("residual 1, forgotten 0", "forgotten 1, forgotten 0"),
    )?;
    row.advance_clock(60 * MINUTE);
    row.expect_each(by("residual 1, forgotten 0", "forgotten 1, forgotten 0"))?;
    // A record is work.
    row.produce(&[(0, 1)])?;
    row.wait_for_each(
        "the record",
        by("forgotten 2, forgotten 0", "forgotten 2, forgotten 0"),
    )
}

/// The group as read by the wire client, the only one that describes groups; `None` if that client is not tested.
fn wire_group<'a>(row: &'a Row<'_>) -> Result<Option<&'a GroupSnapshot>> {
    let mut each = row.sources.each.iter();
    let wire = each.find(|subject| subject.client == ClientKind::Wire);
    let Some(wire) = wire else {
        return Ok(None);
    };
    let group = wire.known.groups.get(row.group.as_str());
    let group = group.context("no reading of the group")?;
    Ok(Some(group.as_ref()))
}

/// A partition whose consumer always fails at one record, while another partition makes progress.
pub(super) fn a_poison_partition_is_stuck(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 30), (1, 30)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.subscribe = true;
        worker.poison = Some((0, 12));
    })?;
    row.wait_for("measured 18, measured 0")?;
    for _ in 0..4 {
        row.advance_clock(MINUTE);
        row.produce(&[(1, 10)])?;
        row.wait_for("measured 18, measured 0")?;
    }
    row.advance_clock(2 * MINUTE);
    row.produce(&[(1, 10)])?;
    row.wait_for("stuck 18, measured 0")?;
    worker.leave()?;
    // The consumer is repaired.
    row.commit(&[(0, 13)])?;
    row.expect("measured 17, measured 0")
}

/// One job of half an hour, during which no offset changes: the lag is neither stuck nor residual.
pub(super) fn a_long_job_is_neither_stuck_nor_a_residue(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 30)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.subscribe = true;
        worker.poison = Some((0, 12));
    })?;
    row.wait_for("measured 18")?;
    for _ in 0..6 {
        row.advance_clock(5 * MINUTE);
        row.expect("measured 18")?;
    }
    worker.leave()
}

/// The age of the first unread message: a lower bound until the history covers the message, then exact.
pub(super) fn lag_in_seconds(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 10)])?;
    row.commit(&[(0, 10)])?;
    row.expect("measured 0")?;
    row.advance_clock(10 * MINUTE);
    row.expect("measured 0")?;
    row.produce(&[(0, 5)])?;
    row.expect("measured 5")?;
    row.advance_clock(MINUTE);
    row.expect("measured 5")?;
    for (client, lag) in row.lags()? {
        let age = lag.age().map(|age| (age.duration(), age.is_bound()));
        // The messages came right after the sweep that did not see them. The duration of a sweep is negligible here.
        let is_right =
            age.is_some_and(|(age, bound)| (MINUTE..2 * MINUTE).contains(&age) && !bound);
        ensure!(is_right, "{client:?}: {age:?}");
    }
    Ok(())
}

/// A client without history uses the timestamps of records, which give an exact age or a lower bound.
pub(super) fn lag_in_seconds_from_a_single_reading(kafka: &KafkaCluster) -> Result<()> {
    let (hour, now) = (60 * MINUTE, Duration::ZERO);
    for (what, ages, committed, range, is_bound) in [
        (
            "a new message after an idle time",
            &[hour, hour, now][..],
            2,
            Duration::ZERO..MINUTE,
            false,
        ),
        (
            "the first of old messages",
            &[hour * 30, 20 * MINUTE, 20 * MINUTE, now],
            1,
            20 * MINUTE..21 * MINUTE,
            false,
        ),
        (
            "the first of messages that are hours old",
            &[hour * 3, hour, now],
            0,
            hour * 3..hour * 3 + MINUTE,
            false,
        ),
        (
            "one older than the range that lagwise searches",
            &[hour * 30, hour * 30, now],
            1,
            hour * 24..hour * 31,
            true,
        ),
        (
            "one in the middle of old messages",
            &[20 * MINUTE, 20 * MINUTE, 20 * MINUTE, now],
            1,
            10 * MINUTE..20 * MINUTE,
            true,
        ),
        (
            "one in the middle of new messages",
            &[hour, now, now, now],
            2,
            Duration::ZERO..MINUTE,
            true,
        ),
        (
            "one among many of different times",
            &[hour, 8 * MINUTE, 2 * MINUTE, 2 * MINUTE, 90 * MINUTE / 60],
            3,
            MINUTE..2 * MINUTE + MINUTE / 2,
            true,
        ),
    ] {
        let mut row = Row::new(kafka, 1)?;
        kafka.produce_at(&row.topic, 0, ages)?;
        row.commit(&[(0, committed)])?;
        row.sweep()?;
        for (client, lag) in row.lags()? {
            let age = lag.age().map(|age| (age.duration(), age.is_bound()));
            let is_right =
                age.is_some_and(|(age, bound)| range.contains(&age) && bound == is_bound);
            ensure!(is_right, "{client:?}, {what}: {age:?}");
        }
    }
    Ok(())
}
