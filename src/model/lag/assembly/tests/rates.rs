//! Message rates, commits and rebalances of a group over several sweeps.

use super::*;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::lag::rates::MessageRates;

fn ok(committed: i64, end: i64) -> PartitionReading {
    (0, Ok(Some(committed)), Ok(end))
}

const UNKNOWN: PartitionReading = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));

fn read(seconds: u64, rows: &[PartitionReading]) -> Observation {
    fixtures::read(Duration::from_secs(seconds), "g", "orders", rows)
}

/// Reads the topic `mail`, too.
fn read_both(seconds: u64, orders: &[PartitionReading], mail: &[PartitionReading]) -> Observation {
    let mut both = read(seconds, orders);
    let mut other = fixtures::read(Duration::from_secs(seconds), "g", "mail", mail);
    both.topics.append(&mut other.topics);
    let committed = other.groups.remove(0).committed.unwrap();
    let all = both.groups[0].committed.as_mut().unwrap();
    for (topic, column) in committed {
        all.insert(topic, column);
    }
    both
}

fn group(history: &mut ClusterHistory, observation: Observation) -> Arc<GroupSnapshot> {
    Arc::clone(&history.apply(observation, Scope::Whole).groups["g"])
}

fn rates(history: &mut ClusterHistory, observation: Observation) -> Option<(f64, f64)> {
    pair(group(history, observation).rates())
}

fn pair(rates: Option<MessageRates>) -> Option<(f64, f64)> {
    rates.map(|rates| (rates.produced, rates.consumed))
}

#[test]
fn rates_follow_from_two_readings() {
    let mut history = ClusterHistory::default();
    let first = group(&mut history, read(0, &[ok(0, 100), ok(50, 50)]));
    assert_eq!((first.rates(), first.since_commit_seconds), (None, None));
    let second = group(&mut history, read(10, &[ok(80, 110), ok(60, 70)]));
    assert_eq!(pair(second.rates()), Some((3.0, 9.0)));
    assert_eq!(second.since_commit_seconds, Some(0));
    let third = group(&mut history, read(15, &[ok(80, 110), ok(60, 70)]));
    let expected = Some((2.0, 6.0));
    assert_eq!(pair(third.rates()), expected, "30 and 90 in 15 seconds");
    assert_eq!(third.since_commit_seconds, Some(5));
}

#[test]
fn a_reading_out_of_turn_of_another_group_takes_no_messages_away() {
    let mut history = ClusterHistory::default();
    rates(&mut history, read(0, &[ok(0, 100)]));
    let of_other = fixtures::read(Duration::from_secs(5), "other", "orders", &[ok(0, 150)]);
    history.apply(of_other, Scope::Partial);
    let next = rates(&mut history, read(10, &[ok(20, 200)]));
    assert_eq!(next, Some((10.0, 2.0)));
}

#[test]
fn unknown_partitions_have_no_rates_and_end_the_averages() {
    let mut history = ClusterHistory::default();
    rates(&mut history, read(0, &[ok(0, 100)]));
    assert!(rates(&mut history, read(10, &[ok(90, 100)])).is_some());
    assert_eq!(rates(&mut history, read(20, &[UNKNOWN])), None);
    let after = rates(&mut history, read(30, &[ok(90, 100)]));
    assert_eq!(after, None, "the reading before is unknown");
    let last = rates(&mut history, read(40, &[ok(95, 120)]));
    assert_eq!(last, Some((2.0, 0.5)));
    let failed = fixtures::failed(Duration::from_secs(50), "g", "orders", Fault::NoAnswer);
    assert_eq!(rates(&mut history, failed), None);
}

#[test]
fn each_topic_has_its_own_rates() {
    let mut history = ClusterHistory::default();
    rates(&mut history, read_both(0, &[ok(0, 100)], &[ok(0, 10)]));
    let both = group(
        &mut history,
        read_both(10, &[ok(50, 120)], &[ok(10, 40), ok(0, 0)]),
    );
    assert_eq!(pair(both.topics["orders"].rates()), Some((2.0, 5.0)));
    assert_eq!(pair(both.topics["mail"].rates()), Some((3.0, 1.0)));
    assert_eq!(pair(both.rates()), Some((5.0, 6.0)));
}

#[test]
fn a_topic_with_an_unknown_partition_does_not_end_the_averages_of_others() {
    let mut history = ClusterHistory::default();
    rates(&mut history, read_both(0, &[ok(0, 100)], &[ok(0, 10)]));
    rates(&mut history, read_both(10, &[ok(60, 160)], &[ok(9, 10)]));
    let partly = group(&mut history, read_both(20, &[ok(60, 160)], &[UNKNOWN]));
    assert_eq!(pair(partly.topics["orders"].rates()), Some((3.0, 3.0)));
    assert_eq!(partly.rates(), None, "no sum without the other topic");
    let next = group(&mut history, read_both(30, &[ok(60, 160)], &[ok(9, 10)]));
    let average = next.topics["orders"].rates().unwrap();
    assert!((average.produced - 2.0).abs() < 1e-3, "{average:?}");
}

#[test]
fn a_group_that_reads_no_topic_has_no_rates() {
    let mut history = ClusterHistory::default();
    for seconds in [0, 10, 20] {
        let mut observation = read(seconds, &[ok(0, 100)]);
        observation.groups[0].committed = Ok(TopicMap::default());
        assert_eq!(rates(&mut history, observation), None);
    }
}

#[test]
fn offsets_that_were_set_back_consume_nothing() {
    let mut history = ClusterHistory::default();
    rates(&mut history, read(0, &[ok(90, 100)]));
    let back = rates(&mut history, read(10, &[ok(10, 100)]));
    assert_eq!(back, Some((0.0, 0.0)));
    let next = rates(&mut history, read(20, &[ok(30, 100)]));
    assert_eq!(next, Some((0.0, 1.0)));
}

#[test]
fn rebalances_are_counted() {
    let mut history = ClusterHistory::default();
    let stable = || fixtures::member_of("orders");
    let rebalancing = GroupDescription::memberless(GroupKind::Classic, GroupState::Rebalancing);
    let mut counts = Vec::new();
    for (seconds, description) in (0..)
        .step_by(10)
        .zip([stable(), stable(), rebalancing, stable()])
    {
        let mut observation = read(seconds, &[ok(0, 100)]);
        observation.groups[0].description = Ok(description.into());
        counts.push(group(&mut history, observation).rebalances);
    }
    assert_eq!(counts, [0, 0, 1, 1]);
}
