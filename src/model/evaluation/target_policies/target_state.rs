//! The policy and the hold of one target, from sweep to sweep.

use std::sync::Arc;

use super::Buffers;
use super::observed_target::ObservedTarget;
use super::rate_state::{RateState, SweepTime};
use super::restored_policy::RestoredPolicy;
use crate::model::evaluation::policy_outcome::{
    HeldReplicas, PolicyOutcome, RateOutcome, RateUnavailable,
};
use crate::model::settings::replica_hold::ReplicaHold;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::{GroupKey, Target};

/// The policy and the hold of one target.
#[derive(Debug)]
pub(super) struct TargetState {
    pub(super) group: GroupKey,
    /// Position of the metric among the External metrics of its HPA.
    pub(super) index: usize,
    pub(super) rate: Option<Box<RateState>>,
    /// Whether the members of the group change, or are about to. A copy of what `rate` knows: each plan asks for it,
    /// and `rate` is large.
    pub(super) is_changing: bool,
    pub(super) held: Option<HeldReplicas>,
    /// The last sweep that found the target.
    pub(super) seen_in: u64,
}

impl TargetState {
    pub(super) fn new(target: &Target, known: Option<&RestoredPolicy>, now: f64) -> Self {
        let group = (target.key.cluster.clone(), target.key.group.clone());
        let known = known
            .filter(|known| known.cluster == group.0 && known.policy.group == group.1.as_str());
        let held = known.and_then(|known| known.policy.held);
        Self {
            rate: known
                .and_then(|known| RateState::restored(&known.policy, known.observed_at, now)),
            is_changing: false,
            held: held.map(|(hold, replicas)| HeldReplicas {
                hold,
                replicas: Some(replicas),
            }),
            group,
            index: target.index,
            seen_in: 0,
        }
    }

    /// Partitions that its policy has estimates of.
    pub(super) fn partition_count(&self) -> usize {
        let rate = self.rate.as_ref();
        rate.map_or(0, |rate| rate.partition_count())
    }

    /// Whether its policy has a recent number, which `outcome` lacks because the group or its members could not be read.
    pub(super) fn has_unserved_number(&self, outcome: &PolicyOutcome, now: f64) -> bool {
        let (Some(reason), None) = (&outcome.unavailable, &outcome.rate) else {
            return false;
        };
        // While Kafka does not answer, the members are unknown, too.
        let is_unread = matches!(
            reason,
            RateUnavailable::NotObserved | RateUnavailable::NoOwners
        );
        let rate = self.rate.as_ref().filter(|_| is_unread);
        rate.is_some_and(|rate| rate.has_recent_number(now))
    }

    fn release_estimates(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.release_estimates();
        }
    }

    /// Starts over if the HPA now uses another group, because the rates of the former group do not apply to it. The
    /// hold stays.
    pub(super) fn follow_target(&mut self, target: &Target) {
        self.index = target.index;
        if self.group.0 != target.key.cluster || self.group.1 != target.key.group {
            self.group = (target.key.cluster.clone(), target.key.group.clone());
            (self.rate, self.is_changing) = (None, false);
        }
    }

    pub(super) fn observe(
        &mut self,
        observed: &ObservedTarget<'_>,
        before: Option<&Arc<PolicyOutcome>>,
        time: SweepTime,
        buffers: &mut Buffers,
    ) -> Arc<PolicyOutcome> {
        let policy = observed.policy;
        let hold = observed.target.settings.hold;
        let hold = hold.filter(|hold| hold.is_active(time.wall.wall));
        // A hold that replaces another one, perhaps with a later end, keeps its number.
        let held = self.held.filter(|held| held.hold.is_active(time.wall.wall));
        self.held = held
            .zip(hold)
            .map(|(held, hold)| HeldReplicas { hold, ..held });
        let mut outcome = PolicyOutcome {
            policy,
            rate: None,
            unavailable: None,
            hold: None,
        };
        if policy == ScalingPolicy::Lag {
            self.rate = None;
        } else {
            let decided = match observed.check() {
                Err(reason) => self
                    .last_outcome_while_undescribed(observed, time)
                    .ok_or(reason),
                Ok(()) => {
                    let before = before.and_then(|before| before.rate.as_ref());
                    let decided = self.decide(observed, before, time, buffers);
                    decided.ok_or(RateUnavailable::NotObserved)
                }
            };
            (outcome.rate, outcome.unavailable) = match decided {
                Ok(rate) => (Some(rate), None),
                Err(reason) => (None, Some(reason)),
            };
        }
        self.is_changing = self.rate.as_ref().is_some_and(|rate| rate.is_changing());
        if let Some(hold) = hold {
            self.hold(hold, &mut outcome, observed);
        }
        match before.filter(|before| ***before == outcome) {
            Some(before) => Arc::clone(before),
            None => Arc::new(outcome),
        }
    }

    fn decide(
        &mut self,
        observed: &ObservedTarget<'_>,
        before: Option<&RateOutcome>,
        time: SweepTime,
        buffers: &mut Buffers,
    ) -> Option<RateOutcome> {
        let bounds = observed.bounds(self.held.as_ref());
        match bounds {
            Some(bounds) if observed.is_swept => {
                let rate = self
                    .rate
                    .get_or_insert_with(|| Box::new(RateState::begin(time.now)));
                rate.observe(observed, bounds, time, buffers)
            }
            Some(bounds) if before.is_none() => {
                let rate = self.rate.as_mut()?;
                rate.keep(observed, bounds, time.now)
            }
            // Nothing was ever read completely.
            None if observed.is_swept => {
                self.release_estimates();
                before.cloned()
            }
            _ => before.cloned(),
        }
    }

    /// The last number of a policy that cannot decide only because the members of the group are not described yet.
    /// Otherwise lag would change the replicas until they are.
    fn last_outcome_while_undescribed(
        &mut self,
        observed: &ObservedTarget<'_>,
        time: SweepTime,
    ) -> Option<RateOutcome> {
        self.release_estimates();
        let is_rejected = observed.check() != Err(RateUnavailable::NoOwners);
        if is_rejected || observed.is_described() {
            return None;
        }
        let bounds = observed.bounds(self.held.as_ref())?;
        let rate = self.rate.as_mut()?;
        rate.keep(observed, bounds, time.now)
    }

    /// Changes the number that a hold keeps, in the direction that the hold allows.
    fn hold(
        &mut self,
        hold: ReplicaHold,
        outcome: &mut PolicyOutcome,
        observed: &ObservedTarget<'_>,
    ) {
        let measure = observed.evaluation.metric.outcome.as_ref().ok();
        let by_lag = measure.and_then(|measure| measure.served.desired);
        let rate = outcome.served_rate().map(|rate| rate.replicas);
        let served = by_lag.map(|by_lag| rate.unwrap_or(by_lag));
        let running = observed.running_replicas();
        // The hold does not begin with zero replicas only because there is no lag at the moment, or the lag is unknown.
        let initial = match served {
            Some(1..) => served,
            Some(0) => running.or(served),
            // The metric has no lag per replica.
            None if measure.is_some() => None,
            None => running,
        };
        let held = self.held.filter(|held| held.replicas.is_some());
        let held = held.unwrap_or(HeldReplicas {
            hold,
            replicas: initial,
        });
        // Unknown lag changes nothing.
        let moved = served.map_or(held, |served| held.follow(served, running));
        self.held = Some(moved);
        outcome.hold = self.held;
    }
}
