//! The verdict of an explanation: one sentence on how the replicas will change, and why.

use super::{Derivation, Explanation, GroupPart, Outcome};
use crate::model::evaluation::ValueRule;
use crate::model::units::counted::counted;
use crate::model::units::quantity::Milli;

/// Sums up an explanation in one sentence.
#[must_use]
pub(super) fn verdict(explanation: &Explanation) -> String {
    let subject = &explanation.of;
    if explanation.metrics.is_empty() {
        return format!("{subject}: lagwise serves none of its metrics; the findings say why");
    }
    let is_hpa = explanation.metrics.iter().any(|m| !m.metric.is_empty());
    let groups = explanation.metrics.first();
    let group = groups.and_then(|metric| metric.groups.first());
    match (&explanation.outcome, group) {
        (None, Some(group)) if !is_hpa => format!("{subject} {}", about_group(group)),
        (None, _) => format!("{subject}: {}", about_value(explanation)),
        (Some(outcome), _) => format!("{subject} {}", about_replicas(explanation, outcome)),
    }
}

fn about_group(group: &GroupPart) -> String {
    if let Some(unknown) = &group.unknown {
        return format!("has an unknown lag: {unknown}");
    }
    let lag = group.lag.unwrap_or_default();
    let useful = match group.useful_parallelism {
        Some(useful) => format!("at most {}", counted(useful, "member")),
        None => "any number of members".to_owned(),
    };
    let members = match group.members {
        Some(members) => format!("; it has {members}"),
        None => String::new(),
    };
    format!("has lag {lag}, and {useful} can have work{members}")
}

/// The value of the decisive metric, for an explanation without the HPA controller's part.
fn about_value(explanation: &Explanation) -> String {
    match decisive(explanation) {
        Some(metric) if metric.refusal.is_some() => {
            // Another metric, perhaps one that lagwise does not serve, may still raise them.
            format!(
                "its replicas stay, unless another metric raises them, since {}",
                reason(metric)
            )
        }
        Some(metric) => reason(metric),
        None => "none of its metrics has a group".to_owned(),
    }
}

fn about_replicas(explanation: &Explanation, outcome: &Outcome) -> String {
    let because = outcome.because.join("; ");
    let (Some(spec), Some(now), Some((low, high))) =
        (outcome.spec_replicas, outcome.status_replicas, outcome.next)
    else {
        return format!("has an unknown number of replicas: {because}");
    };
    // Where the HPA itself scaled to zero, its metrics are the reason.
    if spec == 0 && high == 0 && !because.is_empty() {
        let state = match outcome.asleep_since {
            Some(_) => "sleeps",
            None => "stays at 0 replicas",
        };
        return format!("{state}: {because}");
    }
    let effect = match (low, high) {
        _ if low == now && high == now => format!("stays at {}", counted(now, "replica")),
        _ if low == high => format!(
            "goes from {now} to {} at the next sync",
            counted(low, "replica")
        ),
        _ => format!(
            "has {} and gets between {low} and {high} at the next sync",
            counted(now, "replica")
        ),
    };
    // A metric that is an error keeps the HPA from scaling down, but not another metric from scaling up.
    let raising = largest(explanation).filter(|_| low > now);
    let metric = raising.or_else(|| decisive(explanation));
    let mut reasons: Vec<String> = metric.map(reason).into_iter().collect();
    if low == high {
        reasons.extend(outcome.because.iter().cloned());
    }
    format!("{effect}: {}", reasons.join("; "))
}

/// The metric that decides: one without a value, otherwise the one that proposes the most replicas.
fn decisive(explanation: &Explanation) -> Option<&Derivation> {
    let mut metrics = explanation.metrics.iter();
    let refused = metrics.find(|metric| metric.refusal.is_some());
    refused.or_else(|| largest(explanation))
}

/// The metric with a value that proposes the most replicas.
fn largest(explanation: &Explanation) -> Option<&Derivation> {
    let metrics = explanation.metrics.iter();
    let valued = metrics.filter(|metric| metric.refusal.is_none());
    valued.max_by_key(|metric| metric.desired_replicas)
}

/// Why a metric proposes what it does.
fn reason(metric: &Derivation) -> String {
    if let Some(refusal) = &metric.refusal {
        return format!("its metric {} is an error: {refusal}", metric.metric);
    }
    let because = metric.because.as_deref().unwrap_or("unknown");
    match (metric.rule, metric.lag, metric.lag_per_replica) {
        (
            Some(ValueRule::AsMeasured | ValueRule::Clamped | ValueRule::Lifted | ValueRule::Even),
            Some(lag),
            Some(per),
        ) => worth(metric, lag, per),
        (Some(ValueRule::Rate), ..) => policy_reason(metric).unwrap_or_else(|| because.to_owned()),
        _ => format!("{} is {because}", metric.metric),
    }
}

/// The first sentence of the derivation of the policy.
fn policy_reason(metric: &Derivation) -> Option<String> {
    metric.policy.as_ref()?.because.first().cloned()
}

fn worth(metric: &Derivation, lag: u64, per: Milli) -> String {
    let Some(worth) = metric.uncapped_replicas else {
        return format!("lag {lag} at {per} a replica");
    };
    let text = format!(
        "lag {lag} at {per} a replica is worth {}",
        counted(worth, "replica")
    );
    match metric.ceiling {
        Some(ceiling) if metric.at_ceiling.is_some() => {
            format!("{text}, limited to the replica ceiling {ceiling}")
        }
        _ => text,
    }
}
