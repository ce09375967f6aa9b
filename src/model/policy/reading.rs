//! Input of the rate policy at each poll.

use std::time::Duration;

use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::Offset;

/// State of a group at one poll, from Kafka and Kubernetes.
#[derive(Clone, Copy, Debug)]
pub struct GroupReading<'a> {
    /// Time of the poll, on a timeline that continues after a restart.
    pub at: Duration,
    /// Usual time between two polls.
    pub poll_interval: Duration,
    /// Partitions, always in the same order; new ones are appended.
    pub partitions: &'a [GroupPartition],
    /// Most replicas that can have work.
    pub ceiling: u32,
    /// Minimum and maximum of the replicas.
    pub bounds: (u32, u32),
    /// The upper bound without a hold; equal to that of `bounds` if no hold lowers it. The policy is compared with this
    /// many replicas all the time.
    pub all: u32,
    /// Whether the group is not rebalancing.
    pub is_stable: bool,
    /// Members of the group.
    pub members: u32,
    /// `status.replicas` of the workload.
    pub status_replicas: u32,
    /// The simulated group that follows the policy; `None` if the policy is applied, so that the real group follows it.
    pub supposed: Option<SupposedGroup>,
}

/// A group as it would be under a policy that is not applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupposedGroup {
    /// Members that work.
    pub members: u32,
    /// Unprocessed messages.
    pub backlog: f64,
    /// Age of the oldest of them, in seconds.
    pub age: f64,
    /// Messages processed since the last reading.
    pub processed: f64,
}

/// One partition of the group.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupPartition {
    /// Log-end offset; `None` if it is unknown.
    pub end: Option<Offset>,
    /// Committed offset; `None` if it is unknown.
    pub committed: Option<Offset>,
    /// Age of the message at the committed offset.
    pub age: Option<LagAge>,
    /// A number that identifies the member that owns the partition; `None` without an owner.
    pub owner: Option<u32>,
}
