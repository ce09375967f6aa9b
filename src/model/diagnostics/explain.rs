//! Explains a replica count: the derivation from offsets to replicas, as one value that is printed as text
//! and as JSON.
//!
//! [`derive()`] covers the part from Kafka's offsets to the value served, which a running daemon knows.
//! [`outcome()`] adds what the HPA controller computes from that value, which needs the HPA object.

pub mod derive;
mod hidden_facts;
mod listing;
pub mod live;
pub mod outcome;
pub mod policy;
mod unread_group;
mod verdict;

use live::Condition;
use serde::{Deserialize, Serialize};

pub use derive::{Subject, derive};
pub use outcome::outcome;
pub use policy::PolicyPart;

use crate::model::evaluation::ValueRule;
use crate::model::keda::shadow::ShadowRow;
use crate::model::lag::group_figures::GroupFigures;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::model::units::quantity::Milli;

/// The whole derivation of one HPA, or of one consumer group without an HPA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// How the replicas will change, and why, in one sentence. Empty if a daemon of an earlier version made it.
    #[serde(default)]
    pub verdict: String,
    /// The subject: `HPA namespace/name`, or the group.
    pub of: String,
    /// Time of the explanation, in RFC 3339, by the clock of the process that made it.
    pub at: String,
    /// The metrics that lagwise serves, in the HPA's order. Without any, the findings say why.
    pub metrics: Vec<Derivation>,
    /// The HPA's replica ceiling: the largest over its metrics; `None` if unknown or unbounded.
    pub ceiling: Option<u32>,
    /// `None` without an HPA.
    pub cap: Option<Cap>,
    /// Outcome at the HPA controller; `None` without an HPA, or if the HPA was not read.
    pub outcome: Option<Outcome>,
    /// The comparison with KEDA's replicas, while lagwise observes and KEDA owns the HPA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<ShadowRow>>,
    /// Findings about the HPA and its groups.
    pub findings: Vec<String>,
    /// Facts that neither Kafka nor the Kubernetes API exposes, as sentences.
    pub not_knowable: Vec<String>,
}

impl Explanation {
    /// Sets the verdict, derived from all other fields.
    fn with_verdict(mut self) -> Self {
        self.verdict = verdict::verdict(&self);
        self
    }

    /// Keeps at most `most` partitions in total: of a topic with more, those with the most lag.
    #[must_use]
    pub fn bounded(mut self, most: usize) -> Self {
        let mut left = most;
        let groups = self
            .metrics
            .iter_mut()
            .flat_map(|metric| &mut metric.groups);
        for topic in groups.flat_map(|group| &mut group.topics) {
            let all = topic.partitions.len();
            if all > left {
                // Unknown partitions come first: they are the likely reason for the question.
                let lag = |partition: &PartitionPart| partition.lag.unwrap_or(u64::MAX);
                topic.partitions.sort_by_key(|p| std::cmp::Reverse(lag(p)));
                topic.partitions.truncate(left);
                topic
                    .partitions
                    .sort_by_key(|partition| partition.partition);
                topic.partitions_left_out = all.saturating_sub(left);
            }
            left = left.saturating_sub(topic.partitions.len());
        }
        self
    }

    /// Whether a metric has no value or a group is unknown, or there is no metric at all.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        if self.metrics.is_empty() {
            return true;
        }
        let refused = self.metrics.iter().any(|metric| metric.refusal.is_some());
        let mut groups = self.metrics.iter().flat_map(|metric| &metric.groups);
        refused || groups.any(|group| group.unknown.is_some())
    }
}

/// The derivation of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Derivation {
    pub metric: String,
    /// The selector of the HPA's metric.
    pub selector: String,
    pub groups: Vec<GroupPart>,
    /// Lag that counts for scaling, over all groups; `None` if unknown.
    pub lag: Option<u64>,
    /// Target lag per replica.
    pub lag_per_replica: Option<Milli>,
    /// Replica ceiling; `None` if unknown or unbounded.
    pub ceiling: Option<u32>,
    /// Desired replicas, at most the ceiling.
    pub desired_replicas: Option<u32>,
    /// Replicas that the lag is worth without the ceiling.
    pub uncapped_replicas: Option<u32>,
    /// A sentence about the replicas that the lag is worth, if they exceed the ceiling.
    pub at_ceiling: Option<String>,
    /// The value served; `None` if the answer is an error.
    pub value: Option<Milli>,
    /// The rule that made the value.
    pub rule: Option<ValueRule>,
    /// That rule, as a sentence.
    pub because: Option<String>,
    /// The policy and the hold; `None` if neither is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Box<PolicyPart>>,
    /// Why there is no value.
    pub refusal: Option<String>,
}

/// One consumer group of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPart {
    pub cluster: ClusterName,
    pub group: GroupId,
    /// Number of members; `None` if the coordinator did not report it.
    pub members: Option<usize>,
    /// Members of which only the number is known, because there are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_members: Option<usize>,
    /// The assignor in use, or the last one seen.
    pub assignor: Option<String>,
    /// The topics that count.
    pub topics: Vec<TopicPart>,
    /// Which topics of the cluster match the topic regex and count, as a sentence; `None` while members report what
    /// they read, and without a regex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<String>,
    /// Lag that counts for scaling; `None` if unknown.
    pub lag: Option<u64>,
    /// `None` if unknown or unbounded.
    pub useful_parallelism: Option<u32>,
    /// The rule of the useful parallelism.
    pub parallelism_rule: Option<ParallelismRule>,
    /// That rule, as a sentence.
    pub because: Option<String>,
    /// Members in each replica.
    pub threads: u32,
    /// Replica ceiling; `None` if unknown or unbounded.
    pub ceiling: Option<u32>,
    /// Why the lag is unknown, if it is.
    pub unknown: Option<String>,
    /// Rates, state and other figures; `None` if nothing but the offsets of one reading is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Box<GroupFigures>>,
}

/// One topic of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicPart {
    pub topic: TopicName,
    /// Age of the reading that is shown.
    pub read_seconds_ago: Option<u64>,
    /// Lag that counts for scaling; `None` if unknown.
    pub lag: Option<u64>,
    /// Age of the oldest unread message.
    pub lag_seconds: Option<f64>,
    #[serde(default)]
    pub lag_seconds_is_lower_bound: bool,
    /// Why the latest reading is incomplete, if it is. Then the last complete one is shown, and served
    /// until it is stale.
    pub incomplete: Option<String>,
    /// The partitions that count.
    pub partitions: Vec<PartitionPart>,
    /// Number of partitions omitted by [`Explanation::bounded`].
    #[serde(default)]
    pub partitions_left_out: usize,
}

/// Begins the rule of a partition whose lag is unknown; the reason follows.
pub const UNKNOWN_RULE: &str = "unknown: ";

/// A group's position on one partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionPart {
    pub partition: usize,
    /// `None` if there is no commit, or it is unknown.
    pub committed_offset: Option<i64>,
    /// `None` if unknown.
    pub log_end_offset: Option<i64>,
    /// Unread messages; `None` if unknown.
    pub lag: Option<u64>,
    /// Lag that counts for scaling; `None` if unknown.
    pub counts: Option<u64>,
    /// Age of the oldest unread message.
    pub lag_seconds: Option<f64>,
    #[serde(default)]
    pub lag_seconds_is_lower_bound: bool,
    /// The lag rule, or the fault that keeps the lag unknown.
    pub rule: String,
}

/// The cap of an HPA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    pub mode: CapMode,
    /// Whether `maxReplicas` is at most the ceiling under `enforce`.
    pub observed: bool,
    /// The current `spec.maxReplicas`.
    pub max_replicas: u32,
    /// The user's own `maxReplicas`; `None` if the HPA was not read.
    pub user_max_replicas: Option<u32>,
    /// Whether the user has stopped the writes of lagwise. The HPA scales nevertheless.
    #[serde(default)]
    pub paused: bool,
}

/// Outcome at the HPA controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `spec.replicas` of the scale target.
    pub spec_replicas: Option<u32>,
    /// `status.replicas` of the scale target, from which the controller computes.
    pub status_replicas: Option<u32>,
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// The tolerances for scaling down and up, as quantities.
    pub tolerances: (String, String),
    /// The limits of scaling up and down, as sentences.
    pub behavior: Vec<String>,
    /// The proposal of each metric, in the HPA's order.
    pub proposals: Vec<MetricProposal>,
    /// The result of all proposals, before `behavior` and the replica bounds, as a sentence.
    pub metric_stage: Option<String>,
    /// That result as a number, if it is known.
    pub metric_stage_replicas: Option<u32>,
    /// Fewest and most replicas that the next sync may set; equal if the result is certain.
    pub next: Option<(u32, u32)>,
    /// Reasons for that range, as sentences.
    pub because: Vec<String>,
    /// The HPA's status conditions.
    pub conditions: Vec<Condition>,
    /// When lagwise scaled the workload to zero, according to its annotation; `None` if it has replicas.
    #[serde(default)]
    pub asleep_since: Option<String>,
}

/// The replicas that one metric of an HPA proposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricProposal {
    /// Type and name, such as `External kafka_lag`.
    pub metric: String,
    /// `None` if the metric is an error, or lagwise does not serve it.
    pub replicas: Option<u32>,
    /// How the number is computed, as a sentence.
    pub because: String,
}
