//! The policies and holds of targets, from sweep to sweep. Targets without either have no state here.

mod group_reading;
mod rate_state;
mod resume;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::group_reading::ReadingBounds;
use self::rate_state::{RateState, SweepTime};
use self::saved::RestoredPolicy;
use super::evaluations::TargetEvaluation;
use super::policy_outcome::{
    HeldReplicas, PolicyKey, PolicyOutcome, PolicyOutcomes, RateUnavailable, policy_key,
};
use super::{Evaluations, MetricEvaluation};
use crate::model::hpa::facts::min_replicas;
use crate::model::lag::history::clock::Timeline;
use crate::model::policy::PolicyScratch;
use crate::model::policy::reading::GroupPartition;
use crate::model::settings::By;
use crate::model::settings::replica_hold::ReplicaHold;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::{GroupKey, Target};
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment};

/// Longest time between two sweeps that counts as the usual one.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// Time between two sweeps before two were seen.
const FIRST_POLL: Duration = Duration::from_secs(5);

/// The policies and holds of all targets that have one. Owned by the poller.
#[derive(Debug, Default)]
pub struct TargetPolicies {
    states: BTreeMap<PolicyKey, TargetState>,
    /// What earlier processes have saved about targets that were not observed since.
    restored: BTreeMap<PolicyKey, RestoredPolicy>,
    outcomes: Arc<PolicyOutcomes>,
    timeline: Timeline,
    polls: BTreeMap<ClusterName, (Moment, Duration)>,
    buffers: Buffers,
    /// Whether a policy has decided for another number since the last export.
    is_unsaved: bool,
}

/// Buffers that all targets share.
#[derive(Debug, Default)]
struct Buffers {
    policy: PolicyScratch,
    partitions: Vec<GroupPartition>,
}

/// The policy and the hold of one target.
#[derive(Debug)]
struct TargetState {
    group: GroupKey,
    rate: Option<Box<RateState>>,
    held: Option<HeldReplicas>,
}

impl TargetPolicies {
    /// Observes what a sweep of a cluster read, and decides. Returns the evaluations with the outcomes.
    pub fn observe_sweep(
        &mut self,
        cluster: &ClusterName,
        evaluations: &Arc<Evaluations>,
        started: &Moment,
    ) -> Arc<Evaluations> {
        let default = evaluations.policy().scaling;
        let targets = evaluations.targets().of_hpas();
        let mut wanted = targets
            .filter(|target| is_observed(target, default))
            .peekable();
        if wanted.peek().is_none() && self.states.is_empty() {
            return Arc::clone(evaluations);
        }
        let time = self.time(cluster, started);
        let mut outcomes = PolicyOutcomes::new();
        let mut seen = BTreeSet::new();
        // Partitions that policies of a namespace observe, by group.
        let mut in_use: BTreeMap<(&str, &GroupId), usize> = BTreeMap::new();
        for (target, evaluation) in evaluations.with_evaluations(wanted) {
            let Some(key) = policy_key(target) else {
                continue;
            };
            // A metric has a target for each of its groups.
            if !seen.insert(key.clone()) {
                continue;
            }
            let namespace = target.hpa().map_or("", |hpa| &*hpa.namespace);
            let outcome = if target.key.cluster == *cluster {
                let others = in_use.entry((namespace, &target.key.group)).or_default();
                let observed = Observed {
                    target,
                    evaluation,
                    evaluations,
                    policy: target.settings.policy.unwrap_or(default),
                    others: *others,
                };
                let (outcome, count) = self.observe(&key, &observed, time);
                *others = others.saturating_add(count);
                outcome
            } else {
                self.outcomes.get(&key).cloned()
            };
            outcomes.extend(outcome.map(|outcome| (key, outcome)));
        }
        self.states.retain(|key, _| seen.contains(key));
        self.outcomes = Arc::new(outcomes);
        evaluations.with_outcomes(Arc::clone(&self.outcomes))
    }

    /// Observes one target. Returns the outcome, and of how many partitions its policy has estimates.
    fn observe(
        &mut self,
        key: &PolicyKey,
        observed: &Observed<'_>,
        time: SweepTime,
    ) -> (Option<Arc<PolicyOutcome>>, usize) {
        let before = self.outcomes.get(key);
        let known = self.restored.remove(key);
        let state = self
            .states
            .entry(key.clone())
            .or_insert_with(|| TargetState::new(observed.target, known.as_ref(), time.now));
        let of_group = before.filter(|_| state.is_of(observed.target));
        state.follow_group(observed.target);
        let outcome = state.observe(observed, of_group, time, &mut self.buffers);
        let number = |outcome: &Arc<PolicyOutcome>| {
            let served = outcome.served_rate().map(|rate| rate.replicas);
            (served, outcome.hold)
        };
        self.is_unsaved |= before.map(number) != outcome.as_ref().map(number);
        (outcome, state.partition_count())
    }

    /// Whether a policy has decided for another number since the last export.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.is_unsaved
    }

    /// The groups of a cluster that change, or are about to: their members should be read in every sweep.
    pub fn changing_groups<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = &'a GroupId> {
        let states = self.states.values();
        let changing = states.filter(move |state| {
            let rate = state.rate.as_ref();
            state.group.0 == *cluster && rate.is_some_and(|rate| rate.is_changing())
        });
        changing.map(|state| &state.group.1)
    }

    /// A moment in seconds on the timeline of the policies.
    fn seconds(&mut self, moment: &Moment) -> f64 {
        Duration::from_millis(self.timeline.at(moment).0).as_secs_f64()
    }

    fn time(&mut self, cluster: &ClusterName, started: &Moment) -> SweepTime {
        let last = self.polls.get(cluster).copied();
        let poll = match last {
            None => FIRST_POLL,
            Some((before, usual)) => {
                let elapsed = started.since(&before).min(LONGEST_POLL);
                match elapsed.is_zero() {
                    true => usual,
                    false => usual.mul_f64(0.75).saturating_add(elapsed.mul_f64(0.25)),
                }
            }
        };
        self.polls.insert(cluster.clone(), (*started, poll));
        SweepTime {
            now: self.seconds(started),
            poll,
            wall: *started,
        }
    }
}

/// Whether a target has a policy or a hold.
fn is_observed(target: &Target, default: ScalingPolicy) -> bool {
    let is_set = |policy: ScalingPolicy| policy != ScalingPolicy::Lag;
    target.settings.hold.is_some()
        || target.settings.policy.is_some_and(is_set)
        || (target.settings.policy.is_none()
            && is_set(default)
            && target.metric == Metric::DesiredReplicas)
}

/// A target with what a sweep read.
struct Observed<'a> {
    target: &'a Target,
    evaluation: &'a TargetEvaluation,
    evaluations: &'a Evaluations,
    policy: ScalingPolicy,
    /// Partitions of the group that policies of other metrics of the namespace observe.
    others: usize,
}

impl TargetState {
    fn new(target: &Target, known: Option<&RestoredPolicy>, now: f64) -> Self {
        let group = (target.key.cluster.clone(), target.key.group.clone());
        let known = known
            .filter(|known| known.cluster == group.0 && known.policy.group == group.1.as_str());
        let held = known.and_then(|known| known.policy.held);
        Self {
            rate: known.and_then(|known| RateState::restored(&known.policy, known.saved, now)),
            held: held.map(|(hold, replicas)| HeldReplicas { hold, replicas }),
            group,
        }
    }

    fn is_of(&self, target: &Target) -> bool {
        self.group.0 == target.key.cluster && self.group.1 == target.key.group
    }

    /// Partitions that its policy has estimates of.
    fn partition_count(&self) -> usize {
        let rate = self.rate.as_ref();
        rate.map_or(0, |rate| rate.partition_count())
    }

    fn release_estimates(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.release_estimates();
        }
    }

    /// Begins anew if the HPA now asks for another group, about which the rates of the one before say nothing. The hold stays.
    fn follow_group(&mut self, target: &Target) {
        if !self.is_of(target) {
            self.group = (target.key.cluster.clone(), target.key.group.clone());
            self.rate = None;
        }
    }

    fn observe(
        &mut self,
        observed: &Observed<'_>,
        before: Option<&Arc<PolicyOutcome>>,
        time: SweepTime,
        buffers: &mut Buffers,
    ) -> Option<Arc<PolicyOutcome>> {
        let metric = &*observed.evaluation.metric;
        let policy = observed.policy;
        let hold = observed.target.settings.hold;
        let hold = hold.filter(|hold| hold.is_active(time.wall.wall));
        // A hold that replaces another one, for example with a later end, keeps its number.
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
            match observed.check() {
                Err(reason) => {
                    self.release_estimates();
                    outcome.unavailable = Some(reason);
                }
                Ok(()) => {
                    let bounds = observed.bounds(self.held.as_ref());
                    let rate = self.rate.get_or_insert_default();
                    outcome.rate = match bounds {
                        Some(bounds) => rate.observe(observed, bounds, time, buffers),
                        // Nothing was ever read completely.
                        None => {
                            rate.release_estimates();
                            before.and_then(|before| before.rate.clone())
                        }
                    };
                    if outcome.rate.is_none() {
                        outcome.unavailable = Some(RateUnavailable::NotObserved);
                    }
                }
            }
        }
        if let Some(hold) = hold {
            self.hold(hold, &mut outcome, metric);
        }
        let is_same = before.is_some_and(|before| **before == outcome);
        match before.filter(|_| is_same) {
            Some(before) => Some(Arc::clone(before)),
            None => Some(Arc::new(outcome)),
        }
    }

    /// Moves the number that a hold keeps as far as it lets it move.
    fn hold(&mut self, hold: ReplicaHold, outcome: &mut PolicyOutcome, metric: &MetricEvaluation) {
        let by_lag = metric.outcome.as_ref().ok().and_then(|m| m.served.desired);
        let rate = outcome.served_rate().map(|rate| rate.replicas);
        // Unknown lag moves nothing.
        if let Some(replicas) = by_lag.map(|by_lag| rate.unwrap_or(by_lag)) {
            let held = self.held.get_or_insert(HeldReplicas { hold, replicas });
            held.replicas = held.bound(replicas);
        }
        outcome.hold = self.held;
    }
}

impl Observed<'_> {
    /// Whether the policies of the namespace would have estimates of more partitions than the group has. Only one metric of
    /// all that ask for a group is charged for its partitions, so that many others could take any amount of memory.
    fn is_crowded(&self) -> bool {
        if self.others == 0 {
            return false;
        }
        let (counted, all) = group_reading::count_partitions(&self.evaluation.group);
        self.others.saturating_add(counted) > all
    }

    /// Whether the rate policy can decide about this metric.
    fn check(&self) -> Result<(), RateUnavailable> {
        let metric = &*self.evaluation.metric;
        if self.target.metric != Metric::DesiredReplicas {
            return Err(RateUnavailable::OtherMetric);
        }
        if let Ok(resolved) = &metric.resolved {
            if resolved.caps.len() > 1 {
                return Err(RateUnavailable::SeveralHpas);
            }
            if resolved.groups.len() > 1 {
                return Err(RateUnavailable::SeveralGroups);
            }
        }
        let by = self.target.settings.by();
        if by == By::Lagging {
            return Err(RateUnavailable::LaggingPartitions);
        }
        match self.evaluation.group.group.as_deref() {
            Some(read) if !group_reading::has_owners(read) => Err(RateUnavailable::NoOwners),
            _ if self.is_crowded() => Err(RateUnavailable::Crowded),
            _ => Ok(()),
        }
    }

    /// The numbers of members that the policy may want; `None` if the ceiling is unknown.
    fn bounds(&self, held: Option<&HeldReplicas>) -> Option<ReadingBounds> {
        let ceiling = self.evaluation.group.measure.as_ref().ok()?.ceiling;
        let threads = ceiling.threads;
        let hpa = self.target.hpa()?;
        let facts = self.evaluations.targets().facts().get(hpa)?;
        let mut most = ceiling.replicas.cut(facts.max_replicas);
        let mut fewest = min_replicas(facts).max(1);
        if let Some(held) = held {
            most = most.min(held.bound(u32::MAX).max(1));
            fewest = fewest.max(held.bound(0));
        }
        Some(ReadingBounds {
            ceiling: ceiling.useful.limit.bounded()?,
            fewest: fewest.saturating_mul(threads.get()),
            most: most.saturating_mul(threads.get()),
            threads,
        })
    }
}

#[cfg(test)]
mod tests;
