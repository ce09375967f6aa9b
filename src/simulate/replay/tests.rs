//! Replays of recorded simulations, of which everything is known.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::simulate::benchmark::compared_policies;
use crate::simulate::builtin::builtin_scenarios;
use crate::simulate::engine::run;
use crate::simulate::generated::generate_scenarios;
use crate::simulate::outcome::{RunOptions, SimulatedRun};
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::RatePart;
use crate::simulate::trace::{TraceHeader, TracePosition, TraceSample, trace_line};

fn recorded(scenario: &Scenario, policy: &SimulatedPolicy, seed: u64) -> (Trace, SimulatedRun) {
    let arrivals = Arrivals::for_run(scenario, seed);
    let options = RunOptions {
        has_trace: true,
        ..RunOptions::default()
    };
    let mut run = run(scenario, policy, seed, &arrivals, &options);
    let trace = Trace {
        header: TraceHeader::new("group", "simulated"),
        samples: std::mem::take(&mut run.records.trace),
        whole_bytes: 0,
    };
    (trace, run)
}

/// A trace of one topic.
fn trace(samples: &[(u64, Option<u32>, &[TracePosition])]) -> Trace {
    let sample =
        |(second, members, positions): &(u64, Option<u32>, &[TracePosition])| TraceSample {
            at: second * 1000,
            members: *members,
            stable: Some(true),
            topics: BTreeMap::from([("orders".to_owned(), positions.to_vec())]),
        };
    Trace {
        header: TraceHeader::new("group", "main"),
        samples: samples.iter().map(sample).collect(),
        whole_bytes: 0,
    }
}

fn given(capacity: f64) -> ReplayOptions {
    ReplayOptions {
        capacity: Some(capacity),
        ..ReplayOptions::default()
    }
}

fn by_partition(arrivals: &Arrivals, seconds: std::ops::RangeInclusive<u32>) -> Vec<u64> {
    let sum = |partition| {
        seconds
            .clone()
            .map(|second| u64::from(arrivals.count(second, partition)))
            .sum()
    };
    (0..index(arrivals.partitions())).map(sum).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A trace that went through a file has the arrivals of the scenario between any two samples, and with a sample
    /// each second those of each second.
    #[test]
    fn a_recorded_simulation_replays_to_the_same_arrivals(seed in 0u64..1000, poll in 1u32..9, policy in 0usize..3) {
        let scenario = Scenario {
            duration: 400,
            poll,
            ..generate_scenarios(seed, 1).remove(0)
        };
        let (trace, _) = recorded(&scenario, &compared_policies()[[0, 5, 10][policy]], seed);
        let mut text = trace_line(&trace.header).unwrap();
        text.extend(trace.samples.iter().map(|sample| trace_line(sample).unwrap()));
        let replayed = replay(&Trace::parse(&text).unwrap(), &given(100.0)).unwrap();
        let arrivals = Arrivals::for_run(&replayed.scenario, 0);
        let original = Arrivals::for_run(&scenario, seed);
        prop_assert_eq!(arrivals.partitions(), scenario.partitions);
        let start = u32::try_from(trace.samples[0].at / 1000).unwrap();
        for pair in trace.samples.windows(2) {
            let second = |sample: &TraceSample| u32::try_from(sample.at / 1000).unwrap();
            let (from, to) = (second(&pair[0]) + 1, second(&pair[1]));
            prop_assert_eq!(
                by_partition(&arrivals, from - start..=to - start),
                by_partition(&original, from..=to)
            );
        }
        // Messages that were not committed at the first sample arrive at once.
        let first = trace.samples[0].topics.values().flatten();
        let backlog: Vec<u64> = first.map(|(end, committed)| u64::try_from(end.unwrap() - committed.unwrap()).unwrap()).collect();
        prop_assert_eq!(by_partition(&arrivals, 0..=0), backlog);
    }

    #[test]
    fn other_partitions_get_the_same_messages(before in 1u32..40, after in 1u32..40, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let counts = (0..before * 50).map(|_| random.u32(0..20)).collect();
        let arrivals = Arrivals::recorded(before, counts);
        let spread = repartition(&arrivals, after, 50);
        for second in 0..50 {
            let sum = |of: &Arrivals| of.at(second).iter().sum::<u32>();
            prop_assert_eq!(sum(&spread), sum(&arrivals));
        }
        if after == before {
            prop_assert_eq!(spread, arrivals);
        }
    }
}

#[test]
fn twice_as_many_partitions_split_each_and_half_as_many_join_two() {
    let arrivals = Arrivals::recorded(2, vec![10, 5, 0, 1]);
    assert_eq!(
        repartition(&arrivals, 4, 2),
        Arrivals::recorded(4, vec![5, 3, 5, 2, 0, 0, 0, 1])
    );
    let arrivals = Arrivals::recorded(4, vec![1, 2, 3, 4]);
    assert_eq!(
        repartition(&arrivals, 2, 1),
        Arrivals::recorded(2, vec![4, 6])
    );
    // Without a common divisor, every partition gets some of each.
    let arrivals = Arrivals::recorded(2, vec![300, 0]);
    assert_eq!(
        repartition(&arrivals, 3, 1),
        Arrivals::recorded(3, vec![100, 100, 100])
    );
}

#[test]
fn the_score_of_a_recorded_run_equals_that_of_the_simulation() {
    for (name, policy) in [("step", 5), ("outage", 10), ("sawtooth", 0)] {
        let scenarios = builtin_scenarios();
        let scenario = scenarios.iter().find(|it| it.name == name).unwrap();
        let (trace, run) = recorded(scenario, &compared_policies()[policy], 2);
        let happened = replay(&trace, &given(100.0)).unwrap().summary.recorded;
        let score = happened.whole.unwrap();
        // Commits are seen up to a commit and a poll interval after the processing.
        let later = happened.late_percent - run.score.late_percent;
        assert!(
            (-0.1..2.0).contains(&later),
            "{name}: {happened:?} {:?}",
            run.score
        );
        let older = happened.max_age - run.score.max_age;
        assert!(
            (-1.0..=12.0).contains(&older),
            "{name}: {happened:?} {:?}",
            run.score
        );
        // Pods that start are no members yet.
        let missing = run.score.cost_percent - score.cost_percent;
        assert!(
            (-0.5..8.0).contains(&missing),
            "{name}: {score:?} {:?}",
            run.score
        );
        // A rebalance that ends between two samples, and one that follows at once, are not seen.
        assert!(
            score.rebalances <= run.score.rebalances,
            "{name}: {score:?} {:?}",
            run.score
        );
        assert!(
            score.rebalances >= run.score.rebalances * 0.5,
            "{name}: {score:?} {:?}",
            run.score
        );
    }
}

#[test]
fn a_group_that_was_behind_shows_its_capacity() {
    for (name, policy) in [("outage", 10), ("outage", 0), ("outage", 5)] {
        let scenarios = builtin_scenarios();
        let scenario = scenarios.iter().find(|it| it.name == name).unwrap();
        let (trace, _) = recorded(scenario, &compared_policies()[policy], 1);
        let found = replay(&trace, &ReplayOptions::default()).unwrap().summary;
        assert_eq!(found.capacity.basis, CapacityBasis::Measured, "{name}");
        let each = found.capacity.messages_per_second;
        assert!((85.0..105.0).contains(&each), "{name} {each}");
        assert_eq!(found.notes, Vec::<String>::new());
    }
}

#[test]
fn a_group_that_was_never_behind_shows_a_lower_bound() {
    let scenario = Scenario {
        duration: 900,
        ..Scenario::new("calm", "", vec![RatePart::Constant(600.0)])
    };
    let (trace, _) = recorded(&scenario, &SimulatedPolicy::Static, 1);
    let found = replay(&trace, &ReplayOptions::default()).unwrap().summary;
    assert_eq!(found.capacity.basis, CapacityBasis::LowerBound);
    assert!(found.capacity.messages_per_second < 100.0, "{found:?}");
    assert!(found.notes[0].contains("set --capacity"), "{found:?}");
}

#[test]
fn members_without_a_partition_have_no_part_in_the_capacity() {
    let positions: Vec<[TracePosition; 1]> = (0..20i64)
        .map(|number| [(Some(number * 50), Some(number * 50))])
        .collect();
    let samples: Vec<(u64, Option<u32>, &[TracePosition])> = positions
        .iter()
        .zip(0u64..)
        .map(|(positions, number)| (number * 5, Some(4), &positions[..]))
        .collect();
    let found = replay(&trace(&samples), &ReplayOptions::default()).unwrap();
    assert_eq!(found.summary.capacity.messages_per_second, 10.0);
}

#[test]
fn gaps_are_bridged_and_falling_log_ends_are_noted() {
    let at = |end, committed| [(Some(end), Some(committed))];
    let unknown = [(None, None)];
    let trace = trace(&[
        (0, Some(1), &at(1000, 990)),
        (5, Some(1), &unknown),
        (10, Some(1), &at(1100, 1000)),
        (20, Some(1), &at(40, 0)),
        (30, Some(1), &at(60, 60)),
    ]);
    let replayed = replay(&trace, &given(50.0)).unwrap();
    let arrivals = Arrivals::for_run(&replayed.scenario, 0);
    assert_eq!(by_partition(&arrivals, 0..=0), [10]);
    assert_eq!(by_partition(&arrivals, 1..=10), [100]);
    assert_eq!(by_partition(&arrivals, 11..=20), [0]);
    assert_eq!(by_partition(&arrivals, 21..=30), [20]);
    assert_eq!(
        replayed.summary.notes,
        [
            "1 time the log end of a partition moved back, as when a topic is recreated; messages that arrived in between are not counted"
        ]
    );
}

#[test]
fn added_partitions_begin_at_zero_and_late_topics_do_not() {
    let mut trace = trace(&[
        (0, Some(1), &[(Some(500), Some(500))]),
        (10, Some(1), &[(Some(500), Some(500)), (Some(30), None)]),
        (20, Some(1), &[(Some(500), Some(500)), (Some(30), Some(30))]),
    ]);
    // A topic that could not be read before has a log already.
    let late = vec![(Some(9000), Some(8990))];
    trace.samples[1]
        .topics
        .insert("payments".to_owned(), late.clone());
    trace.samples[2].topics.insert("payments".to_owned(), late);
    let replayed = replay(&trace, &given(50.0)).unwrap();
    let arrivals = Arrivals::for_run(&replayed.scenario, 0);
    assert_eq!(by_partition(&arrivals, 0..=10), [0, 30, 10]);
    assert_eq!(replayed.scenario.fewer_partitions, Some((10, 1)));
    assert_eq!(replayed.summary.recorded.max_age, 19.0);
}

/// With another topic in every sample, memory would grow with the square of the trace.
#[test]
fn samples_with_ever_new_topics_are_refused_while_they_are_read() {
    for (samples, partitions) in [(4_100u64, 1), (1_300, 10)] {
        let sample = |at: u64| TraceSample {
            at: at * 1000,
            members: Some(1),
            stable: Some(true),
            topics: BTreeMap::from([(format!("t{at}"), vec![(Some(1), Some(1)); partitions])]),
        };
        let trace = Trace {
            header: TraceHeader::new("group", "main"),
            samples: (0..samples).map(sample).collect(),
            whole_bytes: 0,
        };
        let refused = replay(&trace, &given(1.0)).unwrap_err();
        assert!(
            refused.contains("differ from sample to sample"),
            "{refused}"
        );
    }
}

#[test]
fn missing_fields_of_a_trace_are_noted() {
    let idle = [(Some(5), Some(5))];
    let refusal = |trace: &Trace, options| replay(trace, &options).unwrap_err();
    for (samples, expected) in [
        (trace(&[]), "the trace has no samples; record for longer"),
        (
            trace(&[(7, Some(1), &idle)]),
            "the trace covers less than a second in 1 samples; record for longer",
        ),
        (
            trace(&[(0, Some(1), &[]), (9, Some(1), &[])]),
            "no sample of the trace has a partition; check the name of the group",
        ),
        (
            trace(&[(0, None, &idle), (9, None, &idle)]),
            "the trace does not say how many members the group had, so what one of them processes is unknown; add \
             --capacity MESSAGES_PER_SECOND",
        ),
        (
            trace(&[(0, Some(1), &idle), (90, Some(1), &idle)]),
            "the trace has no 60 s in which a stable group processed messages, so what a consumer processes is unknown; \
             add --capacity MESSAGES_PER_SECOND",
        ),
        (
            trace(&[(0, Some(1), &idle), (60_000_000, Some(1), &idle)]),
            "1 partitions for 60000001 s are too much to simulate; replay at most 50000000 s at once, by splitting the file",
        ),
    ] {
        assert_eq!(refusal(&samples, ReplayOptions::default()), expected);
    }
    let short = trace(&[(0, Some(1), &idle), (99_999, Some(1), &idle)]);
    let many = ReplayOptions {
        partitions: Some(1000),
        ..given(1.0)
    };
    assert_eq!(
        refusal(&short, many),
        "--partitions 1000: too many for a trace of 100000 s; use at most 500"
    );
    // Without members, the rest is known.
    let unknown = trace(&[(0, None, &idle), (90, None, &[(Some(9), Some(9))])]);
    let happened = replay(&unknown, &given(10.0)).unwrap().summary.recorded;
    assert_eq!(happened.whole, None);
    assert!(happened.late_percent > 0.0, "{happened:?}");
}
