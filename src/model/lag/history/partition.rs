//! What is remembered of a group on one partition, and what it makes of the next reading.

use std::time::Duration;

use super::clock::{Now, Stamp};
use super::log::LogPartition;
use crate::model::kafka::fault::Fault;
use crate::model::lag::{Log, Position};
use crate::model::units::newtypes::{Offset, OffsetReset};

/// How long a log that got shorter keeps its topic ID before the ID is believed: clients read it less
/// often than ends, so that of a topic just made anew it may still be the old one.
const CONFIRMED_AFTER: Duration = Duration::from_secs(120);

/// A group on one partition. Sixteen bytes, since there is one for every group and partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::model) struct PartitionState {
    /// The commit, or the end when it was first seen without one; by `kind`.
    offset: i64,
    /// Since when it is so.
    since: Stamp,
    kind: PartitionStateKind,
    /// The log that `offset` is of: [`LogPartition::epoch`].
    epoch: u8,
}

/// What the offset of a [`PartitionState`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::model) enum PartitionStateKind {
    /// Nothing: no commit was ever seen.
    #[default]
    Unseen,
    /// The commit, since it came.
    Committed,
    /// A commit that belongs to a log before this one, or to none that was seen: unknown until the
    /// next commit.
    Unsettled,
    /// A commit of this log, which got shorter under the same ID: unknown until that is sure.
    Suspended,
    /// The log's end when the group was first seen to run without a commit.
    FirstSeen,
    /// The last commit, since it vanished.
    Forgotten,
}

impl PartitionStateKind {
    /// As it is remembered over a restart.
    pub(in crate::model) const ALL: [PartitionStateKind; 6] = [
        PartitionStateKind::Unseen,
        PartitionStateKind::Committed,
        PartitionStateKind::Unsettled,
        PartitionStateKind::Suspended,
        PartitionStateKind::FirstSeen,
        PartitionStateKind::Forgotten,
    ];
}

/// What one sweep says of a group on a partition.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct PartitionReading {
    pub(in crate::model) committed: Option<Offset>,
    /// The log, and what is remembered of it. Without, a commit is only remembered.
    pub(in crate::model) log: Result<(Log, LogPartition), Fault>,
    /// Whether the topic's ID is known.
    pub(in crate::model) has_id: bool,
    /// Whether the group runs: has a commit on the topic, or a member on the partition.
    pub(in crate::model) runs: bool,
    pub(in crate::model) reset: OffsetReset,
    pub(in crate::model) forget_after: Duration,
    pub(in crate::model) now: Now,
}

/// Where the group stands by a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct StateTransition {
    pub(in crate::model) position: Result<Position, Fault>,
    /// Whether its commit moved since the last reading.
    pub(in crate::model) moved: bool,
}

impl PartitionState {
    /// As remembered from an earlier process.
    pub(in crate::model) fn restored(
        kind: PartitionStateKind,
        offset: Offset,
        since: Stamp,
    ) -> Self {
        Self {
            offset: offset.0,
            since,
            kind,
            epoch: 0,
        }
    }

    /// The same, of another log than the partition has now.
    pub(in crate::model) fn of_epoch(self, epoch: u8) -> Self {
        Self { epoch, ..self }
    }

    pub(in crate::model) fn kind(&self) -> PartitionStateKind {
        self.kind
    }

    pub(in crate::model) fn offset(&self) -> Offset {
        Offset(self.offset)
    }

    pub(in crate::model) fn since(&self) -> Stamp {
        self.since
    }

    /// What an earlier process knew, found after this one had begun: the older of what agrees.
    pub(in crate::model) fn recall(&mut self, earlier: Self, now: Now) {
        let same = self.offset == earlier.offset && self.epoch == earlier.epoch;
        match (self.kind, earlier.kind) {
            (PartitionStateKind::Unseen, _) => *self = earlier,
            (PartitionStateKind::Committed, PartitionStateKind::Committed) if same => {
                self.since = earlier.since
            }
            (
                PartitionStateKind::Committed,
                PartitionStateKind::Unsettled | PartitionStateKind::Suspended,
            ) if same => *self = earlier,
            (PartitionStateKind::Committed, PartitionStateKind::Committed)
                if self.offset == earlier.offset && self.epoch != earlier.epoch =>
            {
                *self = earlier;
            }
            (PartitionStateKind::FirstSeen, PartitionStateKind::Committed) => {
                *self = Self {
                    kind: PartitionStateKind::Forgotten,
                    since: now.into(),
                    ..earlier
                }
            }
            (
                PartitionStateKind::FirstSeen,
                PartitionStateKind::Forgotten | PartitionStateKind::FirstSeen,
            ) => *self = earlier,
            _ => {}
        }
    }

    /// Takes in a reading.
    pub(in crate::model) fn step(&mut self, reading: &PartitionReading) -> StateTransition {
        let (log, held) = match reading.log {
            Ok((log, known)) => {
                self.follow(&known, &log, reading.now);
                (log, known.is_held())
            }
            Err(fault) => {
                let moved = self.overhear(reading);
                return StateTransition {
                    position: Err(fault),
                    moved,
                };
            }
        };
        match reading.committed {
            // Where the log's end is in doubt for one poll, so is what lies beyond it.
            Some(at) if held && at > log.high => StateTransition {
                position: Err(Fault::CommitBeyondEnd),
                moved: false,
            },
            Some(at) => self.committed(at, &log, reading),
            None => StateTransition {
                position: Ok(self.uncommitted(&log, reading)),
                moved: false,
            },
        }
    }

    fn become_(&mut self, kind: PartitionStateKind, offset: Offset, now: Now) {
        (self.kind, self.offset, self.since) = (kind, offset.0, now.into());
    }

    /// A commit that is seen while the log is not: it moved, if it did.
    fn overhear(&mut self, reading: &PartitionReading) -> bool {
        match reading.committed {
            Some(at) if self.kind == PartitionStateKind::Committed && at != self.offset() => {
                self.become_(PartitionStateKind::Committed, at, reading.now);
                true
            }
            _ => false,
        }
    }

    /// The log may be another one than before.
    fn follow(&mut self, known: &LogPartition, log: &Log, now: Now) {
        if self.epoch == known.epoch {
            return;
        }
        let same_topic = known.truncated && self.epoch.wrapping_add(1) == known.epoch;
        self.epoch = known.epoch;
        match (self.kind, same_topic) {
            (PartitionStateKind::Committed | PartitionStateKind::Suspended, true) => {
                self.become_(PartitionStateKind::Suspended, self.offset(), now);
            }
            (
                PartitionStateKind::Committed
                | PartitionStateKind::Suspended
                | PartitionStateKind::Unsettled,
                _,
            ) => {
                self.become_(PartitionStateKind::Unsettled, self.offset(), now);
            }
            (PartitionStateKind::FirstSeen, true) => self.offset = self.offset.min(log.end.0),
            (PartitionStateKind::Forgotten, true) => {}
            (
                PartitionStateKind::FirstSeen
                | PartitionStateKind::Forgotten
                | PartitionStateKind::Unseen,
                _,
            ) => self.kind = PartitionStateKind::Unseen,
        }
    }

    fn committed(&mut self, at: Offset, log: &Log, reading: &PartitionReading) -> StateTransition {
        let is_beyond = at > log.high;
        let same = at == self.offset();
        let mut moved = false;
        let unknown = if is_beyond {
            Fault::CommitBeyondEnd
        } else {
            Fault::LogReplaced
        };
        match self.kind {
            PartitionStateKind::Unsettled if same => {}
            PartitionStateKind::Suspended if same => {
                if !is_beyond && self.since.elapsed(reading.now) >= CONFIRMED_AFTER {
                    self.become_(PartitionStateKind::Committed, at, reading.now);
                }
            }
            // The same ID says that it is the same log, and that its end is what lags.
            PartitionStateKind::Committed if same && is_beyond && !reading.has_id => {
                self.become_(PartitionStateKind::Unsettled, at, reading.now);
            }
            PartitionStateKind::Committed if same => {}
            PartitionStateKind::Forgotten if same && !is_beyond => {
                self.become_(PartitionStateKind::Committed, at, reading.now);
            }
            before => {
                moved = before != PartitionStateKind::Unseen;
                let is_of_this_log =
                    !is_beyond || (before == PartitionStateKind::Committed && reading.has_id);
                let kind = if is_of_this_log {
                    PartitionStateKind::Committed
                } else {
                    PartitionStateKind::Unsettled
                };
                self.become_(kind, at, reading.now);
            }
        }
        let position = if self.kind == PartitionStateKind::Committed {
            Ok(Position::Committed(at))
        } else {
            Err(unknown)
        };
        StateTransition { position, moved }
    }

    fn uncommitted(&mut self, log: &Log, reading: &PartitionReading) -> Position {
        match self.kind {
            PartitionStateKind::Committed => {
                self.become_(PartitionStateKind::Forgotten, self.offset(), reading.now)
            }
            PartitionStateKind::Unsettled | PartitionStateKind::Suspended => {
                self.kind = PartitionStateKind::Unseen
            }
            PartitionStateKind::Forgotten
                if self.since.elapsed(reading.now) >= reading.forget_after =>
            {
                self.kind = PartitionStateKind::Unseen;
            }
            PartitionStateKind::Forgotten
            | PartitionStateKind::FirstSeen
            | PartitionStateKind::Unseen => {}
        }
        match (self.kind, reading.reset) {
            (PartitionStateKind::Forgotten, _) => Position::Forgotten(self.offset()),
            (_, OffsetReset::Earliest) => {
                self.kind = PartitionStateKind::Unseen;
                Position::AtStart
            }
            (PartitionStateKind::FirstSeen, OffsetReset::Latest) => {
                Position::SinceSeen(self.offset())
            }
            (_, OffsetReset::Latest) if reading.runs => {
                self.become_(PartitionStateKind::FirstSeen, log.end, reading.now);
                Position::SinceSeen(log.end)
            }
            (_, OffsetReset::Latest) => Position::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests;
