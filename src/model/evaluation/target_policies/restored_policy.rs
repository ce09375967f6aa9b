//! State of a policy that waits for its target.

use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::model::units::newtypes::ClusterName;

/// State that an earlier process has saved, until its target is observed.
#[derive(Clone, Debug)]
pub(super) struct RestoredPolicy {
    pub(super) cluster: ClusterName,
    pub(super) policy: SavedPolicy,
    /// When the target was last observed, in seconds on the timeline of the policies.
    pub(super) observed_at: f64,
}
