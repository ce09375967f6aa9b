//! Saved form of the policy and the hold of one target.

use serde::{Deserialize, Serialize};

use crate::model::settings::replica_hold::ReplicaHold;

/// The policy and the hold of one target of an HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPolicy {
    pub(in crate::model) namespace: String,
    pub(in crate::model) hpa: String,
    /// Position among the External metrics of the HPA.
    pub(in crate::model) metric: usize,
    /// The consumer group.
    pub(in crate::model) group: String,
    /// How long the metric had not been observed when this was saved, in seconds; 0 if it was observed then.
    #[serde(default)]
    pub(in crate::model) unused: u32,
    /// Whether the policy had a number.
    #[serde(default)]
    pub(in crate::model) is_ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::model) learned: Option<SavedNumbers>,
    /// The hold, and the number of replicas that it keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::model) held: Option<(ReplicaHold, u32)>,
}

impl SavedPolicy {
    /// The consumer group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }
}

/// Learned state of a policy, as hundredths in a fixed order, because there may be thousands of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNumbers {
    /// Version of the order.
    pub(in crate::model) version: u32,
    pub(in crate::model) hundredths: Vec<i64>,
}
