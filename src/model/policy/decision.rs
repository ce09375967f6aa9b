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
    /// The number before.
    pub before: u32,
    /// The rule that decided.
    pub rule: RateRule,
    /// Inputs of the decision; `None` if the reading was incomplete.
    pub terms: Option<RateTerms>,
    /// Requirement of a step up, if one was considered.
    pub up: Option<ReplicaRequirement>,
    /// Requirements that bound a step down.
    pub down: Option<DownRequirement>,
    /// Why the number does not follow the requirement, if it does not.
    pub hold: Option<RateHold>,
    /// Comparison with always running all replicas; `None` before an hour was observed.
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
    /// The first reading: the number of replicas that there are.
    Start,
    /// The group was not observed since a restart or an edit of the metric: the last output.
    Resumed,
    /// The capacity is not known yet: the last output.
    Watching,
    /// Offsets are missing: the last output.
    MissingOffsets,
    /// There is lag and no partition commits: the last output.
    Stalled,
    /// No rule requires a change.
    Keep,
    /// Messages are or will be too old: more replicas.
    Up,
    /// Something else keeps more replicas, and the arrivals need some of them: as many as they need.
    Claim,
    /// The last step up did not help: back to the number before.
    Ineffective,
    /// Fewer replicas have been enough for long enough.
    Down,
    /// The capacity is unknown and being wrong is harmless: one step down to find out.
    Probe,
}

/// Inputs of a decision. Rates in messages per second, times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateTerms {
    /// Arrivals over 20 s, without stuck partitions.
    pub arrivals_fast: f64,
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
    /// The partition that gets more messages than a consumer processes, if there is one. More replicas do not help it.
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
    /// The number of replicas that it holds back.
    pub replicas: u32,
}

/// Why the output does not follow the requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateHoldReason {
    /// The pods of the last step up are starting.
    PodsStarting,
    /// A step up that did not help blocks the next one. 20 % more arrivals or consumption end the block.
    IneffectiveUp,
    /// The group is rebalancing.
    Rebalancing,
    /// The requirement has not been lower for long enough to be worth a step down.
    HoldPrice,
    /// A burst made messages late, and with fewer replicas the next one would again.
    Damage,
    /// Messages are too old to step down.
    Age,
    /// The members are not yet as many as the output.
    NotSettled,
}
