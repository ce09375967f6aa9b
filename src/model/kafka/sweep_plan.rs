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
    /// Maximum number of group-partitions to read, not counting those of unlimited groups; `None` = no maximum. Groups
    /// that do not fit, in the order of the plan, are reported as
    /// [`Fault::OverBudget`](super::fault::Fault::OverBudget).
    pub max_partitions: Option<u64>,
    /// Maximum number of group-partitions of topics that only patterns list; `None` = no maximum. Patterns that match
    /// more are refused.
    pub max_listed_partitions: Option<u64>,
    /// Whether the plan has only some of the groups, for a sweep between two whole sweeps.
    pub is_partial: bool,
}

/// Known topics of the members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTopics {
    /// Topics that the members read, or were last known to read.
    pub topics: BTreeSet<TopicName>,
    /// Whether the group is known to have no members.
    pub is_empty: bool,
}

impl From<BTreeSet<TopicName>> for KnownTopics {
    /// The topics of a group with members.
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
    /// Topics to read, whether or not the group has committed offsets on them. All copies of the plan share the set.
    pub topics: Arc<BTreeSet<TopicName>>,
    /// Those of the topics that no target names, only requests to the API. Empty if only requests name the group.
    pub requested: Arc<BTreeSet<TopicName>>,
    /// Whether to read every topic with a committed offset as well.
    pub discover: bool,
    /// Patterns that list topics of the Kafka cluster to read as well, for a group without members whose subscription
    /// is known. Usually empty.
    pub patterns: Vec<TopicPattern>,
    /// Whether the group is read regardless of its number of partitions.
    pub is_unlimited: bool,
    /// Maximum number of its partitions to read, unless it is unlimited; `None` = as many as the plan allows.
    pub max_partitions: Option<u64>,
    /// Whether its members may be changing, so that this sweep describes the group even if that was done shortly
    /// before.
    pub is_changing: bool,
    /// Where consumers start on a partition without a committed offset.
    pub reset: OffsetReset,
    /// Whether consumers read up to the high watermark or to the last stable offset.
    pub isolation: Isolation,
    /// Thresholds that classify lag.
    pub thresholds: LagThresholds,
}

impl GroupPlan {
    /// Plan for `topics`, or for all topics with a committed offset if `topics` is empty, with the defaults of Kafka
    /// clients.
    pub fn new(group: impl Into<GroupId>, topics: BTreeSet<TopicName>) -> Self {
        Self {
            group: group.into(),
            discover: topics.is_empty(),
            topics: Arc::new(topics),
            requested: Arc::default(),
            patterns: Vec::new(),
            is_unlimited: false,
            max_partitions: None,
            is_changing: false,
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
            thresholds: LagThresholds::default(),
        }
    }

    /// Whether a topic is read whether or not a request to the API names it.
    #[must_use]
    pub fn is_named(&self, topic: &TopicName) -> bool {
        self.topics.contains(topic) && !self.requested.contains(topic)
    }
}

/// Number of group-partitions that a sweep may still read, not counting those of unlimited groups.
#[derive(Debug)]
pub struct PartitionAllowance(Option<u64>);

impl PartitionAllowance {
    /// Creates an allowance of this many partitions; `None` = no limit.
    #[must_use]
    pub fn new(partitions: Option<u64>) -> Self {
        Self(partitions)
    }

    /// Takes this many partitions for a group.
    ///
    /// # Errors
    /// The number of partitions, if the group may not have so many or fewer are left.
    pub fn take(&mut self, group: &GroupPlan, partitions: usize) -> Result<(), u64> {
        let Some(left) = self.0.filter(|_| !group.is_unlimited) else {
            return Ok(());
        };
        let partitions = u64::try_from(partitions).unwrap_or(u64::MAX);
        // Nothing is taken for a group that exceeds its own maximum, since it would not be read anyway.
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
