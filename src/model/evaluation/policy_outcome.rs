//! Result of the scaling policy and the hold of a metric, which replace lag divided by the lag per replica.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MetricValue, ValueRule};
use crate::model::policy::decision::RateDecision;
use crate::model::policy::scaling_totals::ScalingTotals;
use crate::model::settings::replica_hold::{HoldDirection, ReplicaHold};
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::{QueryHash, Target};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;
use crate::model::units::persistent_map::PersistentMap;
use crate::model::units::quantity::Milli;

/// A metric of an HPA: the query that the HPA sends for it, and the HPA. After an edit of the selector it is another
/// one, so that a number is never served for a query that it was not decided for. The query comes first, because maps
/// compare hashes much faster than names.
pub type PolicyKey = (QueryHash, HpaKey);

/// The outcomes of all metrics that have one.
pub type PolicyOutcomes = PersistentMap<PolicyKey, Arc<PolicyOutcome>>;

/// The key of a target of an HPA; `None` for a configured target.
pub(super) fn policy_key(target: &Target) -> Option<PolicyKey> {
    Some((target.query_hash?, target.hpa()?.clone()))
}

/// The outcome for the targets of one query. All HPAs that send the query have the same settings and get the same
/// value, so one number is held for all.
pub(super) fn find_outcome<'a, 'o>(
    outcomes: &'o PolicyOutcomes,
    targets: impl Iterator<Item = &'a Target>,
) -> Option<&'o Arc<PolicyOutcome>> {
    if outcomes.is_empty() {
        return None;
    }
    let (mut first, mut last) = (None, None);
    for target in targets {
        // A metric has a target for each of its groups, one after the other.
        if std::mem::replace(&mut last, target.hpa()) == target.hpa() {
            continue;
        }
        let Some(outcome) = policy_key(target).and_then(|key| outcomes.get(&key)) else {
            continue;
        };
        if outcome.hold.is_some() {
            return Some(outcome);
        }
        first = first.or(Some(outcome));
    }
    first
}

/// Result of the policy and the hold of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOutcome {
    /// The policy that is set.
    pub policy: ScalingPolicy,
    /// Result of the rate policy; `None` if it is not set, or has no number.
    pub rate: Option<RateOutcome>,
    /// Why the rate policy has no number, although it is set.
    pub unavailable: Option<RateUnavailable>,
    /// The hold, and the number that it keeps.
    pub hold: Option<HeldReplicas>,
}

/// Result of the rate policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RateOutcome {
    /// The replicas that it wants.
    pub replicas: u32,
    /// The decision with its derivation, in members of the group.
    pub decision: Arc<RateDecision>,
    /// Members in each replica.
    pub threads: NonZeroU32,
    /// The age that messages may reach.
    pub slo: Duration,
    /// Whether nothing arrives and fewest replicas are enough, so that the lag decides about zero.
    pub is_idle: bool,
    /// Totals of a simulation in which the policy is applied; `None` unless it is only recommended.
    pub totals: Option<RecommendationTotals>,
}

/// Totals if the recommendation had been applied, and of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecommendationTotals {
    /// When they began, in seconds since 1970.
    pub since: f64,
    /// Totals if the rate policy had been applied.
    pub rate: ScalingTotals,
    /// What happened.
    pub actual: ScalingTotals,
}

/// The number that a hold keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldReplicas {
    pub hold: ReplicaHold,
    /// The number; `None` while neither the number to serve nor the replicas of the workload are known.
    pub replicas: Option<u32>,
}

/// Why the rate policy has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnavailable {
    /// The metric is not `kafka_desired_replicas`.
    OtherMetric,
    /// Several HPAs share the metric.
    SeveralHpas,
    /// The metric sums several groups.
    SeveralGroups,
    /// The members are not known, or are no owners of partitions.
    NoOwners,
    /// The ceiling depends on where there is lag.
    LaggingPartitions,
    /// Policies of other metrics of the namespace observe the partitions of the group.
    Crowded,
    /// Too little was observed yet.
    NotObserved,
}

impl fmt::Display for RateUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherMetric => "it needs the metric kafka_desired_replicas",
            Self::SeveralHpas => "several HPAs have this metric",
            Self::SeveralGroups => "the metric sums several consumer groups",
            Self::NoOwners => {
                "the members of the group are unknown, or do not own partitions (share groups, Kafka Streams)"
            }
            Self::LaggingPartitions => "lagwise.dev/by is lagging",
            Self::Crowded => {
                "the rate policy of another metric of the namespace already observes these partitions of the group"
            }
            Self::NotObserved => {
                "the group has not been observed for long enough: it needs 40 s in which messages are consumed"
            }
        })
    }
}

impl PolicyOutcome {
    /// The result of the rate policy, if it is what is served.
    #[must_use]
    pub fn served_rate(&self) -> Option<&RateOutcome> {
        let rate = self.rate.as_ref()?;
        (self.policy == ScalingPolicy::Rate).then_some(rate)
    }

    /// The hold, if it applies now.
    #[must_use]
    pub fn active_hold(&self, now: &Moment) -> Option<&HeldReplicas> {
        let hold = self.hold.as_ref();
        hold.filter(|held| held.hold.is_active(now.wall))
    }

    /// Applies the policy and then the hold to a value. The ceiling still applies, and so does the cooldown before
    /// zero.
    pub(super) fn apply(&self, value: &mut MetricValue, now: &Moment) {
        let applies = |rate: &&RateOutcome| match value.rule {
            ValueRule::NeverRan | ValueRule::Fallback => false,
            // No lag for a moment is no reason to remove replicas while messages arrive.
            ValueRule::Cooldown => !rate.is_idle,
            _ => true,
        };
        let rate = self.served_rate().filter(applies);
        let rate = rate.filter(|_| value.metric == Metric::DesiredReplicas);
        if let Some(rate) = rate {
            let replicas = match value.desired {
                Some(0) if rate.is_idle => 0,
                _ => rate.replicas,
            };
            set_replicas(value, replicas, ValueRule::Rate);
        }
        if let (Some(held), Some(desired)) = (self.active_hold(now), value.desired) {
            let replicas = held.bound(desired);
            if replicas != desired {
                set_replicas(value, replicas, ValueRule::Held);
            }
        }
    }
}

impl HeldReplicas {
    /// The number, as far as the hold lets it change. No hold keeps a workload at zero, because messages would wait
    /// until it ends.
    #[must_use]
    pub fn bound(&self, replicas: u32) -> u32 {
        let Some(held) = self.replicas else {
            return replicas;
        };
        let direction = self.hold.direction;
        let most = if direction.is_up() {
            held.max(1)
        } else {
            u32::MAX
        };
        let fewest = if direction.is_down() { held } else { 0 };
        replicas.min(most).max(fewest)
    }

    /// Moves the number in the direction that is not held, if `served` would be served without the hold while the
    /// workload has `running` replicas.
    pub(super) fn follow(self, served: u32, running: Option<u32>) -> Self {
        // The HPA may keep replicas for some time, so a smaller number alone does not mean that there are fewer.
        let falls_to = served.max(running.unwrap_or(0));
        let moved = |held: u32| match self.hold.direction {
            HoldDirection::Up => held.min(falls_to),
            HoldDirection::Down => held.max(served),
            HoldDirection::Both => held,
        };
        Self {
            replicas: self.replicas.map(moved),
            ..self
        }
    }
}

/// Replaces a value by one for this number of replicas, at most the ceiling. A lag without a lag per replica stays.
fn set_replicas(value: &mut MetricValue, replicas: u32, rule: ValueRule) {
    let ceiling = value.ceiling.map(|ceiling| ceiling.replicas);
    let replicas = ceiling.map_or(replicas, |ceiling| ceiling.cut(replicas));
    let served = match (value.metric, value.wanted) {
        (Metric::DesiredReplicas, _) => Milli::from_units(replicas.into()),
        (Metric::Lag, Some(per_replica)) => per_replica.times(replicas),
        (Metric::Lag, None) => return,
    };
    (value.value, value.desired, value.rule) = (served, Some(replicas), rule);
}
