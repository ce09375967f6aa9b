//! Evaluates each metric once, from the cluster snapshots and the targets. All readers use the result: the external
//! metrics API, Prometheus, `status`, `explain`, findings, the cap and scale to zero.
//!
//! A [`GroupEvaluation`] measures one group. A [`MetricEvaluation`] sums groups and computes the value. [`Evaluations`]
//! has all of a snapshot, and [`EvaluationsAt`] applies to them what depends on the time of reading, such as staleness.

pub mod evaluations;
pub mod evaluations_at;
mod fallback;
pub mod group_evaluation;
mod group_parallelism;
pub mod idle;
pub mod metric_evaluation;
pub mod parallelism;
pub mod policy_outcome;
mod series_match;
pub mod sizing;
pub mod target_policies;
pub mod topic_selection;
mod unseen;
mod valuation;

use std::num::NonZeroU32;
use std::time::Duration;

use self::parallelism::{Limit, Parallelism};
use super::hpa::facts::HpaFacts;
use super::hpa::write_scopes::WriteScopes;
use super::lag::cluster_snapshot::GroupSnapshot;
use super::lag::topic_summary::TopicWork;
use super::settings::cap_mode::CapMode;
use super::settings::scaling_policy::ScalingPolicy;
use super::targets::HpaCap;
use super::targets::lookup::GroupQuery;
use super::units::metric::Metric;
use super::units::newtypes::{Lag, Moment, TopicName};
use super::units::quantity::Milli;

pub use self::evaluations::Evaluations;
pub use self::evaluations_at::{
    EvaluatedMetric, EvaluationsAt, HpaMetric, hpa_ceiling, hpa_ceilings,
};
pub use self::group_evaluation::{Clusters, GroupEvaluation};
pub use self::metric_evaluation::MetricEvaluation;
pub use self::sizing::ValueRule;
pub(in crate::model) use self::unseen::{find_similar_group, max_running};
pub use self::valuation::ServedValue;

/// How values are made of lag, and when none is served. The default is the daemon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingPolicy {
    /// Whether the value served never exceeds ceiling x lag per replica.
    pub clamp: bool,
    /// The cap mode of HPAs that do not set one.
    pub cap: CapMode,
    /// Scaling policy of targets that do not set one.
    pub scaling: ScalingPolicy,
    /// The oldest reading that is still served.
    pub max_staleness: Duration,
    /// The namespaces whose HPAs are watched; empty = all. What an HPA of another namespace wants is
    /// not known, so its value could not be clamped.
    pub namespaces: Vec<String>,
    /// Where lagwise may write.
    pub writes: WriteScopes,
}

impl ServingPolicy {
    /// The cap mode that applies to an HPA.
    #[must_use]
    pub fn cap_mode(&self, hpa: &HpaFacts) -> CapMode {
        self.writes.cap_mode(hpa, self.cap)
    }
}

impl Default for ServingPolicy {
    fn default() -> Self {
        Self {
            clamp: true,
            cap: CapMode::Advise,
            scaling: ScalingPolicy::Lag,
            max_staleness: Duration::from_secs(30),
            namespaces: Vec::new(),
            writes: WriteScopes::ALL,
        }
    }
}

/// The most replicas that can have work, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The number of replicas.
    pub replicas: Limit,
    /// The members that can have work, over all replicas.
    pub useful: Parallelism,
    /// Members per replica.
    pub threads: NonZeroU32,
}

impl Ceiling {
    /// The ceiling on these topics of a group.
    pub(crate) fn new(
        query: &GroupQuery,
        group: &GroupSnapshot,
        works: &[(&TopicName, TopicWork)],
    ) -> Self {
        let settings = &query.settings;
        let filter = settings.partitions.as_ref();
        let useful = topic_selection::parallelism(group, works, filter, settings.by());
        Self {
            replicas: useful.ceiling(settings.threads_per_replica()),
            useful,
            threads: settings.threads_per_replica(),
        }
    }

    /// The larger one: replicas that read several groups have work while one of the groups has.
    pub(crate) fn max(self, other: Self) -> Self {
        if other.replicas.max(self.replicas) == self.replicas {
            self
        } else {
            other
        }
    }
}

/// A value as it is served at one moment, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricValue {
    pub metric: Metric,
    /// The value to serve.
    pub value: Milli,
    /// The replicas that are wanted, at most the ceiling; `None` without a lag per replica.
    pub desired: Option<u32>,
    /// The replicas that the lag is worth without the ceiling; `None` where `desired` is, or a fallback is served.
    pub uncapped: Option<u32>,
    /// The lag behind it; `None` where it is unknown and a fallback is served.
    pub lag: Option<Lag>,
    /// The most replicas that can be useful; `None` where that is unknown.
    pub ceiling: Option<Ceiling>,
    /// The lag wanted per replica, where an HPA or the configuration says.
    pub wanted: Option<Milli>,
    /// Which rule made the value.
    pub rule: ValueRule,
    /// When the oldest reading in it was made; of a fallback, since when lag is unknown.
    pub read: Moment,
}

/// Whether an HPA's own maximum is observed to hold a ceiling, where the cap is enforced.
#[must_use]
pub fn is_cap_observed(cap: &HpaCap, default: CapMode, ceiling: Limit) -> bool {
    let most = ceiling.bounded().unwrap_or(u32::MAX);
    cap.mode.unwrap_or(default) == CapMode::Enforce && cap.max_replicas <= most
}

#[cfg(test)]
mod tests;
