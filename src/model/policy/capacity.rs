//! Capacity: how many messages per second a member processes, from its commits while it is busy.

use super::learned::LearnedPolicy;
use super::policy_time::{PolicyTime, compact, from_count};

/// Weight of a new sample of a member.
const WEIGHT: f64 = 0.4;
/// Samples from which the capacity counts as known.
pub(super) const KNOWN_SAMPLES: u32 = 3;
/// Age of the samples that the median prefers, in seconds.
const RECENT: f64 = 30.0 * 60.0;
/// Age of the samples that lower bounds are compared with, in seconds.
const FRESH: f64 = 180.0;
/// Members whose values count if fewer than three are recent.
const NEWEST: usize = 16;
/// Shortest window for a lower bound, in seconds.
const FLOOR_WINDOW_MIN: f64 = 10.0;
/// Samples of a member's progress for lower bounds, and their distance in seconds.
const ANCHORS: usize = 4;
const ANCHOR_SPACING: f64 = 14.0;

/// The progress of one member since the last rebalance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemberProgress {
    /// What identifies the member.
    pub(super) key: u32,
    /// Messages committed since the last rebalance.
    consumed: f32,
    /// The first of the busy commits without a break, with the messages committed until then.
    busy: Option<(PolicyTime, f32)>,
    anchors: [(PolicyTime, f32); ANCHORS],
    anchor_count: u8,
}

/// How long a member has to be busy for a sample, and how precise lower bounds are, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitTimes {
    pub(super) interval: f64,
    pub(super) longest: f64,
}

impl MemberProgress {
    pub(super) fn new(key: u32, now: PolicyTime) -> Self {
        let mut progress = Self {
            key,
            ..Self::default()
        };
        progress.restart(now);
        progress
    }

    /// Forgets the windows, because something else than processing may have moved the offsets.
    pub(super) fn restart(&mut self, now: PolicyTime) {
        self.consumed = 0.0;
        self.busy = None;
        self.anchors = [(now, 0.0); ANCHORS];
        self.anchor_count = 1;
    }

    /// Records a commit of `messages`. Returns the throughput of a busy window, if one is complete, and the best
    /// lower bound of the capacity, if there is one.
    pub(super) fn commit(
        &mut self,
        now: PolicyTime,
        messages: f64,
        is_busy: bool,
        times: CommitTimes,
    ) -> (Option<f64>, Option<f64>) {
        self.consumed += compact(messages);
        let sample = match (self.busy, is_busy) {
            (_, false) => {
                self.busy = None;
                None
            }
            (None, true) => {
                self.busy = Some((now, self.consumed));
                None
            }
            (Some((since, before)), true) => {
                let elapsed = now.since(since);
                if elapsed < (3.0 * times.interval).max(20.0) {
                    None
                } else {
                    self.busy = Some((now, self.consumed));
                    Some(f64::from(self.consumed - before) / elapsed)
                }
            }
        };
        (sample, self.lower_bound(now, times))
    }

    fn lower_bound(&mut self, now: PolicyTime, times: CommitTimes) -> Option<f64> {
        let window = (6.0 * times.interval).max(60.0);
        let count = usize::from(self.anchor_count).min(ANCHORS);
        let anchors = self.anchors.iter().take(count);
        let bounds = anchors.filter_map(|(at, before)| {
            let elapsed = now.since(*at);
            let is_used = (FLOOR_WINDOW_MIN..=window).contains(&elapsed);
            // What a commit covers may have been processed up to one commit earlier.
            is_used.then(|| f64::from(self.consumed - before) / (elapsed + times.longest))
        });
        let bound = bounds.fold(0.0, f64::max);
        let spacing = (window / 4.0 - 1.0).max(ANCHOR_SPACING);
        let newest = self.anchors.get(count.saturating_sub(1));
        if newest.is_none_or(|(at, _)| now.since(*at) >= spacing) {
            if count == ANCHORS {
                self.anchors.rotate_left(1);
            } else {
                self.anchor_count = self.anchor_count.saturating_add(1);
            }
            let place = usize::from(self.anchor_count)
                .min(ANCHORS)
                .saturating_sub(1);
            if let Some(slot) = self.anchors.get_mut(place) {
                *slot = (now, self.consumed);
            }
        }
        (bound > 0.0).then_some(bound)
    }
}

/// Capacity of a member, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberCapacities {
    values: Vec<MemberCapacity>,
    /// Samples for which the capacity that an earlier process measured still counts.
    blended: u32,
}

#[derive(Clone, Copy, Debug)]
struct MemberCapacity {
    key: u32,
    value: f32,
    at: PolicyTime,
}

impl MemberCapacities {
    /// Without values. If an earlier process measured the capacity, the first samples only correct it: they may be of
    /// one slow member.
    pub(super) fn after_restart(knows_capacity: bool) -> Self {
        Self {
            values: Vec::new(),
            blended: if knows_capacity { KNOWN_SAMPLES } else { 0 },
        }
    }

    /// Adds a sample of a member and recomputes the median over members. Slow pods are behind more often and so have
    /// more samples; therefore each member counts once.
    pub(super) fn add(
        &mut self,
        (key, sample): (u32, f64),
        now: PolicyTime,
        most: usize,
        learned: &mut LearnedPolicy,
    ) {
        match self.values.iter_mut().find(|member| member.key == key) {
            Some(member) => {
                let old = f64::from(member.value);
                member.value = compact(old + WEIGHT * (sample - old));
                member.at = now;
            }
            None => {
                if self.values.len() >= most.max(NEWEST) {
                    let oldest = (0..self.values.len())
                        .min_by_key(|place| self.values.get(*place).map(|member| member.at));
                    if let Some(oldest) = oldest {
                        self.values.swap_remove(oldest);
                    }
                }
                self.values.reserve_exact(1);
                self.values.push(MemberCapacity {
                    key,
                    value: compact(sample),
                    at: now,
                });
            }
        }
        learned.capacity_samples = learned.capacity_samples.saturating_add(1);
        let median = self.median(now);
        learned.capacity = match (median, learned.capacity) {
            (Some(median), Some(before)) if self.blended > 0 => {
                self.blended = self.blended.saturating_sub(1);
                Some(before + WEIGHT * (median - before))
            }
            _ => median,
        };
    }

    /// Lowers the lower bounds to what at least half of the members show while they are busy: the capacity has become
    /// smaller, or a bound was wrong.
    pub(super) fn lower_floors(
        &self,
        now: PolicyTime,
        members: usize,
        learned: &mut LearnedPolicy,
    ) {
        let fresh = self
            .values
            .iter()
            .filter(|member| now.since(member.at) <= FRESH);
        let (mut count, mut highest) = (0usize, 0.0f64);
        for member in fresh {
            count = count.saturating_add(1);
            highest = highest.max(f64::from(member.value));
        }
        if count.saturating_mul(2) >= members {
            learned.recent_floor.value = learned.recent_floor.value.min(highest);
            learned.best_floor.value = learned.best_floor.value.min(highest);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.values
            .capacity()
            .saturating_mul(size_of::<MemberCapacity>())
    }

    fn median(&self, now: PolicyTime) -> Option<f64> {
        let recent = |member: &&MemberCapacity| now.since(member.at) <= RECENT;
        let mut members: Vec<_> = self.values.iter().filter(recent).collect();
        if members.len() < 3 {
            members = self.values.iter().collect();
            members.sort_unstable_by_key(|member| std::cmp::Reverse(member.at));
            members.truncate(NEWEST);
        }
        members.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
        let middle = |place: usize| members.get(place).map(|member| f64::from(member.value));
        let (low, high) = (members.len().saturating_sub(1) / 2, members.len() / 2);
        Some((middle(low)? + middle(high)?) / 2.0)
    }
}

/// Capacity of a member in messages per second, and whether it was measured. `None` if nothing was processed yet.
///
/// `consumed` is the consumption of the group, if it was watched for long enough.
pub(super) fn estimate_capacity(
    learned: &LearnedPolicy,
    hint: Option<f64>,
    has_floor: bool,
    consumed: Option<f64>,
    members: u32,
    now: f64,
) -> Option<(f64, bool)> {
    if let Some(hint) = hint.filter(|_| learned.capacity_samples < KNOWN_SAMPLES) {
        return Some((hint, true));
    }
    let measured = learned.capacity.unwrap_or(0.0);
    let floor = |floor: f64| if has_floor { floor } else { 0.0 };
    if learned.capacity_samples >= KNOWN_SAMPLES {
        let capacity = measured.max(floor(learned.recent_floor(now)));
        return Some((capacity, true)).filter(|(capacity, _)| *capacity > 0.0);
    }
    let members = from_count(usize::try_from(members).unwrap_or(1).max(1));
    let capacity = measured
        .max(floor(learned.best_floor(now)))
        .max(consumed? / members);
    Some((capacity, false)).filter(|(capacity, _)| *capacity > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity_after(samples: &[f64], known: Option<f64>) -> f64 {
        let mut learned = LearnedPolicy {
            capacity: known,
            ..LearnedPolicy::default()
        };
        let mut capacities = MemberCapacities::after_restart(known.is_some());
        for sample in samples {
            let now = PolicyTime::from_seconds(5.0);
            capacities.add((1, *sample), now, 10, &mut learned);
        }
        learned.capacity.unwrap()
    }

    #[test]
    fn first_sample_after_a_restart_only_corrects_the_capacity() {
        let is_near = |found: f64, expected: f64| (found - expected).abs() < 1e-3;
        assert!(is_near(capacity_after(&[10.0], Some(100.0)), 64.0));
        // Without an earlier process it is all that is known.
        assert!(is_near(capacity_after(&[10.0], None), 10.0));
        // Later samples count in full.
        assert!(is_near(capacity_after(&[10.0; 4], Some(100.0)), 10.0));
    }
}
