//! What really happened to a recorded group.

use serde::Serialize;

use super::super::outcome::RunTally;
use super::super::partitions::{AgeCounter, SimulatedPartition};
use super::super::scenario::Scenario;
use super::super::score::RunScore;
use super::history::RecordedHistory;

/// What really happened, in the terms of simulated runs. A message counts as processed when its commit was seen, so
/// ages are too large by up to the time between two samples and between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RecordedOutcome {
    pub late_percent: f64,
    pub max_age: f64,
    pub recovery: f64,
    /// `None` if the number of members was never known, each of which counts as a replica.
    pub whole: Option<RunScore>,
}

/// Scores the history of a group. The partitions of the scenario are those that the cost is a part of.
pub(super) fn score_what_happened(
    history: &RecordedHistory,
    scenario: &Scenario,
) -> RecordedOutcome {
    let arrivals = &history.arrivals;
    let start = (SimulatedPartition::default(), None::<i64>);
    let mut partitions = vec![start; history.added_after.len()];
    let (mut ages, mut tally) = (AgeCounter::default(), RunTally::default());
    let mut members = history.first_members().unwrap_or(0);
    let (mut is_late, mut was_stable, mut rebalances) = (false, true, 0);
    let mut next = 0;
    for sample in &history.samples {
        let is_new_second = sample.second >= next;
        for second in next..sample.second {
            tally.count_second(second, members, is_late);
        }
        let is_stable = sample.stable != Some(false);
        let now = if is_stable { sample.members } else { None }.unwrap_or(members);
        // A change of the members without a rebalance that was seen had one between two samples.
        if was_stable && (!is_stable || now != members) {
            rebalances += 1;
        }
        if now != members {
            tally.count_change(sample.second, now > members);
        }
        (members, was_stable) = (now, is_stable);
        let mut oldest = 0;
        for (place, (partition, last)) in partitions.iter_mut().enumerate() {
            for second in next..=sample.second {
                partition.end += i64::from(arrivals.count(second, place));
            }
            if let Some((end, Some(committed))) = sample.positions.get(place).copied() {
                // At the first sample, the committed messages were processed before the beginning.
                let from = last.unwrap_or_else(|| first_committed(history, place, committed, end));
                let done = committed
                    .saturating_sub(from)
                    .clamp(0, partition.unprocessed());
                let done = u32::try_from(done).unwrap_or(u32::MAX);
                partition.process(
                    done,
                    sample.second,
                    scenario.slo,
                    place,
                    arrivals,
                    &mut ages,
                );
                *last = Some(committed);
            }
            if partition.unprocessed() > 0 {
                oldest = oldest.max(partition.age(sample.second, place, arrivals));
            }
        }
        is_late = oldest > scenario.slo;
        if is_new_second {
            tally.count_second(sample.second, members, is_late);
        }
        next = sample.second + 1;
    }
    for (place, (partition, _)) in partitions.iter_mut().enumerate() {
        partition.count_rest(next - 1, scenario.slo, place, arrivals, &mut ages);
    }
    let score = tally.score(scenario, &ages, rebalances);
    RecordedOutcome {
        late_percent: score.late_percent,
        max_age: score.max_age,
        recovery: score.recovery,
        whole: history.first_members().map(|_| score),
    }
}

/// The offset from which the group processed a partition when its first commit is seen: that commit if the partition
/// was there from the beginning, or where its log began within the trace.
fn first_committed(
    history: &RecordedHistory,
    place: usize,
    committed: i64,
    end: Option<i64>,
) -> i64 {
    let first = history.samples.iter().find_map(|sample| {
        let (end, committed) = sample.positions.get(place)?;
        Some(((*end)?, *committed))
    });
    let was_added = history.added_after.get(place).is_some_and(Option::is_some);
    match first {
        _ if was_added => 0,
        // Without a commit at first, there was no backlog: it is processed from that log end on.
        Some((first_end, None)) => first_end.min(committed),
        Some((_, Some(first_committed))) => first_committed,
        None => end.unwrap_or(committed).min(committed),
    }
}
