//! History of a topic's log, shared by all groups: past log-end offsets, and whether it was replaced.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Now, Stamp};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{OffsetColumn, TopicOffsets};
use crate::model::lag::Log;
use crate::model::lag::lag_age::EndRing;
use crate::model::units::newtypes::{Isolation, Offset, TopicId};

/// History of one topic's log.
#[derive(Debug, Default)]
pub(in crate::model) struct LogHistory {
    /// Last known topic ID.
    pub(in crate::model) id: Option<TopicId>,
    /// Time since which the topic has been missing.
    pub(in crate::model) missing: Option<Stamp>,
    pub(in crate::model) partitions: Vec<LogPartition>,
    /// Past log-end offsets. Shared with the snapshots, which compute ages from it; hence copied when it
    /// changes.
    pub(in crate::model) ring: Arc<EndRing>,
    read: Now,
}

/// History of one partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::model) struct LogPartition {
    end: i64,
    /// When the log-end offset last moved, or was first seen.
    pub(in crate::model) moved: Stamp,
    /// Counts how often the log was replaced or truncated. Group state refers to a log by this number.
    pub(in crate::model) epoch: u8,
    /// Whether the log was truncated rather than replaced, as the unchanged topic ID shows.
    pub(in crate::model) truncated: bool,
    /// Number of consecutive readings below an earlier one.
    below: u8,
    known: bool,
}

impl LogPartition {
    /// Restores the history of a partition from saved state.
    pub(in crate::model) fn restored(end: Offset, moved: Stamp) -> Self {
        Self {
            end: end.0,
            moved,
            known: true,
            ..Self::default()
        }
    }

    /// Last accepted log-end offset.
    pub(in crate::model) fn end(&self) -> Option<Offset> {
        self.known.then_some(Offset(self.end))
    }

    /// Whether the last reading was below an earlier one and has yet to be confirmed by the next. A new
    /// leader may not know the whole high watermark yet.
    pub(in crate::model) fn is_held(&self) -> bool {
        self.below > 0
    }

    /// The log of this partition as consumers with this isolation see it, by the latest offsets of its topic.
    pub(in crate::model) fn as_read(
        &self,
        offsets: &TopicOffsets,
        partition: usize,
        isolation: Isolation,
    ) -> Result<Log, Fault> {
        let offset_in = |column: &OffsetColumn| -> Result<Offset, Fault> {
            column
                .get(partition)
                .copied()
                .unwrap_or(Err(Fault::NoAnswer))
        };
        let (read, start) = (offset_in(&offsets.ends)?, offset_in(&offsets.starts)?);
        let high = match self.end() {
            Some(end) if self.is_held() => end.max(read),
            _ => read,
        };
        let end = match (isolation, &offsets.stable) {
            (Isolation::ReadUncommitted, _) => high,
            (Isolation::ReadCommitted, Some(stable)) => offset_in(stable)?.min(high),
            (Isolation::ReadCommitted, None) => return Err(Fault::Unsupported),
        };
        Ok(Log { start, high, end })
    }

    /// Applies a log-end offset; returns true if the log turns out to be replaced or truncated.
    fn apply(&mut self, end: Offset, has_id: bool, now: Now) -> bool {
        if self.known && end.0 < self.end {
            self.below = self.below.saturating_add(1);
            if self.below < 2 {
                return false;
            }
            *self = Self {
                end: end.0,
                moved: now.into(),
                epoch: self.epoch.wrapping_add(1),
                // If the ID had changed, `replace` would have reset this history.
                truncated: has_id,
                below: 0,
                known: true,
            };
            return true;
        }
        if !self.known || end.0 > self.end {
            self.moved = now.into();
        }
        (self.end, self.known, self.below) = (end.0, true, 0);
        false
    }
}

impl LogHistory {
    /// Restores the history of a log from saved state.
    pub(in crate::model) fn restored(id: Option<TopicId>, partitions: Vec<LogPartition>) -> Self {
        Self {
            id,
            partitions,
            ..Self::default()
        }
    }

    /// Merges the history that an earlier process saved of the same log: since when it has not moved.
    pub(in crate::model) fn restore(&mut self, earlier: &Self) {
        for (log, earlier) in self.partitions.iter_mut().zip(&earlier.partitions) {
            if log.known && log.end() == earlier.end() {
                log.moved = log.moved.min(earlier.moved);
            }
        }
    }

    /// Applies a reading of the topic, unless it started before the last one.
    pub(in crate::model) fn apply(&mut self, read: &Result<&TopicOffsets, Fault>, now: Now) {
        if now < self.read {
            return;
        }
        match read {
            Ok(offsets) => {
                self.read = now;
                self.apply_offsets(offsets, now);
            }
            Err(Fault::TopicMissing) => {
                self.missing.get_or_insert(now.into());
            }
            Err(_) => {}
        }
    }

    fn apply_offsets(&mut self, offsets: &TopicOffsets, now: Now) {
        let was_missing = self.missing.take().is_some();
        match (self.id, offsets.id) {
            (Some(before), Some(after)) if before != after => self.replace(),
            (Some(_), Some(_)) => {}
            // Without an ID nothing proves that it is the same topic.
            _ if was_missing => self.replace(),
            _ => {}
        }
        self.id = offsets.id.or(self.id);
        if self.partitions.len() < offsets.ends.len() {
            let more = offsets.ends.len().saturating_sub(self.partitions.len());
            self.partitions.reserve_exact(more);
            self.partitions
                .resize_with(offsets.ends.len(), LogPartition::default);
        }
        let ring = Arc::make_mut(&mut self.ring);
        for (index, (log, end)) in self.partitions.iter_mut().zip(&offsets.ends).enumerate() {
            let Ok(end) = end else {
                continue;
            };
            let before = log.end();
            if log.apply(*end, self.id.is_some(), now) {
                ring.forget(index);
            } else if let Some((before, after)) = before.zip(log.end()) {
                ring.add_written(after.distance_from(before).unwrap_or_default());
            }
        }
        let before = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            now.0.saturating_sub(age)
        };
        for past in &offsets.past {
            ring.seed(before(past.ago), past.ends.iter().copied());
            for record in &past.records {
                ring.record_message(record.partition, record.offset, before(record.age));
            }
        }
        let ends = self
            .partitions
            .iter()
            .zip(&offsets.ends)
            .map(|(log, end)| end.ok().and(log.end()));
        ring.push(now.0, ends);
    }

    /// Starts over because the topic was deleted and recreated under the same name.
    fn replace(&mut self) {
        Arc::make_mut(&mut self.ring).clear();
        for log in &mut self.partitions {
            *log = LogPartition {
                epoch: log.epoch.wrapping_add(1),
                ..LogPartition::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(id: Option<u8>, ends: &[i64]) -> TopicOffsets {
        TopicOffsets {
            id: id.map(|id| TopicId([id; 16])),
            ends: ends.iter().map(|end| Ok(Offset(*end))).collect(),
            ..TopicOffsets::default()
        }
    }

    fn read(log: &mut LogHistory, seconds: u64, id: Option<u8>, ends: &[i64]) -> Vec<(i64, u8)> {
        log.apply(&Ok(&offsets(id, ends)), Now(seconds * 1000));
        let one = |log: &LogPartition| (log.end, log.epoch);
        log.partitions.iter().map(one).collect()
    }

    #[test]
    fn a_log_end_that_falls_once_is_held_for_one_sweep() {
        let mut log = LogHistory::default();
        assert_eq!(read(&mut log, 0, None, &[100]), [(100, 0)]);
        assert_eq!(read(&mut log, 5, None, &[90]), [(100, 0)]);
        assert!(log.partitions[0].is_held());
        assert_eq!(read(&mut log, 10, None, &[101]), [(101, 0)]);
        assert!(!log.partitions[0].is_held());
        assert_eq!(read(&mut log, 15, None, &[90]), [(101, 0)]);
    }

    #[test]
    fn a_log_end_that_falls_twice_means_another_log() {
        for (id, truncated) in [(None, false), (Some(1), true)] {
            let mut log = LogHistory::default();
            read(&mut log, 0, id, &[100, 7]);
            read(&mut log, 5, id, &[90, 7]);
            assert_eq!(read(&mut log, 10, id, &[95, 8]), [(95, 1), (8, 0)]);
            assert_eq!(log.partitions[0].truncated, truncated);
        }
    }

    #[test]
    fn a_changed_topic_id_means_another_log_at_once() {
        let mut log = LogHistory::default();
        assert_eq!(read(&mut log, 0, Some(1), &[100]), [(100, 0)]);
        assert_eq!(read(&mut log, 5, None, &[100]), [(100, 0)]);
        assert_eq!(read(&mut log, 10, Some(1), &[100]), [(100, 0)]);
        assert_eq!(read(&mut log, 15, Some(2), &[300]), [(300, 1)]);
        assert!(log.ring.age(0, Offset(100), 15_000).unwrap().is_bound());
    }

    #[test]
    fn a_topic_that_was_missing_is_the_same_only_with_the_same_id() {
        for (before, after, epoch) in [
            (None, None, 1),
            (Some(1), None, 1),
            (None, Some(1), 1),
            (Some(1), Some(1), 0),
            (Some(1), Some(2), 1),
        ] {
            let mut log = LogHistory::default();
            read(&mut log, 0, before, &[100]);
            log.apply(&Err(Fault::TopicMissing), Now(5000));
            assert!(log.missing.is_some());
            let found = read(&mut log, 10, after, &[100]);
            assert_eq!(found, [(100, epoch)], "{before:?} {after:?}");
            assert!(log.missing.is_none());
        }
    }

    #[test]
    fn an_older_reading_is_ignored() {
        let mut log = LogHistory::default();
        read(&mut log, 10, None, &[100]);
        read(&mut log, 5, None, &[90]);
        assert!(!log.partitions[0].is_held());
    }

    #[test]
    fn a_partition_without_an_answer_keeps_its_last_end() {
        let mut log = LogHistory::default();
        read(&mut log, 0, None, &[100, 50]);
        let mut partly = offsets(None, &[110, 60]);
        partly.ends[1] = Err(Fault::LeaderUnknown);
        log.apply(&Ok(&partly), Now(5000));
        assert_eq!(log.partitions[0].end(), Some(Offset(110)));
        assert_eq!(log.partitions[1].end(), Some(Offset(50)));
        assert_eq!(log.partitions[1].moved, Stamp(0));
    }
}
