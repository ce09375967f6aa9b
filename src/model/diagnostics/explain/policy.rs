//! Explains the result of the policy and the hold of a metric.

use serde::{Deserialize, Serialize};

use crate::model::evaluation::policy_outcome::{PolicyOutcome, RateOutcome, RecommendationTotals};
use crate::model::evaluation::{HpaMetric, policy_outcome};
use crate::model::policy::decision::{RateDecision, RateHold, RateHoldReason, RateRule, RateTerms};
use crate::model::policy::drain::DrainCalibration;
use crate::model::policy::requirement::ReplicaRequirement;
use crate::model::policy::static_comparison::StaticComparison;
use crate::model::settings::replica_hold::rfc3339;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::units::newtypes::Moment;

/// The policy and the hold of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyPart {
    /// The policy that is set.
    pub policy: ScalingPolicy,
    /// Replicas by the rate policy; `None` if it has no number.
    pub rate_replicas: Option<u32>,
    /// Replicas by the lag; `None` if it is unknown.
    pub lag_replicas: Option<u32>,
    /// Replicas that a hold keeps; `None` without a hold.
    pub held_replicas: Option<u32>,
    /// The derivation, as sentences.
    pub because: Vec<String>,
    /// The derivation in numbers, in members of the group. Times are in seconds since 1970.
    pub decision: Option<RateDecision>,
    /// Totals if the rate policy had been applied, while it is only recommended.
    pub totals: Option<RecommendationTotals>,
}

/// Explains the policy and the hold of a metric; `None` if it has neither.
pub(super) fn explain_policy(metric: &HpaMetric<'_>, now: &Moment) -> Option<Box<PolicyPart>> {
    let outcome = metric.evaluation.policy.as_deref()?;
    let by_lag = metric.evaluation.outcome.as_ref().ok();
    let by_lag = by_lag.and_then(|measure| measure.served.desired);
    let mut because = Vec::new();
    if outcome.policy != ScalingPolicy::Lag {
        because.push(describe_policy(outcome));
        because.extend(by_lag.map(|replicas| format!("by the lag: {}", replicas_of(replicas))));
        if let Some(rate) = &outcome.rate {
            describe_decision(rate, &mut because);
        }
    }
    let held = outcome.active_hold(now);
    because.extend(held.map(describe_hold));
    Some(Box::new(PolicyPart {
        policy: outcome.policy,
        rate_replicas: outcome.rate.as_ref().map(|rate| rate.replicas),
        lag_replicas: by_lag,
        held_replicas: held.and_then(|held| held.replicas),
        because,
        decision: outcome
            .rate
            .as_ref()
            .map(|rate| RateDecision::clone(&rate.decision)),
        totals: outcome.rate.as_ref().and_then(|rate| rate.totals),
    }))
}

/// The policy and the hold in a few words, for tables.
#[must_use]
pub fn summarize_policy(outcome: &PolicyOutcome, now: &Moment) -> Option<String> {
    if let Some(held) = outcome.active_hold(now) {
        let state = match held.replicas {
            Some(_) => "",
            None => " (no number yet)",
        };
        return Some(format!("hold: {}{state}", held.hold));
    }
    match (outcome.policy, &outcome.rate) {
        (ScalingPolicy::Lag, _) => None,
        (ScalingPolicy::Rate, Some(rate)) => Some(rule_label(rate.decision.rule).to_owned()),
        (ScalingPolicy::Recommend, Some(rate)) => {
            Some(format!("rate recommends {}", rate.replicas))
        }
        (_, None) => Some("no rate policy yet".to_owned()),
    }
}

fn describe_policy(outcome: &PolicyOutcome) -> String {
    let Some(rate) = &outcome.rate else {
        let why = outcome.unavailable.map(|reason| reason.to_string());
        let why = why.unwrap_or_else(|| "it is unknown".to_owned());
        return format!("rate policy: no number, so the lag decides: {why}");
    };
    let number = replicas_of(rate.replicas);
    let rule = describe_rule(rate.decision.rule);
    match outcome.policy {
        ScalingPolicy::Recommend => format!("rate policy recommends {number}: {rule}"),
        ScalingPolicy::Rate | ScalingPolicy::Lag => format!("rate policy: {number}: {rule}"),
    }
}

/// The name of a rule, for labels and tables.
#[must_use]
pub fn rule_label(rule: RateRule) -> &'static str {
    match rule {
        RateRule::Start => "start",
        RateRule::Resumed => "resumed",
        RateRule::Watching => "watching",
        RateRule::MissingOffsets => "missing_offsets",
        RateRule::Stalled => "stalled",
        RateRule::Keep => "keep",
        RateRule::Up => "up",
        RateRule::Claim => "claim",
        RateRule::Ineffective => "ineffective",
        RateRule::Down => "down",
        RateRule::Probe => "probe",
    }
}

/// Why a rule has decided, as a part of a sentence.
pub(in crate::model::diagnostics) fn describe_rule(rule: RateRule) -> &'static str {
    match rule {
        RateRule::Start => "it begins with the present number",
        RateRule::Resumed => {
            "the group was not observed since a restart or an edit of the metric, so it keeps the last number"
        }
        RateRule::Watching => "it observes the group and keeps the last number",
        RateRule::MissingOffsets => "offsets are unknown, so it keeps the last number",
        RateRule::Stalled => "there is lag and no member commits, so it keeps the last number",
        RateRule::Keep => "no rule asks for a change",
        RateRule::Up => "messages are or will be too old",
        RateRule::Claim => {
            "something else keeps more replicas, and the arrivals need this many of them"
        }
        RateRule::Ineffective => "the last step up did not help, so it goes back",
        RateRule::Down => "fewer have been enough for long enough",
        RateRule::Probe => "the capacity is unknown and one step down is harmless",
    }
}

/// Before the first backlog whose duration was compared.
const UNCALIBRATED: &str = "times to drain are not calibrated yet: no backlog of a minute or longer has come to its end while nothing else changed";

fn describe_decision(rate: &RateOutcome, lines: &mut Vec<String>) {
    let decision = &*rate.decision;
    if rate.threads.get() > 1 {
        lines.push(format!(
            "the numbers below are members, with {} in each replica",
            rate.threads
        ));
    }
    if let Some(terms) = &decision.terms {
        describe_terms(terms, rate, lines);
    }
    if let Some(up) = &decision.up {
        lines.push(format!("a step up needs {}", describe_requirement(up)));
    }
    if let Some(down) = &decision.down {
        let needed = if down.mean.replicas >= down.peak.replicas {
            &down.mean
        } else {
            &down.peak
        };
        lines.push(format!(
            "enough at present: {}",
            describe_requirement(needed)
        ));
    }
    if let Some(hold) = &decision.hold {
        lines.push(describe_rate_hold(hold));
    }
    if let Some(totals) = &rate.totals {
        lines.push(describe_totals(totals));
    }
    lines.extend(decision.against_all.as_ref().map(describe_comparison));
    match &decision.drain {
        Some(drain) => lines.push(describe_drain(drain)),
        None if decision.terms.is_some() => lines.push(UNCALIBRATED.to_owned()),
        None => {}
    }
}

fn describe_terms(terms: &RateTerms, rate: &RateOutcome, lines: &mut Vec<String>) {
    lines.push(format!(
        "arrivals per second: {:.1} over 20 s, {:.1} over 60 s, {:.1} over 180 s; {:.1} are consumed",
        terms.arrivals_fast, terms.arrivals_medium, terms.arrivals_slow, terms.consumption
    ));
    // The expected arrivals are those over 20 s, unless a rule changed them. A small difference is only noise.
    let (expected, fast) = (terms.arrivals_expected, terms.arrivals_fast);
    let margin = 0.05_f64.max(0.1 * fast);
    if expected > fast + margin {
        lines.push(format!(
            "arrivals that a step up has to carry: {expected:.1} per second, the newest ones, because they rise"
        ));
    } else if expected < fast - margin {
        lines.push(format!(
            "arrivals that a step up has to carry: {expected:.1} per second, the highest over 60 s in the last 15 minutes, because arrivals over 20 s were as high before"
        ));
    }
    let measured = match terms.is_capacity_known {
        true => "measured",
        false => "a lower bound",
    };
    lines.push(format!(
        "capacity of a member: {:.1} per second ({measured}); members: {}",
        terms.capacity, terms.members
    ));
    lines.push(format!(
        "backlog {:.0}, the oldest message waits for {:.0} s; in {:.0} s, when a change would take effect, for {:.0} s; the objective is {} s",
        terms.backlog,
        terms.age,
        terms.delay,
        terms.projected_age,
        rate.slo.as_secs()
    ));
    if terms.stuck_partitions > 0 {
        lines.push(format!(
            "stuck partitions, left out: {}",
            terms.stuck_partitions
        ));
    }
    if terms.hot_partition.is_some() {
        lines.push(
            "a partition gets more than one member processes: more partitions or a faster consumer help, more replicas do not"
                .to_owned(),
        );
    }
}

fn describe_requirement(required: &ReplicaRequirement) -> String {
    let candidates = required.candidates.iter().rev().take(3).rev();
    let candidates: Vec<_> = candidates
        .map(|candidate| {
            let verdict = match (candidate.is_enough, candidate.heaviest) {
                (true, _) => "enough".to_owned(),
                (false, Some(heaviest)) => {
                    format!("too few: the heaviest member would get {heaviest:.0}")
                }
                (false, None) => "too few".to_owned(),
            };
            format!(
                "{} for {:.0} of {:.0} per second ({verdict})",
                candidate.replicas, candidate.needed, candidate.capacity
            )
        })
        .collect();
    format!("{}: {}", required.replicas, candidates.join(", "))
}

fn describe_rate_hold(hold: &RateHold) -> String {
    let (why, end) = match hold.reason {
        RateHoldReason::PodsStarting => (
            "the pods of the last step up are starting",
            "15 % more arrivals end it",
        ),
        RateHoldReason::IneffectiveUp => (
            "a step up did not help",
            "20 % more arrivals or consumption end it",
        ),
        RateHoldReason::Rebalancing => (
            "the group is rebalancing",
            "the end of the rebalance ends it",
        ),
        RateHoldReason::HoldPrice => (
            "the saving is not worth a rebalance yet",
            "more arrivals or older messages end it",
        ),
        RateHoldReason::Damage => (
            "a burst made messages late, and with fewer replicas the next one would again",
            "time ends it",
        ),
        RateHoldReason::Age => (
            "messages are too old to step down",
            "younger messages end it",
        ),
        RateHoldReason::NotSettled => (
            "the members are not as many as the policy wants, or have changed within a minute",
            "a group at rest ends it",
        ),
    };
    let until = hold.until.map(|until| format!(" until {}", at(until)));
    let until = until.unwrap_or_default();
    format!("{} not yet{until}: {why}; {end}", hold.replicas)
}

fn describe_hold(held: &policy_outcome::HeldReplicas) -> String {
    let direction = held.hold.direction;
    let number = held.replicas.map(replicas_of);
    let bound = match (number, direction.is_up(), direction.is_down()) {
        (None, ..) => {
            "holds nothing yet, because neither the number to serve nor the replicas of the workload are known"
                .to_owned()
        }
        (Some(number), true, true) => format!("exactly {number}"),
        (Some(number), true, false) => format!("at most {number}"),
        (Some(number), false, _) => format!("at least {number}"),
    };
    match held.hold.until {
        Some(until) => format!("hold until {}: {bound}", rfc3339(until)),
        None => format!("hold until lagwise.dev/hold is removed: {bound}"),
    }
}

/// A part in percent.
fn format_share(share: Option<f64>) -> String {
    match share {
        Some(share) => format!("{:.2} %", share * 100.0),
        None => "unknown".to_owned(),
    }
}

fn describe_comparison(compared: &StaticComparison) -> String {
    let (policy, all) = (&compared.policy, &compared.all);
    let costs = compared.costs();
    format!(
        "over {:.1} h, the policy ran {:.0} % of the replicas that it may ask for, late {}; with all of them, late {}: a cost of {:.0} instead of {:.0}, at 5 for each percent of late messages and 0.2 for each change in 3 h",
        compared.seconds / 3600.0,
        policy.replica_percent(compared.members, compared.seconds),
        format_share(policy.late_share()),
        format_share(all.late_share()),
        costs.0,
        costs.1
    )
}

fn describe_drain(drain: &DrainCalibration) -> String {
    let mean = match drain.count {
        1 => String::new(),
        count => format!(
            "; over {count} backlogs, the expected times were {:.0} % off on average",
            drain.mean_error * 100.0
        ),
    };
    format!(
        "the last backlog was expected to be gone after {:.0} s, and was after {:.0} s, at {}{mean}",
        drain.expected,
        drain.actual,
        at(drain.at)
    )
}

fn describe_totals(totals: &RecommendationTotals) -> String {
    let (rate, actual) = (&totals.rate, &totals.actual);
    format!(
        "since {}: {:.0} replica-minutes instead of {:.0}, {} changes instead of {}, late {} instead of {}",
        at(totals.since),
        rate.replica_minutes,
        actual.replica_minutes,
        rate.changes,
        actual.changes,
        format_share(rate.late_share()),
        format_share(actual.late_share())
    )
}

/// A time in seconds since 1970.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides"
)]
fn at(seconds: f64) -> String {
    rfc3339(seconds.clamp(0.0, 1e11) as u64)
}

fn replicas_of(count: u32) -> String {
    match count {
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    }
}

#[cfg(test)]
mod tests;
