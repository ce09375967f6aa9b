//! Makes the evaluations of the next snapshot. Only targets with new readings or changed settings are evaluated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{
    ByQuery, EvaluatedTarget, Evaluations, TargetEvaluation, is_few, known_outcome, with_outcome,
};
use crate::model::evaluation::group_evaluation::{Clusters, GroupEvaluation, find_group};
use crate::model::evaluation::metric_evaluation::MetricEvaluation;
use crate::model::evaluation::series_match::covers;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot};
use crate::model::targets::lookup::{GroupQuery, ResolvedQuery, resolve};
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::targets::{QueryHash, Target, Targets};
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::ClusterName;

impl Evaluations {
    /// The evaluations for the next snapshot; `self` if nothing changed. `queries` are ad hoc queries to evaluate
    /// besides those of HPAs.
    #[must_use]
    pub fn next<'q>(
        self: &Arc<Self>,
        clusters: &Clusters,
        targets: &Arc<Targets>,
        queries: impl Iterator<Item = &'q AdHocQuery> + Clone,
    ) -> Arc<Self> {
        let same_targets = Arc::ptr_eq(&self.targets, targets);
        let mut pairs = self.clusters.iter().zip(clusters);
        let same_clusters = self.clusters.len() == clusters.len()
            && pairs.all(|(before, now)| before.0 == now.0 && Arc::ptr_eq(before.1, now.1));
        if same_targets && same_clusters && self.ad_hoc.keys().eq(queries.clone()) {
            return Arc::clone(self);
        }
        let evaluator = Evaluator {
            before: self,
            clusters,
            read_again: read_again(&self.clusters, clusters),
            targets,
            same_targets,
            same_clusters,
            same_configuration: same_targets || self.targets.has_same_configuration(targets),
        };
        Arc::new(Self {
            policy: Arc::clone(&self.policy),
            by_query: evaluator.evaluate_hpa_queries(),
            ad_hoc: evaluator.evaluate_ad_hoc_queries(queries),
            parallelism: self.parallelism.next(&self.clusters, clusters),
            clusters: clusters.clone(),
            targets: Arc::clone(targets),
            outcomes: self.outcomes.clone(),
            metrics_evaluated: Arc::clone(&self.metrics_evaluated),
        })
    }
}

/// The new snapshot of each group that was read again, by the address of its old one. Evaluations hold the old one and
/// keep it alive, so nothing has to be looked up by name, which takes much longer.
type ReadAgain = HashMap<*const GroupSnapshot, Arc<GroupSnapshot>>;

fn read_again(before: &Clusters, after: &Clusters) -> ReadAgain {
    let mut groups = HashMap::new();
    for (name, after) in after {
        if let Some(before) = before.get(name) {
            ClusterSnapshot::diff_groups(before, after, |_, old, new| {
                groups.extend(old.map(Arc::as_ptr).zip(new.cloned()));
            });
        }
    }
    groups
}

/// Computes the evaluations of a snapshot from those of the snapshot before.
struct Evaluator<'a> {
    before: &'a Evaluations,
    clusters: &'a Clusters,
    read_again: ReadAgain,
    targets: &'a Targets,
    same_targets: bool,
    same_clusters: bool,
    /// Whether the targets differ at most in HPAs and ad hoc keys.
    same_configuration: bool,
}

impl Evaluator<'_> {
    fn evaluate_hpa_queries(&self) -> ByQuery {
        let mut all = self.before.by_query.clone();
        let mut changed = BTreeSet::new();
        if !self.same_targets {
            let before = self.before.targets.by_query();
            before.diff(self.targets.by_query(), |hash, _, targets| match targets {
                Some(targets) => {
                    let evaluated = self.evaluate(targets, &[]);
                    all.insert(*hash, evaluated);
                    changed.insert(*hash);
                }
                None => {
                    all.remove(hash);
                }
            });
        }
        if self.same_clusters && self.same_configuration {
            return all;
        }
        let read = self.queries_read_again();
        if let Some(read) = read.filter(|read| is_few(read.len(), all.len())) {
            for hash in read.difference(&changed) {
                let updated = all.get(hash).and_then(|before| self.update(before));
                if let Some(updated) = updated {
                    all.insert(*hash, updated);
                }
            }
            return all;
        }
        all.update_values(|hash, before| {
            let is_changed = changed.contains(hash);
            (!is_changed).then(|| self.update(before)).flatten()
        })
    }

    /// The queries of targets whose groups were read again; `None` if that may be most of them.
    fn queries_read_again(&self) -> Option<BTreeSet<QueryHash>> {
        let mut queries = BTreeSet::new();
        if !self.same_configuration || !self.before.clusters.keys().eq(self.clusters.keys()) {
            return None;
        }
        let groups = self.clusters.values().map(|cluster| cluster.groups.len());
        let groups = groups.fold(0, usize::saturating_add);
        for ((name, before), after) in self.before.clusters.iter().zip(self.clusters.values()) {
            // Every reason for an unknown lag may quote these faults.
            if !has_same_connection_faults(before, after) {
                return None;
            }
            // A whole sweep reads every group of its cluster again: list them only if they are few among all groups.
            if before.sweep != after.sweep && !is_few(after.groups.len(), groups) {
                return None;
            }
            if !Arc::ptr_eq(before, after) {
                ClusterSnapshot::diff_groups(before, after, |group, _, _| {
                    let group = self.targets.group(name, group);
                    let targets = group.map(|group| group.targets()).unwrap_or_default();
                    queries.extend(targets.iter().filter_map(|target| target.query_hash));
                });
            }
        }
        Some(queries)
    }

    /// Evaluates the targets of a query again; `None` if the result is the same.
    fn update(&self, before: &[EvaluatedTarget]) -> Option<Arc<[EvaluatedTarget]>> {
        let known: &[_] = if self.same_configuration { before } else { &[] };
        let evaluated = match before {
            [only] => self.evaluate(std::slice::from_ref(&only.target), known),
            _ => {
                let targets: Vec<_> = before.iter().map(|e| Arc::clone(&e.target)).collect();
                self.evaluate(&targets, known)
            }
        };
        // An entry that is not replaced stays shared with the map before, and so do its neighbours.
        let is_same = |(a, b): (&EvaluatedTarget, &EvaluatedTarget)| {
            Arc::ptr_eq(&a.evaluation.group, &b.evaluation.group)
                && Arc::ptr_eq(&a.evaluation.metric, &b.evaluation.metric)
        };
        let is_unchanged = evaluated.iter().zip(before).all(is_same);
        (!is_unchanged).then_some(evaluated)
    }

    /// Evaluates targets whose queries have the same hash. `before` has the previous evaluations of the same targets in
    /// the same order, or is empty.
    fn evaluate(
        &self,
        targets: &[Arc<Target>],
        before: &[EvaluatedTarget],
    ) -> Arc<[EvaluatedTarget]> {
        // Most queries are of one HPA: these are evaluated without a list for each step.
        if let [target] = targets
            && let Some(query) = MetricQuery::from_target(target)
        {
            let before = before.first().map(|before| &before.evaluation);
            let group = self.group(&query, target, before.map(|before| &before.group));
            let known = before.map(|before| &before.metric);
            let metric = self.metric(&query, known, std::slice::from_ref(&group));
            let targets = [&**target].into_iter();
            let outcome = known_outcome(&self.before.outcomes, known, targets);
            let metric = with_outcome(metric, outcome);
            return Arc::new([EvaluatedTarget {
                target: Arc::clone(target),
                evaluation: TargetEvaluation { group, metric },
            }]);
        }
        let mut all: Vec<Option<EvaluatedTarget>> = vec![None; targets.len()];
        for (index, target) in targets.iter().enumerate() {
            let is_done = all.get(index).is_some_and(Option::is_some);
            let Some(query) = MetricQuery::from_target(target).filter(|_| !is_done) else {
                continue;
            };
            // Every target of the same query, of this HPA or of others, shares one evaluation. Almost always that
            // is all of them, since hardly any hashes collide.
            let same = targets.iter().enumerate();
            let same = same.filter(|(_, other)| other.shares_query_with(target));
            let known = before.get(index).map(|before| &before.evaluation.metric);
            let same: Vec<_> = same
                .map(|(index, target)| {
                    let before = before.get(index).map(|before| &before.evaluation.group);
                    (index, target, self.group(&query, target, before))
                })
                .collect();
            let groups: Vec<_> = same.iter().map(|(.., group)| Arc::clone(group)).collect();
            let metric = self.metric(&query, known, &groups);
            let targets = same.iter().map(|(_, target, _)| &***target);
            let outcome = known_outcome(&self.before.outcomes, known, targets);
            let metric = with_outcome(metric, outcome);
            for (index, target, group) in same {
                if let Some(entry) = all.get_mut(index) {
                    *entry = Some(EvaluatedTarget {
                        target: Arc::clone(target),
                        evaluation: TargetEvaluation {
                            group,
                            metric: Arc::clone(&metric),
                        },
                    });
                }
            }
        }
        all.into_iter().flatten().collect()
    }

    fn group(
        &self,
        query: &MetricQuery<'_>,
        target: &Target,
        before: Option<&Arc<GroupEvaluation>>,
    ) -> Arc<GroupEvaluation> {
        let name = &target.key.cluster;
        let group_query = match before {
            Some(before) if self.is_same_cluster(name) => return Arc::clone(before),
            Some(before) => Arc::clone(&before.query),
            None => Arc::new(GroupQuery::from(target)),
        };
        let read_again = before
            .and_then(|before| self.read_again.get(&Arc::as_ptr(before.group.as_ref()?)))
            .filter(|group| covers(group, &group_query.key));
        let found = match self.clusters.get(name).zip(read_again) {
            Some((cluster, group)) => Some((&**cluster, group)),
            None => find_group(self.clusters, &group_query.key),
        };
        match before {
            Some(before) if before.is_evaluation_of(found) && self.has_same_connection(name) => {
                Arc::clone(before)
            }
            _ => {
                let before = before.map(|before| &**before);
                let selector = query.selector;
                Arc::new(GroupEvaluation::from_reading(
                    selector,
                    group_query,
                    found,
                    before,
                ))
            }
        }
    }

    fn metric(
        &self,
        query: &MetricQuery<'_>,
        before: Option<&Arc<MetricEvaluation>>,
        groups: &[Arc<GroupEvaluation>],
    ) -> Arc<MetricEvaluation> {
        // If a group was read again, it was evaluated just now, and the new evaluation replaces the old one.
        let is_current = |group: &Arc<GroupEvaluation>| {
            let mut evaluated = groups.iter();
            let evaluated = evaluated.find(|other| Arc::ptr_eq(&other.query, &group.query));
            evaluated.map_or_else(|| self.is_current(group), |other| Arc::ptr_eq(other, group))
        };
        let resolved = match before {
            Some(before) if before.groups.iter().all(is_current) => {
                return Arc::clone(before);
            }
            Some(before) => before.resolved.clone(),
            None => match resolve(query, self.targets) {
                Ok(resolved) => Ok(Arc::new(with_shared_groups(resolved, groups))),
                Err(reason) => Err(Box::new(reason)),
            },
        };
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(reason) => return Arc::new(MetricEvaluation::unresolved(*reason)),
        };
        let known = before.map(|before| before.groups.as_slice());
        let known = || {
            let known = known.unwrap_or_default().iter();
            known.filter(|group| is_current(group))
        };
        let group = |group_query: &Arc<GroupQuery>| {
            let is_of =
                |group: &&Arc<GroupEvaluation>| Arc::ptr_eq(&group.query.key, &group_query.key);
            let found = groups.iter().find(is_of).or_else(|| known().find(is_of));
            found.cloned().unwrap_or_else(|| {
                let group_query = Arc::clone(group_query);
                Arc::new(GroupEvaluation::new(
                    query.selector,
                    group_query,
                    self.clusters,
                ))
            })
        };
        let groups: SmallVec<_> = resolved.groups.iter().map(group).collect();
        self.before
            .metrics_evaluated
            .fetch_add(1, Ordering::Relaxed);
        if let Some(before) = before.filter(|before| before.has_same_measures(&groups)) {
            return Arc::new(before.with_same_measures(groups));
        }
        Arc::new(MetricEvaluation::new(
            query.namespace,
            resolved,
            groups,
            self.targets,
            &self.before.policy,
        ))
    }

    fn evaluate_ad_hoc_queries<'q>(
        &self,
        queries: impl Iterator<Item = &'q AdHocQuery>,
    ) -> BTreeMap<AdHocQuery, Arc<MetricEvaluation>> {
        let evaluated = queries.map(|ad_hoc| {
            let query = ad_hoc.as_query();
            let before = self.before.ad_hoc.get(ad_hoc);
            let before =
                before.filter(|before| self.same_targets || self.can_reuse_ad_hoc(&query, before));
            (ad_hoc.clone(), self.metric(&query, before, &[]))
        });
        evaluated.collect()
    }

    /// Whether the evaluation of an ad hoc query stays valid with the new targets.
    fn can_reuse_ad_hoc(&self, query: &MetricQuery<'_>, before: &MetricEvaluation) -> bool {
        let depends_on_hpas = |targets: &Targets| {
            let (namespace, selector) = (query.namespace, query.selector);
            Metric::from_name(query.metric).is_some_and(|metric| {
                let is_denied = targets.denial_reason(namespace, metric, selector).is_some();
                is_denied
                    || targets
                        .selecting(namespace, metric, selector)
                        .next()
                        .is_some()
            })
        };
        // A fallback depends on how long the lag has been unknown, which a change of the targets may reset.
        self.same_configuration
            && !before.has_fallback()
            && !depends_on_hpas(&self.before.targets)
            && !depends_on_hpas(self.targets)
    }

    /// Whether a previous evaluation of a group is still valid.
    fn is_current(&self, group: &GroupEvaluation) -> bool {
        let key = &group.query.key;
        self.is_same_cluster(&key.cluster)
            || (self.has_same_connection(&key.cluster)
                && group.is_evaluation_of(find_group(self.clusters, key)))
    }

    fn is_same_cluster(&self, name: &ClusterName) -> bool {
        match (self.before.clusters.get(name), self.clusters.get(name)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        }
    }

    /// Whether a cluster was known before, with the same connection faults as now.
    fn has_same_connection(&self, name: &ClusterName) -> bool {
        let both = self.before.clusters.get(name).zip(self.clusters.get(name));
        both.is_some_and(|(before, now)| has_same_connection_faults(before, now))
    }
}

/// Replaces the groups of a query by the equal ones of `evaluated`, so that each is stored once.
fn with_shared_groups(
    mut resolved: ResolvedQuery,
    evaluated: &[Arc<GroupEvaluation>],
) -> ResolvedQuery {
    for group_query in &mut resolved.groups {
        if let Some(group) = evaluated.iter().find(|group| group.query == *group_query) {
            *group_query = Arc::clone(&group.query);
        }
    }
    resolved
}

/// Whether two snapshots of a cluster have the same connection fault and the same unreachable brokers.
fn has_same_connection_faults(before: &ClusterSnapshot, after: &ClusterSnapshot) -> bool {
    before.connection == after.connection && before.unreachable_brokers == after.unreachable_brokers
}
