//! State of policies and holds from sweep to sweep. Targets without either have no state.

mod group_reading;
mod observed_target;
mod rate_state;
mod restored_policy;
mod resume;
mod saved;
mod target_state;
mod target_states;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use self::observed_target::ObservedTarget;
use self::rate_state::SweepTime;
use self::restored_policy::RestoredPolicy;
use self::target_state::TargetState;
use self::target_states::TargetStates;
use super::Evaluations;
use super::policy_outcome::{PolicyKey, PolicyOutcome, PolicyOutcomes, policy_key};
use crate::model::hpa::facts::HpaFacts;
use crate::model::lag::history::clock::Timeline;
use crate::model::policy::PolicyScratch;
use crate::model::policy::reading::GroupPartition;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::{QueryHash, Target, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment};
use crate::model::units::persistent_map::{Entries, PersistentMap};

/// Maximum time between two sweeps that enters the average. Longer times count as this one.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Assumed time between two sweeps until two were seen.
const FIRST_POLL: Duration = Duration::from_secs(5);

/// The policies and holds of all targets that have one. Owned by the poller.
#[derive(Debug, Default)]
pub struct TargetPolicies {
    states: TargetStates,
    /// State that an earlier process saved of metrics that were not seen since, by HPA and position of the metric in
    /// it.
    restored: BTreeMap<(HpaKey, usize), RestoredPolicy>,
    outcomes: PolicyOutcomes,
    /// The targets when changes were last searched for.
    seen: PersistentMap<QueryHash, Arc<[Arc<Target>]>>,
    /// Metrics to observe between whole sweeps: new or changed ones whose group was not read yet, and those whose saved
    /// number could not be served yet.
    awaited: BTreeSet<PolicyKey>,
    timeline: Timeline,
    /// Start of the last sweep of each Kafka cluster, and the average time between its sweeps.
    polls: BTreeMap<ClusterName, (Moment, Duration)>,
    buffers: Buffers,
    /// Number of the current or last sweep.
    sweep: u64,
    /// Whether a number or a hold has changed since the last export.
    is_unsaved: bool,
}

/// Result of an observation of one target.
struct ObserveResult {
    outcome: Arc<PolicyOutcome>,
    /// Number of partitions of which its policy has estimates.
    partitions: usize,
    /// Whether the policy has a number of an earlier process that it cannot serve yet, because nothing was read
    /// completely so far. It is served with the first reading, which may be that of a partial sweep.
    has_unserved_number: bool,
}

/// Buffers that all targets share.
#[derive(Debug, Default)]
struct Buffers {
    policy: PolicyScratch,
    partitions: Vec<GroupPartition>,
}

impl TargetPolicies {
    /// Lets the policies observe a sweep of a Kafka cluster and decide. Returns the evaluations with the outcomes.
    pub fn observe_sweep(
        &mut self,
        cluster: &ClusterName,
        evaluations: Arc<Evaluations>,
        started: &Moment,
    ) -> Arc<Evaluations> {
        self.forget_removed_holds(&evaluations);
        let default = evaluations.policy().scaling;
        let is_any_observed = evaluations
            .targets()
            .of_hpas()
            .any(|target| is_observed(target, default));
        if !is_any_observed && self.states.is_empty() && self.outcomes.is_empty() {
            return evaluations;
        }
        let time = self.record_sweep(cluster, started);
        self.sweep = self.sweep.wrapping_add(1);
        let outcomes = self.observe_targets(cluster, &evaluations, time);
        let count_before = self.states.len();
        self.states.retain(|state| state.seen_in == self.sweep);
        // The saved state of removed targets, such as a hold, has to be removed as well.
        self.is_unsaved |= self.states.len() != count_before;
        self.outcomes = next_outcomes(&self.outcomes, outcomes);
        evaluations.with_outcomes(&self.outcomes)
    }

    /// Observes the targets on a cluster. Returns the outcomes of all metrics that have one.
    fn observe_targets(
        &mut self,
        cluster: &ClusterName,
        evaluations: &Evaluations,
        time: SweepTime,
    ) -> Vec<(PolicyKey, Arc<PolicyOutcome>)> {
        let default = evaluations.policy().scaling;
        let targets = evaluations.targets();
        let wanted = targets.of_hpas();
        let wanted = wanted.filter(|target| is_observed(target, default));
        let mut all_facts = targets.facts().iter().peekable();
        let mut outcomes = Vec::with_capacity(self.outcomes.len());
        // The current HPA, and its metrics that were handled. A metric has a target for each of its groups.
        let (mut hpa, mut facts) = (None, None);
        let mut seen = BTreeSet::new();
        // Number of partitions of each group that policies of a namespace observe.
        let mut in_use: HashMap<(&str, &GroupId), usize> =
            HashMap::with_capacity(self.outcomes.len());
        for (target, evaluation) in evaluations.with_evaluations(wanted) {
            let Some(key) = policy_key(target) else {
                continue;
            };
            if std::mem::replace(&mut hpa, target.hpa()) != target.hpa() {
                seen.clear();
                facts = next_facts(&mut all_facts, &key.1);
            }
            if !seen.insert(key.0) {
                continue;
            }
            let namespace = target.hpa().map_or("", |hpa| &*hpa.namespace);
            let outcome = if target.key.cluster == *cluster {
                let others = in_use.entry((namespace, &target.key.group)).or_default();
                let observed = ObservedTarget {
                    target,
                    evaluation,
                    evaluations,
                    facts,
                    policy: target.settings.policy.unwrap_or(default),
                    others: *others,
                    is_swept: true,
                };
                let result = self.observe(&key, &observed, time);
                *others = others.saturating_add(result.partitions);
                if !result.has_unserved_number {
                    self.awaited.remove(&key);
                }
                Some(result.outcome)
            } else {
                if let Some(state) = self.states.get_mut(&key) {
                    state.seen_in = self.sweep;
                }
                self.outcomes.get(&key).cloned()
            };
            outcomes.extend(outcome.map(|outcome| (key, outcome)));
        }
        outcomes
    }

    /// Forgets saved holds of HPAs that have none now: a later hold must begin with the number that is served then.
    fn forget_removed_holds(&mut self, evaluations: &Evaluations) {
        if self
            .restored
            .values()
            .all(|known| known.policy.held.is_none())
        {
            return;
        }
        for target in evaluations.targets().of_hpas() {
            if target.settings.hold.is_none()
                && let Some(hpa) = target.hpa()
                && let Some(known) = self.restored.get_mut(&(hpa.clone(), target.index))
            {
                known.policy.held = None;
                self.is_unsaved = true;
            }
        }
    }

    /// Lets the policy of one target observe and decide.
    fn observe(
        &mut self,
        key: &PolicyKey,
        observed: &ObservedTarget<'_>,
        time: SweepTime,
    ) -> ObserveResult {
        let target = observed.target;
        let state = match self.states.get_mut(key) {
            Some(state) => state,
            None => {
                let state = self.begin_state(key, target, observed.evaluations.targets(), time.now);
                self.states.add(key.clone(), state)
            }
        };
        state.follow_target(target);
        state.seen_in = self.sweep;
        let before = self.outcomes.get(key);
        let outcome = state.observe(observed, before, time, &mut self.buffers);
        let number = |outcome: &Arc<PolicyOutcome>| {
            let served = outcome.served_rate().map(|rate| rate.replicas);
            (served, outcome.hold)
        };
        self.is_unsaved |= before.map(number) != Some(number(&outcome));
        ObserveResult {
            partitions: state.partition_count(),
            has_unserved_number: state.has_unserved_number(&outcome, time.now),
            outcome,
        }
    }

    /// Creates the state of a target, unless it has one.
    fn ensure_state(&mut self, key: &PolicyKey, target: &Target, targets: &Targets, now: f64) {
        if let Some(state) = self.states.get_mut(key) {
            state.follow_target(target);
            return;
        }
        let mut state = self.begin_state(key, target, targets, now);
        state.follow_target(target);
        self.states.add(key.clone(), state);
    }

    /// Returns the first state of a target: the state of the metric that was at its place in the HPA before its query
    /// was edited, or else the state that an earlier process saved.
    fn begin_state(
        &mut self,
        key: &PolicyKey,
        target: &Target,
        targets: &Targets,
        now: f64,
    ) -> TargetState {
        let known = self.restored.remove(&(key.1.clone(), target.index));
        let current = targets.of_hpa(&key.1);
        let is_current = |query| current.iter().any(|other| other.query_hash == Some(query));
        let former = self
            .states
            .of_hpa(&key.1)
            .find(|(other, state)| state.index == target.index && !is_current(other.0))
            .map(|(other, _)| other.clone());
        let former = former.and_then(|former| self.states.remove(&former));
        former.unwrap_or_else(|| TargetState::new(target, known.as_ref(), now))
    }

    /// Whether a number or a hold has changed since the last export.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.is_unsaved
    }

    /// Groups of a Kafka cluster whose members change or are about to, so that every sweep should describe them.
    pub fn changing_groups<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = &'a GroupId> {
        let states = self.states.values();
        let changing = states.filter(move |state| state.is_changing && state.group.0 == *cluster);
        changing.map(|state| &state.group.1)
    }

    /// Converts a moment to seconds on the timeline of the policies.
    fn seconds(&mut self, moment: &Moment) -> f64 {
        Duration::from_millis(self.timeline.at(moment).0).as_secs_f64()
    }

    /// Records the start of a sweep, and returns its times. The average time between sweeps is exponentially smoothed.
    fn record_sweep(&mut self, cluster: &ClusterName, started: &Moment) -> SweepTime {
        let last = self.polls.get(cluster).copied();
        let poll = match last {
            None => FIRST_POLL,
            Some((before, usual)) => {
                let elapsed = started.since(&before).min(MAX_POLL_INTERVAL);
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

/// The facts of the next HPA. The HPAs have to be requested in the order of their keys: that is much faster than a
/// search.
fn next_facts<'a>(
    all: &mut Peekable<Entries<'a, HpaKey, Arc<HpaFacts>>>,
    hpa: &HpaKey,
) -> Option<&'a HpaFacts> {
    while all.next_if(|(key, _)| *key < hpa).is_some() {}
    let (_, facts) = all.next_if(|(key, _)| *key == hpa)?;
    Some(facts)
}

/// The outcomes after a sweep. If the metrics are the same as before, both maps share their keys, so that a later
/// comparison compares no names.
fn next_outcomes(
    before: &PolicyOutcomes,
    mut outcomes: Vec<(PolicyKey, Arc<PolicyOutcome>)>,
) -> PolicyOutcomes {
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    if !before.keys().eq(outcomes.iter().map(|(key, _)| key)) {
        return outcomes.into_iter().collect();
    }
    let mut outcomes = outcomes.into_iter();
    before.update_values(|_, before| {
        let (_, outcome) = outcomes.next()?;
        (!Arc::ptr_eq(&outcome, before)).then_some(outcome)
    })
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

#[cfg(test)]
mod tests;
