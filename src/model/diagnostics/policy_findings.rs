//! Findings about the policy and the hold of a metric.

use crate::model::evaluation::policy_outcome::{PolicyOutcome, RateOutcome, RateUnavailable};
use crate::model::evaluation::{HpaMetric, ValueRule};
use crate::model::findings::{Finding, FindingCode};
use crate::model::policy::decision::RateHoldReason;
use crate::model::units::hpa_key::HpaKey;

/// Finds what keeps the rate policy of a metric from deciding, what more replicas do not help, late messages that cost
/// more than the policy saves, and a hold that keeps replicas from changing.
pub fn find_in_policy(metric: &HpaMetric<'_>) -> Vec<Finding> {
    let Some(outcome) = metric.evaluation.policy.as_deref() else {
        return Vec::new();
    };
    let value = metric.outcome.as_ref().ok();
    let is_held = value.is_some_and(|value| value.rule == ValueRule::Held);
    let mut found = Vec::new();
    let mut note = |code, message: String| {
        let hpa = HpaKey::new(metric.namespace, metric.hpa);
        found.push(Finding::new(code, &hpa, message));
    };
    if let Some(reason) = lasting_reason(outcome) {
        let message = format!(
            "the rate policy is set, but lag decides: {reason} (metric {} of {})",
            metric.metric.name(),
            metric.selector
        );
        note(FindingCode::PolicyUnavailable, message);
    }
    if let Some(message) = outcome.rate.as_ref().and_then(|rate| {
        let terms = rate.decision.terms.as_ref();
        let hold = rate.decision.hold.as_ref();
        if terms.is_some_and(|terms| terms.hot_partition.is_some()) {
            Some("a partition gets more messages than one member processes")
        } else if hold.is_some_and(|hold| hold.reason == RateHoldReason::IneffectiveUp) {
            Some("the last step up did not make the group faster")
        } else {
            None
        }
    }) {
        note(FindingCode::MoreReplicasNoHelp, message.to_owned());
    }
    if let Some(message) = outcome.rate.as_ref().and_then(describe_cheaper) {
        note(FindingCode::AllReplicasCheaper, message);
    }
    if let Some(held) = outcome.hold.as_ref().filter(|_| is_held)
        && let Some(replicas) = held.replicas
    {
        let message = format!(
            "lagwise.dev/hold: {:?} keeps the number of replicas at {replicas}",
            held.hold.to_string(),
        );
        note(FindingCode::ReplicasHeld, message);
    }
    found
}

/// Says that all replicas would cost less, if they would.
fn describe_cheaper(rate: &RateOutcome) -> Option<String> {
    let compared = rate.decision.against_all.as_ref();
    let compared = compared.filter(|compared| compared.is_all_cheaper)?;
    let replicas = compared.members.div_ceil(rate.threads.get());
    Some(format!(
        "always running {replicas} replicas would cost less than the rate policy: too many messages are older than {} s when they are processed",
        rate.slo.as_secs()
    ))
}

/// Why the rate policy cannot decide, if that does not pass by itself.
fn lasting_reason(outcome: &PolicyOutcome) -> Option<RateUnavailable> {
    let reason = outcome.unavailable;
    reason.filter(|reason| !matches!(reason, RateUnavailable::NotObserved))
}
