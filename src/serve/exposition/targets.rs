//! Writes the useful parallelism of groups, and the values and ceilings of HPAs.

use super::exported::ExportedGroups;
use super::sample::{Labels, ReaderGone, SampleStream, SampleValue};
use super::{families, in_cluster};
use crate::model::diagnostics::explain::policy::rule_label;
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{EvaluatedMetric, ValueRule};
use crate::model::policy::decision::RateTerms;
use crate::model::policy::drain::DrainCalibration;
use crate::model::policy::scaling_totals::ScalingTotals;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

/// Writes the useful parallelism of every group.
pub(super) async fn parallelism(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&families::GROUP_USEFUL_PARALLELISM);
    for group in exported.iter() {
        if let Some(useful) = snapshot.evaluations.parallelism(group.cluster, group.id) {
            let labels = in_cluster(group.cluster)
                .with("consumergroup", group.id.as_str())
                .with("rule", useful.rule.label());
            samples.sample(&labels, of_limit(useful.limit));
            samples.flush_if_full().await?;
        }
    }
    Ok(())
}

/// Writes the value, ceiling and fallback of every metric of an HPA.
pub(super) async fn targets(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    now: &Moment,
) -> Result<(), ReaderGone> {
    let evaluations = snapshot.at(now);
    // Values are computed again for each family, because keeping them would take more memory than a chunk.
    let metrics = evaluations.evaluated_metrics();
    let metrics = || {
        let values = metrics.iter().map(|m| evaluations.value(m.evaluation));
        metrics.iter().zip(values)
    };
    samples.family(&families::TARGET_VALUE);
    for (metric, outcome) in metrics() {
        if let Ok(answer) = outcome {
            let labels = labels(metric).with("rule", answer.rule.label());
            let value = SampleValue::Thousandths(answer.value.thousandths());
            samples.sample(&labels, value);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_DESIRED_REPLICAS);
    for (metric, outcome) in metrics() {
        if let Some(desired) = outcome.ok().and_then(|answer| answer.desired) {
            samples.sample(&labels(metric), desired);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_UNCAPPED_REPLICAS);
    for (metric, outcome) in metrics() {
        if let Some(uncapped) = outcome.ok().and_then(|answer| answer.uncapped) {
            samples.sample(&labels(metric), uncapped);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_CEILING);
    for (metric, outcome) in metrics() {
        if let Some(ceiling) = outcome.ok().and_then(|answer| answer.ceiling) {
            let labels = labels(metric).with("rule", ceiling.useful.rule.label());
            samples.sample(&labels, of_limit(ceiling.replicas));
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_FALLBACK);
    for (metric, outcome) in metrics() {
        let is_fallback = outcome.is_ok_and(|answer| answer.rule == ValueRule::Fallback);
        samples.sample(&labels(metric), is_fallback);
        samples.flush_if_full().await?;
    }
    Ok(())
}

/// Writes the results of the policies and holds of HPAs.
pub(super) async fn policies(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    now: &Moment,
) -> Result<(), ReaderGone> {
    let metrics = snapshot.at(now).evaluated_metrics();
    let with_policy = metrics.into_iter().filter_map(|metric| {
        let outcome = metric.evaluation.policy.as_deref()?;
        Some((metric, outcome))
    });
    // Only targets with a policy or a hold, which are usually few.
    let with_policy: Vec<_> = with_policy.collect();
    samples.family(&families::TARGET_RATE_REPLICAS);
    for (metric, outcome) in &with_policy {
        if let Some(rate) = &outcome.rate {
            let labels = labels(metric).with("rule", rule_label(rate.decision.rule));
            samples.sample(&labels, rate.replicas);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_LAG_REPLICAS);
    for (metric, _) in &with_policy {
        let measure = metric.evaluation.outcome.as_ref().ok();
        if let Some(by_lag) = measure.and_then(|measure| measure.served.desired) {
            samples.sample(&labels(metric), by_lag);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::TARGET_HELD_REPLICAS);
    for (metric, outcome) in &with_policy {
        let held = outcome.active_hold(now);
        if let Some(replicas) = held.and_then(|held| held.replicas) {
            samples.sample(&labels(metric), replicas);
            samples.flush_if_full().await?;
        }
    }
    type Estimate = fn(&RateTerms) -> f64;
    let estimates: [(_, Estimate); 3] = [
        (&families::TARGET_CAPACITY, |terms| terms.capacity),
        (&families::TARGET_PROJECTED_AGE_SECONDS, |terms| {
            terms.projected_age
        }),
        (&families::TARGET_COMMIT_INTERVAL_SECONDS, |terms| {
            terms.commit_interval
        }),
    ];
    for (family, estimate) in estimates {
        samples.family(family);
        for (metric, outcome) in &with_policy {
            let terms = outcome.rate.as_ref().and_then(|rate| rate.decision.terms);
            if let Some(terms) = terms {
                samples.sample(&labels(metric), SampleValue::Rounded(estimate(&terms)));
                samples.flush_if_full().await?;
            }
        }
    }
    samples.family(&families::TARGET_COST);
    for (metric, outcome) in &with_policy {
        let decision = outcome.rate.as_ref().map(|rate| &rate.decision);
        if let Some(compared) = decision.and_then(|decision| decision.against_all) {
            let (rate, all) = compared.costs();
            for (by, cost) in [("rate", rate), ("all_replicas", all)] {
                samples.sample(&labels(metric).with("by", by), SampleValue::Rounded(cost));
                samples.flush_if_full().await?;
            }
        }
    }
    type Judgement = fn(&DrainCalibration) -> f64;
    let judgements: [(_, Judgement); 3] = [
        (&families::TARGET_EXPECTED_DRAIN_SECONDS, |drain| {
            drain.expected
        }),
        (&families::TARGET_ACTUAL_DRAIN_SECONDS, |drain| drain.actual),
        (&families::TARGET_DRAINS_TOTAL, |drain| {
            f64::from(drain.count)
        }),
    ];
    for (family, judgement) in judgements {
        samples.family(family);
        for (metric, outcome) in &with_policy {
            let decision = outcome.rate.as_ref().map(|rate| &rate.decision);
            if let Some(drain) = decision.and_then(|decision| decision.drain) {
                samples.sample(&labels(metric), SampleValue::Rounded(judgement(&drain)));
                samples.flush_if_full().await?;
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
        samples.family(family);
        for (metric, outcome) in &with_policy {
            let Some(all) = outcome.rate.as_ref().and_then(|rate| rate.totals) else {
                continue;
            };
            for (by, totals) in [("rate", &all.rate), ("actual", &all.actual)] {
                let labels = labels(metric).with("by", by);
                samples.sample(&labels, SampleValue::Rounded(total(totals)));
                samples.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

fn labels(metric: &EvaluatedMetric<'_>) -> Labels {
    Labels::default()
        .with("namespace", &metric.hpa.namespace)
        .with("hpa", &metric.hpa.name)
        .with("metric", metric.metric.name())
        .with_text("selector", &metric.selector.to_string())
}

/// A limit as a sample.
fn of_limit(limit: Limit) -> SampleValue {
    match limit {
        Limit::Bounded(most) => most.into(),
        Limit::Unbounded => f64::INFINITY.into(),
    }
}
