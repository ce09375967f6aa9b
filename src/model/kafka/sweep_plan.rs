//! Plan of a sweep: the groups and topics to read.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::newtypes::{GroupId, Isolation, OffsetReset, TopicName};

/// Plan of one sweep of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// Groups, without duplicates.
    pub groups: Vec<GroupPlan>,
    /// Group-partitions to read at the most, without those of unlimited groups; `None` = all. Groups that come later in
    /// the plan and have more are reported as [`Fault::OverBudget`](super::fault::Fault::OverBudget).
    pub max_partitions: Option<u64>,
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
    /// Whether it is read however many partitions it has.
    pub is_unlimited: bool,
    /// Where consumers start without a committed offset.
    pub reset: OffsetReset,
    /// Up to which offset consumers read.
    pub isolation: Isolation,
    /// Thresholds that classify lag.
    pub rules: LagThresholds,
}

impl GroupPlan {
    /// Plan for these topics, or for all topics with a committed offset if there are none, with the
    /// defaults of Kafka clients.
    pub fn new(group: impl Into<GroupId>, topics: BTreeSet<TopicName>) -> Self {
        Self {
            group: group.into(),
            discover: topics.is_empty(),
            topics: Arc::new(topics),
            is_unlimited: false,
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
            rules: LagThresholds::default(),
        }
    }
}
