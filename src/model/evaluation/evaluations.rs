//! All evaluations of a snapshot: one per metric of each HPA, and one per recent query that is not of an HPA.
//!
//! They are made where snapshots are made. From one snapshot to the next, only targets with new readings or changed
//! settings are evaluated again. The cost of a snapshot with new targets, or with new readings of a few groups, depends
//! on what changed; a whole sweep checks every target.

mod next;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::ServingPolicy;
use super::group_evaluation::{Clusters, GroupEvaluation};
use super::group_parallelism::GroupParallelism;
use super::metric_evaluation::MetricEvaluation;
use super::parallelism::Parallelism;
use super::policy_outcome::{PolicyOutcome, PolicyOutcomes, find_outcome};
use crate::model::targets::lookup::{GroupQuery, ResolvedQuery};
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::targets::{QueryHash, Target, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::persistent_map::PersistentMap;

/// The evaluations of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Evaluations {
    policy: Arc<ServingPolicy>,
    clusters: Clusters,
    targets: Arc<Targets>,
    by_query: ByQuery,
    ad_hoc: BTreeMap<AdHocQuery, Arc<MetricEvaluation>>,
    parallelism: GroupParallelism,
    /// The outcomes of the policies and holds of targets.
    outcomes: PolicyOutcomes,
    /// Number of metrics that were evaluated for these evaluations and all previous ones.
    metrics_evaluated: Arc<AtomicU64>,
}

/// Targets and their evaluations by query, in the order of [`Targets::by_query`].
type ByQuery = PersistentMap<QueryHash, Arc<[EvaluatedTarget]>>;

#[derive(Clone, Debug)]
struct EvaluatedTarget {
    target: Arc<Target>,
    evaluation: TargetEvaluation,
}

/// The evaluations of one target of an HPA.
#[derive(Clone, Debug)]
pub struct TargetEvaluation {
    /// Evaluation of the group for this target.
    pub group: Arc<GroupEvaluation>,
    /// The metric that it is part of.
    pub metric: Arc<MetricEvaluation>,
}

impl Evaluations {
    /// Evaluations by a policy, of nothing yet.
    #[must_use]
    pub fn new(policy: ServingPolicy) -> Self {
        Self {
            policy: Arc::new(policy),
            ..Self::default()
        }
    }

    /// The targets of HPAs with their evaluations, in the order of the targets.
    pub fn hpa_targets(&self) -> impl Iterator<Item = (&Target, &TargetEvaluation)> {
        self.with_evaluations(self.targets.of_hpas())
    }

    /// The targets of one HPA with their evaluations, in the order of its metrics.
    pub fn targets_of<'a>(
        &'a self,
        hpa: &HpaKey,
    ) -> impl Iterator<Item = (&'a Target, &'a TargetEvaluation)> + use<'a> {
        self.with_evaluations(self.targets.of_hpa(hpa).iter())
    }

    /// The same evaluations, where the rate policy has judged a backlog of each metric.
    #[cfg(test)]
    pub(crate) fn with_drain(
        self: &Arc<Self>,
        drain: crate::model::policy::drain::DrainCalibration,
    ) -> Arc<Self> {
        let outcomes = self.outcomes.update_values(|_, known| {
            let mut outcome = PolicyOutcome::clone(known);
            Arc::make_mut(&mut outcome.rate.as_mut()?.decision).drain = Some(drain);
            Some(Arc::new(outcome))
        });
        Arc::clone(self).with_outcomes(&outcomes)
    }

    /// The same evaluations with other outcomes of policies and holds, at the cost of the queries whose outcomes
    /// differ. Copies only what other evaluations share.
    #[must_use]
    pub(super) fn with_outcomes(mut self: Arc<Self>, outcomes: &PolicyOutcomes) -> Arc<Self> {
        // In the order of queries, as outcomes are.
        let mut changed = Vec::new();
        self.outcomes
            .diff_by(outcomes, Arc::ptr_eq, |(query, _), _, _| {
                changed.push(*query);
            });
        changed.dedup();
        if changed.is_empty() {
            return self;
        }
        let next = Arc::make_mut(&mut self);
        next.outcomes = outcomes.clone();
        if is_few(changed.len(), next.by_query.len()) {
            for query in changed {
                let known = next.by_query.get(&query);
                let updated = known.and_then(|known| with_outcomes(known, outcomes));
                if let Some(updated) = updated {
                    next.by_query.insert(query, updated);
                }
            }
        } else {
            next.by_query.update_in_place(|query, known| {
                if changed.binary_search(query).is_ok() {
                    set_outcomes(known, outcomes);
                }
            });
        }
        self
    }

    /// These targets with their evaluations.
    pub(super) fn with_evaluations<'a>(
        &'a self,
        targets: impl Iterator<Item = &'a Arc<Target>>,
    ) -> impl Iterator<Item = (&'a Target, &'a TargetEvaluation)> {
        targets.filter_map(|target| self.with_evaluation(target))
    }

    fn with_evaluation<'a>(
        &'a self,
        target: &'a Arc<Target>,
    ) -> Option<(&'a Target, &'a TargetEvaluation)> {
        let evaluated = self.by_query.get(&target.query_hash?)?;
        // In the order of HPAs. An HPA may have several targets of one query.
        let first = match &**evaluated {
            [_] => 0,
            many => many.partition_point(|e| e.target.hpa() < target.hpa()),
        };
        let mut rest = evaluated.iter().skip(first);
        let found = rest.find(|e| Arc::ptr_eq(&e.target, target))?;
        Some((&**target, &found.evaluation))
    }

    /// Calls back, once or several times, for each HPA whose targets or evaluations differ in `after`, at the cost of
    /// what differs.
    pub fn diff_hpas(&self, after: &Self, mut on_change: impl FnMut(&HpaKey)) {
        self.by_query
            .diff_by(&after.by_query, Arc::ptr_eq, |_, old, new| {
                let targets = old.into_iter().chain(new).flat_map(|targets| &**targets);
                for hpa in targets.filter_map(|evaluated| evaluated.target.hpa()) {
                    on_change(hpa);
                }
            });
    }

    /// Calls back for each metric of an HPA whose outcome of the policy and the hold is another one in `after`.
    pub fn diff_outcomes(
        &self,
        after: &Self,
        mut on_change: impl FnMut(&HpaKey, Option<&PolicyOutcome>, Option<&PolicyOutcome>),
    ) {
        self.outcomes
            .diff_by(&after.outcomes, Arc::ptr_eq, |(_, hpa), old, new| {
                on_change(hpa, old.map(|old| &**old), new.map(|new| &**new));
            });
    }

    /// The targets that were evaluated.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The readings that were evaluated.
    #[must_use]
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// The most members of a group that can have work on everything that it reads; `None` where that is
    /// unknown.
    #[must_use]
    pub fn parallelism(&self, cluster: &ClusterName, group: &GroupId) -> Option<Parallelism> {
        self.parallelism.get(cluster, group)
    }

    /// The policy that the evaluations follow.
    #[must_use]
    pub fn policy(&self) -> &ServingPolicy {
        &self.policy
    }

    /// How many metrics have been evaluated since the first evaluations of this series. Reading an
    /// evaluation does not count.
    #[must_use]
    pub fn metrics_evaluated(&self) -> u64 {
        self.metrics_evaluated.load(Ordering::Relaxed)
    }

    /// The evaluation of a query of an HPA.
    #[must_use]
    pub fn of_hpa(&self, query: &MetricQuery<'_>) -> Option<&Arc<MetricEvaluation>> {
        let metric = Metric::from_name(query.metric)?;
        let hash = QueryHash::new(query.namespace, metric, query.selector);
        let mut evaluated = self.by_query.get(&hash)?.iter();
        let is_same =
            |e: &&EvaluatedTarget| e.target.answers(query.namespace, metric, query.selector);
        Some(&evaluated.find(is_same)?.evaluation.metric)
    }

    /// The evaluation of a recent query that is not of an HPA.
    #[must_use]
    pub fn of_ad_hoc(&self, query: &MetricQuery<'_>) -> Option<&Arc<MetricEvaluation>> {
        if self.ad_hoc.is_empty() {
            return None;
        }
        self.ad_hoc
            .get(&query.to_ad_hoc(Metric::from_name(query.metric)?))
    }

    /// Evaluates a query that is not among these evaluations.
    #[must_use]
    pub fn evaluate(
        &self,
        query: &MetricQuery<'_>,
        resolved: Arc<ResolvedQuery>,
    ) -> MetricEvaluation {
        let group = |group_query: &Arc<GroupQuery>| {
            let group_query = Arc::clone(group_query);
            Arc::new(GroupEvaluation::new(
                query.selector,
                group_query,
                &self.clusters,
            ))
        };
        let groups = resolved.groups.iter().map(group).collect();
        self.metrics_evaluated.fetch_add(1, Ordering::Relaxed);
        MetricEvaluation::new(
            query.namespace,
            resolved,
            groups,
            &self.targets,
            &self.policy,
        )
    }
}

/// Whether it is cheaper to update each of `some` entries than to go through `all` of them.
fn is_few(some: usize, all: usize) -> bool {
    some.saturating_mul(4) < all
}

/// Sets the outcomes of the policies and holds of targets whose queries have the same hash.
fn set_outcomes(targets: &mut Arc<[EvaluatedTarget]>, outcomes: &PolicyOutcomes) {
    // Most queries are sent by one HPA. Nothing else has an evaluation that was made just now.
    if let Some([only]) = Arc::get_mut(targets) {
        let outcome = find_outcome(outcomes, std::iter::once(&*only.target));
        set_outcome(&mut only.evaluation.metric, outcome);
    } else if let Some(updated) = with_outcomes(targets, outcomes) {
        *targets = updated;
    }
}

/// Targets whose queries have the same hash, with the outcomes of their policies and holds; `None` if they have them
/// already.
fn with_outcomes(
    targets: &[EvaluatedTarget],
    outcomes: &PolicyOutcomes,
) -> Option<Arc<[EvaluatedTarget]>> {
    let mut is_changed = false;
    // The targets of one query share their evaluation, also in the next snapshots.
    let mut known: SmallVec<[(&Arc<MetricEvaluation>, Arc<MetricEvaluation>); 1]> = SmallVec::new();
    let updated = targets.iter().map(|evaluated| {
        let metric = &evaluated.evaluation.metric;
        let is_of = |other: &Arc<MetricEvaluation>| Arc::ptr_eq(other, metric);
        let next = match known.iter().find(|(before, _)| is_of(before)) {
            Some((_, next)) => Arc::clone(next),
            None => {
                let same = targets
                    .iter()
                    .filter(|other| is_of(&other.evaluation.metric));
                let outcome = find_outcome(outcomes, same.map(|other| &*other.target));
                let next = with_outcome(Arc::clone(metric), outcome);
                is_changed |= !is_of(&next);
                known.push((metric, Arc::clone(&next)));
                next
            }
        };
        EvaluatedTarget {
            target: Arc::clone(&evaluated.target),
            evaluation: TargetEvaluation {
                group: Arc::clone(&evaluated.evaluation.group),
                metric: next,
            },
        }
    });
    let updated: Arc<[_]> = updated.collect();
    is_changed.then_some(updated)
}

/// The outcome for the targets of one query. `before` is their evaluation before, which has it already.
fn known_outcome<'t, 'o>(
    outcomes: &'o PolicyOutcomes,
    before: Option<&'o Arc<MetricEvaluation>>,
    targets: impl Iterator<Item = &'t Target>,
) -> Option<&'o Arc<PolicyOutcome>> {
    match before {
        Some(before) => before.policy.as_ref(),
        None => find_outcome(outcomes, targets),
    }
}

/// An evaluation with this outcome; the same one if it has it already.
fn with_outcome(
    mut metric: Arc<MetricEvaluation>,
    outcome: Option<&Arc<PolicyOutcome>>,
) -> Arc<MetricEvaluation> {
    set_outcome(&mut metric, outcome);
    metric
}

fn set_outcome(metric: &mut Arc<MetricEvaluation>, outcome: Option<&Arc<PolicyOutcome>>) {
    let is_same = match (&metric.policy, outcome) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (before, now) => before.is_none() && now.is_none(),
    };
    if !is_same {
        Arc::make_mut(metric).policy = outcome.cloned();
    }
}
