//! The decision of the policy, with its derivation.

use serde::{Deserialize, Serialize};

use super::drain::DrainCalibration;
use super::requirement::ReplicaRequirement;
use super::static_comparison::StaticComparison;

/// Number of replicas that the policy recommends, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateDecision {
    /// The number of replicas.
    pub replicas: u32,
    /// The number of the decision before.
    pub before: u32,
    /// The rule that decided.
    pub rule: RateRule,
    /// Inputs of the decision; `None` if offsets are missing, or nothing is known of the capacity yet.
    pub terms: Option<RateTerms>,
    /// Replicas that a step up would need, if one was considered.
    pub up: Option<ReplicaRequirement>,
    /// Requirements that bound a step down.
    pub down: Option<DownRequirement>,
    /// Why the number does not follow the requirement, if it does not.
    pub hold: Option<RateHold>,
    /// Comparison with always running all replicas; `None` in the first hour.
    #[serde(default)]
    pub against_all: Option<StaticComparison>,
    /// Expected and actual time to drain the last backlog; `None` before the first one.
    #[serde(default)]
    pub drain: Option<DrainCalibration>,
}

/// The rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateRule {
    /// The first reading: the output is the present number of replicas.
    Start,
    /// The group was not observed since a restart or an edit of the metric, so the output stays.
    Resumed,
    /// The capacity is not known yet, so the output stays.
    Watching,
    /// Offsets are missing, so the output stays.
    MissingOffsets,
    /// There is lag and no partition commits, so the output stays.
    Stalled,
    /// No rule requires a change.
    Keep,
    /// Messages are or will be too old: more replicas.
    Up,
    /// Something else keeps the replicas above the output, and the arrivals need some of these: the output rises to
    /// that need.
    Claim,
    /// The last step up did not help: back to the number before.
    Ineffective,
    /// Fewer replicas have been enough for long enough.
    Down,
    /// Only a lower bound of the capacity is known. With one replica less, messages stay young enough even if the bound
    /// is exact: one step down to measure the capacity.
    Probe,
}

/// Inputs of a decision. Rates in messages per second, times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateTerms {
    /// Arrivals over 20 s, without stuck partitions.
    pub arrivals_fast: f64,
    /// Arrivals that a step up has to carry, without stuck partitions: those over 20 s, or over 5 s while they rise; at
    /// most the highest over 60 s in the last 15 minutes if arrivals were as high before.
    pub arrivals_expected: f64,
    /// Arrivals over 60 s, without stuck partitions.
    pub arrivals_medium: f64,
    /// Arrivals over 180 s, without stuck partitions.
    pub arrivals_slow: f64,
    /// Commits over 60 s.
    pub consumption: f64,
    /// Unprocessed messages.
    pub backlog: f64,
    /// Age of the oldest unprocessed message.
    pub age: f64,
    /// Age of the oldest unprocessed message by the time a change would take effect.
    pub projected_age: f64,
    /// Messages per second that a member processes.
    pub capacity: f64,
    /// Whether the capacity was measured; otherwise it is a lower bound.
    pub is_capacity_known: bool,
    /// Members of the group.
    pub members: u32,
    /// Time from a higher output until it takes effect: reaction, pause and poll.
    pub delay: f64,
    /// Time that a rebalance stops the group.
    pub pause: f64,
    /// Usual time between two commits.
    pub commit_interval: f64,
    /// Partitions that are stuck.
    pub stuck_partitions: usize,
    /// A partition to which more messages are written than one consumer processes, if there is one. More replicas do
    /// not help it.
    pub hot_partition: Option<usize>,
}

/// The two requirements that bound a step down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownRequirement {
    /// Requirement for the mean arrivals of the last 180 s.
    pub mean: ReplicaRequirement,
    /// Requirement for the arrivals of the last minute.
    pub peak: ReplicaRequirement,
}

/// Why the output does not follow the requirement, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateHold {
    /// The reason.
    pub reason: RateHoldReason,
    /// When it ends if nothing else changes, in seconds on the timeline of the readings; `None` if that depends on what
    /// happens.
    pub until: Option<f64>,
    /// The number that the present requirement would give without the hold.
    pub replicas: u32,
}

/// Why the output does not follow the requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateHoldReason {
    /// The pods of the last step up are starting.
    PodsStarting,
    /// A step up that did not help blocks the next one, until `until` or until there are 20 % more arrivals or
    /// consumption.
    IneffectiveUp,
    /// The group is rebalancing.
    Rebalancing,
    /// A step down does not save more than it costs yet, or a larger one will be possible soon.
    HoldPrice,
    /// A burst made messages late. With fewer replicas the next one would again, which the savings do not outweigh yet.
    Damage,
    /// The oldest message is or will be older than a quarter of the objective.
    Age,
    /// The members or the replicas are not as many as the output yet, or the group changed in the last minute.
    NotSettled,
}
