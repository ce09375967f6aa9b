//! The rate policy of one target, from sweep to sweep.

use std::sync::Arc;
use std::time::Duration;

use super::Buffers;
use super::group_reading::{
    PartitionLayout, PartitionOwners, ReadingBounds, is_stable, read_partitions,
};
use super::observed_target::ObservedTarget;
use crate::model::evaluation::policy_outcome::{RateOutcome, RecommendationTotals};
use crate::model::kafka::group::GroupDescription;
use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::model::policy::RatePolicy;
use crate::model::policy::decision::{RateDecision, RateRule};
use crate::model::policy::learned::LearnedPolicy;
use crate::model::policy::reading::{GroupPartition, GroupReading};
use crate::model::policy::recommendation::RecommendedGroup;
use crate::model::policy::settings::RatePolicySettings;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::units::newtypes::Moment;

/// Seconds without an observation, for example because of a restart, within which the last number stays valid. After a
/// longer time, the policy follows the current replicas until it has observed the group again.
const RESUMED_WITHIN: f64 = 600.0;
/// Seconds after a change in which the members are read in every sweep.
const CHANGING_FOR: f64 = 120.0;
/// Maximum time between two sweeps that counts in totals.
const MAX_GAP_SECONDS: f64 = 60.0;

#[derive(Clone, Copy, Debug)]
pub(super) struct SweepTime {
    /// In seconds on the timeline of the policies, which begins in 1970.
    pub(super) now: f64,
    /// Usual time between two sweeps.
    pub(super) poll: Duration,
    pub(super) wall: Moment,
}

/// Number of members, now and after the pods have started.
#[derive(Clone, Copy, Debug)]
struct PresentMembers {
    /// Members of the group.
    members: u32,
    /// Members once all pods of the workload have joined; those of the group if the pods are not known.
    pods: u32,
}

/// The rate policy of one target.
#[derive(Debug)]
pub(super) struct RateState {
    pub(super) policy: RatePolicy,
    /// Whether the group was observed for long enough for the policy to have a number.
    pub(super) is_ready: bool,
    layout: Option<PartitionLayout>,
    owners: PartitionOwners,
    recommended: Option<RecommendedGroup>,
    /// Time of the last observation by this process.
    pub(super) observed: Option<f64>,
    /// When the policy's number was last known to be right: at the last observation, or when it was saved.
    known_at: f64,
    /// Lower bound of the time of the next observation.
    not_before: f64,
    /// Members of the group, and replicas of the workload, at the last observation.
    last_counts: Option<(usize, Option<u32>)>,
    /// When the group was last changing, or about to.
    unsettled_at: Option<f64>,
}

impl RateState {
    /// A policy that has observed nothing.
    pub(super) fn begin(now: f64) -> Self {
        Self::new(LearnedPolicy::default(), false, (now, now))
    }

    fn new(learned: LearnedPolicy, is_ready: bool, (known_at, now): (f64, f64)) -> Self {
        Self {
            policy: RatePolicy::new(RatePolicySettings::default(), learned),
            is_ready,
            layout: None,
            owners: PartitionOwners::default(),
            recommended: None,
            observed: None,
            known_at,
            not_before: now,
            last_counts: None,
            unsettled_at: None,
        }
    }

    /// State that an earlier process has saved; `None` if it cannot be used.
    pub(super) fn restored(known: &SavedPolicy, saved: f64, now: f64) -> Option<Box<Self>> {
        let learned = LearnedPolicy::restore(known.learned.as_ref()?, saved, now)?;
        let is_ready = known.is_ready && learned.output.is_some() && now - saved < RESUMED_WITHIN;
        let times = (saved.min(now), now);
        Some(Box::new(Self::new(learned, is_ready, times)))
    }

    /// Seconds since the policy's number was last known to be right, as long as no observation follows.
    pub(super) fn seconds_unobserved(&self, now: f64) -> f64 {
        match self.observed {
            Some(_) => 0.0,
            None => (now - self.known_at).max(0.0),
        }
    }

    /// Whether the members of the group change, or are about to.
    pub(super) fn is_changing(&self) -> bool {
        let since = self.observed.zip(self.unsettled_at);
        since.is_some_and(|(now, since)| now - since < CHANGING_FOR)
    }

    /// Partitions that it has estimates of.
    pub(super) fn partition_count(&self) -> usize {
        self.layout.map_or(0, |layout| layout.count)
    }

    /// Frees the estimates of each partition while the group is not observed. The learned state stays.
    pub(super) fn release_estimates(&mut self) {
        if self.layout.take().is_some() {
            self.restart_policy();
            self.owners = PartitionOwners::default();
        }
    }

    fn restart_policy(&mut self) {
        self.policy = RatePolicy::new(RatePolicySettings::default(), *self.policy.learned());
    }

    /// Observes the reading of a sweep. Returns the result of the policy; `None` until it has observed enough.
    pub(super) fn observe(
        &mut self,
        observed: &ObservedTarget<'_>,
        bounds: ReadingBounds,
        time: SweepTime,
        buffers: &mut Buffers,
    ) -> Option<RateOutcome> {
        let settings = &observed.target.settings;
        let group = &observed.evaluation.group;
        let read = group.group.as_deref()?;
        let description = read.description.as_ref()?;
        let layout = read_partitions(
            group,
            description,
            self.layout,
            &mut self.owners,
            &mut buffers.partitions,
        );
        let is_other = self
            .layout
            .is_some_and(|known| !known.is_continued_by(&layout));
        if is_other {
            self.restart_policy();
        }
        self.layout = Some(layout);
        self.policy.set_settings(RatePolicySettings {
            slo: settings.slo(),
            ..RatePolicySettings::default()
        });
        let present = self.count_members(description, observed, bounds);
        let PresentMembers { members, pods } = present;
        let is_applied = observed.policy == ScalingPolicy::Rate;
        if is_applied {
            self.recommended = None;
        }
        // A sweep may have begun before the HPA was edited, and end after it.
        let now = time.now.max(self.not_before);
        self.not_before = now;
        let elapsed = self.observed.map_or(0.0, |before| now - before);
        self.is_ready = self.has_recent_number(now);
        if !self.is_ready || self.is_outdated(present, is_applied) {
            self.follow(present, description, bounds);
        }
        let reading = GroupReading {
            at: Duration::from_secs_f64(now),
            poll_interval: time.poll,
            partitions: &buffers.partitions,
            ceiling: bounds.ceiling,
            bounds: (bounds.fewest, bounds.most),
            all: bounds.all,
            is_stable: is_stable(description),
            members,
            status_replicas: pods,
            supposed: self.recommended.map(|group| group.supposed()),
        };
        let decision = self.policy.observe(&reading, &mut buffers.policy);
        self.is_ready |= decision.terms.is_some();
        (self.observed, self.known_at) = (Some(now), now);
        let counts = (description.member_count(), observed.running_replicas());
        let before = self.last_counts.replace(counts);
        let is_decided = decision.replicas != decision.before || self.policy.awaits_members();
        let is_moving = !is_stable(description)
            || before.is_some_and(|before| before != counts)
            || (is_applied && is_decided);
        if is_moving {
            self.unsettled_at = Some(now);
        }
        if let Some(terms) = decision.terms
            && !is_applied
        {
            let elapsed = elapsed.clamp(0.0, MAX_GAP_SECONDS);
            let slo = settings.slo().as_secs_f64();
            let is_late = oldest_age(&buffers.partitions) > slo;
            let backlog = (terms.backlog, terms.age);
            let group = self
                .recommended
                .get_or_insert_with(|| RecommendedGroup::new(now, members, backlog));
            let actual = (members, terms.consumption, is_late);
            group.advance((now, elapsed), &terms, actual, slo);
            group.follow(now, decision.replicas, &terms);
        }
        let is_idle = decision
            .terms
            .is_some_and(|terms| terms.arrivals_slow <= 0.0)
            && decision.replicas <= bounds.fewest;
        self.is_ready
            .then(|| self.outcome(decision, observed, bounds, is_idle))
    }

    /// Whether the policy has a number, which was known to be right a short time ago.
    pub(super) fn has_recent_number(&self, now: f64) -> bool {
        self.is_ready && now - self.known_at < RESUMED_WITHIN
    }

    /// The last number, while the group is not observed yet after a restart or an edit of the metric; `None` if there
    /// is none that is recent enough.
    pub(super) fn keep(
        &mut self,
        observed: &ObservedTarget<'_>,
        bounds: ReadingBounds,
        now: f64,
    ) -> Option<RateOutcome> {
        if !self.has_recent_number(now) {
            return None;
        }
        let read = observed.evaluation.group.group.as_deref();
        if let Some(description) = read.and_then(|read| read.description.as_ref()) {
            let present = self.count_members(description, observed, bounds);
            let is_applied = observed.policy == ScalingPolicy::Rate;
            if self.is_outdated(present, is_applied) {
                self.follow(present, description, bounds);
            }
        }
        let replicas = bounds.clamp(self.policy.learned().output?);
        let decision = RateDecision {
            replicas,
            before: replicas,
            rule: RateRule::Resumed,
            terms: None,
            up: None,
            down: None,
            hold: None,
            against_all: None,
            drain: None,
        };
        // It is not known whether messages arrive now. They did if there are more than the fewest replicas.
        let is_idle = replicas <= bounds.clamp(0);
        Some(self.outcome(decision, observed, bounds, is_idle))
    }

    fn outcome(
        &self,
        decision: RateDecision,
        observed: &ObservedTarget<'_>,
        bounds: ReadingBounds,
        is_idle: bool,
    ) -> RateOutcome {
        let totals = self.recommended.map(|group| RecommendationTotals {
            since: group.since,
            rate: group.recommended,
            actual: group.actual,
        });
        RateOutcome {
            replicas: decision.replicas.div_ceil(bounds.threads.get()),
            decision: Arc::new(decision),
            threads: bounds.threads,
            slo: observed.target.settings.slo(),
            is_idle,
            totals,
        }
    }

    /// Whether the state of an earlier process was saved before its last step up.
    fn is_outdated(&self, present: PresentMembers, is_applied: bool) -> bool {
        let most = present.members.max(present.pods);
        self.observed.is_none() && is_applied && self.policy.learned().output < Some(most)
    }

    /// Continues from the current members and those whose pods are starting: fewer replicas would stop these pods
    /// again.
    fn follow(
        &mut self,
        present: PresentMembers,
        description: &GroupDescription,
        bounds: ReadingBounds,
    ) {
        if present.members > 0 && is_stable(description) {
            let most = present.members.max(present.pods);
            self.policy.follow(bounds.clamp(most));
        }
    }

    fn count_members(
        &self,
        description: &GroupDescription,
        observed: &ObservedTarget<'_>,
        bounds: ReadingBounds,
    ) -> PresentMembers {
        let threads = bounds.threads.get();
        // With several members in a replica, the last replica may have fewer. The policy's own number counts as reached
        // once there are as many replicas as it needs.
        let filled = |members: u32| match self.policy.learned().output {
            Some(output) if output.div_ceil(threads) == members.div_ceil(threads) => output,
            _ => members,
        };
        let members = filled(u32::try_from(description.member_count()).unwrap_or(u32::MAX));
        let pods = observed.running_replicas();
        let pods = pods.map_or(members, |pods| filled(pods.saturating_mul(threads)));
        PresentMembers { members, pods }
    }

    /// Bytes that it takes, without buffers that are shared.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let inline = size_of::<Self>().saturating_sub(size_of::<RatePolicy>());
        inline
            .saturating_add(self.policy.memory_bytes())
            .saturating_add(self.owners.heap_bytes())
    }
}

/// Age of the oldest unread message in seconds.
fn oldest_age(partitions: &[GroupPartition]) -> f64 {
    let ages = partitions.iter().filter_map(|partition| partition.age);
    let ages = ages.map(|age| age.duration().as_secs_f64());
    ages.fold(0.0, f64::max)
}
