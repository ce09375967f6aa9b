//! Plan of a sweep: the groups and topics to read.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::newtypes::{GroupId, Isolation, OffsetReset, TopicName};
use crate::model::units::topic_pattern::TopicPattern;

/// Plan of one sweep of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// Groups, without duplicates.
    pub groups: Vec<GroupPlan>,
    /// Group-partitions to read at the most, without those of unlimited groups; `None` = all. Groups that come later in
    /// the plan and have more are reported as [`Fault::OverBudget`](super::fault::Fault::OverBudget).
    pub max_partitions: Option<u64>,
    /// Group-partitions of topics that are only listed by patterns, to read at the most; `None` = all. The patterns that
    /// match more are refused.
    pub max_listed_partitions: Option<u64>,
    /// Whether it is about single groups, between the sweeps of all.
    pub is_partial: bool,
}

/// Known topics of the members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTopics {
    /// The topics that they read, or were last known to read.
    pub topics: BTreeSet<TopicName>,
    /// Whether the group is known to have no members.
    pub is_empty: bool,
}

impl From<BTreeSet<TopicName>> for KnownTopics {
    /// Of a group that has members.
    fn from(topics: BTreeSet<TopicName>) -> Self {
        Self {
            topics,
            is_empty: false,
        }
    }
}

/// What to read of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// Group ID.
    pub group: GroupId,
    /// Topics to read, whether or not the group has committed offsets on them. Shared by the copies of the
    /// plan that each sweep is given.
    pub topics: Arc<BTreeSet<TopicName>>,
    /// Whether to read every topic with a committed offset as well.
    pub discover: bool,
    /// Patterns by which the topics of the cluster are listed, because the group has no members whose subscription is
    /// known. Usually empty. The listed topics are read as well.
    pub patterns: Vec<TopicPattern>,
    /// Whether it is read however many partitions it has.
    pub is_unlimited: bool,
    /// Partitions of it to read at the most, unless it is unlimited; `None` = all that the plan allows.
    pub max_partitions: Option<u64>,
    /// Whether its members may change now, so that they are read in this sweep even if they were read shortly before.
    pub is_changing: bool,
    /// Where consumers start without a committed offset.
    pub reset: OffsetReset,
    /// Up to which offset consumers read.
    pub isolation: Isolation,
    /// Thresholds that classify lag.
    pub thresholds: LagThresholds,
}

impl GroupPlan {
    /// Plan for these topics, or for all topics with a committed offset if there are none, with the
    /// defaults of Kafka clients.
    pub fn new(group: impl Into<GroupId>, topics: BTreeSet<TopicName>) -> Self {
        Self {
            group: group.into(),
            discover: topics.is_empty(),
            topics: Arc::new(topics),
            patterns: Vec::new(),
            is_unlimited: false,
            max_partitions: None,
            is_changing: false,
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
            thresholds: LagThresholds::default(),
        }
    }
}

/// Group-partitions that a sweep may still read, without those of unlimited groups.
#[derive(Debug)]
pub struct PartitionAllowance(Option<u64>);

impl PartitionAllowance {
    /// An allowance of this many; `None` = any number.
    #[must_use]
    pub fn new(partitions: Option<u64>) -> Self {
        Self(partitions)
    }

    /// Takes this many for a group.
    ///
    /// # Errors
    /// Their number, if fewer are left.
    pub fn take(&mut self, group: &GroupPlan, partitions: usize) -> Result<(), u64> {
        let Some(left) = self.0.filter(|_| !group.is_unlimited) else {
            return Ok(());
        };
        let partitions = u64::try_from(partitions).unwrap_or(u64::MAX);
        // The remaining partitions are not for a group that could not keep them.
        if group.max_partitions.is_some_and(|max| partitions > max) {
            return Err(partitions);
        }
        self.0 = Some(left.checked_sub(partitions).ok_or(partitions)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlimited_groups_are_read_whole_and_leave_the_allowance_to_the_others() {
        let limited = GroupPlan::new("limited", BTreeSet::new());
        let unlimited = GroupPlan {
            is_unlimited: true,
            ..limited.clone()
        };
        let mut allowance = PartitionAllowance::new(Some(10));
        for (group, partitions, is_taken) in [
            (&unlimited, 11, true),
            (&limited, 11, false),
            (&limited, 10, true),
            (&limited, 1, false),
            (&unlimited, 1, true),
        ] {
            assert_eq!(allowance.take(group, partitions).is_ok(), is_taken);
        }
        let mut any = PartitionAllowance::new(None);
        assert_eq!(any.take(&limited, usize::MAX), Ok(()));
    }

    #[test]
    fn a_group_takes_no_more_than_its_own_maximum() {
        let group = |max_partitions| GroupPlan {
            max_partitions,
            ..GroupPlan::new("g", BTreeSet::new())
        };
        let mut allowance = PartitionAllowance::new(Some(100));
        assert_eq!(allowance.take(&group(Some(10)), 11), Err(11));
        assert_eq!(allowance.take(&group(Some(10)), 10), Ok(()));
        assert_eq!(allowance.take(&group(None), 90), Ok(()));
        assert_eq!(allowance.take(&group(Some(10)), 1), Err(1));
        let unlimited = GroupPlan {
            is_unlimited: true,
            ..group(Some(10))
        };
        assert_eq!(allowance.take(&unlimited, 11), Ok(()));
    }
}
