//! Key of what the poller reads of a consumer group.

use std::collections::BTreeSet;

use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// Group and topics that the poller reads for a target or an ad hoc request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey {
    pub cluster: ClusterName,
    pub group: GroupId,
    /// Topics named; empty = those that its members read, or else those it has committed on.
    pub topics: BTreeSet<TopicName>,
}
