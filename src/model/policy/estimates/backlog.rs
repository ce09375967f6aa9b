//! Backlog: the unprocessed messages, their age, their expected age, and how long they will last.

use std::cell::LazyCell;

use super::super::drain::time_to_drain;
use super::super::policy_time::{PolicyTime, compact, messages_between};
use super::super::reading::{GroupReading, SupposedGroup};
use super::super::settings::{PolicyRule, RatePolicySettings};
use super::{GroupEstimates, MIN_STALL_SECONDS, MIN_STUCK_SECONDS, ObservedGroup};

impl GroupEstimates {
    /// Measures the backlog of each partition, and finds those that are stuck. `seen` has the arrivals and the
    /// consumption.
    pub(super) fn measure_backlog(
        &mut self,
        reading: &GroupReading<'_>,
        offsets: &[(i64, i64)],
        policy_time: PolicyTime,
        settings: &RatePolicySettings,
        mut seen: ObservedGroup,
    ) -> ObservedGroup {
        let now = reading.at.as_secs_f64();
        let poll = reading.poll_interval.as_secs_f64();
        let rate = seen.arrivals.fast;
        let (interval, stale) = (self.gaps.interval(), self.gaps.stale());
        let stuck_after = (6.0 * interval).max(MIN_STUCK_SECONDS);
        let stall_after = (3.0 * interval).max(MIN_STALL_SECONDS);
        let others_commit = now - self.last_commit <= stall_after;
        let progress_for = now - self.progress_since;
        let is_settled = now - self.stable_since >= 2.0 * interval + poll;
        let states = self.partitions.iter_mut().zip(offsets);
        for ((state, (end, committed)), read) in states.zip(reading.partitions) {
            let lag = messages_between(*committed, *end);
            let since = policy_time.since(state.committed_at);
            // Computed only if needed: most partitions have committed just now.
            let age_now = || read.age.map_or(0.0, |age| age.duration().as_secs_f64());
            // A stuck partition stays stuck until a commit, also with another owner.
            let is_neglected =
                is_settled && since.min(progress_for) >= stuck_after && age_now() >= stuck_after;
            state.is_stuck = settings.has(PolicyRule::Stuck)
                && lag > 0.0
                && others_commit
                && (is_neglected || state.is_stuck && since > 0.0);
            if state.is_stuck {
                seen.stuck = seen.stuck.saturating_add(1);
                (state.backlog, state.age, state.share) = (0.0, 0.0, 0.0);
                continue;
            }
            // Messages that were probably processed since the last commit, if the group keeps up with the arrivals.
            let processed = f64::from(state.share) * rate * (since + poll / 2.0);
            let is_phantom = settings.has(PolicyRule::PhantomLag) && since <= stale;
            let backlog = match is_phantom {
                true => (lag - processed).max(0.0),
                false => lag,
            };
            if lag <= 0.0 {
                state.age = 0.0;
            } else if !is_phantom {
                state.age = compact(age_now());
            }
            state.backlog = compact(backlog);
            seen.backlog += backlog;
            seen.age = seen.age.max(f64::from(state.age));
            seen.active_share += f64::from(state.share);
            seen.is_stalled |= lag > 0.0;
        }
        seen.is_stalled &= !others_commit && now - self.stable_since > stall_after;
        seen.progress_since = self.progress_since;
        seen
    }

    /// Replaces the observed backlog by that of the simulated group.
    pub(in crate::model::policy) fn suppose(
        &mut self,
        supposed: SupposedGroup,
        seen: &mut ObservedGroup,
    ) {
        (seen.backlog, seen.age) = (supposed.backlog, supposed.age);
        for state in &mut self.partitions {
            state.backlog = compact(supposed.backlog * f64::from(state.share));
            state.age = compact(supposed.age);
        }
    }

    /// Age that the oldest unprocessed message will have by the time a change would take effect, on the member that
    /// will be behind most, in seconds.
    ///
    /// A member that gets `a` messages per second, processes at most `capacity`, and is `b` behind now will be
    /// `b + (a - capacity) x delay` behind. These messages arrived in the last `(b + (a - capacity) x delay) / a`
    /// seconds. The oldest of them arrived later than the one that is oldest now, so the age grows by at most the
    /// delay.
    ///
    /// `by_owner` is a buffer for the loads of members; without it all members together count as one.
    pub(in crate::model::policy) fn project_age(
        &self,
        by_owner: Option<&mut Vec<(f64, f64)>>,
        rate: f64,
        (capacity, members): (f64, u32),
        delay: f64,
    ) -> f64 {
        let mut nobody = Vec::new();
        let owners = by_owner.as_ref().map_or(0, |_| self.members.len());
        let loads = by_owner.unwrap_or(&mut nobody);
        loads.clear();
        loads.resize(owners, (0.0, 0.0));
        let (mut all, mut oldest) = ((0.0, 0.0), 0.0f64);
        for state in &self.partitions {
            let (arrivals, backlog) = (rate * f64::from(state.share), f64::from(state.backlog));
            all = (all.0 + arrivals, all.1 + backlog);
            oldest = oldest.max(f64::from(state.age));
            if let Some(load) = loads.get_mut(usize::from(state.member)) {
                *load = (load.0 + arrivals, load.1 + backlog);
            }
        }
        let ahead = |(arrivals, backlog): (f64, f64), capacity: f64| {
            let behind = backlog + (arrivals - capacity) * delay;
            match behind > 0.0 {
                true => (behind / arrivals.max(1e-9)).min(oldest + delay),
                false => 0.0,
            }
        };
        if loads.is_empty() {
            return ahead(all, capacity * f64::from(members));
        }
        loads
            .iter()
            .map(|load| ahead(*load, capacity))
            .fold(0.0, f64::max)
    }

    /// Seconds until no member has more backlog than what arrives in `residual` seconds; `None` if it is not known.
    /// `loads` are the arrivals per second and the backlog of each member, and `capacity` is the median of the members.
    pub(in crate::model::policy) fn time_to_drain(
        &self,
        loads: &[(f64, f64)],
        capacity: f64,
        residual: f64,
    ) -> Option<f64> {
        // In most readings no member is behind.
        let by_member = LazyCell::new(|| self.capacities.by_member(capacity));
        let of_member = |place: usize| by_member.get(&self.members.get(place)?.key).copied();
        time_to_drain(loads, of_member, residual)
    }
}
