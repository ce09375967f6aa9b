//! Useful parallelism of groups, values and ceilings of targets.

use std::fmt::{self, Display};

use super::text::{Labels, Text};
use super::{families, in_cluster};
use crate::model::evaluation::metric_evaluation::{MetricEvaluation, standings};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::topic_selection::whole_parallelism;
use crate::model::evaluation::{ServingPolicy, ValueRule};
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

/// What bounds each group's members.
pub(super) fn parallelism(text: &mut Text, snapshot: &LagSnapshot) {
    text.family(&families::GROUP_USEFUL_PARALLELISM);
    for (name, cluster) in &snapshot.clusters {
        for (id, group) in &cluster.groups {
            if let Some(useful) = whole_parallelism(group) {
                let labels = in_cluster(name)
                    .with("consumergroup", id.as_str())
                    .with("rule", useful.rule.label());
                text.sample(&labels, CeilingSeries(useful.limit));
            }
        }
    }
}

/// Where each HPA's metric stands.
pub(super) fn targets(
    text: &mut Text,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) {
    let standings = standings(&snapshot.targets, snapshot, now, rules);
    let labelled = |standing: &MetricEvaluation<'_>| {
        Labels::default()
            .with("namespace", standing.namespace)
            .with("hpa", standing.hpa)
            .with("metric", standing.metric.name())
            .with("selector", &standing.selector.to_string())
    };
    text.family(&families::TARGET_VALUE);
    for standing in &standings {
        if let Ok(answer) = &standing.outcome {
            let labels = labelled(standing).with("rule", answer.rule.label());
            let thousandths = answer.value.thousandths();
            let (units, rest) = (thousandths / 1000, thousandths % 1000);
            text.sample(&labels, format_args!("{units}.{rest:03}"));
        }
    }
    text.family(&families::TARGET_DESIRED_REPLICAS);
    for standing in &standings {
        let known = standing.outcome.as_ref().ok();
        if let Some(desired) = known.and_then(|answer| answer.desired) {
            text.sample(&labelled(standing), desired);
        }
    }
    text.family(&families::TARGET_CEILING);
    for standing in &standings {
        if let Some(ceiling) = standing.outcome.as_ref().ok().and_then(|a| a.ceiling) {
            let labels = labelled(standing).with("rule", ceiling.useful.rule.label());
            text.sample(&labels, CeilingSeries(ceiling.replicas));
        }
    }
    text.family(&families::TARGET_FALLBACK);
    for standing in &standings {
        let is_fallback = |rule| rule == ValueRule::Fallback;
        let served = standing.outcome.as_ref().map(|answer| answer.rule);
        text.sample(&labelled(standing), u8::from(served.is_ok_and(is_fallback)));
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
