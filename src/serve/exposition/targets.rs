//! Renders the useful parallelism of groups, and the values and ceilings of HPAs.

use std::fmt::{self, Display};

use super::text::{Labels, Text};
use super::{families, in_cluster};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{HpaMetric, ValueRule};
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

/// Renders the useful parallelism of every group.
pub(super) fn parallelism(text: &mut Text, snapshot: &LagSnapshot) {
    text.family(&families::GROUP_USEFUL_PARALLELISM);
    for (name, cluster) in &snapshot.clusters {
        for id in cluster.groups.keys() {
            if let Some(useful) = snapshot.evaluations.parallelism(name, id) {
                let labels = in_cluster(name)
                    .with("consumergroup", id.as_str())
                    .with("rule", useful.rule.label());
                text.sample(&labels, CeilingSeries(useful.limit));
            }
        }
    }
}

/// Renders the value, ceiling and fallback of every metric of an HPA.
pub(super) fn targets(text: &mut Text, snapshot: &LagSnapshot, now: &Moment) {
    let metrics = snapshot.at(now).hpa_metrics();
    let labelled = |metric: &HpaMetric<'_>| {
        Labels::default()
            .with("namespace", metric.namespace)
            .with("hpa", metric.hpa)
            .with("metric", metric.metric.name())
            .with("selector", &metric.selector.to_string())
    };
    text.family(&families::TARGET_VALUE);
    for metric in &metrics {
        if let Ok(answer) = &metric.outcome {
            let labels = labelled(metric).with("rule", answer.rule.label());
            let thousandths = answer.value.thousandths();
            let (units, rest) = (thousandths / 1000, thousandths % 1000);
            text.sample(&labels, format_args!("{units}.{rest:03}"));
        }
    }
    text.family(&families::TARGET_DESIRED_REPLICAS);
    for metric in &metrics {
        let known = metric.outcome.as_ref().ok();
        if let Some(desired) = known.and_then(|answer| answer.desired) {
            text.sample(&labelled(metric), desired);
        }
    }
    text.family(&families::TARGET_CEILING);
    for metric in &metrics {
        if let Some(ceiling) = metric.outcome.as_ref().ok().and_then(|a| a.ceiling) {
            let labels = labelled(metric).with("rule", ceiling.useful.rule.label());
            text.sample(&labels, CeilingSeries(ceiling.replicas));
        }
    }
    text.family(&families::TARGET_FALLBACK);
    for metric in &metrics {
        let is_fallback = |rule| rule == ValueRule::Fallback;
        let served = metric.outcome.as_ref().map(|answer| answer.rule);
        text.sample(&labelled(metric), u8::from(served.is_ok_and(is_fallback)));
    }
}

/// A limit as a sample.
struct CeilingSeries(Limit);

impl Display for CeilingSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::Bounded(most) => most.fmt(f),
            Limit::Unbounded => f.write_str("+Inf"),
        }
    }
}
