//! What only time tells: residues, partitions that are stuck, long jobs, and lag in seconds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::lag::cluster_snapshot::GroupSnapshot;

use super::Row;
use super::work::Worker;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;

const MINUTE: Duration = Duration::from_secs(60);

/// A consumer that has read everything stays one short of a transaction's marker, for ever. That it has a live member
/// only the wire client can tell.
pub(super) fn a_transaction_marker_is_a_residue(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    let transaction = kafka.begin_transaction()?;
    transaction.produce(&row.topic, 0, 3)?;
    transaction.commit()?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.until("measured 1")?;
    until_described(&mut row)?;
    row.pass(4 * MINUTE);
    row.expect("measured 1")?;
    row.pass(2 * MINUTE);
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
    // More of it is work again.
    row.produce(&[(0, 20)])?;
    row.until("measured 0")?;
    worker.leave()
}

/// A residue stays one when its consumer has left, until a transaction adds a record and its marker.
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
        // Records that nobody gets are residual, too.
        if aborted {
            transact(true)?;
        }
        let (measured, residual, again) = match aborted {
            false => ("measured 1", "residual 1", "measured 5"),
            true => ("measured 5", "residual 5", "measured 9"),
        };
        let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
        until_described(&mut row)?;
        row.until(measured)?;
        row.pass(6 * MINUTE);
        let expected = |residual: &'static str| {
            move |client| match client {
                ClientKind::Wire => residual,
                _ => measured,
            }
        };
        row.until_each("the residue", expected(residual))?;
        worker.leave()?;
        poll_until(super::WITHIN, "the group to be empty", || {
            row.look()?;
            let described = wire_group(&row)?.map(|group| group.description.as_deref());
            let is_empty = described.is_none_or(|d| d.is_some_and(|d| d.members.is_empty()));
            ensure!(is_empty, "{described:?}");
            Ok(())
        })?;
        row.expect_each(expected(residual))?;
        row.pass(60 * MINUTE);
        row.expect_each(expected(residual))?;
        let transaction = kafka.begin_transaction()?;
        transaction.produce(&row.topic, 0, 3)?;
        transaction.commit()?;
        row.until(again)?;
    }
    Ok(())
}

/// Waits until the member of the group is seen to have all partitions, by the client that can see members.
fn until_described(row: &mut Row<'_>) -> Result<()> {
    poll_until(super::WITHIN, "the member to be described", || {
        row.look()?;
        let Some(group) = wire_group(row)? else {
            return Ok(());
        };
        let described = &group.description;
        let partitions = group.topics[row.topic.as_str()].latest.as_ref();
        let all = partitions.map_or(0, |lag| lag.lags.len());
        let has_all = described.as_ref().is_some_and(|told| {
            let mut members = told.members.iter();
            members.any(|member| member.partitions() == all)
        });
        ensure!(has_all, "{described:?}");
        Ok(())
    })
}

/// The markers that a group without members has left unread are no work either once Kafka has deleted its commits.
/// (librdkafka, which sees no members, has nothing to judge by.)
pub(super) fn a_residue_outlives_its_commit(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    let transaction = kafka.begin_transaction()?;
    transaction.produce(&row.topic, 0, 3)?;
    transaction.commit()?;
    row.produce(&[(1, 2)])?;
    let worker = Worker::subscribe(kafka, &row.group, &[&row.topic], &[])?;
    row.until("measured 1, measured 0")?;
    until_described(&mut row)?;
    row.pass(6 * MINUTE);
    let by = |wire: &'static str, librdkafka: &'static str| {
        move |client| match client {
            ClientKind::Wire => wire,
            _ => librdkafka,
        }
    };
    row.expect_each(by("residual 1, measured 0", "measured 1, measured 0"))?;
    worker.leave()?;
    let delete = ["--delete-offsets", "--group", &row.group, "--topic"];
    poll_until(super::WITHIN, "the commits to be deleted", || {
        kafka.consumer_groups_tool(&[&delete[..], &[&row.topic]].concat())?;
        ensure!(
            kafka.committed(&row.group, &row.topic)? == [None; 2],
            "they are there"
        );
        Ok(())
    })?;
    row.until_each(
        "the commits to be gone",
        by("residual 1, forgotten 0", "forgotten 1, forgotten 0"),
    )?;
    row.pass(60 * MINUTE);
    row.expect_each(by("residual 1, forgotten 0", "forgotten 1, forgotten 0"))?;
    // A record is work.
    row.produce(&[(0, 1)])?;
    row.until_each(
        "the record",
        by("forgotten 2, forgotten 0", "forgotten 2, forgotten 0"),
    )
}

/// The group as the wire client has read it, which alone describes groups; `None` if that client is not tested.
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

/// A partition whose consumer fails at one record, again and again, beside one that gets on.
pub(super) fn a_poison_partition_is_stuck(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 2)?;
    row.produce(&[(0, 30), (1, 30)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.subscribe = true;
        worker.poison = Some((0, 12));
    })?;
    row.until("measured 18, measured 0")?;
    for _ in 0..4 {
        row.pass(MINUTE);
        row.produce(&[(1, 10)])?;
        row.until("measured 18, measured 0")?;
    }
    row.pass(2 * MINUTE);
    row.produce(&[(1, 10)])?;
    row.until("stuck 18, measured 0")?;
    worker.leave()?;
    // Somebody mends it.
    row.commit(&[(0, 13)])?;
    row.expect("measured 17, measured 0")
}

/// One job of half an hour: nothing moves, and that is no reason to call it stuck, let alone done.
pub(super) fn a_long_job_is_neither_stuck_nor_a_residue(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 30)])?;
    let worker = Worker::start(kafka, &row.group, &[&row.topic], &[], |worker| {
        worker.subscribe = true;
        worker.poison = Some((0, 12));
    })?;
    row.until("measured 18")?;
    for _ in 0..6 {
        row.pass(5 * MINUTE);
        row.expect("measured 18")?;
    }
    worker.leave()
}

/// The age of the first message that is not read: exact once the log was seen to pass it, a bound before.
pub(super) fn lag_in_seconds(kafka: &KafkaCluster) -> Result<()> {
    let mut row = Row::new(kafka, 1)?;
    row.produce(&[(0, 10)])?;
    row.commit(&[(0, 10)])?;
    row.expect("measured 0")?;
    row.pass(10 * MINUTE);
    row.expect("measured 0")?;
    row.produce(&[(0, 5)])?;
    row.expect("measured 5")?;
    row.pass(MINUTE);
    row.expect("measured 5")?;
    for (client, lag) in row.lags()? {
        let age = lag.age().map(|age| (age.duration(), age.is_bound()));
        // The messages came right after the look that did not see them, and a look takes no time beside this.
        let is_right =
            age.is_some_and(|(age, bound)| (MINUTE..2 * MINUTE).contains(&age) && !bound);
        ensure!(is_right, "{client:?}: {age:?}");
    }
    Ok(())
}

/// A client that comes now knows only what the timestamps of records tell. They tell it exactly where they can, and a
/// lower bound elsewhere.
pub(super) fn lag_in_seconds_from_one_look(kafka: &KafkaCluster) -> Result<()> {
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
        row.look()?;
        for (client, lag) in row.lags()? {
            let age = lag.age().map(|age| (age.duration(), age.is_bound()));
            let is_right =
                age.is_some_and(|(age, bound)| range.contains(&age) && bound == is_bound);
            ensure!(is_right, "{client:?}, {what}: {age:?}");
        }
    }
    Ok(())
}
