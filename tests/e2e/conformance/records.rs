//! Logs whose start moves, that have gaps, and that hold transactions.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lagwise::model::kafka::observation::LOOK_BACK;
use lagwise::model::units::newtypes::Offset;

use crate::sources::{Sources, plan, plan_of, read_committed};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::unique;

/// Timeout until a cached log start is refreshed, and a sweep or two.
const STARTS_LAST: Duration = Duration::from_secs(75);

/// Deleted records move the log start, up to an empty log whose start is its end.
pub(crate) fn records_deleted(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group, nobody) = (unique("topic"), unique("group"), unique("nobody"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 10), (1, 10), (2, 10)])?;
    kafka.commit(&group, &topic, &[(0, 2), (1, 2), (2, 10)])?;
    let mut living = Sources::new(kafka)?;
    let committed = format!("{group} {topic}: 2 2 10");
    living.expect(
        &plan(&group, &[&topic]),
        &format!("{committed}\n{topic}: 0..10 0..10 0..10"),
    )?;
    kafka.delete_records(&topic, &[(0, 6), (1, 10)])?;
    let moved = format!("{topic}: 6..10 10..10 0..10");
    let mut fresh = Sources::new(kafka)?;
    fresh.expect(&plan(&group, &[&topic]), &format!("{committed}\n{moved}"))?;
    // Without a commit, the lag depends on the log start, so it is read at once.
    living.expect(
        &plan_of(&[(&group, &[&topic]), (&nobody, &[&topic])]),
        &format!("{committed}\n{nobody} {topic}: - - -\n{moved}"),
    )?;
    for subject in &fresh.each {
        let known = &subject.known.groups.get(group.as_str()).unwrap().topics[topic.as_str()];
        let lag = known.latest.as_ref().map(|lag| lag.total());
        // Deleted records are no lag: 4 are left in partition 0, none in the others.
        ensure!(
            matches!(lag, Ok(Ok(lag)) if lag.0 == 4),
            "{:?}: {lag:?}",
            subject.client
        );
    }
    Ok(())
}

/// A client that has cached the old log start reads the new one once the cache expires.
pub(crate) fn a_moved_log_start_is_seen_within_its_time(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 10)?;
    kafka.commit(&group, &topic, &[(0, 2)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    sources.expect(&plan, &format!("{group} {topic}: 2\n{topic}: 0..10"))?;
    kafka.delete_records(&topic, &[(0, 6)])?;
    sources.wait_for(
        STARTS_LAST,
        "the new log start",
        &plan,
        &format!("{group} {topic}: 2\n{topic}: 6..10"),
    )
}

/// Compaction leaves gaps and does not change log start or log end.
pub(crate) fn compacted_topic(kafka: &KafkaCluster) -> Result<()> {
    let (topic, written) = kafka.compacted_topic()?;
    let group = unique("group");
    kafka.commit(&group, &topic, &[(0, 1)])?;
    Sources::new(kafka)?.expect(
        &plan(&group, &[&topic]),
        &format!("{group} {topic}: 1\n{topic}: 0..{written}"),
    )
}

/// A log ends at its high watermark, for consumers read uncommitted records by default: records of open and of
/// aborted transactions count, and so do the markers that end them.
pub(crate) fn transactions(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("transactional"), unique("group"));
    kafka.create_topic(&topic, 3)?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0), (2, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let (committed, aborted, open) = (
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
    );
    committed.produce(&topic, 0, 3)?;
    aborted.produce(&topic, 1, 4)?;
    open.produce(&topic, 2, 5)?;
    let plan = plan(&group, &[&topic]);
    let zeros = format!("{group} {topic}: 0 0 0");
    sources.expect(&plan, &format!("{zeros}\n{topic}: 0..3 0..4 0..5"))?;
    committed.commit()?;
    aborted.abort()?;
    sources.wait_for(
        Duration::from_secs(20),
        "the markers",
        &plan,
        &format!("{zeros}\n{topic}: 0..4 0..5 0..5"),
    )?;
    open.abort()
}

/// For consumers of committed records a log ends where its first open transaction begins; only their topics are asked
/// for it.
pub(crate) fn last_stable_offsets(kafka: &KafkaCluster) -> Result<()> {
    let (topic, other) = (unique("transactional"), unique("other"));
    let (group, simple) = (unique("group"), unique("simple"));
    kafka.create_topic(&topic, 3)?;
    kafka.create_topic(&other, 1)?;
    kafka.produce_to(&topic, &[(0, 1), (1, 1), (2, 1)])?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 1), (2, 1)])?;
    kafka.commit(&simple, &other, &[(0, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let (committed, aborted, open) = (
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
        kafka.begin_transaction()?,
    );
    committed.produce(&topic, 0, 3)?;
    aborted.produce(&topic, 1, 4)?;
    open.produce(&topic, 2, 5)?;
    let mut both = read_committed(plan(&group, &[&topic]));
    both.groups.extend(plan(&simple, &[&other, &topic]).groups);
    let rest = format!(
        "{group} {topic}: 1 1 1\n{simple} {topic}: - - -\n{simple} {other}: 0\n{other}: 0..0"
    );
    sources.expect(
        &both,
        &format!("{rest}\n{topic}: 0..4 0..5 0..6\n{topic} stable: 1 1 1"),
    )?;
    committed.commit()?;
    aborted.abort()?;
    sources.wait_for(
        Duration::from_secs(20),
        "the markers",
        &both,
        &format!("{rest}\n{topic}: 0..5 0..6 0..6\n{topic} stable: 5 6 1"),
    )?;
    open.abort()
}

/// Log ends of the past, by the timestamps of records: looked up once, and not again. If the first unread message is
/// older, earlier times are looked up.
pub(crate) fn ends_of_a_while_ago(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 4)?;
    let (old, young) = (LOOK_BACK * 2, LOOK_BACK / 2);
    kafka.produce_at(&topic, 0, &[old, old, old, young, young])?;
    kafka.produce_at(&topic, 1, &[old, old])?;
    kafka.produce_at(&topic, 2, &[young, old, young])?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    for (client, observation) in sources.sweep(&plan)? {
        let known = observation.topics[topic.as_str()].as_ref();
        let past = known.ok().map(|topic| topic.past.as_slice());
        let Some([first, second]) = past else {
            bail!("{client:?}: {past:?}");
        };
        // No record is young enough, or none is there: the end itself.
        let expected = [3, 2, 0, 0].map(|end| Some(Offset(end)));
        ensure!(first.ends == expected, "{client:?}: {first:?}");
        ensure!(first.ago == LOOK_BACK, "{client:?}: {first:?}");
        ensure!(first.records.is_empty(), "{client:?}: {first:?}");
        // The group has read nothing of partition 0, and its first record is 20 minutes old.
        let [record] = second.records.as_slice() else {
            bail!("{client:?}: {second:?}");
        };
        let age = old..old + Duration::from_secs(60);
        ensure!(
            (record.partition, record.offset) == (0, Offset(0)) && age.contains(&record.age),
            "{client:?}: {record:?}"
        );
    }
    for (client, observation) in sources.sweep(&plan)? {
        let known = observation.topics[topic.as_str()].as_ref();
        ensure!(
            known.is_ok_and(|t| t.past.is_empty()),
            "{client:?}: {known:?}"
        );
    }
    Ok(())
}

/// An offset that a transaction is about to commit is not committed yet, and reading it does not wait for the end.
pub(crate) fn offsets_in_a_transaction(kafka: &KafkaCluster) -> Result<()> {
    let (topic, group) = (unique("transactional"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 9)?;
    kafka.commit(&group, &topic, &[(0, 2)])?;
    let mut sources = Sources::new(kafka)?;
    let plan = plan(&group, &[&topic]);
    let at = |offset: i64| format!("{group} {topic}: {offset}\n{topic}: 0..9");
    let transaction = kafka.begin_transaction()?;
    transaction.commit_offset(kafka, &group, &topic, 5)?;
    sources.expect(&plan, &at(2))?;
    transaction.commit()?;
    sources.wait_for(Duration::from_secs(20), "the commit", &plan, &at(5))?;
    let transaction = kafka.begin_transaction()?;
    transaction.commit_offset(kafka, &group, &topic, 8)?;
    transaction.abort()?;
    sources.expect(&plan, &at(5))
}
