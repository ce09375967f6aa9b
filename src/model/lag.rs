//! Offsets of one partition -> its lag.

use serde::Serialize;

use super::fault::Fault;
use super::types::{Lag, Offset, OffsetReset};

/// How far a group is behind on one partition, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionLag {
    /// Log end minus committed offset; or, without a commit, minus where its consumers begin.
    Measured(Lag),
    /// The group has no commit here and its consumers begin at the end: nothing is behind, but it
    /// is not known to run either.
    NeverRan,
    /// Retention overtook the group: `lost` messages are gone unread, `remaining` can be read.
    Lost {
        /// Messages between the committed offset and the log's start.
        lost: Lag,
        /// Messages between the log's start and its end.
        remaining: Lag,
    },
}

impl PartitionLag {
    /// The messages that are still to be read: what scaling is about.
    #[must_use]
    pub fn for_scaling(self) -> Lag {
        match self {
            PartitionLag::Measured(lag) => lag,
            PartitionLag::NeverRan => Lag(0),
            PartitionLag::Lost { remaining, .. } => remaining,
        }
    }
}

/// What holds for a partition on which the group has no committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCommit {
    /// The group has no commit on the topic at all: the reset policy alone decides.
    NeverRan(OffsetReset),
    /// The group runs, and committed on other partitions. Under `latest` it reads what came after
    /// `since`, the log's end when it was first seen so.
    Runs {
        /// The reset policy of its consumers.
        reset: OffsetReset,
        /// The log's end when the partition was first seen without a commit.
        since: Offset,
    },
}

/// The lag of one partition.
///
/// `start` and `end` are the log's offsets, `committed` the group's, read before `end`.
///
/// # Errors
/// [`Fault::CommitBeyondEnd`] where the commit belongs to another log than the one read: unknown
/// until the next commit settles it, never zero.
pub fn partition_lag(
    start: Offset,
    committed: Option<Offset>,
    end: Offset,
    no_commit: NoCommit,
) -> Result<PartitionLag, Fault> {
    // A log whose end lies before its start is answered by no healthy broker.
    let whole = end.distance_from(start).ok_or(Fault::CommitBeyondEnd)?;
    if let Some(committed) = committed {
        return match start.distance_from(committed) {
            Some(lost) if lost > Lag(0) => Ok(PartitionLag::Lost {
                lost,
                remaining: whole,
            }),
            _ => end
                .distance_from(committed)
                .map(PartitionLag::Measured)
                .ok_or(Fault::CommitBeyondEnd),
        };
    }
    Ok(match no_commit {
        NoCommit::NeverRan(OffsetReset::Latest) => PartitionLag::NeverRan,
        NoCommit::NeverRan(OffsetReset::Earliest)
        | NoCommit::Runs {
            reset: OffsetReset::Earliest,
            ..
        } => PartitionLag::Measured(whole),
        NoCommit::Runs {
            reset: OffsetReset::Latest,
            since,
        } => PartitionLag::Measured(end.distance_from(since.max(start)).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER: NoCommit = NoCommit::NeverRan(OffsetReset::Latest);
    const FROM_START: NoCommit = NoCommit::NeverRan(OffsetReset::Earliest);

    fn lag(s: i64, c: Option<i64>, e: i64, none: NoCommit) -> Result<PartitionLag, Fault> {
        partition_lag(Offset(s), c.map(Offset), Offset(e), none)
    }

    fn runs(reset: OffsetReset, since: i64) -> NoCommit {
        NoCommit::Runs {
            reset,
            since: Offset(since),
        }
    }

    #[test]
    fn table() {
        let measured = |n| Ok(PartitionLag::Measured(Lag(n)));
        // (case, start, committed, end, without a commit, expected)
        for (case, s, c, e, none, expected) in [
            ("in range", 0, Some(40), 100, NEVER, measured(60)),
            ("caught up", 0, Some(100), 100, NEVER, measured(0)),
            ("at the log's start", 10, Some(10), 100, NEVER, measured(90)),
            (
                "retention overtook the group",
                50,
                Some(20),
                100,
                NEVER,
                Ok(PartitionLag::Lost {
                    lost: Lag(30),
                    remaining: Lag(50),
                }),
            ),
            (
                "recreated or truncated",
                0,
                Some(101),
                100,
                NEVER,
                Err(Fault::CommitBeyondEnd),
            ),
            (
                "no commit, earliest",
                10,
                None,
                100,
                FROM_START,
                measured(90),
            ),
            (
                "no commit, latest, never ran",
                10,
                None,
                100,
                NEVER,
                Ok(PartitionLag::NeverRan),
            ),
            (
                "no commit, latest, runs",
                0,
                None,
                100,
                runs(OffsetReset::Latest, 70),
                measured(30),
            ),
            (
                "the same, overtaken",
                90,
                None,
                100,
                runs(OffsetReset::Latest, 70),
                measured(10),
            ),
            (
                "no commit, earliest, runs",
                10,
                None,
                100,
                runs(OffsetReset::Earliest, 70),
                measured(90),
            ),
            ("an empty log", 0, Some(0), 0, NEVER, measured(0)),
            (
                "an end before the start",
                10,
                Some(5),
                9,
                NEVER,
                Err(Fault::CommitBeyondEnd),
            ),
        ] {
            assert_eq!(lag(s, c, e, none), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_nor_wraps(s: i64, c: Option<i64>, e: i64, since: i64, earliest: bool, ran: bool) {
            let reset = if earliest { OffsetReset::Earliest } else { OffsetReset::Latest };
            let none = if ran { runs(reset, since) } else { NoCommit::NeverRan(reset) };
            if let Ok(found) = lag(s, c, e, none) {
                let most = (i128::from(e) - i128::from(s)).max(0);
                prop_assert!(i128::from(found.for_scaling().0) <= most);
            }
        }

        #[test]
        fn more_end_is_never_less_lag(s in 0i64..1000, c in proptest::option::of(0i64..1000), e in 1000i64..2000, more in 0i64..1000) {
            let before = lag(s, c, e, FROM_START).unwrap().for_scaling();
            let after = lag(s, c, e + more, FROM_START).unwrap().for_scaling();
            prop_assert!(after >= before);
        }

        #[test]
        fn more_commit_is_never_more_lag(s in 0i64..1000, c in 0i64..1000, more in 0i64..1000) {
            let before = lag(s, Some(c), 2000, NEVER).unwrap().for_scaling();
            let after = lag(s, Some(c + more), 2000, NEVER).unwrap().for_scaling();
            prop_assert!(after <= before);
        }
    }
}
