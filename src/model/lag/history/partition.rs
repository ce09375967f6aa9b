//! State machine of a group on one partition: from the last state and a reading to a position.

use std::time::Duration;

use super::clock::{Now, Stamp};
use super::log::LogPartition;
use crate::model::kafka::fault::Fault;
use crate::model::lag::{Log, Position};
use crate::model::units::newtypes::{Lag, Offset, OffsetReset};

/// How long a truncated log must keep its topic ID before that ID is trusted. Clients refresh IDs less often
/// than offsets, so right after a topic is recreated the ID may still be the old one.
const CONFIRMED_AFTER: Duration = Duration::from_secs(120);

/// State of a group on one partition. Sixteen bytes, because there is one for every group and partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::model) struct PartitionState {
    /// An offset whose meaning depends on `kind`.
    offset: i64,
    /// Time since which the state has been the same.
    since: Stamp,
    kind: PartitionStateKind,
    /// The log that `offset` belongs to: [`LogPartition::epoch`].
    epoch: u8,
    /// How many offsets beyond the committed one are known to hold nothing that consumers receive, such as transaction
    /// markers; 0 if none is known. Kept until the committed offset changes; also while it is gone.
    residue: u16,
}

/// Meaning of the offset of a [`PartitionState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::model) enum PartitionStateKind {
    /// Nothing: no committed offset was ever seen.
    #[default]
    Unseen,
    /// The committed offset.
    Committed,
    /// A committed offset of an earlier log, or of an unknown one. The lag is unknown until the next commit.
    Unsettled,
    /// A committed offset of this log, which was truncated under the same topic ID. The lag is unknown until
    /// the ID is confirmed ([`CONFIRMED_AFTER`]).
    Suspended,
    /// The log-end offset when the group was first seen to run without a committed offset.
    FirstSeen,
    /// The last committed offset, which has disappeared.
    Forgotten,
}

impl PartitionStateKind {
    /// All kinds; the index is their saved form.
    pub(in crate::model) const ALL: [PartitionStateKind; 6] = [
        PartitionStateKind::Unseen,
        PartitionStateKind::Committed,
        PartitionStateKind::Unsettled,
        PartitionStateKind::Suspended,
        PartitionStateKind::FirstSeen,
        PartitionStateKind::Forgotten,
    ];
}

/// One reading of a group on a partition.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct PartitionReading {
    pub(in crate::model) committed: Option<Offset>,
    /// The log and its history. If it is unknown, only the committed offset is recorded.
    pub(in crate::model) log: Result<(Log, LogPartition), Fault>,
    /// Whether the topic ID is known.
    pub(in crate::model) has_id: bool,
    /// Whether the group runs: it has a committed offset on the topic or a member that reads it.
    pub(in crate::model) runs: bool,
    pub(in crate::model) reset: OffsetReset,
    pub(in crate::model) forget_after: Duration,
    pub(in crate::model) now: Now,
}

/// Result of applying a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct StateTransition {
    pub(in crate::model) position: Result<Position, Fault>,
    /// Whether the committed offset changed since the last reading.
    pub(in crate::model) moved: bool,
}

impl PartitionState {
    /// Restores a state from saved history.
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
            residue: 0,
        }
    }

    /// The same state, with a residue that an earlier process found.
    pub(in crate::model) fn with_residue(self, residue: u16) -> Self {
        Self { residue, ..self }
    }

    /// The same state, for the log of this epoch.
    pub(in crate::model) fn with_epoch(self, epoch: u8) -> Self {
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

    /// How many messages beyond the committed offset are known to be residual.
    pub(in crate::model) fn residue(&self) -> Lag {
        Lag(self.residue.into())
    }

    /// Remembers that this number of messages beyond the committed offset is residual. A number above `u16::MAX` is not
    /// remembered.
    pub(in crate::model) fn set_residue(&mut self, messages: Lag) {
        self.residue = u16::try_from(messages.0).unwrap_or(0);
    }

    /// Merges the state that an earlier process saved. Where both agree, the older `since` counts.
    pub(in crate::model) fn restore(&mut self, earlier: Self, now: Now) {
        let same = self.offset == earlier.offset && self.epoch == earlier.epoch;
        match (self.kind, earlier.kind) {
            (PartitionStateKind::Unseen, _) => *self = earlier,
            (PartitionStateKind::Committed, PartitionStateKind::Committed) if same => {
                self.since = self.since.min(earlier.since);
                // The log only grows, and so does what is known to be residual.
                self.residue = self.residue.max(earlier.residue);
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

    /// The last committed offset, if it is one of this log.
    pub(in crate::model) fn committed_in(&self, log: &LogPartition) -> Option<Offset> {
        let is_of_log = self.kind == PartitionStateKind::Committed && self.epoch == log.epoch;
        is_of_log.then(|| self.offset())
    }

    /// Applies a committed offset within the log that the last one belongs to, as nearly all are: the same as
    /// [`apply`](Self::apply) at less cost. Returns whether the offset moved; `None` for any other reading, which
    /// changes nothing here.
    pub(in crate::model) fn apply_next_commit(
        &mut self,
        at: Offset,
        log: &Log,
        known: &LogPartition,
        now: Now,
    ) -> Option<bool> {
        let is_next = self.kind == PartitionStateKind::Committed
            && self.epoch == known.epoch
            && !known.is_held()
            && at <= log.high;
        if !is_next {
            return None;
        }
        let moved = at != self.offset();
        if moved {
            self.transition_to(PartitionStateKind::Committed, at, now);
        }
        Some(moved)
    }

    /// Applies a reading.
    pub(in crate::model) fn apply(&mut self, reading: &PartitionReading) -> StateTransition {
        let (log, held) = match reading.log {
            Ok((log, known)) => {
                self.follow_log(&known, &log, reading.now);
                (log, known.is_held())
            }
            Err(fault) => {
                let moved = self.record_commit(reading);
                return StateTransition {
                    position: Err(fault),
                    moved,
                };
            }
        };
        match reading.committed {
            // While a lower log-end offset awaits confirmation, a commit beyond it is in doubt as well.
            Some(at) if held && at > log.high => StateTransition {
                position: Err(Fault::CommitBeyondEnd),
                moved: false,
            },
            Some(at) => self.apply_commit(at, &log, reading),
            None => StateTransition {
                position: Ok(self.apply_no_commit(&log, reading)),
                moved: false,
            },
        }
    }

    fn transition_to(&mut self, kind: PartitionStateKind, offset: Offset, now: Now) {
        (self.kind, self.offset, self.since) = (kind, offset.0, now.into());
        self.residue = 0;
    }

    /// A transition with the offset unchanged: which of the messages after it are residual still holds.
    fn keep_residue_in(&mut self, kind: PartitionStateKind, now: Now) {
        let residue = self.residue;
        self.transition_to(kind, self.offset(), now);
        self.residue = residue;
    }

    /// Records a committed offset while the log is unknown; returns whether it moved.
    fn record_commit(&mut self, reading: &PartitionReading) -> bool {
        match reading.committed {
            Some(at) if self.kind == PartitionStateKind::Committed && at != self.offset() => {
                self.transition_to(PartitionStateKind::Committed, at, reading.now);
                true
            }
            _ => false,
        }
    }

    /// Adjusts the state if the log was replaced or truncated since the last reading.
    fn follow_log(&mut self, known: &LogPartition, log: &Log, now: Now) {
        if self.epoch == known.epoch {
            return;
        }
        let same_topic = known.truncated && self.epoch.wrapping_add(1) == known.epoch;
        self.epoch = known.epoch;
        match (self.kind, same_topic) {
            (PartitionStateKind::Committed | PartitionStateKind::Suspended, true) => {
                self.transition_to(PartitionStateKind::Suspended, self.offset(), now);
            }
            (
                PartitionStateKind::Committed
                | PartitionStateKind::Suspended
                | PartitionStateKind::Unsettled,
                _,
            ) => {
                self.transition_to(PartitionStateKind::Unsettled, self.offset(), now);
            }
            (PartitionStateKind::FirstSeen, true) => self.offset = self.offset.min(log.end.0),
            (PartitionStateKind::Forgotten, true) => self.residue = 0,
            (
                PartitionStateKind::FirstSeen
                | PartitionStateKind::Forgotten
                | PartitionStateKind::Unseen,
                _,
            ) => self.kind = PartitionStateKind::Unseen,
        }
    }

    fn apply_commit(
        &mut self,
        at: Offset,
        log: &Log,
        reading: &PartitionReading,
    ) -> StateTransition {
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
                    self.transition_to(PartitionStateKind::Committed, at, reading.now);
                }
            }
            // With a known topic ID the log is the same, and only the reported end is behind.
            PartitionStateKind::Committed if same && is_beyond && !reading.has_id => {
                self.transition_to(PartitionStateKind::Unsettled, at, reading.now);
            }
            PartitionStateKind::Committed if same => {}
            PartitionStateKind::Forgotten if same && !is_beyond => {
                self.keep_residue_in(PartitionStateKind::Committed, reading.now);
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
                self.transition_to(kind, at, reading.now);
            }
        }
        let position = if self.kind == PartitionStateKind::Committed {
            Ok(Position::Committed(at))
        } else {
            Err(unknown)
        };
        StateTransition { position, moved }
    }

    fn apply_no_commit(&mut self, log: &Log, reading: &PartitionReading) -> Position {
        match self.kind {
            PartitionStateKind::Committed => {
                self.keep_residue_in(PartitionStateKind::Forgotten, reading.now);
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
                self.transition_to(PartitionStateKind::FirstSeen, log.end, reading.now);
                Position::SinceSeen(log.end)
            }
            (_, OffsetReset::Latest) => Position::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests;
