//! Where each target stands: its value and ceiling by the rules that answer requests, and what of
//! that a person should know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parallelism::Limit;
use super::{MetricValue, ServingPolicy, answer};
use crate::model::hpa::selector::Selector;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;

/// One metric of an HPA, as the HPA would be answered now.
#[derive(Clone, Debug)]
pub struct MetricEvaluation<'a> {
    /// The HPA's namespace.
    pub namespace: &'a str,
    /// The HPA's name.
    pub hpa: &'a str,
    /// The metric.
    pub metric: Metric,
    /// The metric's selector.
    pub selector: &'a Selector,
    /// Its value, or why it has none.
    pub outcome: Result<MetricValue, NoValueReason>,
}

/// Every metric of ours on every HPA, in the order of the targets.
#[must_use]
pub fn standings<'a>(
    targets: &'a Targets,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) -> Vec<MetricEvaluation<'a>> {
    standings_of(targets, snapshot, now, rules, |_, _| true)
}

/// The same, of those HPAs alone whose namespace and name are `wanted`.
#[must_use]
pub fn standings_of<'a>(
    targets: &'a Targets,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
    wanted: impl Fn(&Arc<str>, &Arc<str>) -> bool,
) -> Vec<MetricEvaluation<'a>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for target in &targets.all {
        let Some((namespace, name, question)) = MetricQuery::of(target) else {
            continue;
        };
        if !wanted(namespace, name) || !seen.insert((namespace, name, target.index)) {
            continue;
        }
        all.push(MetricEvaluation {
            namespace,
            hpa: name,
            metric: target.metric,
            selector: question.selector,
            outcome: answer(&question, snapshot, now, rules),
        });
    }
    all
}

/// Each HPA's ceiling, by namespace and name: the largest over its metrics of ours. An HPA of which
/// one is unknown has none: another metric might have allowed more.
#[must_use]
pub fn hpa_ceilings<'a>(standings: &[MetricEvaluation<'a>]) -> BTreeMap<(&'a str, &'a str), Limit> {
    let mut all: BTreeMap<(&str, &str), Option<Limit>> = BTreeMap::new();
    for standing in standings {
        let known = standing.outcome.as_ref().ok().and_then(|a| a.ceiling);
        let own = known.map(|ceiling| ceiling.replicas);
        all.entry((standing.namespace, standing.hpa))
            .and_modify(|so_far| {
                *so_far = so_far.zip(own).map(|(a, b)| a.max(b));
            })
            .or_insert(own);
    }
    let known = all.into_iter();
    known
        .filter_map(|(hpa, limit)| Some((hpa, limit?)))
        .collect()
}
