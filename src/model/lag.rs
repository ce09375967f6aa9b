//! The lag of a consumer group on one partition, and everything that a snapshot of a Kafka cluster consists of.

pub mod assembly;
pub mod cluster_snapshot;
pub mod group_figures;
pub mod group_summary;
pub mod history;
pub mod lag_age;
pub mod rates;
pub mod subscription;
pub mod topic_lag;
pub mod topic_summary;

use serde::Serialize;

use super::kafka::fault::Fault;
use super::units::newtypes::{Lag, Offset};

/// Lag of a group on one partition, by the rule that determined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionLag {
    /// Log-end offset minus committed offset.
    Measured(Lag),
    /// The lag of a share group as its coordinator reports it: records that are neither acknowledged nor archived.
    Reported(Lag),
    /// Log-end offset minus start offset of a share group whose coordinator reports no lag. Some of these
    /// records may be acknowledged already.
    UpperBound(Lag),
    /// The committed offset is between the last stable offset and the high watermark: a read-committed
    /// consumer has nothing left to read.
    BeyondStable,
    /// No committed offset, and consumers start at the beginning: the whole log.
    FromStart(Lag),
    /// No committed offset, consumers start at the end, and the group runs: messages written since it was first seen to
    /// run without a committed offset.
    SinceSeen(Lag),
    /// No committed offset, consumers start at the end, and the group was never seen to run: no lag, but
    /// no proof of zero lag either.
    NeverRan,
    /// Retention deleted messages that the group had not read. This many are left; the deleted ones are in
    /// [`TopicLag::lost`](self::cluster_snapshot::TopicLag::lost).
    Lost(Lag),
    /// The committed offset disappeared (some services delete those of idle groups): log-end offset minus
    /// the last known committed offset.
    Forgotten(Lag),
    /// A small lag that has not changed for long although a member owns the partition. It consists of
    /// records that consumers never see: transaction markers and gaps left by compaction.
    Residual(Lag),
    /// The group makes no progress here, while it does on other partitions or the log grows.
    Stuck {
        /// Log-end offset minus committed offset.
        lag: Lag,
        /// Whether the lag counts towards the number of replicas.
        sized: bool,
    },
}

/// Where the unread messages of a partition begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnreadStart {
    /// At the committed offset.
    Commit,
    /// At the log start.
    LogStart,
    /// At an offset that Kafka no longer returns, or never did, and lagwise remembers.
    Remembered,
    /// Nothing is unread.
    Nowhere,
}

impl PartitionLag {
    /// Messages up to the log end, whether or not they count for scaling; for display.
    #[must_use]
    pub fn messages(self) -> Lag {
        match self {
            PartitionLag::Measured(lag)
            | PartitionLag::Reported(lag)
            | PartitionLag::UpperBound(lag)
            | PartitionLag::FromStart(lag)
            | PartitionLag::SinceSeen(lag)
            | PartitionLag::Lost(lag)
            | PartitionLag::Forgotten(lag)
            | PartitionLag::Residual(lag)
            | PartitionLag::Stuck { lag, .. } => lag,
            PartitionLag::BeyondStable | PartitionLag::NeverRan => Lag(0),
        }
    }

    /// Messages that count for scaling.
    #[must_use]
    pub fn for_scaling(self) -> Lag {
        match self {
            PartitionLag::Residual(_) | PartitionLag::Stuck { sized: false, .. } => Lag(0),
            other => other.messages(),
        }
    }

    /// Where the unread messages begin, from which the age of the lag follows.
    pub(crate) fn unread_start(self) -> UnreadStart {
        match self {
            PartitionLag::Measured(_)
            | PartitionLag::Reported(_)
            | PartitionLag::UpperBound(_)
            | PartitionLag::Residual(_)
            | PartitionLag::Stuck { .. } => UnreadStart::Commit,
            PartitionLag::FromStart(_) | PartitionLag::Lost(_) => UnreadStart::LogStart,
            PartitionLag::SinceSeen(_) | PartitionLag::Forgotten(_) => UnreadStart::Remembered,
            PartitionLag::BeyondStable | PartitionLag::NeverRan => UnreadStart::Nowhere,
        }
    }

    /// Whether consumers have nothing to read here, even if the offsets show a lag.
    pub(crate) fn has_no_work(self) -> bool {
        let is_residual = matches!(self, PartitionLag::Residual(_));
        is_residual || self.unread_start() == UnreadStart::Nowhere
    }

    /// Whether the lag may be an incident, so that the detection of incidents has to check the partition.
    pub(crate) fn may_be_incident(self) -> bool {
        matches!(self, PartitionLag::Stuck { .. } | PartitionLag::Lost(_))
    }

    /// Whether the committed offset that it is behind has disappeared from Kafka.
    #[must_use]
    pub fn is_forgotten(self, committed: Result<Option<Offset>, Fault>) -> bool {
        match self {
            PartitionLag::Forgotten(_) => true,
            // Only a lag behind a committed offset becomes residual, so without one the offset has disappeared.
            PartitionLag::Residual(_) => committed == Ok(None),
            _ => false,
        }
    }

    /// Converts the lag that follows from the offsets to that of a share group. `reported` is the lag that its
    /// coordinator reports, if it does.
    #[must_use]
    pub fn for_share_group(self, reported: Option<Lag>) -> Self {
        match (self, reported) {
            // The log may have lost records since the coordinator counted.
            (PartitionLag::Measured(most) | PartitionLag::Lost(most), Some(lag)) => {
                PartitionLag::Reported(lag.min(most))
            }
            (PartitionLag::Measured(most), None) => PartitionLag::UpperBound(most),
            (other, _) => other,
        }
    }

    /// Name of the rule in metrics, tables and JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            PartitionLag::Measured(_) => "measured",
            PartitionLag::Reported(_) => "reported",
            PartitionLag::UpperBound(_) => "upper_bound",
            PartitionLag::BeyondStable => "beyond_stable",
            PartitionLag::FromStart(_) => "from_start",
            PartitionLag::SinceSeen(_) => "since_seen",
            PartitionLag::NeverRan => "never_ran",
            PartitionLag::Lost(_) => "lost",
            PartitionLag::Forgotten(_) => "forgotten",
            PartitionLag::Residual(_) => "residual",
            PartitionLag::Stuck { .. } => "stuck",
        }
    }
}

/// Offsets of one partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Log-start offset (low watermark).
    pub start: Offset,
    /// High watermark.
    pub high: Offset,
    /// The offset that the group's consumers read up to: `high`, or the last stable offset for
    /// read-committed consumers.
    pub end: Offset,
}

/// Position of a group in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The committed offset, read before the log-end offset.
    Committed(Offset),
    /// The last known committed offset, which has disappeared.
    Forgotten(Offset),
    /// No committed offset; the log-end offset when the group was first seen to run without one.
    SinceSeen(Offset),
    /// No committed offset; consumers start at the beginning.
    AtStart,
    /// No committed offset, consumers start at the end, and the group was never seen to run.
    Nowhere,
}

impl Position {
    /// First retained offset that the group has not read; `None` if it will start at the end.
    #[must_use]
    pub fn first_unread(self, log: &Log) -> Option<Offset> {
        match self {
            Position::Committed(at) | Position::Forgotten(at) | Position::SinceSeen(at) => {
                Some(at.max(log.start))
            }
            Position::AtStart => Some(log.start),
            Position::Nowhere => None,
        }
    }

    /// Lag at this position, before it is classified as residual or stuck.
    ///
    /// # Errors
    /// [`Fault::CommitBeyondEnd`] if the committed offset belongs to another log than the one read, and
    /// [`Fault::LogReplaced`] if the offsets of the log contradict each other. The lag is then unknown,
    /// never zero.
    pub fn lag(self, log: &Log) -> Result<PartitionLag, Fault> {
        // No healthy broker reports a log end below the log start. The last stable offset may be below it,
        // though, after records were deleted.
        log.high
            .distance_from(log.start)
            .ok_or(Fault::LogReplaced)?;
        let up_to_end = |from: Offset| log.end.distance_from(from).unwrap_or_default();
        let from = self.first_unread(log);
        match self {
            Position::Committed(at) | Position::Forgotten(at) if at > log.high => {
                Err(Fault::CommitBeyondEnd)
            }
            Position::Committed(at) if at < log.start => {
                Ok(PartitionLag::Lost(up_to_end(log.start)))
            }
            Position::Committed(at) if at > log.end => Ok(PartitionLag::BeyondStable),
            _ => Ok(match (self, from.map(up_to_end).unwrap_or_default()) {
                (Position::Committed(_), lag) => PartitionLag::Measured(lag),
                (Position::Forgotten(_), lag) => PartitionLag::Forgotten(lag),
                (Position::SinceSeen(_), lag) => PartitionLag::SinceSeen(lag),
                (Position::AtStart, lag) => PartitionLag::FromStart(lag),
                (Position::Nowhere, _) => PartitionLag::NeverRan,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(start: i64, high: i64) -> Log {
        Log {
            start: Offset(start),
            high: Offset(high),
            end: Offset(high),
        }
    }

    fn committed(at: i64) -> Position {
        Position::Committed(Offset(at))
    }

    #[test]
    fn in_range_is_end_minus_commit() {
        for (start, at, end, lag) in [(0, 40, 100, 60), (10, 10, 100, 90), (0, 0, 0, 0)] {
            let found = committed(at).lag(&log(start, end));
            assert_eq!(found, Ok(PartitionLag::Measured(Lag(lag))));
        }
    }

    #[test]
    fn lag_of_a_commit_below_the_log_start_is_end_minus_start() {
        let found = committed(20).lag(&log(50, 100));
        assert_eq!(found, Ok(PartitionLag::Lost(Lag(50))));
    }

    #[test]
    fn a_commit_beyond_the_high_watermark_is_unknown() {
        for position in [committed(101), Position::Forgotten(Offset(101))] {
            assert_eq!(position.lag(&log(0, 100)), Err(Fault::CommitBeyondEnd));
        }
    }

    #[test]
    fn a_log_end_below_the_log_start_is_unknown() {
        assert_eq!(committed(5).lag(&log(10, 9)), Err(Fault::LogReplaced));
        assert_eq!(
            Position::Nowhere.lag(&log(10, 9)),
            Err(Fault::LogReplaced),
            "even without a committed offset"
        );
    }

    #[test]
    fn lag_of_read_committed_consumers_ends_at_the_last_stable_offset() {
        let of = |at, end: i64| {
            committed(at).lag(&Log {
                end: Offset(end),
                ..log(10, 100)
            })
        };
        assert_eq!(of(40, 60), Ok(PartitionLag::Measured(Lag(20))));
        assert_eq!(of(60, 60), Ok(PartitionLag::Measured(Lag(0))));
        assert_eq!(of(61, 60), Ok(PartitionLag::BeyondStable));
        assert_eq!(of(100, 60), Ok(PartitionLag::BeyondStable));
        assert_eq!(of(101, 60), Err(Fault::CommitBeyondEnd));
        assert_eq!(of(5, 9), Ok(PartitionLag::Lost(Lag(0))));
    }

    #[test]
    fn no_commit_from_the_start_is_the_whole_log() {
        let found = Position::AtStart.lag(&log(10, 100));
        assert_eq!(found, Ok(PartitionLag::FromStart(Lag(90))));
    }

    #[test]
    fn no_commit_counts_as_no_lag_with_reset_to_the_end() {
        let found = Position::Nowhere.lag(&log(10, 100));
        assert_eq!(found, Ok(PartitionLag::NeverRan));
    }

    #[test]
    fn no_commit_of_a_running_group_counts_messages_since_it_was_seen() {
        for (start, since, lag) in [(0, 70, 30), (90, 70, 10), (0, 101, 0)] {
            let found = Position::SinceSeen(Offset(since)).lag(&log(start, 100));
            assert_eq!(found, Ok(PartitionLag::SinceSeen(Lag(lag))));
        }
    }

    #[test]
    fn a_forgotten_commit_counts_from_where_it_was_or_the_start() {
        for (start, at, lag) in [(0, 40, 60), (50, 40, 50)] {
            let found = Position::Forgotten(Offset(at)).lag(&log(start, 100));
            assert_eq!(found, Ok(PartitionLag::Forgotten(Lag(lag))));
        }
    }

    #[test]
    fn the_reported_lag_of_a_share_group_counts() {
        let measured = |lag| PartitionLag::Measured(Lag(lag));
        let lost = |lag| PartitionLag::Lost(Lag(lag));
        for (plain, reported, expected) in [
            (measured(1000), Some(1), PartitionLag::Reported(Lag(1))),
            (measured(1000), Some(0), PartitionLag::Reported(Lag(0))),
            // The reported lag is larger than the log.
            (
                measured(10),
                Some(u64::MAX),
                PartitionLag::Reported(Lag(10)),
            ),
            (lost(50), Some(70), PartitionLag::Reported(Lag(50))),
            (measured(1000), None, PartitionLag::UpperBound(Lag(1000))),
            (lost(50), None, lost(50)),
            (PartitionLag::NeverRan, Some(5), PartitionLag::NeverRan),
        ] {
            let found = plain.for_share_group(reported.map(Lag));
            assert_eq!(found, expected, "{plain:?} {reported:?}");
        }
    }

    #[test]
    fn lag_that_counts_for_scaling() {
        let stuck = |sized| PartitionLag::Stuck { lag: Lag(7), sized };
        for (lag, counts) in [
            (PartitionLag::Residual(Lag(7)), 0),
            (stuck(false), 0),
            (stuck(true), 7),
            (PartitionLag::Lost(Lag(7)), 7),
        ] {
            assert_eq!(lag.for_scaling(), Lag(counts), "{lag:?}");
            assert_eq!(lag.messages(), Lag(7));
        }
    }

    #[test]
    fn a_column_of_lags_is_dense() {
        assert_eq!(size_of::<Result<PartitionLag, Fault>>(), 16);
    }

    fn position() -> impl Strategy<Value = Position> {
        (0..5, any::<i64>()).prop_map(|(kind, at)| match kind {
            0 => Position::Committed(Offset(at)),
            1 => Position::Forgotten(Offset(at)),
            2 => Position::SinceSeen(Offset(at)),
            3 => Position::AtStart,
            _ => Position::Nowhere,
        })
    }

    proptest! {
        #[test]
        fn never_panics_nor_wraps(start: i64, high: i64, end: i64, position in position()) {
            let log = Log { start: Offset(start), high: Offset(high), end: Offset(end) };
            if let Ok(found) = position.lag(&log) {
                let most = (i128::from(end) - i128::from(start)).max(0);
                prop_assert!(i128::from(found.messages().0) <= most);
                prop_assert!(found.for_scaling() <= found.messages());
            }
        }

        #[test]
        fn more_end_is_never_less_lag(start: i64, end: i64, more: u32, position in position()) {
            let longer = log(start, end.saturating_add(i64::from(more)));
            if let (Ok(before), Ok(after)) = (position.lag(&log(start, end)), position.lag(&longer)) {
                prop_assert!(after.messages() >= before.messages());
            }
        }

        #[test]
        fn more_commit_is_never_more_lag(start: i64, end: i64, at: i64, more: u32) {
            let further = committed(at.saturating_add(i64::from(more)));
            let log = log(start, end);
            if let (Ok(before), Ok(after)) = (committed(at).lag(&log), further.lag(&log)) {
                prop_assert!(after.messages() <= before.messages());
            }
        }
    }
}
