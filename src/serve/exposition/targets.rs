//! Writes the useful parallelism of groups, and the values and ceilings of HPAs.

use std::fmt::{self, Display};

use super::exported::ExportedGroups;
use super::text::{Labels, ScraperGone, TextWriter};
use super::{families, in_cluster};
use crate::model::diagnostics::explain::policy::rule_label;
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{EvaluatedMetric, ValueRule};
use crate::model::policy::decision::RateTerms;
use crate::model::policy::recommendation::ScalingTotals;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

/// Writes the useful parallelism of every group.
pub(super) async fn parallelism(
    text: &mut TextWriter,
    snapshot: &LagSnapshot,
    exported: &ExportedGroups<'_>,
) -> Result<(), ScraperGone> {
    text.family(&families::GROUP_USEFUL_PARALLELISM);
    for group in exported.iter() {
        if let Some(useful) = snapshot.evaluations.parallelism(group.cluster, group.id) {
            let labels = in_cluster(group.cluster)
                .with("consumergroup", group.id.as_str())
                .with("rule", useful.rule.label());
            text.sample(&labels, CeilingSample(useful.limit));
            text.flush_if_full().await?;
        }
    }
    Ok(())
}

/// Writes the value, ceiling and fallback of every metric of an HPA.
pub(super) async fn targets(
    text: &mut TextWriter,
    snapshot: &LagSnapshot,
    now: &Moment,
) -> Result<(), ScraperGone> {
    let evaluations = snapshot.at(now);
    // Values are computed again for each family, because keeping them would take more memory than a chunk.
    let metrics = evaluations.evaluated_metrics();
    let metrics = || {
        let values = metrics.iter().map(|m| evaluations.value(m.evaluation));
        metrics.iter().zip(values)
    };
    text.family(&families::TARGET_VALUE);
    for (metric, outcome) in metrics() {
        if let Ok(answer) = outcome {
            let labels = labels(metric).with("rule", answer.rule.label());
            let thousandths = answer.value.thousandths();
            let (units, rest) = (thousandths / 1000, thousandths % 1000);
            text.sample(&labels, format_args!("{units}.{rest:03}"));
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_DESIRED_REPLICAS);
    for (metric, outcome) in metrics() {
        if let Some(desired) = outcome.ok().and_then(|answer| answer.desired) {
            text.sample(&labels(metric), desired);
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_UNCAPPED_REPLICAS);
    for (metric, outcome) in metrics() {
        if let Some(uncapped) = outcome.ok().and_then(|answer| answer.uncapped) {
            text.sample(&labels(metric), uncapped);
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_CEILING);
    for (metric, outcome) in metrics() {
        if let Some(ceiling) = outcome.ok().and_then(|answer| answer.ceiling) {
            let labels = labels(metric).with("rule", ceiling.useful.rule.label());
            text.sample(&labels, CeilingSample(ceiling.replicas));
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_FALLBACK);
    for (metric, outcome) in metrics() {
        let is_fallback = outcome.is_ok_and(|answer| answer.rule == ValueRule::Fallback);
        text.sample(&labels(metric), u8::from(is_fallback));
        text.flush_if_full().await?;
    }
    Ok(())
}

/// Writes the results of the policies and holds of HPAs.
pub(super) async fn policies(
    text: &mut TextWriter,
    snapshot: &LagSnapshot,
    now: &Moment,
) -> Result<(), ScraperGone> {
    let metrics = snapshot.at(now).evaluated_metrics();
    let with_policy = metrics.into_iter().filter_map(|metric| {
        let outcome = metric.evaluation.policy.as_deref()?;
        Some((metric, outcome))
    });
    // Only targets with a policy or a hold, which are usually few.
    let with_policy: Vec<_> = with_policy.collect();
    text.family(&families::TARGET_RATE_REPLICAS);
    for (metric, outcome) in &with_policy {
        if let Some(rate) = &outcome.rate {
            let labels = labels(metric).with("rule", rule_label(rate.decision.rule));
            text.sample(&labels, rate.replicas);
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_LAG_REPLICAS);
    for (metric, _) in &with_policy {
        let measure = metric.evaluation.outcome.as_ref().ok();
        if let Some(by_lag) = measure.and_then(|measure| measure.served.desired) {
            text.sample(&labels(metric), by_lag);
            text.flush_if_full().await?;
        }
    }
    text.family(&families::TARGET_HELD_REPLICAS);
    for (metric, outcome) in &with_policy {
        let held = outcome.active_hold(now);
        if let Some(replicas) = held.and_then(|held| held.replicas) {
            text.sample(&labels(metric), replicas);
            text.flush_if_full().await?;
        }
    }
    type Estimate = fn(&RateTerms) -> f64;
    let estimates: [(_, Estimate); 2] = [
        (&families::TARGET_CAPACITY, |terms| terms.capacity),
        (&families::TARGET_PROJECTED_AGE_SECONDS, |terms| {
            terms.projected_age
        }),
    ];
    for (family, estimate) in estimates {
        text.family(family);
        for (metric, outcome) in &with_policy {
            let terms = outcome.rate.as_ref().and_then(|rate| rate.decision.terms);
            if let Some(terms) = terms {
                text.sample(&labels(metric), Rounded(estimate(&terms)));
                text.flush_if_full().await?;
            }
        }
    }
    type Total = fn(&ScalingTotals) -> f64;
    let totals: [(_, Total); 4] = [
        (&families::TARGET_REPLICA_MINUTES_TOTAL, |totals| {
            totals.replica_minutes
        }),
        (&families::TARGET_SCALE_CHANGES_TOTAL, |totals| {
            f64::from(totals.changes)
        }),
        (&families::TARGET_MESSAGES_TOTAL, |totals| totals.messages),
        (&families::TARGET_LATE_MESSAGES_TOTAL, |totals| {
            totals.late_messages
        }),
    ];
    for (family, total) in totals {
        text.family(family);
        for (metric, outcome) in &with_policy {
            let Some(all) = outcome.rate.as_ref().and_then(|rate| rate.totals) else {
                continue;
            };
            for (by, totals) in [("rate", &all.rate), ("actual", &all.actual)] {
                let labels = labels(metric).with("by", by);
                text.sample(&labels, Rounded(total(totals)));
                text.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

/// A number with three digits after the point.
struct Rounded(f64);

impl Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

fn labels(metric: &EvaluatedMetric<'_>) -> Labels {
    Labels::default()
        .with("namespace", &metric.hpa.namespace)
        .with("hpa", &metric.hpa.name)
        .with("metric", metric.metric.name())
        .with_text("selector", &metric.selector.to_string())
}

/// A limit as a sample.
struct CeilingSample(Limit);

impl Display for CeilingSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::Bounded(most) => most.fmt(f),
            Limit::Unbounded => f.write_str("+Inf"),
        }
    }
}
