//! Estimates of arrivals, commits, backlog, age and capacity from the readings of a group.

mod backlog;

use std::collections::HashMap;

use super::arrival_peaks::{ArrivalPeaks, ArrivalRates};
use super::capacity::{CommitTimes, MemberProgress};
use super::commits::CommitGaps;
use super::learned::LearnedPolicy;
use super::member_capacities::{CapacitySamples, MemberCapacities};
use super::policy_time::{PolicyTime, compact, messages_between, to_counter};
use super::rates::{FAST, GrowthRing, MEDIUM, SlotClock, SlotRing, SlotTotals, measure_shares};
use super::reading::GroupReading;
use super::settings::{PolicyRule, RatePolicySettings};

/// Minimum time without a commit after which a partition is stuck, and the group stalled.
const MIN_STUCK_SECONDS: f64 = 30.0;
const MIN_STALL_SECONDS: f64 = 15.0;
/// Minimum time without a commit that counts as a standstill and not as an interval between two commits.
const MIN_STANDSTILL_SECONDS: f64 = 120.0;
/// Minimum time for which the group must have committed before a standstill counts.
const MIN_COMMITTING_SECONDS: f64 = 60.0;
/// Minimum pause of a rebalance that is learned.
const MIN_PAUSE_SECONDS: f64 = 2.5;

/// Index of the member for a partition without an owner.
const NO_OWNER: u16 = u16::MAX;

/// State of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionEstimate {
    end: i64,
    committed: i64,
    /// The poll that saw the last commit.
    committed_at: PolicyTime,
    growth: SlotRing,
    /// Age of the first unread message when the last commit landed, in seconds.
    age: f32,
    /// Unprocessed messages.
    pub(super) backlog: f32,
    /// Share in the arrivals; 0 if it is stuck.
    pub(super) share: f32,
    /// Index of the member that owns it.
    member: u16,
    pub(super) is_stuck: bool,
}

/// Estimates for one group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupEstimates {
    pub(super) partitions: Vec<PartitionEstimate>,
    members: Vec<MemberProgress>,
    pub(super) arrivals: GrowthRing,
    peaks: ArrivalPeaks,
    pub(super) consumption: GrowthRing,
    slots: SlotClock,
    pub(super) gaps: CommitGaps,
    capacities: MemberCapacities,
    /// Time since which the group has not changed, in seconds on the timeline of the readings.
    pub(super) stable_since: f64,
    unstable_since: Option<f64>,
    last_commit: f64,
    /// Whether readings are missing, so that it is unknown how long the changes in the next one took.
    is_broken: bool,
    /// Time since which there are commits without a longer break.
    progress_since: f64,
    /// When the last standstill ended: a time without any commit that says nothing about how often members commit.
    resumed: f64,
}

/// Buffers of one reading.
#[derive(Clone, Debug, Default)]
pub(super) struct EstimateScratch {
    gaps: Vec<u16>,
    totals: Vec<SlotTotals>,
    shares: Vec<f32>,
    /// Of each member: committed messages, whether it has committed, and whether it was busy.
    committed: Vec<(f64, bool, bool)>,
    /// Arrivals per second and backlog of each member.
    pub(super) loads: Vec<(f64, f64)>,
}

/// Result of one reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObservedGroup {
    /// Arrivals, those on stuck partitions included.
    pub(super) arrivals: ArrivalRates,
    /// Age of the oldest unprocessed message, in seconds.
    pub(super) age: f64,
    /// Unprocessed messages.
    pub(super) backlog: f64,
    /// Part of the arrivals that is not on stuck partitions.
    pub(super) active_share: f64,
    /// Messages committed since the last reading.
    pub(super) consumed: f64,
    /// Partitions that are stuck.
    pub(super) stuck: usize,
    /// Whether there is lag and no member commits.
    pub(super) is_stalled: bool,
    /// Time since which there are commits without a longer break.
    pub(super) progress_since: f64,
}

impl GroupEstimates {
    /// `knows_capacity`: whether an earlier process measured the capacity of the members.
    pub(super) fn new(gaps: CommitGaps, knows_capacity: bool) -> Self {
        Self {
            gaps,
            capacities: MemberCapacities::after_restart(knows_capacity),
            ..Self::default()
        }
    }

    /// Drops what depends on an unbroken series of readings. The next reading begins a new one.
    pub(super) fn drop_windows(&mut self, now: PolicyTime) {
        self.is_broken = true;
        for member in &mut self.members {
            member.restart(now);
        }
    }

    /// Records a reading, all of whose offsets are known.
    pub(super) fn observe(
        &mut self,
        reading: &GroupReading<'_>,
        (offsets, scratch): (&[(i64, i64)], &mut EstimateScratch),
        policy_time: PolicyTime,
        settings: &RatePolicySettings,
        learned: &mut LearnedPolicy,
    ) -> ObservedGroup {
        let now = reading.at.as_secs_f64();
        let poll = reading.poll_interval.as_secs_f64();
        self.resize(offsets, policy_time);
        self.follow_members(reading, policy_time, settings, learned);
        let inputs = (offsets, scratch);
        let arrivals =
            self.measure_arrivals((inputs.0, &mut *inputs.1), policy_time, now - learned.began);
        let seen = ObservedGroup {
            arrivals,
            consumed: self.follow_commits(reading, inputs, policy_time, poll, learned),
            ..ObservedGroup::default()
        };
        self.measure_backlog(reading, offsets, policy_time, settings, seen)
    }

    fn resize(&mut self, offsets: &[(i64, i64)], now: PolicyTime) {
        if offsets.len() == self.partitions.len() {
            return;
        }
        self.drop_windows(now);
        self.partitions.truncate(offsets.len());
        let more = offsets.len().saturating_sub(self.partitions.len());
        self.partitions.reserve_exact(more);
        for (end, committed) in offsets.iter().skip(self.partitions.len()) {
            self.partitions.push(PartitionEstimate {
                end: *end,
                committed: *committed,
                committed_at: now,
                growth: SlotRing::default(),
                age: 0.0,
                backlog: 0.0,
                share: 0.0,
                member: NO_OWNER,
                is_stuck: false,
            });
        }
    }

    fn follow_members(
        &mut self,
        reading: &GroupReading<'_>,
        policy_time: PolicyTime,
        settings: &RatePolicySettings,
        learned: &mut LearnedPolicy,
    ) {
        let now = reading.at.as_secs_f64();
        let is_same = |(state, read): (&PartitionEstimate, &super::reading::GroupPartition)| {
            let member = self.members.get(usize::from(state.member));
            member.map(|member| member.key) == read.owner
        };
        let changed = !self.partitions.iter().zip(reading.partitions).all(is_same);
        if !reading.is_stable {
            self.unstable_since.get_or_insert(now);
        }
        if !changed && reading.is_stable && self.unstable_since.is_none() {
            return;
        }
        self.stable_since = now;
        self.drop_windows(policy_time);
        if !reading.is_stable {
            return;
        }
        let pause = self.unstable_since.take().map_or(0.0, |since| now - since);
        if settings.has(PolicyRule::LearnedReaction) && (changed || pause > 0.0) {
            learned.pause = 0.7 * learned.pause + 0.3 * pause.clamp(MIN_PAUSE_SECONDS, 120.0);
        }
        self.members.clear();
        let members = &mut self.members;
        let mut places = HashMap::new();
        for (state, read) in self.partitions.iter_mut().zip(reading.partitions) {
            state.member = NO_OWNER;
            let Some(owner) = read.owner else { continue };
            state.member = *places.entry(owner).or_insert_with(|| {
                let place = u16::try_from(members.len()).unwrap_or(NO_OWNER);
                members.push(MemberProgress::new(owner, policy_time));
                place
            });
        }
        self.members.shrink_to_fit();
    }

    fn measure_arrivals(
        &mut self,
        (offsets, scratch): (&[(i64, i64)], &mut EstimateScratch),
        policy_time: PolicyTime,
        elapsed: f64,
    ) -> ArrivalRates {
        let ended = self.slots.ended(policy_time, elapsed);
        let mut total = 0.0;
        let EstimateScratch { totals, shares, .. } = scratch;
        totals.clear();
        for (state, (end, _)) in self.partitions.iter_mut().zip(offsets) {
            if ended > 0 {
                state.growth.begin_slots(ended);
            }
            let growth = messages_between(state.end, *end);
            state.end = *end;
            state.growth.add(to_counter(growth));
            totals.push(state.growth.totals());
            total += growth;
        }
        self.arrivals.add(policy_time, total);
        let rate = |window| self.arrivals.per_second(window).unwrap_or(0.0);
        let rates = ArrivalRates {
            fast: rate(FAST),
            medium: rate(MEDIUM),
        };
        self.peaks.begin_slots(ended);
        self.peaks.add(rates);
        shares.resize(self.partitions.len(), 0.0);
        measure_shares(totals, shares);
        for (state, share) in self.partitions.iter_mut().zip(shares) {
            state.share = *share;
        }
        rates
    }

    /// Arrivals that a step up has to carry, in messages per second: those over 20 s, or the newest ones while they
    /// rise. If arrivals were as high before, at most the highest over 60 s in the last 15 minutes, because a batch is only
    /// spread over time.
    pub(super) fn expected_arrivals(
        &self,
        rates: ArrivalRates,
        poll_seconds: f64,
        settings: &RatePolicySettings,
    ) -> f64 {
        let newest = match settings.has(PolicyRule::FastRate) {
            true => {
                let rising = self.arrivals.rising_rate(rates.fast, poll_seconds);
                rising.unwrap_or(rates.fast)
            }
            false => rates.medium,
        };
        let repeated = match settings.has(PolicyRule::RepeatedPeak) {
            true => self.peaks.repeated(rates),
            false => None,
        };
        repeated.map_or(newest, |most| newest.min(most))
    }

    /// Measures the commits since the last reading, and returns the number of committed messages.
    fn follow_commits(
        &mut self,
        reading: &GroupReading<'_>,
        (offsets, scratch): (&[(i64, i64)], &mut EstimateScratch),
        policy_time: PolicyTime,
        poll: f64,
        learned: &mut LearnedPolicy,
    ) -> f64 {
        let now = reading.at.as_secs_f64();
        let is_broken = std::mem::take(&mut self.is_broken);
        if is_broken {
            for member in &mut self.members {
                member.restart(policy_time);
            }
        }
        let is_gradual = !is_broken && self.unstable_since.is_none();
        let standstill = (6.0 * self.gaps.interval()).max(MIN_STANDSTILL_SECONDS);
        // A long gap is a standstill only if the group had been committing for a while. With rare commits, every gap is
        // long, and is the usual interval.
        let stood_still = now - self.last_commit > standstill
            && self.last_commit - self.resumed >= MIN_COMMITTING_SECONDS;
        let counted_since = self.stable_since.max(self.resumed);
        let counted_since = PolicyTime::from_seconds(counted_since - learned.began);
        let mut total = 0.0;
        let mut has_gaps = false;
        let of_members = &mut scratch.committed;
        of_members.clear();
        of_members.resize(self.members.len(), (0.0, false, false));
        let states = self.partitions.iter_mut().zip(offsets);
        for ((state, (end, committed)), read) in states.zip(reading.partitions) {
            if *committed == state.committed {
                continue;
            }
            let messages = messages_between(state.committed, *committed);
            // A gap counts only if there was something to commit all the time, and the group did not stand still.
            let is_usual = state.committed_at >= counted_since && is_gradual && !stood_still;
            if state.backlog >= 1.0 && is_usual {
                self.gaps.add(policy_time.tenths_since(state.committed_at));
                has_gaps = true;
            }
            state.committed = *committed;
            state.committed_at = policy_time;
            let age = read.age.map_or(0.0, |age| age.duration().as_secs_f64());
            let age = if end > committed { age } else { 0.0 };
            // The commit landed between two polls, on average half of the interval ago.
            state.age = compact((age - poll / 2.0).max(0.0));
            total += messages;
            if let Some((sum, commits, is_busy)) = of_members.get_mut(usize::from(state.member)) {
                *sum += messages;
                *commits = true;
                // It left messages unread for clearly longer than the uncertainty of their age.
                *is_busy |= f64::from(state.age) >= 1.5 * poll;
            }
        }
        self.consumption.add(policy_time, total);
        if has_gaps {
            self.gaps.measure(&mut scratch.gaps);
        }
        learned.commit_interval = self.gaps.measured_interval();
        learned.longest_commit_gap = self.gaps.measured_longest();
        let times = CommitTimes {
            interval: self.gaps.interval(),
            longest: self.gaps.longest(),
        };
        if total > 0.0 {
            if now - self.last_commit > (3.0 * times.interval).max(MIN_STALL_SECONDS) {
                self.progress_since = now;
            }
            if stood_still {
                self.resumed = now;
            }
            self.last_commit = now;
        }
        let max_members = self.partitions.len();
        let members = self.members.len();
        let mut samples = CapacitySamples::begin(&mut self.capacities, policy_time);
        for (member, (sum, commits, is_busy)) in self.members.iter_mut().zip(of_members) {
            // The first commits after a rebalance are partly of the previous owners.
            if !*commits || !is_gradual || self.stable_since >= now {
                continue;
            }
            let (sample, floor) = member.commit(policy_time, *sum, *is_busy, times);
            if let Some(sample) = sample {
                samples.add((member.key, sample), max_members, learned);
                samples.lower_floors(members, learned);
            }
            if let Some(floor) = floor {
                learned.raise_floors(floor, now);
            }
        }
        samples.finish(learned);
        total
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let partitions = self
            .partitions
            .capacity()
            .saturating_mul(size_of::<PartitionEstimate>());
        let members = self
            .members
            .capacity()
            .saturating_mul(size_of::<MemberProgress>());
        partitions
            .saturating_add(members)
            .saturating_add(self.arrivals.heap_bytes())
            .saturating_add(self.consumption.heap_bytes())
            .saturating_add(self.gaps.heap_bytes())
            .saturating_add(self.capacities.heap_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_members_stay_small() {
        assert!(
            size_of::<PartitionEstimate>() <= 88,
            "{}",
            size_of::<PartitionEstimate>()
        );
        assert!(
            size_of::<MemberProgress>() <= 64,
            "{}",
            size_of::<MemberProgress>()
        );
    }
}
