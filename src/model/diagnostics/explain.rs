//! Every number explained: from offsets to the replicas that an HPA comes to, as one value that
//! people read as text and machines as JSON.
//!
//! [`derive()`] tells what lagwise makes of Kafka, which a running daemon can tell of itself; [`outcome()`]
//! what the HPA makes of that, from one look at it.

pub mod derive;
pub mod live;
pub mod outcome;

use live::Condition;
use serde::{Deserialize, Serialize};

pub use derive::{Subject, derive};
pub use outcome::outcome;

use crate::model::evaluation::ValueRule;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::model::units::quantity::Milli;

/// The whole derivation of one HPA, or of one group that no HPA asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose numbers these are: `namespace/name` of the HPA, or the group.
    pub of: String,
    /// When this was put together, by the wall clock of who did, in RFC 3339.
    pub at: String,
    /// The metrics of lagwise, in the HPA's order.
    pub metrics: Vec<Derivation>,
    /// The HPA's own ceiling: the largest over its metrics; `None` where it is unknown or nothing bounds it.
    pub ceiling: Option<u32>,
    /// What is done about the ceiling; `None` without an HPA.
    pub cap: Option<Cap>,
    /// What the HPA itself comes to; `None` without an HPA, or where it was not looked at.
    pub outcome: Option<Outcome>,
    /// What a person should know of it.
    pub findings: Vec<String>,
    /// What nobody outside Kubernetes and Kafka can know, in words.
    pub not_knowable: Vec<String>,
}

impl Explanation {
    /// The same with at most so many partitions in all: those with the most lag of each topic.
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
                // An unknown one says more than any that is known.
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

    /// Whether something that was asked about is unknown.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        let refused = self.metrics.iter().any(|metric| metric.refusal.is_some());
        let mut groups = self.metrics.iter().flat_map(|metric| &metric.groups);
        refused || groups.any(|group| group.unknown.is_some())
    }
}

/// How one metric came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Derivation {
    /// The metric's name.
    pub metric: String,
    /// The selector it is asked for by.
    pub selector: String,
    /// What was read of each group.
    pub groups: Vec<GroupPart>,
    /// Messages behind that replicas are wanted for, over all groups; `None` where unknown.
    pub lag: Option<u64>,
    /// Lag wanted per replica.
    pub lag_per_replica: Option<Milli>,
    /// The most replicas that can have work; `None` where unknown or unbounded.
    pub ceiling: Option<u32>,
    /// The replicas wanted, at most the ceiling.
    pub desired_replicas: Option<u32>,
    /// The value served; `None` where there is none.
    pub value: Option<Milli>,
    /// The rule that made the value.
    pub rule: Option<ValueRule>,
    /// That rule in words.
    pub because: Option<String>,
    /// Why there is no value.
    pub refusal: Option<String>,
}

/// One group in a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPart {
    /// Its Kafka cluster.
    pub cluster: String,
    /// The group.
    pub group: String,
    /// Its members; `None` where Kafka did not tell.
    pub members: Option<usize>,
    /// The assignor in use, or the last one seen.
    pub assignor: Option<String>,
    /// Its topics that count.
    pub topics: Vec<TopicPart>,
    /// Messages behind on them that replicas are wanted for; `None` where unknown.
    pub lag: Option<u64>,
    /// The most members that can have work; `None` where unknown or unbounded.
    pub useful_parallelism: Option<u32>,
    /// The rule that says so.
    pub parallelism_rule: Option<ParallelismRule>,
    /// That rule in words.
    pub because: Option<String>,
    /// Members in each replica.
    pub threads: u32,
    /// The most replicas that can have work; `None` where unknown or unbounded.
    pub ceiling: Option<u32>,
    /// Why it is not known, where it is not.
    pub unknown: Option<String>,
}

/// One topic of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicPart {
    /// The topic.
    pub topic: String,
    /// How old the reading is, in seconds.
    pub read_seconds_ago: Option<u64>,
    /// Messages behind that replicas are wanted for; `None` where unknown.
    pub lag: Option<u64>,
    /// How old the oldest message is that the group has not read, in seconds.
    pub lag_seconds: Option<f64>,
    /// Why the latest reading is not complete; an older one is shown and served as long as it may be.
    pub incomplete: Option<String>,
    /// Its partitions that count.
    pub partitions: Vec<PartitionPart>,
    /// How many more there are, where an answer had to be bounded.
    #[serde(default)]
    pub partitions_left_out: usize,
}

/// One partition of a topic, as the group stands on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionPart {
    /// Its number.
    pub partition: usize,
    /// The committed offset; `None` where there is none, or it is unknown.
    pub committed_offset: Option<i64>,
    /// The log-end offset; `None` where unknown.
    pub log_end_offset: Option<i64>,
    /// Messages behind, for people; `None` where unknown.
    pub lag: Option<u64>,
    /// Messages that replicas are wanted for; `None` where unknown.
    pub counts: Option<u64>,
    /// How old the first message is that the group has not read, in seconds.
    pub lag_seconds: Option<f64>,
    /// Which rule made the lag, or which fault keeps it unknown.
    pub rule: String,
}

/// What is done about an HPA's ceiling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    pub mode: CapMode,
    /// Whether its maximum is seen to be at most the ceiling.
    pub observed: bool,
    /// `spec.maxReplicas`, as it is.
    pub max_replicas: u32,
    /// The user's own maximum, as far as it is known; `None` where the HPA was not looked at.
    pub user_max_replicas: Option<u32>,
}

/// What an HPA itself comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The replicas that its target is to have.
    pub spec_replicas: Option<u32>,
    /// The replicas that it has: the HPA compares with these.
    pub status_replicas: Option<u32>,
    /// `spec.minReplicas`.
    pub min_replicas: u32,
    /// `spec.maxReplicas`.
    pub max_replicas: u32,
    /// The tolerances downwards and upwards, as quantities.
    pub tolerances: (String, String),
    /// How far and how fast replicas may move, in words.
    pub behavior: Vec<String>,
    /// What each of its metrics proposes, in its order.
    pub proposals: Vec<MetricProposal>,
    /// What the metrics come to, in words.
    pub metric_stage: Option<String>,
    /// The number that the metrics come to, where it is known.
    pub metric_stage_replicas: Option<u32>,
    /// The fewest and the most replicas that the next sync may set; alike where that is known.
    pub next: Option<(u32, u32)>,
    /// Why that is what it is, in words.
    pub because: Vec<String>,
    /// The conditions that its controller has set.
    pub conditions: Vec<Condition>,
}

/// What one metric of an HPA proposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricProposal {
    /// Its type and name.
    pub metric: String,
    /// The replicas; `None` where it is an error, or not known here.
    pub replicas: Option<u32>,
    /// How that came about, in words.
    pub because: String,
}
