//! Sums over the partitions of a topic, for a group that reads it.

use super::PartitionLag;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::{Lag, Offset};

/// The partitions of one topic that count, as an assignor sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicWork {
    /// All partitions that count.
    pub partitions: u32,
    /// Partitions with a commit of the group.
    pub committed: u32,
    /// Partitions with lag.
    pub lagging: u32,
}

/// Sums over partitions of a topic. The summary of all partitions is computed with the reading: nearly all readers need
/// no more, and would spend most of their time on visiting every partition of every group again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Sum of the lag that counts for scaling. At least 1 while a partition is stuck, so that the group is never scaled
    /// to zero. With an unknown partition the fault of the first one: there is no partial sum.
    pub total: Result<Lag, Fault>,
    pub work: TopicWork,
    /// Whether the group has, had or may have a committed offset.
    pub may_have_commits: bool,
    /// Whether there are partitions, all of them [`PartitionLag::NeverRan`].
    pub never_ran: bool,
    /// Whether a partition is stuck or unknown, or the group has lost messages or a committed offset.
    pub has_trouble: bool,
}

impl TopicSummary {
    /// Sums up partitions by their lag and their committed offset.
    #[must_use]
    pub fn new(
        partitions: impl Iterator<Item = (Result<PartitionLag, Fault>, Result<Option<Offset>, Fault>)>,
    ) -> Self {
        let mut total = Ok(Lag(0));
        let mut work = TopicWork::default();
        let (mut may_have_commits, mut has_trouble, mut is_stuck) = (false, false, false);
        let mut never_ran = 0u32;
        for (lag, committed) in partitions {
            // Nearly all partitions are like that.
            if let (Ok(PartitionLag::Measured(lag)), Ok(Some(_))) = (lag, committed) {
                total = total.map(|sum: Lag| sum.plus(lag));
                work.partitions = work.partitions.saturating_add(1);
                work.committed = work.committed.saturating_add(1);
                work.lagging = work.lagging.saturating_add((lag > Lag(0)).into());
                may_have_commits = true;
                continue;
            }
            let for_scaling = lag.map(PartitionLag::for_scaling);
            total = total.and_then(|sum| Ok(sum.plus(for_scaling?)));
            work.partitions = work.partitions.saturating_add(1);
            let has_commit = matches!(committed, Ok(Some(_)));
            work.committed = work.committed.saturating_add(has_commit.into());
            let has_lag = for_scaling.is_ok_and(|lag| lag > Lag(0));
            work.lagging = work.lagging.saturating_add(has_lag.into());
            may_have_commits |= committed != Ok(None);
            match lag {
                Ok(lag) => {
                    let is_forgotten = lag.is_forgotten(committed);
                    may_have_commits |= is_forgotten;
                    has_trouble |= is_forgotten || lag.may_be_incident();
                    is_stuck |= matches!(lag, PartitionLag::Stuck { .. });
                    never_ran = never_ran.saturating_add((lag == PartitionLag::NeverRan).into());
                }
                Err(_) => has_trouble = true,
            }
        }
        Self {
            total: total.map(|sum| sum.max(Lag(is_stuck.into()))),
            work,
            may_have_commits,
            never_ran: never_ran > 0 && never_ran == work.partitions,
            has_trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (Result<PartitionLag, Fault>, Result<Option<Offset>, Fault>);

    const AT: Result<Option<Offset>, Fault> = Ok(Some(Offset(7)));

    fn summary(rows: &[Row]) -> TopicSummary {
        TopicSummary::new(rows.iter().copied())
    }

    fn measured(lag: u64) -> Result<PartitionLag, Fault> {
        Ok(PartitionLag::Measured(Lag(lag)))
    }

    #[test]
    fn counts_partitions_and_adds_up_their_lag() {
        let residual = Ok(PartitionLag::Residual(Lag(5)));
        let found = summary(&[
            (measured(3), AT),
            (measured(0), AT),
            (residual, AT),
            (Ok(PartitionLag::FromStart(Lag(4))), Ok(None)),
        ]);
        let expected = TopicSummary {
            total: Ok(Lag(7)),
            work: TopicWork {
                partitions: 4,
                committed: 3,
                lagging: 2,
            },
            may_have_commits: true,
            never_ran: false,
            has_trouble: false,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_partition_makes_the_sum_unknown_by_the_first_fault() {
        let found = summary(&[
            (measured(3), AT),
            (Err(Fault::LogReplaced), AT),
            (Err(Fault::NoAnswer), Err(Fault::NoAnswer)),
            (measured(1), AT),
        ]);
        assert_eq!(found.total, Err(Fault::LogReplaced));
        assert!(found.has_trouble);
        assert_eq!(found.work.lagging, 2);
    }

    #[test]
    fn a_stuck_partition_keeps_the_sum_above_zero() {
        let stuck = |sized| Ok(PartitionLag::Stuck { lag: Lag(9), sized });
        for (lag, total) in [(stuck(false), 1), (stuck(true), 9)] {
            let found = summary(&[(lag, AT), (measured(0), AT)]);
            assert_eq!((found.total, found.has_trouble), (Ok(Lag(total)), true));
        }
    }

    #[test]
    fn a_group_never_ran_if_that_is_so_on_every_partition() {
        let never: Row = (Ok(PartitionLag::NeverRan), Ok(None));
        let found = [
            summary(&[]),
            summary(&[never, never]),
            summary(&[never, (measured(0), AT)]),
        ];
        assert_eq!(found.map(|f| f.never_ran), [false, true, false]);
        assert_eq!(found.map(|f| f.may_have_commits), [false, false, true]);
    }

    #[test]
    fn commits_that_are_unknown_or_have_disappeared_count_as_possible() {
        let forgotten = Ok(PartitionLag::Forgotten(Lag(1)));
        let unknown = (Err(Fault::NoAnswer), Err(Fault::NoAnswer));
        let residual = Ok(PartitionLag::Residual(Lag(1)));
        for row in [(forgotten, Ok(None)), (residual, Ok(None)), unknown] {
            let found = summary(&[row]);
            assert!(found.may_have_commits && found.has_trouble, "{row:?}");
        }
    }
}
