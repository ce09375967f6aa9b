//! Inputs of the rules at one poll, and the measurements that rate the policy.

use super::RatePolicy;
use super::capacity::estimate_capacity;
use super::decision::{RateDecision, RateTerms};
use super::drain::DrainReading;
use super::estimates::ObservedGroup;
use super::rates::{FAST, MEDIUM, SLOW};
use super::reading::{GroupReading, SupposedGroup};
use super::settings::PolicyRule;
use super::static_comparison::{GroupProgress, StaticGroup};

/// Minimum time of consumption that the policy has to see before it decides for a group of unknown capacity.
const MIN_WATCHED_SECONDS: f64 = 40.0;
/// Seconds after a change during which the workload counts as having this number of replicas, including starting ones,
/// unless the HPA's status differs.
pub(super) const APPLIED_WITHIN: f64 = 60.0;

/// Inputs of the rules at one poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// Time of the poll, in seconds on the timeline of the readings.
    pub(super) now: f64,
    pub(super) output: u32,
    pub(super) terms: RateTerms,
    /// Whether the group is not rebalancing, and for how many seconds it has not changed.
    pub(super) is_stable: bool,
    pub(super) stable_for: f64,
    /// Commits over 20 s, or over four of them if they are rare, in messages per second.
    pub(super) consumption_fast: f64,
    /// Time since which there are commits without a longer break.
    pub(super) progress_since: f64,
    pub(super) status_replicas: u32,
    /// The age that messages may reach, in seconds.
    pub(super) slo: f64,
    /// Whether the group is simulated, because the policy is only recommended.
    pub(super) is_supposed: bool,
    /// Whether messages that were processed since the last reading were older than the objective.
    pub(super) is_late: bool,
}

impl RatePolicy {
    /// Assesses the group; `None` while nothing is known of its capacity. Fills `loads` with the arrivals per second
    /// and the backlog of each member.
    pub(super) fn assess(
        &mut self,
        reading: &GroupReading<'_>,
        seen: ObservedGroup,
        output: u32,
        loads: &mut Vec<(f64, f64)>,
    ) -> Option<Situation> {
        let now = reading.at.as_secs_f64();
        let poll = reading.poll_interval.as_secs_f64();
        let estimates = &self.estimates;
        let active = |rate: f64| rate * seen.active_share;
        let slow = active(estimates.arrivals.per_second(SLOW).unwrap_or(0.0));
        let medium = active(seen.arrivals.medium);
        let fast = match self.settings.has(PolicyRule::FastRate) {
            true => active(seen.arrivals.fast),
            false => medium,
        };
        let expected = active(estimates.expected_arrivals(seen.arrivals, poll, &self.settings));
        let consumption = |window| estimates.consumption.per_second(window).unwrap_or(0.0);
        let consumed = consumption(MEDIUM);
        let consumption_fast = consumption((4.0 * estimates.gaps.interval()).clamp(FAST, SLOW));
        let (capacity, is_known) = estimate_capacity(
            &self.learned,
            self.settings.has(PolicyRule::Floor),
            estimates
                .consumption
                .per_second_of_whole(MIN_WATCHED_SECONDS),
            reading.members,
            now,
        )?;
        let delay = self.learned.reaction + self.learned.pause + poll;
        let share = seen.active_share.max(1e-9);
        let members = assumed_members(reading);
        let by_owner = reading.supposed.is_none().then_some(loads);
        // A batch that comes again is expected to end, so its peak is not projected over the delay.
        let projected_age = estimates.project_age(
            by_owner,
            fast.min(expected) / share,
            (capacity, members),
            delay,
        );
        let hot = estimates.partitions.iter().position(|partition| {
            is_known && medium / share * f64::from(partition.share) > capacity
        });
        let terms = RateTerms {
            arrivals_fast: fast,
            arrivals_expected: expected,
            arrivals_medium: medium,
            arrivals_slow: slow,
            consumption: consumed,
            backlog: seen.backlog,
            age: seen.age,
            projected_age: if self.settings.has(PolicyRule::ProjectedAge) {
                projected_age
            } else {
                seen.age
            },
            capacity,
            is_capacity_known: is_known,
            members,
            delay,
            pause: self.learned.pause,
            commit_interval: estimates.gaps.interval(),
            stuck_partitions: seen.stuck,
            hot_partition: hot,
        };
        let slo = self.settings.slo.as_secs_f64();
        Some(Situation {
            now,
            output,
            terms,
            progress_since: seen.progress_since,
            consumption_fast,
            is_stable: reading.is_stable || reading.supposed.is_some(),
            stable_for: match (&reading.supposed, self.learned.last_change) {
                (Some(_), last) => now - last.map_or(self.learned.began, |last| last.at),
                (None, _) if reading.is_stable => now - estimates.stable_since,
                (None, _) => 0.0,
            },
            status_replicas: match reading.supposed {
                Some(SupposedGroup { members, .. }) => members,
                None => reading.status_replicas,
            },
            slo,
            is_supposed: reading.supposed.is_some(),
            is_late: std::mem::replace(&mut self.last_age, seen.age).max(seen.age) > slo,
        })
    }

    /// Compares the actual with the expected time to drain a backlog. `loads` are the arrivals per second and the
    /// backlog of each member.
    pub(super) fn judge_drain(
        &mut self,
        reading: &GroupReading<'_>,
        situation: &Situation,
        loads: &[(f64, f64)],
        is_stalled: bool,
    ) {
        let terms = &situation.terms;
        let residual = terms.commit_interval + reading.poll_interval.as_secs_f64();
        let is_settled = !is_stalled
            && !situation.is_supposed
            && terms.is_capacity_known
            && !loads.is_empty()
            && situation.stable_for >= residual + terms.commit_interval;
        let expected = || {
            self.estimates
                .time_to_drain(loads, terms.capacity, residual)
        };
        self.drains.observe(&DrainReading {
            now: situation.now,
            expected: is_settled.then(expected).flatten(),
            members: terms.members,
            arrivals: terms.arrivals_medium,
            is_settled,
        });
    }

    /// Whether the workload has fewer replicas than the policy says because of a hold, a limit or another writer.
    fn is_overruled(&self, situation: &Situation) -> bool {
        let changed = self.learned.last_change.map(|last| last.at);
        let since = situation.now - changed.or(self.started).unwrap_or(situation.now);
        !situation.is_supposed
            && since >= APPLIED_WITHIN
            && situation.status_replicas < situation.output
    }

    /// Compares the policy with always running the maximum number of replicas.
    pub(super) fn compare_with_all(
        &mut self,
        reading: &GroupReading<'_>,
        situation: &Situation,
        seen: ObservedGroup,
        decision: &mut RateDecision,
    ) {
        let terms = &situation.terms;
        let all = self.all;
        let is_limited = seen.is_stalled
            || self.bounds.1 < all
            || terms.hot_partition.is_some()
            || self.is_overruled(situation)
            || situation.now < self.learned.blocked_until;
        let supposed = reading.supposed;
        let progress = GroupProgress {
            replicas: situation.status_replicas.max(terms.members),
            arrivals: terms.arrivals_fast,
            capacity: terms.capacity,
            processed: supposed.map_or(seen.consumed, |supposed| supposed.processed),
            is_late: situation.is_late,
            backlog: seen.backlog,
            age: seen.age,
            is_limited,
            is_dump: terms.is_capacity_known
                && terms.arrivals_fast > terms.capacity * f64::from(all),
            is_change: decision.replicas != decision.before,
        };
        let begin = || StaticGroup::begin(situation.now, all, (seen.backlog, seen.age));
        let group = self.static_group.get_or_insert_with(begin);
        // Totals for another maximum cannot be continued.
        if group.members() != all {
            *group = begin();
        }
        group.advance(situation.now, &progress, situation.slo);
        decision.against_all = group.compare();
    }
}

/// Number of members that the rules assume: those of the simulated group if the policy is only recommended.
pub(super) fn assumed_members(reading: &GroupReading<'_>) -> u32 {
    match reading.supposed {
        Some(supposed) => supposed.members,
        None => reading.members,
    }
}
