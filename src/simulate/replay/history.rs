//! The history of a recorded group in seconds and partitions.

use std::collections::HashMap;

use super::super::arrivals::Arrivals;
use super::super::numbers::{count, index};
use super::super::trace::{MAX_TRACE_POSITIONS, TracePosition, TraceSample};
use crate::model::units::counted::counted;

/// A recorded group.
#[derive(Clone, Debug)]
pub(super) struct RecordedHistory {
    pub(super) duration: u32,
    /// The messages that the group had not processed at the beginning arrive in the first second.
    pub(super) arrivals: Arrivals,
    pub(super) samples: Vec<RecordedSample>,
    /// For each partition, the last sample before it was added to its topic; `None` if it existed from the beginning.
    pub(super) added_after: Vec<Option<u32>>,
    /// When partitions were first added, and how many there were before.
    pub(super) growth: Option<(u32, u32)>,
    pub(super) notes: Vec<String>,
}

/// One sample.
#[derive(Clone, Debug)]
pub(super) struct RecordedSample {
    pub(super) second: u32,
    pub(super) members: Option<u32>,
    pub(super) stable: Option<bool>,
    /// By partition of the replay. Shorter while partitions are yet to be added.
    pub(super) positions: Vec<TracePosition>,
}

impl RecordedHistory {
    /// # Errors
    /// Too few samples, or more than `cells_max` seconds times partitions.
    pub(super) fn new(samples: &[TraceSample], cells_max: u64) -> Result<Self, String> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Err("the trace has no samples; record for longer".to_owned());
        };
        let second =
            |at: u64| u32::try_from((at - first.at).saturating_add(500) / 1000).unwrap_or(u32::MAX);
        let duration = second(last.at).saturating_add(1);
        if duration < 2 {
            return Err(format!(
                "the trace covers less than a second in {} samples; record for longer",
                samples.len()
            ));
        }
        let mut places: HashMap<(&str, usize), usize> = HashMap::new();
        let mut recorded = Vec::with_capacity(samples.len());
        let mut added_after = Vec::new();
        let mut growth = None;
        // When each topic was last seen.
        let mut topics: HashMap<&str, u32> = HashMap::new();
        let mut kept = 0usize;
        for sample in samples {
            let second = second(sample.at);
            let seen = places.len();
            let mut positions = vec![(None, None); places.len()];
            for (topic, of_topic) in &sample.topics {
                let seen_at = topics.get(topic.as_str()).copied();
                if !of_topic.is_empty() {
                    topics.insert(topic, second);
                }
                for (partition, position) in of_topic.iter().enumerate() {
                    let new = places.len();
                    let place = *places.entry((topic, partition)).or_insert(new);
                    if place == new {
                        positions.push(*position);
                        added_after.push(seen_at);
                        if seen_at.is_some() && growth.is_none() {
                            growth = Some((second, count(seen)));
                        }
                    } else if let Some(known) = positions.get_mut(place) {
                        *known = *position;
                    }
                }
            }
            // Checked before more is kept: with new topics in every sample, memory would grow with the square of the
            // trace.
            check_cells(places.len(), duration, cells_max)?;
            kept = kept.saturating_add(positions.len());
            if kept > MAX_TRACE_POSITIONS {
                return Err(format!(
                    "the first {} samples have {} topics and partitions that differ from sample to sample, which is too \
                     much to simulate; split the file by time",
                    recorded.len() + 1,
                    places.len()
                ));
            }
            recorded.push(RecordedSample {
                second,
                members: sample.members,
                stable: sample.stable,
                positions,
            });
        }
        let partitions = places.len();
        if partitions == 0 {
            return Err(
                "no sample of the trace has a partition; check the name of the group".to_owned(),
            );
        }
        let mut notes = Vec::new();
        let arrivals = spread(&recorded, &added_after, duration, &mut notes);
        Ok(Self {
            duration,
            arrivals,
            samples: recorded,
            added_after,
            growth,
            notes,
        })
    }

    /// Members at the beginning; `None` if they were never known.
    pub(super) fn first_members(&self) -> Option<u32> {
        self.samples.iter().find_map(|sample| sample.members)
    }

    /// Usual time between two samples, in seconds.
    pub(super) fn usual_gap(&self) -> u32 {
        let mut gaps: Vec<u32> = self.gaps().collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied().unwrap_or(1).max(1)
    }

    fn gaps(&self) -> impl Iterator<Item = u32> {
        self.samples.windows(2).map(|pair| match pair {
            [one, two] => two.second - one.second,
            _ => 0,
        })
    }
}

/// # Errors
/// More than `cells_max` seconds times partitions.
fn check_cells(partitions: usize, duration: u32, cells_max: u64) -> Result<(), String> {
    let partitions = u64::from(count(partitions));
    let cells = partitions * u64::from(duration);
    if cells > cells_max {
        return Err(format!(
            "{partitions} partitions for {duration} s are too much to simulate; replay at most {} s at once, by splitting \
             the file",
            cells_max / partitions
        ));
    }
    Ok(())
}

/// Spreads what each log grew by between two samples evenly over the seconds between them.
fn spread(
    samples: &[RecordedSample],
    added_after: &[Option<u32>],
    duration: u32,
    notes: &mut Vec<String>,
) -> Arrivals {
    let partitions = added_after.len();
    let mut counts = vec![0u32; partitions * index(duration)];
    let mut falls = 0u32;
    let mut add = |second: u32, partition: usize, messages: u64| {
        if let Some(count) = counts.get_mut(index(second) * partitions + partition) {
            *count = count.saturating_add(u32::try_from(messages).unwrap_or(u32::MAX));
        }
    };
    for (partition, added_after) in added_after.iter().enumerate() {
        // The last known log end, and when. The log of a partition that was added begins at 0.
        let mut last = added_after.map(|second| (second, 0));
        for sample in samples {
            let Some((Some(end), committed)) = sample.positions.get(partition).copied() else {
                continue;
            };
            let Some((since, start)) = last.replace((sample.second, end)) else {
                let backlog = committed.map_or(0, |committed| end.saturating_sub(committed));
                add(
                    sample.second,
                    partition,
                    u64::try_from(backlog).unwrap_or(0),
                );
                continue;
            };
            let Ok(grown) = u64::try_from(end.saturating_sub(start)) else {
                falls += 1;
                continue;
            };
            let seconds = sample.second - since;
            if seconds == 0 {
                add(sample.second, partition, grown);
                continue;
            }
            let mut done = 0;
            for number in 1..=u64::from(seconds) {
                let so_far = u128::from(grown) * u128::from(number) / u128::from(seconds);
                let so_far = u64::try_from(so_far).unwrap_or(u64::MAX);
                add(
                    since + u32::try_from(number).unwrap_or(0),
                    partition,
                    so_far - done,
                );
                done = so_far;
            }
        }
    }
    if falls > 0 {
        notes.push(format!(
            "{} the log end of a partition moved back, as when a topic is recreated; messages that arrived in between are not counted",
            counted(falls, "time")
        ));
    }
    Arrivals::recorded(count(partitions), counts)
}
