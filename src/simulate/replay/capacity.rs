//! Derives the capacity of a consumer of a recorded group.

use serde::Serialize;

use super::history::{RecordedHistory, RecordedSample};
use crate::simulate::numbers::{count, index, to_float};

/// Time over which consumption is measured, in seconds.
const WINDOW: u32 = 60;

/// Times without a rebalance that a window must have before it, in seconds.
const SETTLED: u32 = 15;

/// Minimum number of windows in which the group was behind.
const MIN_BUSY_WINDOWS: usize = 3;

/// Messages per second that one consumer processes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReplayCapacity {
    pub messages_per_second: f64,
    pub basis: CapacityBasis,
}

/// Where a capacity is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CapacityBasis {
    /// The user said so.
    Given,
    /// The median over the times in which the group was behind.
    Measured,
    /// The highest consumption, since the group was never behind.
    LowerBound,
}

/// Usual time between two commits of a partition, in seconds; `None` if the samples are too far apart to know.
pub(super) fn estimate_commit_interval(history: &RecordedHistory) -> Option<u32> {
    let mut gaps = Vec::new();
    let partitions = index(history.arrivals.partitions());
    for partition in 0..partitions {
        let mut last: Option<(u32, i64)> = None;
        for sample in &history.samples {
            let Some((_, Some(committed))) = sample.positions.get(partition).copied() else {
                continue;
            };
            match last {
                Some((_, before)) if before == committed => {}
                Some((second, _)) => {
                    gaps.push(sample.second - second);
                    last = Some((sample.second, committed));
                }
                None => last = Some((sample.second, committed)),
            }
        }
    }
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied()?;
    (median > 2 * history.usual_gap()).then_some(median.min(300))
}

/// Estimates the capacity of a consumer.
///
/// # Errors
/// Nothing from which it could be estimated.
pub(super) fn estimate_replay_capacity(
    history: &RecordedHistory,
    commit_interval: Option<u32>,
) -> Result<ReplayCapacity, String> {
    if history.first_members().is_none_or(|members| members == 0)
        && history
            .samples
            .iter()
            .all(|sample| sample.members.unwrap_or(0) == 0)
    {
        return Err(
            "the trace does not say how many members the group had, so what one of them processes is unknown; add \
             --capacity MESSAGES_PER_SECOND"
                .to_owned(),
        );
    }
    let gap = history.usual_gap();
    // Processed messages that are not committed yet are no sign of being behind.
    let uncommitted_seconds = f64::from(2 * commit_interval.unwrap_or(gap.max(5)) + gap);
    let (mut busy, mut most) = (Vec::new(), 0.0f64);
    for (place, first) in history.samples.iter().enumerate() {
        let rest = history.samples.get(place..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|sample| sample.second >= first.second + WINDOW);
        let Some(window) = length.and_then(|length| rest.get(..=length)) else {
            break;
        };
        let earlier = history
            .samples
            .get(..place)
            .unwrap_or_default()
            .iter()
            .rev();
        let mut settled = earlier.take_while(|sample| sample.second + SETTLED >= first.second);
        let members = first.members.filter(|members| *members > 0);
        let is_same =
            |sample: &RecordedSample| sample.members == members && sample.stable != Some(false);
        let Some(members) = members.filter(|_| window.iter().all(is_same) && settled.all(is_same))
        else {
            continue;
        };
        let (Some(consumed), Some(last)) = (consumption(window), window.last()) else {
            continue;
        };
        let seconds = f64::from(last.second - first.second);
        let partitions = count(first.positions.len());
        // Members without a partition process nothing.
        let each = to_float(consumed) / seconds / f64::from(members.min(partitions).max(1));
        most = most.max(each);
        let needed =
            to_float(consumed) / seconds / f64::from(partitions.max(1)) * uncommitted_seconds;
        let is_behind = |place: usize| window.iter().all(|sample| is_behind(sample, place, needed));
        let behind = (0..first.positions.len())
            .filter(|place| is_behind(*place))
            .count();
        // Those that are not behind may have idle consumers.
        if consumed > 0 && behind * 4 >= first.positions.len() * 3 {
            busy.push(each);
        }
    }
    if busy.len() >= MIN_BUSY_WINDOWS {
        busy.sort_by(f64::total_cmp);
        return Ok(ReplayCapacity {
            messages_per_second: busy.get(busy.len() / 2).copied().unwrap_or(most),
            basis: CapacityBasis::Measured,
        });
    }
    if most > 0.0 {
        return Ok(ReplayCapacity {
            messages_per_second: most,
            basis: CapacityBasis::LowerBound,
        });
    }
    Err(format!(
        "the trace has no {WINDOW} s in which a stable group processed messages, so what a consumer processes is \
         unknown; add --capacity MESSAGES_PER_SECOND"
    ))
}

/// Messages whose commit was seen within a window; `None` if an offset at an end of it is unknown.
fn consumption(window: &[RecordedSample]) -> Option<u64> {
    let (first, last) = (window.first()?, window.last()?);
    let mut sum = 0u64;
    for (place, (_, before)) in first.positions.iter().enumerate() {
        let after = last.positions.get(place)?.1;
        match (before, after) {
            (Some(before), Some(after)) => {
                sum += u64::try_from(after.saturating_sub(*before)).unwrap_or(0);
            }
            // A partition without any commit.
            (None, None) => {}
            _ => return None,
        }
    }
    Some(sum)
}

/// Whether a partition has more than this number of messages that are not committed.
fn is_behind(sample: &RecordedSample, place: usize, than: f64) -> bool {
    let Some((Some(end), Some(committed))) = sample.positions.get(place).copied() else {
        return false;
    };
    let lag = u64::try_from(end.saturating_sub(committed)).unwrap_or(0);
    to_float(lag) > than
}
