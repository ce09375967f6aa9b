//! Takes up policies after a restart.

use std::sync::Arc;

use super::rate_state::SweepTime;
use super::{FIRST_POLL, Observed, TargetPolicies};
use crate::model::evaluation::Evaluations;
use crate::model::evaluation::policy_outcome::{PolicyKey, PolicyOutcomes, policy_key};
use crate::model::units::newtypes::Moment;

impl TargetPolicies {
    /// Takes up what earlier processes have saved about targets, as soon as their groups are read and their HPAs are known.
    /// The next whole sweep may be some time away, and lag alone would move the replicas until then.
    pub fn resume(&mut self, evaluations: &Arc<Evaluations>, now: &Moment) -> Arc<Evaluations> {
        let default = evaluations.policy().scaling;
        let mut resumed = PolicyOutcomes::new();
        let saved: Vec<PolicyKey> = self.restored.keys().cloned().collect();
        for key in saved {
            let mut targets = evaluations.targets_of(&key.0);
            let found = targets.find(|(target, evaluation)| {
                policy_key(target).as_ref() == Some(&key)
                    && super::is_observed(target, default)
                    && evaluation.group.group.is_some()
            });
            let Some((target, evaluation)) = found else {
                continue;
            };
            let usual = self.polls.get(&target.key.cluster).copied();
            let time = SweepTime {
                now: self.seconds(now),
                poll: usual.map_or(FIRST_POLL, |(_, usual)| usual),
                wall: *now,
            };
            let observed = Observed {
                target,
                evaluation,
                evaluations,
                policy: target.settings.policy.unwrap_or(default),
                // The next whole sweep counts them.
                others: 0,
            };
            let (outcome, _) = self.observe(&key, &observed, time);
            resumed.extend(outcome.map(|outcome| (key, outcome)));
        }
        if resumed.is_empty() {
            return Arc::clone(evaluations);
        }
        let mut outcomes = PolicyOutcomes::clone(&self.outcomes);
        outcomes.extend(resumed);
        self.outcomes = Arc::new(outcomes);
        evaluations.with_outcomes(Arc::clone(&self.outcomes))
    }
}
