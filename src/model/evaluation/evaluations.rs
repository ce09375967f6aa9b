//! All evaluations of a snapshot: one per metric of each HPA, and one per query that was asked lately and
//! that no HPA asks.
//!
//! They are made where snapshots are made. From one snapshot to the next only what was read again, or what
//! is wanted differently, is evaluated again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServingPolicy;
use super::group_evaluation::{Clusters, GroupEvaluation};
use super::group_parallelism::GroupParallelism;
use super::metric_evaluation::MetricEvaluation;
use super::parallelism::Parallelism;
use crate::model::targets::lookup::{GroupQuery, ResolvedQuery, resolve};
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::targets::{Target, Targets};
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// The evaluations of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Evaluations {
    policy: Arc<ServingPolicy>,
    clusters: Clusters,
    targets: Arc<Targets>,
    /// By the place of each target; `None` for a target of the configuration.
    by_target: Vec<Option<TargetEvaluation>>,
    ad_hoc: BTreeMap<AdHocQuery, Arc<MetricEvaluation>>,
    parallelism: GroupParallelism,
    /// How many metrics were evaluated, for these evaluations and those before them.
    made: Arc<AtomicU64>,
}

/// The evaluations of one target of an HPA.
#[derive(Clone, Debug)]
pub struct TargetEvaluation {
    /// What it reads of its group.
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

    /// The evaluations of the next snapshot; these ones where nothing changed. `queries` are evaluated
    /// besides those of the HPAs.
    #[must_use]
    pub fn next<'q>(
        self: &Arc<Self>,
        clusters: &Clusters,
        targets: &Arc<Targets>,
        queries: impl Iterator<Item = &'q AdHocQuery> + Clone,
    ) -> Arc<Self> {
        let same_targets = Arc::ptr_eq(&self.targets, targets);
        let same_clusters = self.clusters.len() == clusters.len()
            && self
                .clusters
                .iter()
                .zip(clusters)
                .all(|(before, now)| before.0 == now.0 && Arc::ptr_eq(before.1, now.1));
        if same_targets && same_clusters && self.ad_hoc.keys().eq(queries.clone()) {
            return Arc::clone(self);
        }
        let evaluator = Evaluator {
            before: self,
            clusters,
            targets,
            same_targets,
            same_rest: same_targets || have_same_rest(&self.targets, targets),
        };
        Arc::new(Self {
            policy: Arc::clone(&self.policy),
            by_target: evaluator.by_target(),
            ad_hoc: evaluator.ad_hoc(queries),
            parallelism: self.parallelism.next(&self.clusters, clusters),
            clusters: clusters.clone(),
            targets: Arc::clone(targets),
            made: Arc::clone(&self.made),
        })
    }

    /// The targets of HPAs with their evaluations, in the order of the targets.
    pub fn hpa_targets(&self) -> impl Iterator<Item = (&Target, &TargetEvaluation)> {
        let evaluated = self.targets.all.iter().zip(&self.by_target);
        evaluated.filter_map(|(target, evaluation)| Some((target, evaluation.as_ref()?)))
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
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// The evaluation of a query that an HPA asks.
    #[must_use]
    pub fn of_hpa(&self, query: &MetricQuery<'_>) -> Option<&Arc<MetricEvaluation>> {
        let metric = Metric::from_name(query.metric)?;
        let mut places = self
            .targets
            .places_selecting(query.namespace, metric, query.selector);
        let target = places.find_map(|place| self.by_target.get(place)?.as_ref())?;
        Some(&target.metric)
    }

    /// The evaluation of a query that was asked lately, though no HPA asks it.
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
        let group = |asked: &Arc<GroupQuery>| {
            let asked = Arc::clone(asked);
            Arc::new(GroupEvaluation::new(query.selector, asked, &self.clusters))
        };
        let groups = resolved.groups.iter().map(group).collect();
        self.made.fetch_add(1, Ordering::Relaxed);
        MetricEvaluation::new(
            query.namespace,
            resolved,
            groups,
            &self.targets,
            &self.policy,
        )
    }
}

/// Whether two sets of targets differ at most in HPAs and watched groups.
fn have_same_rest(before: &Targets, now: &Targets) -> bool {
    before.clusters == now.clusters
        && before.hpas_unlisted == now.hpas_unlisted
        && before.all_configured().eq(now.all_configured())
}

/// Makes the evaluations of a snapshot, after those of the one before.
struct Evaluator<'a> {
    before: &'a Evaluations,
    clusters: &'a Clusters,
    targets: &'a Targets,
    same_targets: bool,
    /// Whether the targets differ at most in HPAs and watched groups.
    same_rest: bool,
}

impl<'a> Evaluator<'a> {
    fn by_target(&self) -> Vec<Option<TargetEvaluation>> {
        let mut all: Vec<Option<TargetEvaluation>> = vec![None; self.targets.all.len()];
        for (place, target) in self.targets.all.iter().enumerate() {
            let is_done = all.get(place).is_some_and(Option::is_some);
            let Some(query) = MetricQuery::from_target(target).filter(|_| !is_done) else {
                continue;
            };
            // Every target of the same query, of this HPA or of others, shares one evaluation.
            let places: Vec<_> = self
                .targets
                .places_selecting(query.namespace, target.metric, query.selector)
                .collect();
            for (place, evaluation) in places.iter().zip(self.query(&query, target, &places)) {
                if let Some(entry) = all.get_mut(*place) {
                    *entry = Some(evaluation);
                }
            }
        }
        all
    }

    /// The evaluations of the targets at `places`, which all ask the same query.
    fn query(
        &self,
        query: &MetricQuery<'_>,
        target: &Target,
        places: &[usize],
    ) -> Vec<TargetEvaluation> {
        let before = self.before(query, target, places).unwrap_or_default();
        let targets = places
            .iter()
            .filter_map(|place| self.targets.all.get(*place));
        let groups: Vec<_> = targets
            .enumerate()
            .map(|(index, target)| {
                let before = before.get(index).map(|before| &before.group);
                self.group(query, target, before)
            })
            .collect();
        let metric = self.metric(query, before.first().map(|b| &b.metric), &groups);
        let evaluation = |group| TargetEvaluation {
            group,
            metric: Arc::clone(&metric),
        };
        groups.into_iter().map(evaluation).collect()
    }

    fn group(
        &self,
        query: &MetricQuery<'_>,
        target: &Target,
        before: Option<&Arc<GroupEvaluation>>,
    ) -> Arc<GroupEvaluation> {
        if let Some(current) = before.filter(|group| self.is_current(group)) {
            return Arc::clone(current);
        }
        let asked = match before {
            Some(before) => Arc::clone(&before.query),
            None => Arc::new(GroupQuery::from(target)),
        };
        Arc::new(GroupEvaluation::new(query.selector, asked, self.clusters))
    }

    /// The evaluations before of the targets that ask a query; `None` where these targets changed.
    fn before(
        &self,
        query: &MetricQuery<'_>,
        target: &Target,
        places: &[usize],
    ) -> Option<Vec<&'a TargetEvaluation>> {
        let known: &'a Evaluations = self.before;
        let evaluation = |place: usize| known.by_target.get(place)?.as_ref();
        if self.same_targets {
            return places.iter().map(|place| evaluation(*place)).collect();
        }
        if !self.same_rest {
            return None;
        }
        let known = &self.before.targets;
        let before: Vec<_> = known
            .places_selecting(query.namespace, target.metric, query.selector)
            .collect();
        let is_same =
            |(before, now): (&usize, &usize)| known.all.get(*before) == self.targets.all.get(*now);
        let are_same = before.len() == places.len() && before.iter().zip(places).all(is_same);
        are_same.then_some(())?;
        let before = before.into_iter().map(evaluation);
        let before: Vec<_> = before.collect::<Option<_>>()?;
        // Since when a lag is unknown may have changed with the targets.
        let mut metrics = before.iter().map(|target| &target.metric);
        (!metrics.any(|metric| metric.has_fallback())).then_some(before)
    }

    fn metric(
        &self,
        query: &MetricQuery<'_>,
        before: Option<&Arc<MetricEvaluation>>,
        groups: &[Arc<GroupEvaluation>],
    ) -> Arc<MetricEvaluation> {
        let resolved = match before {
            Some(before) if before.groups.iter().all(|group| self.is_current(group)) => {
                return Arc::clone(before);
            }
            Some(before) => before.resolved.clone(),
            None => resolve(query, self.targets).map(Arc::new),
        };
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(reason) => return Arc::new(MetricEvaluation::unresolved(reason)),
        };
        let known = before.map(|before| before.groups.as_slice());
        let known = || {
            known
                .unwrap_or_default()
                .iter()
                .filter(|g| self.is_current(g))
        };
        let group = |asked: &Arc<GroupQuery>| {
            let is_of = |group: &&Arc<GroupEvaluation>| Arc::ptr_eq(&group.query.key, &asked.key);
            let found = groups.iter().find(is_of).or_else(|| known().find(is_of));
            found.cloned().unwrap_or_else(|| {
                let asked = Arc::clone(asked);
                Arc::new(GroupEvaluation::new(query.selector, asked, self.clusters))
            })
        };
        let groups = resolved.groups.iter().map(group).collect();
        self.before.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(MetricEvaluation::new(
            query.namespace,
            resolved,
            groups,
            self.targets,
            &self.before.policy,
        ))
    }

    fn ad_hoc<'q>(
        &self,
        queries: impl Iterator<Item = &'q AdHocQuery>,
    ) -> BTreeMap<AdHocQuery, Arc<MetricEvaluation>> {
        let evaluated = queries.map(|query| {
            let before = self.before.ad_hoc.get(query).filter(|_| self.same_targets);
            let evaluation = self.metric(&query.as_query(), before, &[]);
            (query.clone(), evaluation)
        });
        evaluated.collect()
    }

    /// Whether an evaluation of a group before still holds.
    fn is_current(&self, group: &GroupEvaluation) -> bool {
        let name = &group.query.key.cluster;
        match (self.before.clusters.get(name), self.clusters.get(name)) {
            (Some(before), Some(now)) if Arc::ptr_eq(before, now) => true,
            (Some(before), Some(now)) => {
                before.connection == now.connection && group.is_current(self.clusters)
            }
            (before, now) => before.is_none() && now.is_none(),
        }
    }
}
