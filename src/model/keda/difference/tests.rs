//! Readings of one group, and why KEDA and lagwise make different numbers of replicas of them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::fixtures::{PartitionReading, evaluated, hpa, member_of, read};
use crate::model::hpa::facts::{HpaFacts, MetricTarget};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::Observation;
use crate::model::keda::arithmetic;
use crate::model::keda::arithmetic::KedaOffsets;
use crate::model::keda::trigger::TriggerKind;
use crate::model::lag::assembly::Scope;
use crate::model::units::newtypes::{Isolation, Offset};
use crate::model::units::quantity::Milli;

/// The replicas that KEDA (with these options and a threshold of 10) and lagwise (with these annotations) propose, and
/// why.
struct BothNumbers {
    keda: Option<u32>,
    lagwise: Option<u32>,
    why: Vec<Difference>,
}

fn trigger(kind: TriggerKind, options: &[(&str, &str)]) -> KafkaTrigger {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let metadata = options.iter().map(text).collect();
    KafkaTrigger::parse(kind, &metadata, KedaVersion::NEWEST).unwrap()
}

fn compare(
    options: &[(&str, &str)],
    annotations: &[(&str, &str)],
    observations: Vec<Observation>,
    current: u32,
) -> BothNumbers {
    let previous = PreviousOffsets::new();
    compare_after(previous, options, annotations, observations, current)
}

/// The same with the committed offsets that KEDA remembers of its reading before.
fn compare_after(
    mut previous: PreviousOffsets,
    options: &[(&str, &str)],
    annotations: &[(&str, &str)],
    observations: Vec<Observation>,
    current: u32,
) -> BothNumbers {
    let text = |(key, value): &(&str, &str)| (format!("lagwise.dev/{key}"), (*value).to_owned());
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let facts = HpaFacts {
        annotations: annotations.iter().map(text).collect(),
        ..hpa("a", "group=g", target)
    };
    let last = observations.last().unwrap().finished;
    let snapshot = evaluated(&[facts], observations, Scope::Whole);
    let metrics = snapshot.at(&last).hpa_metrics();
    let group = &snapshot.clusters["main"].groups["g"];
    let trigger = trigger(TriggerKind::Kafka, options);
    let offsets = KedaOffsets::from_topics(&trigger, &group.topics, true).unwrap();
    let reading = arithmetic::read(&trigger, &offsets, &mut previous, KedaVersion::NEWEST);
    let comparison = Comparison {
        trigger: &trigger,
        version: KedaVersion::NEWEST,
        keda: reading.as_ref(),
        lagwise: metrics[0].outcome.as_ref().ok(),
        topics: &group.topics,
        current,
        tolerances: (100, 100),
    };
    BothNumbers {
        keda: comparison.keda_replicas(),
        lagwise: comparison.lagwise_replicas(),
        why: comparison.differences(),
    }
}

/// One reading of topic `t` with the lags of its partitions.
fn lags(lags: &[i64]) -> Vec<Observation> {
    let row = |lag: &i64| -> PartitionReading { (0, Ok(Some(0)), Ok(*lag)) };
    let rows: Vec<_> = lags.iter().map(row).collect();
    vec![read(Duration::ZERO, "g", "t", &rows)]
}

const TOPIC: (&str, &str) = ("topic", "t");

#[test]
fn equal_numbers_have_no_reasons() {
    let outcome = compare(&[TOPIC], &[], lags(&[25, 0, 0]), 3);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(3), Some(3)));
    assert_eq!(outcome.why, []);
}

#[test]
fn keda_passes_the_partitions_by_one() {
    let outcome = compare(&[TOPIC], &[], lags(&[58, 0, 0, 0, 0]), 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(6), Some(5)));
    let replicas = 6;
    assert_eq!(
        outcome.why,
        [Difference::OneBeyondPartitions {
            replicas,
            partitions: 5
        }]
    );
}

#[test]
fn keda_stays_below_the_partitions() {
    let mut all = [0; 24];
    all[0] = 240;
    let outcome = compare(&[TOPIC], &[], lags(&all), 22);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(22), Some(24)));
    assert_eq!(
        outcome.why,
        [Difference::WithinTolerance {
            replicas: 22,
            wanted: 24
        }]
    );
}

#[test]
fn keda_ignores_threads_per_replica() {
    let outcome = compare(
        &[TOPIC],
        &[("threads-per-replica", "2")],
        lags(&[40, 0, 0, 0]),
        1,
    );
    assert_eq!((outcome.keda, outcome.lagwise), (Some(4), Some(2)));
    assert_eq!(outcome.why, [Difference::Threads { threads: 2 }]);
}

#[test]
fn keda_rounds_to_divisors() {
    let even = ("ensureEvenDistributionOfPartitions", "true");
    let all = [15, 0, 0, 0, 0, 0, 0];
    let outcome = compare(&[TOPIC, even], &[("even", "true")], lags(&all), 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(7), Some(2)));
    assert_eq!(
        outcome.why,
        [Difference::EvenSteps {
            keda: 7,
            lagwise: 2
        }]
    );
}

#[test]
fn keda_adds_up_topics() {
    let mut observation = lags(&[100, 0]).remove(0);
    let mut second = read(Duration::ZERO, "g", "u", &[(0, Ok(Some(0)), Ok(0)); 2]);
    observation.topics.append(&mut second.topics);
    let more = second.groups.remove(0).committed.unwrap();
    if let Ok(committed) = &mut observation.groups[0].committed {
        committed.insert("u".into(), more["u"].clone());
    }
    let outcome = compare(&[], &[], vec![observation], 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(4), Some(2)));
    assert_eq!(
        outcome.why,
        [Difference::TopicsAddedUp {
            partitions: 4,
            useful: 2
        }]
    );
}

#[test]
fn keda_may_have_no_limit() {
    let outcome = compare(
        &[TOPIC, ("allowIdleConsumers", "true")],
        &[],
        lags(&[90, 0]),
        1,
    );
    assert_eq!((outcome.keda, outcome.lagwise), (Some(9), Some(2)));
    assert_eq!(
        outcome.why,
        [Difference::Unlimited {
            replicas: 9,
            ceiling: 2
        }]
    );
}

#[test]
fn keda_may_count_partitions_with_lag_only() {
    let limit = ("limitToPartitionsWithLag", "true");
    let outcome = compare(&[TOPIC, limit], &[], lags(&[90, 0, 0]), 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(1), Some(3)));
    assert_eq!(
        outcome.why,
        [Difference::PartitionsWithLag { partitions: 1 }]
    );
}

#[test]
fn lag_without_a_commit_and_of_deleted_records_differs() {
    let rows = [(0, Ok(None), Ok(500)), (300, Ok(Some(100)), Ok(400))];
    let outcome = compare(
        &[TOPIC],
        &[],
        vec![read(Duration::ZERO, "g", "t", &rows)],
        1,
    );
    let uncommitted = Difference::Uncommitted {
        partitions: 1,
        keda: 1,
        lagwise: 0,
    };
    assert_eq!(
        outcome.why,
        [uncommitted, Difference::Deleted { messages: 200 }]
    );
    assert_eq!((outcome.keda, outcome.lagwise), (Some(2), Some(2)));
}

#[test]
fn activation_and_failures_are_reasons() {
    let activation = ("activationLagThreshold", "50");
    let outcome = compare(&[TOPIC, activation], &[], lags(&[20, 0]), 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(0), Some(2)));
    assert_eq!(outcome.why, [Difference::Inactive { threshold: 50 }]);
    let gone = compare(&[("topic", "gone")], &[], lags(&[20, 0]), 1);
    let why = "topic gone does not exist".to_owned();
    assert_eq!(
        (gone.keda, gone.why),
        (None, vec![Difference::KedaFails { why }])
    );
}

#[test]
fn triggers_on_all_topics_of_the_cluster_are_not_compared() {
    let snapshot = evaluated(&[], lags(&[1]), Scope::Whole);
    let group = &snapshot.clusters["main"].groups["g"];
    let all = trigger(TriggerKind::ApacheKafka, &[]);
    assert!(KedaOffsets::from_topics(&all, &group.topics, true).is_none());
    assert!(KedaOffsets::from_topics(&all, &group.topics, false).is_some());
}

#[test]
fn a_fault_of_lagwises_own_reading_is_no_number_of_kedas() {
    let trigger = trigger(TriggerKind::Kafka, &[]);
    for (fault, is_known) in [
        (Fault::NoAnswer, false),
        (Fault::TopicDenied, false),
        (Fault::TopicMissing, true),
    ] {
        let topic = GroupTopic {
            latest: Err(fault),
            complete: None,
        };
        let topics: TopicMap<GroupTopic> = [(TopicName::from("t"), topic)].into_iter().collect();
        let read = KedaOffsets::from_topics(&trigger, &topics, true);
        assert_eq!(read.is_some(), is_known, "{fault:?}");
    }
}

/// A reading of topic `t` every five seconds for five minutes, while one member owns both partitions.
fn readings(rows: impl Fn(i64) -> [PartitionReading; 2]) -> Vec<Observation> {
    let mut owner = member_of("t");
    owner.members[0].assigned = vec![("t".into(), vec![0, 1])];
    let owner = Arc::new(owner);
    let reading = |number: i64| {
        let after = Duration::from_secs(5 * number.unsigned_abs());
        let mut observation = read(after, "g", "t", &rows(number));
        observation.groups[0].description = Ok(Arc::clone(&owner));
        observation
    };
    (0..=60).map(reading).collect()
}

#[test]
fn keda_counts_what_no_consumer_can_read() {
    let residue = readings(|_| [(0, Ok(Some(98)), Ok(100)), (0, Ok(Some(100)), Ok(100))]);
    let outcome = compare(&[TOPIC], &[], residue, 1);
    assert_eq!(outcome.keda, Some(1));
    assert_eq!(outcome.why, [Difference::Residual { messages: 2 }]);
    // It stays active, so KEDA never scales the workload to zero.
    let activation = ("activationLagThreshold", "1");
    let residue = readings(|_| [(0, Ok(Some(98)), Ok(100)), (0, Ok(Some(5)), Ok(6))]);
    let outcome = compare(&[TOPIC, activation], &[], residue, 1);
    assert_eq!(outcome.keda, Some(1));
    assert_eq!(outcome.why, [Difference::Residual { messages: 3 }]);
}

#[test]
fn keda_counts_stuck_partitions() {
    let stuck = |counts: bool| {
        let moving = |number: i64| (0, Ok(Some(number)), Ok(number + 20));
        let mut readings = readings(|number| [(0, Ok(Some(5)), Ok(40)), moving(number)]);
        for observation in &mut readings {
            observation.groups[0].plan.thresholds.stuck_counts = counts;
        }
        readings
    };
    let outcome = compare(&[TOPIC], &[], stuck(false), 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(2), Some(2)));
    assert_eq!(outcome.why, [Difference::Stuck { messages: 35 }]);
    assert_eq!(compare(&[TOPIC], &[], stuck(true), 1).why, []);
}

#[test]
fn keda_counts_records_of_open_transactions() {
    let rows = [(0, Ok(Some(10)), Ok(50)), (0, Ok(Some(20)), Ok(20))];
    let mut observation = read(Duration::ZERO, "g", "t", &rows);
    observation.groups[0].plan.isolation = Isolation::ReadCommitted;
    for offsets in observation.topics.values_mut().flatten() {
        Arc::make_mut(offsets).stable = Some(vec![Ok(Offset(30)), Ok(Offset(20))]);
    }
    let outcome = compare(&[TOPIC], &[], vec![observation], 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(2), Some(2)));
    assert_eq!(outcome.why, [Difference::OpenTransactions { messages: 20 }]);
}

#[test]
fn keda_may_leave_out_lag_that_persists() {
    let rows = [(0, Ok(Some(10)), Ok(40)), (0, Ok(Some(5)), Ok(20))];
    let observation = read(Duration::ZERO, "g", "t", &rows);
    let previous = PreviousOffsets::from([(("t".into(), 0), 10), (("t".into(), 1), 4)]);
    let exclude = ("excludePersistentLag", "true");
    let outcome = compare_after(previous, &[TOPIC, exclude], &[], vec![observation], 1);
    assert_eq!((outcome.keda, outcome.lagwise), (Some(2), Some(2)));
    assert_eq!(outcome.why, [Difference::Persistent { messages: 30 }]);
}
