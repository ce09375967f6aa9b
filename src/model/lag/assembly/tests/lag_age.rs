//! Age of the lag.

use super::*;

#[test]
fn the_age_is_exact_once_the_samples_reach_back_to_the_first_unread_message() {
    let mut history = ClusterHistory::default();
    // One message a second; the group is ten seconds behind.
    let read = |seconds: u64| {
        let end = i64::try_from(seconds).unwrap();
        observe(seconds, "g", &[Ok(Some((end - 10).max(0)))], &[end])
    };
    let age = |snapshot: &ClusterSnapshot| topic(snapshot).latest.as_ref().unwrap().age();
    let bound = sweeps(&mut history, 100..=105, read);
    assert_eq!(age(&bound), Some(LagAge::at_least(5000)));
    let exact = sweeps(&mut history, 110..=120, read);
    assert_eq!(age(&exact), Some(LagAge::exactly(10_000)));
}

/// The age by a single reading that found this record, which is a second old, ten minutes back.
fn age_by_one_reading(committed: i64, found: i64, is_first_unread: bool) -> LagAge {
    let mut read = observe(1000, "g", &[Ok(Some(committed))], &[105]);
    let mut offsets = (**read.topics["t"].as_ref().unwrap()).clone();
    let record = PastRecord {
        partition: 0,
        offset: Offset(found),
        age: Duration::from_secs(1),
    };
    offsets.past = vec![PastEnds {
        ago: Duration::from_secs(600),
        ends: vec![Some(Offset(found))],
        records: is_first_unread.then_some(record).into_iter().collect(),
    }];
    read.topics.insert("t".into(), Ok(Arc::new(offsets)));
    let snapshot = ClusterHistory::default().apply(read, Scope::Whole);
    topic(&snapshot).latest.as_ref().unwrap().age().unwrap()
}

#[test]
fn a_single_reading_gives_an_exact_age_only_with_the_timestamp_of_the_record() {
    for (what, age, expected) in [
        (
            "the record that was found",
            age_by_one_reading(100, 100, true),
            LagAge::exactly(1000),
        ),
        (
            "one behind it",
            age_by_one_reading(101, 100, false),
            LagAge::at_least(0),
        ),
        (
            "one before it",
            age_by_one_reading(99, 100, false),
            LagAge::at_least(600_000),
        ),
    ] {
        assert_eq!(age, expected, "{what}");
    }
}

#[test]
fn the_age_without_a_commit_counts_from_where_the_group_starts() {
    let age = |snapshot: &ClusterSnapshot, partition| {
        let latest = topic(snapshot).latest.as_ref().unwrap();
        latest.partition_age(partition).unwrap()
    };
    let mut history = ClusterHistory::default();
    let seen = sweeps(&mut history, 0..=10, |seconds| {
        let end = 70 + 3 * i64::try_from(seconds).unwrap();
        observe(seconds, "g", &[Ok(Some(10)), Ok(None)], &[10, end])
    });
    assert_eq!(rules(&seen), (vec!["measured", "since_seen"], Ok(Lag(30))));
    assert_eq!(age(&seen, 1), LagAge::exactly(10_000));
    let forgotten = history.apply(
        observe(15, "g", &[Ok(None), Ok(None)], &[25, 100]),
        Scope::Whole,
    );
    assert_eq!(rules(&forgotten).0, ["forgotten", "since_seen"]);
    assert_eq!(age(&forgotten, 0), LagAge::exactly(5_000));
    let mut earliest = observe(20, "e", &[Ok(None), Ok(None)], &[25, 100]);
    earliest.groups[0].plan.reset = OffsetReset::Earliest;
    let from_start = history.apply(earliest, Scope::Partial);
    let latest = from_start.groups["e"].topics["t"].latest.as_ref().unwrap();
    assert_eq!(latest.total(), Ok(Lag(125)));
    assert_eq!(latest.partition_age(1), Some(LagAge::at_least(20_000)));
}
