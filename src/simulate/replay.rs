//! Replay of a trace: the arrivals of a recorded group as a scenario, and what really happened to it.

mod capacity;
mod happened;
mod history;

use std::sync::Arc;

use serde::Serialize;

pub use self::capacity::{CapacityBasis, ReplayCapacity};
use self::capacity::{estimate_commit_interval, estimate_replay_capacity};
pub use self::happened::RecordedOutcome;
use self::happened::score_what_happened;
use self::history::RecordedHistory;
use super::arrivals::Arrivals;
use super::numbers::index;
use super::scenario::{Scenario, StartReplicas};
use super::trace::Trace;

/// Name of the scenario.
pub const REPLAY_SCENARIO: &str = "trace";

/// Maximum number of partitions times seconds of a replay: 200 MB of arrivals.
const MAX_CELLS: u64 = 50_000_000;

/// Changes that a replay makes, and facts that the trace does not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayOptions {
    /// Age in seconds that messages may reach; that of scenarios if `None`.
    pub slo: Option<u32>,
    /// Another number of partitions for the same messages.
    pub partitions: Option<u32>,
    /// Messages per second that one consumer processes; estimated from the trace if `None`.
    pub capacity: Option<f64>,
    /// Seconds from a new pod until it joins the group; those of scenarios if `None`.
    pub start_up: Option<u32>,
}

/// A trace that can be simulated.
#[derive(Clone, Debug)]
pub struct Replay {
    pub scenario: Scenario,
    pub summary: ReplaySummary,
}

/// Facts about a replay besides its scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplaySummary {
    pub group: String,
    pub cluster: String,
    pub seconds: u32,
    pub samples: usize,
    pub messages: u64,
    pub capacity: ReplayCapacity,
    pub recorded: RecordedOutcome,
    /// Notes on the figures, as sentences.
    pub notes: Vec<String>,
}

/// Turns a trace into a scenario.
///
/// # Errors
/// The missing part of the trace, and what to do.
pub fn replay(trace: &Trace, options: &ReplayOptions) -> Result<Replay, String> {
    let history = RecordedHistory::new(&trace.samples, MAX_CELLS)?;
    let mut notes = history.notes.clone();
    let commit_interval = estimate_commit_interval(&history);
    let capacity = match options.capacity {
        Some(each) => ReplayCapacity {
            messages_per_second: each,
            basis: CapacityBasis::Given,
        },
        None => estimate_replay_capacity(&history, commit_interval)?,
    };
    if capacity.basis == CapacityBasis::LowerBound {
        notes.push(format!(
            "the group was never behind, so a consumer processes at least {:.1} messages per second; set --capacity if \
             you know it",
            capacity.messages_per_second
        ));
    }
    let recorded_partitions = history.arrivals.partitions();
    let partitions = options.partitions.unwrap_or(recorded_partitions);
    let arrivals = match partitions == recorded_partitions {
        true => history.arrivals.clone(),
        false => {
            let cells = u64::from(partitions) * u64::from(history.duration);
            if cells > MAX_CELLS {
                return Err(format!(
                    "--partitions {partitions}: too many for a trace of {} s; use at most {}",
                    history.duration,
                    MAX_CELLS / u64::from(history.duration.max(1))
                ));
            }
            repartition(&history.arrivals, partitions, history.duration)
        }
    };
    let messages = arrivals.total();
    let base = Scenario::new(REPLAY_SCENARIO, "arrivals of the trace", Vec::new());
    let scenario = Scenario {
        duration: history.duration,
        partitions,
        fewer_partitions: history.growth.filter(|_| partitions == recorded_partitions),
        capacity: capacity.messages_per_second,
        commit_interval: commit_interval.unwrap_or(base.commit_interval),
        start_replicas: match history.first_members() {
            Some(members) => StartReplicas::Count(members.clamp(1, partitions.max(1))),
            None => StartReplicas::Half,
        },
        start_up: options
            .start_up
            .map_or(base.start_up, |seconds| (seconds, seconds)),
        slo: options.slo.unwrap_or(base.slo),
        recorded: Some(Arc::new(arrivals)),
        ..base
    };
    Ok(Replay {
        summary: ReplaySummary {
            group: trace.header.group.clone(),
            cluster: trace.header.cluster.clone(),
            seconds: history.duration,
            samples: trace.samples.len(),
            messages,
            capacity,
            recorded: score_what_happened(&history, &scenario),
            notes,
        },
        scenario,
    })
}

/// Spreads the same messages over another number of partitions, as a partitioner does that takes a hash modulo their
/// number: a partition's messages go to all those that some hash shares with it, evenly.
fn repartition(arrivals: &Arrivals, partitions: u32, duration: u32) -> Arrivals {
    let before = arrivals.partitions();
    let common = greatest_common_divisor(before, partitions).max(1);
    let targets = partitions / common;
    let mut next = vec![0; index(before)];
    let mut counts = vec![0u32; index(partitions) * index(duration)];
    for (second, row) in (0..duration).zip(counts.chunks_mut(index(partitions.max(1)))) {
        for ((from, messages), next) in (0..).zip(arrivals.at(second)).zip(&mut next) {
            let (each, more) = (messages / targets, messages % targets);
            for turn in 0..targets {
                let target = from % common + common * ((*next + turn) % targets);
                if let Some(count) = row.get_mut(index(target)) {
                    *count = count.saturating_add(each + u32::from(turn < more));
                }
            }
            *next = (*next + more) % targets;
        }
    }
    Arrivals::recorded(partitions, counts)
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        b => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests;
