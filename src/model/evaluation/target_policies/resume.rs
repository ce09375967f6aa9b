//! Resumes policies and holds between two sweeps: after a restart, and after an edit of an HPA.

use std::sync::Arc;

use super::rate_state::SweepTime;
use super::{FIRST_POLL, ObservedTarget, TargetPolicies, is_observed};
use crate::model::evaluation::Evaluations;
use crate::model::evaluation::policy_outcome::policy_key;
use crate::model::units::newtypes::Moment;

impl TargetPolicies {
    /// Resumes the policies and holds of targets that are new or edited, or of which an earlier process has saved
    /// state, as soon as their groups are read. The next whole sweep may be some time away, and lag alone would change
    /// the replicas until then. Rates are observed only in whole sweeps.
    ///
    /// The cost depends on what has changed since the last call.
    pub fn resume(&mut self, evaluations: &Arc<Evaluations>, now: &Moment) -> Arc<Evaluations> {
        let default = evaluations.policy().scaling;
        let seconds = self.seconds(now);
        self.find_changes(evaluations, seconds);
        for key in std::mem::take(&mut self.awaited) {
            let mut targets = evaluations.targets_of(&key.1);
            let found = targets.find(|(target, _)| {
                policy_key(target).as_ref() == Some(&key) && is_observed(target, default)
            });
            let Some((target, evaluation)) = found else {
                self.outcomes.remove(&key);
                continue;
            };
            if evaluation.group.group.is_none() {
                self.awaited.insert(key);
                continue;
            }
            let usual = self.polls.get(&target.key.cluster).copied();
            let time = SweepTime {
                now: seconds,
                poll: usual.map_or(FIRST_POLL, |(_, usual)| usual),
                wall: *now,
            };
            let facts = evaluations.targets().facts().get(&key.1);
            let observed = ObservedTarget {
                target,
                evaluation,
                evaluations,
                facts: facts.map(|facts| &**facts),
                policy: target.settings.policy.unwrap_or(default),
                // The next whole sweep counts them.
                others: 0,
                is_swept: false,
            };
            let result = self.observe(&key, &observed, time);
            let outcome = result.outcome;
            let before = self.outcomes.get(&key);
            if result.has_unserved_number {
                self.awaited.insert(key.clone());
            }
            let is_same = |outcome: &Arc<_>| before.is_some_and(|b| Arc::ptr_eq(b, outcome));
            if !is_same(&outcome) {
                self.outcomes.insert(key, outcome);
            }
        }
        Arc::clone(evaluations).with_outcomes(&self.outcomes)
    }

    /// Finds the targets that changed since the last call, and gives them their states. Removes outcomes of metrics
    /// that no longer have a policy or hold.
    fn find_changes(&mut self, evaluations: &Evaluations, now: f64) {
        let default = evaluations.policy().scaling;
        let targets = evaluations.targets();
        let seen = std::mem::replace(&mut self.seen, targets.by_query().clone());
        let (mut changed, mut ended) = (Vec::new(), Vec::new());
        seen.diff_by(&self.seen, Arc::ptr_eq, |_, before, after| {
            for target in before.into_iter().chain(after).flat_map(|all| all.iter()) {
                ended.extend(policy_key(target));
            }
            let after = after.into_iter().flat_map(|targets| targets.iter());
            changed.extend(after.filter(|target| is_observed(target, default)).cloned());
        });
        for target in &changed {
            if let Some(key) = policy_key(target) {
                self.ensure_state(&key, target, targets, now);
                self.awaited.insert(key);
            }
        }
        for key in ended {
            if !self.awaited.contains(&key) {
                self.outcomes.remove(&key);
            }
        }
    }
}
