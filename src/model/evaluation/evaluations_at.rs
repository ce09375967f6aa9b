//! Evaluations at one moment, with staleness, fallback and cooldown applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::evaluations::TargetEvaluation;
use super::idle::IdleSince;
use super::parallelism::Limit;
use super::{Clusters, Evaluations, MetricEvaluation, MetricValue, ServingPolicy};
use crate::model::hpa::selector::Selector;
use crate::model::targets::lookup::resolve;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Target, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;

/// Evaluations at one moment.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationsAt<'a> {
    evaluations: &'a Evaluations,
    idle: &'a IdleSince,
    now: &'a Moment,
}

/// A metric of an HPA with its evaluation, which does not depend on the moment.
#[derive(Clone, Copy, Debug)]
pub struct EvaluatedMetric<'a> {
    pub hpa: &'a HpaKey,
    pub metric: Metric,
    /// The metric's selector.
    pub selector: &'a Selector,
    pub evaluation: &'a MetricEvaluation,
}

/// A metric of an HPA with its value at one moment.
#[derive(Clone, Debug)]
pub struct HpaMetric<'a> {
    /// The HPA's namespace.
    pub namespace: &'a str,
    /// The HPA's name.
    pub hpa: &'a str,
    pub metric: Metric,
    /// The metric's selector.
    pub selector: &'a Selector,
    /// The evaluation, which does not depend on the moment.
    pub evaluation: &'a MetricEvaluation,
    /// The value, or why there is none.
    pub outcome: Result<MetricValue, NoValueReason>,
}

impl<'a> EvaluationsAt<'a> {
    /// Evaluations at `now`.
    #[must_use]
    pub fn new(evaluations: &'a Evaluations, idle: &'a IdleSince, now: &'a Moment) -> Self {
        Self {
            evaluations,
            idle,
            now,
        }
    }

    /// The moment.
    #[must_use]
    pub fn now(self) -> &'a Moment {
        self.now
    }

    /// The policy that the evaluations follow.
    #[must_use]
    pub fn policy(self) -> &'a ServingPolicy {
        self.evaluations.policy()
    }

    /// The targets that were evaluated.
    #[must_use]
    pub fn targets(self) -> &'a Targets {
        self.evaluations.targets()
    }

    /// The readings that were evaluated.
    #[must_use]
    pub fn clusters(self) -> &'a Clusters {
        self.evaluations.clusters()
    }

    /// The value of an evaluation.
    ///
    /// # Errors
    /// Why there is none; never a zero instead.
    pub fn value(self, evaluation: &MetricEvaluation) -> Result<MetricValue, NoValueReason> {
        let max_staleness = self.policy().max_staleness;
        evaluation.value_at(self.clusters(), self.idle, max_staleness, self.now)
    }

    /// The value for a query, which is evaluated unless it is among the evaluations.
    ///
    /// # Errors
    /// Why there is none; never a zero instead.
    pub fn answer(self, query: &MetricQuery<'_>) -> Result<MetricValue, NoValueReason> {
        let evaluations = self.evaluations;
        let known = evaluations
            .of_hpa(query)
            .or_else(|| evaluations.of_ad_hoc(query));
        match known {
            Some(evaluation) => self.value(evaluation),
            None => {
                let resolved = Arc::new(resolve(query, self.targets())?);
                self.value(&evaluations.evaluate(query, resolved))
            }
        }
    }

    /// The targets of HPAs with their evaluations, in the order of the targets.
    pub fn hpa_targets(self) -> impl Iterator<Item = (&'a Target, &'a TargetEvaluation)> {
        self.evaluations.hpa_targets()
    }

    /// The targets of one HPA with their evaluations, in the order of its metrics.
    pub fn targets_of(
        self,
        hpa: &HpaKey,
    ) -> impl Iterator<Item = (&'a Target, &'a TargetEvaluation)> + use<'a> {
        self.evaluations.targets_of(hpa)
    }

    /// Every lagwise metric of every HPA, in the order of the targets.
    #[must_use]
    pub fn hpa_metrics(self) -> Vec<HpaMetric<'a>> {
        let metrics = metrics(self.hpa_targets());
        metrics.map(|metric| self.with_value(metric)).collect()
    }

    /// The lagwise metrics of one HPA.
    #[must_use]
    pub fn metrics_of(self, hpa: &HpaKey) -> Vec<HpaMetric<'a>> {
        self.metrics_of_targets(self.targets().of_hpa(hpa))
    }

    /// The lagwise metrics of the HPA that has these targets.
    #[must_use]
    pub fn metrics_of_targets(self, targets: &'a [Arc<Target>]) -> Vec<HpaMetric<'a>> {
        let metrics = metrics(self.evaluations.with_evaluations(targets.iter()));
        metrics.map(|metric| self.with_value(metric)).collect()
    }

    /// Every lagwise metric of every HPA, in the order of the targets, without its value.
    #[must_use]
    pub fn evaluated_metrics(self) -> Vec<EvaluatedMetric<'a>> {
        metrics(self.hpa_targets()).collect()
    }

    fn with_value(self, metric: EvaluatedMetric<'a>) -> HpaMetric<'a> {
        HpaMetric {
            namespace: &metric.hpa.namespace,
            hpa: &metric.hpa.name,
            metric: metric.metric,
            selector: metric.selector,
            evaluation: metric.evaluation,
            outcome: self.value(metric.evaluation),
        }
    }
}

/// The metrics of these targets, each once: a metric has a target for each of its groups, one after the other.
fn metrics<'a>(
    targets: impl Iterator<Item = (&'a Target, &'a TargetEvaluation)>,
) -> impl Iterator<Item = EvaluatedMetric<'a>> {
    let mut last = None;
    targets.filter_map(move |(target, evaluation)| {
        let (hpa, selector) = (target.hpa()?, target.selector.as_ref()?);
        let metric = Some((target.index, hpa));
        let is_next = std::mem::replace(&mut last, metric) != metric;
        is_next.then_some(EvaluatedMetric {
            hpa,
            metric: target.metric,
            selector,
            evaluation: &evaluation.metric,
        })
    })
}

/// Replica ceiling of each HPA by namespace and name: see [`hpa_ceiling`].
#[must_use]
pub fn hpa_ceilings<'a>(metrics: &[HpaMetric<'a>]) -> BTreeMap<(&'a str, &'a str), Limit> {
    let mut all: BTreeMap<(&str, &str), Option<Limit>> = BTreeMap::new();
    // The metrics of an HPA follow one another.
    for of_hpa in metrics.chunk_by(|a, b| (a.hpa, a.namespace) == (b.hpa, b.namespace)) {
        let Some(metric) = of_hpa.first() else {
            continue;
        };
        let ceiling = hpa_ceiling(of_hpa);
        all.entry((metric.namespace, metric.hpa))
            .and_modify(|so_far| *so_far = larger(*so_far, ceiling))
            .or_insert(ceiling);
    }
    let known = all.into_iter();
    known
        .filter_map(|(hpa, limit)| Some((hpa, limit?)))
        .collect()
}

/// Replica ceiling of the HPA that has these metrics: the largest over its lagwise metrics. An HPA with a
/// metric whose ceiling is unknown has none, since that metric might allow more.
#[must_use]
pub fn hpa_ceiling(metrics: &[HpaMetric<'_>]) -> Option<Limit> {
    let ceilings = metrics.iter().map(|metric| {
        let value = metric.outcome.as_ref().ok()?;
        Some(value.ceiling?.replicas)
    });
    ceilings.reduce(larger).flatten()
}

/// The larger one; `None` if one of them is unknown.
fn larger(a: Option<Limit>, b: Option<Limit>) -> Option<Limit> {
    a.zip(b).map(|(a, b)| a.max(b))
}
