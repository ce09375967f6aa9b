//! Events about decisions of the rate policy.

use super::explain::policy::describe_rule;
use super::hpa_events::{EventReason, HpaEvent};
use super::rate_change::RateChange;
use crate::model::evaluation::Evaluations;
use crate::model::evaluation::policy_outcome::PolicyOutcome;
use crate::model::policy::decision::{RateDecision, RateRule};
use crate::model::settings::scaling_policy::ScalingPolicy;

/// The events about numbers of replicas that were decided between two snapshots.
#[must_use]
pub fn policy_events(before: &Evaluations, after: &Evaluations) -> Vec<HpaEvent> {
    let mut events = Vec::new();
    before.diff_outcomes(after, |hpa, old, new| {
        let change = old.zip(new).and_then(|(old, new)| find_change(old, new));
        events.extend(change.map(|change| HpaEvent {
            hpa: hpa.clone(),
            reason: EventReason::ScaleAdvice(change),
        }));
    });
    events
}

/// The change of the number, if the policy has decided on one.
fn find_change(before: &PolicyOutcome, after: &PolicyOutcome) -> Option<RateChange> {
    let (old, new) = before.rate.as_ref().zip(after.rate.as_ref())?;
    let has_decided = old.replicas != new.replicas && is_change(new.decision.rule);
    has_decided.then(|| RateChange {
        from: old.replicas,
        to: new.replicas,
        is_served: after.policy == ScalingPolicy::Rate,
        because: describe_reason(&new.decision),
    })
}

/// Whether the rule decides on another number. A number may also change because its bounds did.
fn is_change(rule: RateRule) -> bool {
    match rule {
        RateRule::Up
        | RateRule::Claim
        | RateRule::Ineffective
        | RateRule::Down
        | RateRule::Probe => true,
        RateRule::Start
        | RateRule::Resumed
        | RateRule::Watching
        | RateRule::MissingOffsets
        | RateRule::Stalled
        | RateRule::Keep => false,
    }
}

fn describe_reason(decision: &RateDecision) -> String {
    let rule = describe_rule(decision.rule);
    let Some(terms) = &decision.terms else {
        return rule.to_owned();
    };
    let at_least = if terms.is_capacity_known {
        ""
    } else {
        "at least "
    };
    format!(
        "{rule}; {:.1} messages per second arrive, a member processes {at_least}{:.1}, and the oldest message waits for {:.0} s",
        terms.arrivals_fast, terms.capacity, terms.age
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::evaluation::policy_outcome::RateOutcome;
    use crate::model::policy::decision::RateTerms;

    fn outcome(policy: ScalingPolicy, replicas: u32, rule: RateRule) -> PolicyOutcome {
        let decision = RateDecision {
            replicas,
            before: replicas,
            rule,
            terms: Some(RateTerms {
                arrivals_fast: 21.0,
                capacity: 5.5,
                age: 12.0,
                ..RateTerms::default()
            }),
            up: None,
            down: None,
            hold: None,
            against_all: None,
            drain: None,
        };
        PolicyOutcome {
            policy,
            rate: Some(RateOutcome {
                replicas,
                decision: Arc::new(decision),
                threads: NonZeroU32::MIN,
                slo: Duration::from_secs(60),
                is_idle: false,
                totals: None,
            }),
            unavailable: None,
            hold: None,
        }
    }

    #[test]
    fn a_decided_number_is_a_change_with_its_reason() {
        let before = outcome(ScalingPolicy::Rate, 4, RateRule::Keep);
        let after = outcome(ScalingPolicy::Rate, 6, RateRule::Up);
        let expected = RateChange {
            from: 4,
            to: 6,
            is_served: true,
            because: "messages are or will be too old; 21.0 messages per second arrive, a member processes at least 5.5, and the oldest message waits for 12 s".into(),
        };
        assert_eq!(find_change(&before, &after), Some(expected));
        let recommended = outcome(ScalingPolicy::Recommend, 3, RateRule::Down);
        let change = find_change(&before, &recommended).unwrap();
        assert_eq!((change.to, change.is_served), (3, false));
    }

    #[test]
    fn the_same_number_and_other_bounds_are_no_decisions() {
        let before = outcome(ScalingPolicy::Rate, 4, RateRule::Up);
        for after in [
            outcome(ScalingPolicy::Rate, 4, RateRule::Up),
            outcome(ScalingPolicy::Rate, 2, RateRule::Keep),
            outcome(ScalingPolicy::Rate, 6, RateRule::Resumed),
            PolicyOutcome {
                rate: None,
                ..outcome(ScalingPolicy::Rate, 6, RateRule::Up)
            },
        ] {
            assert_eq!(find_change(&before, &after), None, "{after:?}");
        }
    }
}
