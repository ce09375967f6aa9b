//! What one sweep of a cluster has to read.

use std::collections::BTreeSet;

use crate::model::settings::lag_thresholds::LagRules;
use crate::model::units::newtypes::{GroupId, Isolation, OffsetReset, TopicName};

/// What one sweep of a cluster has to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// The groups, each once.
    pub groups: Vec<GroupPlan>,
}

/// What to read of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// Topics that are read whether or not the group has committed on them.
    pub topics: BTreeSet<TopicName>,
    /// Whether every topic that the group has committed on is read, too.
    pub discover: bool,
    /// Where its consumers start without a committed offset.
    pub reset: OffsetReset,
    /// Which log end they read up to.
    pub isolation: Isolation,
    /// Which of its lags are no work.
    pub rules: LagRules,
}

impl GroupPlan {
    /// Reads these topics of a group, or, where there are none, all that it has committed on; with
    /// every client's defaults.
    pub fn new(group: impl Into<GroupId>, topics: BTreeSet<TopicName>) -> Self {
        Self {
            group: group.into(),
            discover: topics.is_empty(),
            topics,
            reset: OffsetReset::default(),
            isolation: Isolation::default(),
            rules: LagRules::default(),
        }
    }
}
