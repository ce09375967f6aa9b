//! A target with the latest reading of its group.

use super::group_reading::{self, ReadingBounds};
use crate::model::evaluation::Evaluations;
use crate::model::evaluation::evaluations::TargetEvaluation;
use crate::model::evaluation::policy_outcome::{HeldReplicas, RateUnavailable};
use crate::model::hpa::facts::{HpaFacts, min_replicas};
use crate::model::settings::By;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::Target;
use crate::model::units::metric::Metric;

/// A target with the latest reading of its group.
pub(super) struct ObservedTarget<'a> {
    pub(super) target: &'a Target,
    pub(super) evaluation: &'a TargetEvaluation,
    pub(super) evaluations: &'a Evaluations,
    /// The HPA.
    pub(super) facts: Option<&'a HpaFacts>,
    pub(super) policy: ScalingPolicy,
    /// Partitions of the group that policies of other metrics of the namespace observe.
    pub(super) others: usize,
    /// Whether a whole sweep has just read the group. Otherwise only the HPA or the saved state is new.
    pub(super) is_swept: bool,
}

impl ObservedTarget<'_> {
    /// Whether the policies of the namespace would have estimates of more partitions than the group has. Only one of
    /// the metrics of a group is charged for its partitions, so without this limit many others could take any amount of
    /// memory.
    fn is_crowded(&self) -> bool {
        if self.others == 0 {
            return false;
        }
        let (counted, all) = group_reading::count_partitions(&self.evaluation.group);
        self.others.saturating_add(counted) > all
    }

    /// Whether the rate policy can decide about this metric.
    pub(super) fn check(&self) -> Result<(), RateUnavailable> {
        let metric = &*self.evaluation.metric;
        if self.target.metric != Metric::DesiredReplicas {
            return Err(RateUnavailable::OtherMetric);
        }
        if let Ok(resolved) = &metric.resolved {
            if resolved.caps.len() > 1 {
                return Err(RateUnavailable::SeveralHpas);
            }
            if resolved.groups.len() > 1 {
                return Err(RateUnavailable::SeveralGroups);
            }
        }
        let by = self.target.settings.by();
        if by == By::Lagging {
            return Err(RateUnavailable::LaggingPartitions);
        }
        match self.evaluation.group.group.as_deref() {
            Some(read) if !group_reading::has_owners(read) => Err(RateUnavailable::NoOwners),
            _ if self.is_crowded() => Err(RateUnavailable::Crowded),
            _ => Ok(()),
        }
    }

    /// Whether the members of the group were ever described.
    pub(super) fn is_described(&self) -> bool {
        let read = self.evaluation.group.group.as_deref();
        read.is_some_and(|read| read.description.is_some())
    }

    /// Replicas of the workload, including those that are starting, as the HPA controller last counted them; `None` if
    /// it has not.
    pub(super) fn running_replicas(&self) -> Option<u32> {
        self.facts?.replicas
    }

    /// The numbers of members that the policy may want; `None` if the ceiling is unknown.
    pub(super) fn bounds(&self, held: Option<&HeldReplicas>) -> Option<ReadingBounds> {
        let ceiling = self.evaluation.group.measure.as_ref().ok()?.ceiling;
        let threads = ceiling.threads;
        let facts = self.facts?;
        let all = ceiling.replicas.cut(facts.max_replicas);
        let mut most = all;
        let mut fewest = min_replicas(facts).max(1);
        if let Some(held) = held {
            most = most.min(held.bound(u32::MAX).max(1));
            fewest = fewest.max(held.bound(0));
        }
        Some(ReadingBounds {
            ceiling: ceiling.useful.limit.bounded()?,
            fewest: fewest.saturating_mul(threads.get()),
            most: most.saturating_mul(threads.get()),
            all: all.saturating_mul(threads.get()),
            threads,
        })
    }
}
