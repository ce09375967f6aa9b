//! Capacities of the members of a group, and their median.

use std::collections::{BTreeSet, HashMap};

use super::capacity::MIN_CAPACITY_SAMPLES;
use super::learned::LearnedPolicy;
use super::policy_time::{PolicyTime, compact};

/// Weight of a new sample of a member.
const WEIGHT: f64 = 0.4;
/// Age of the samples that the median prefers, in seconds.
const RECENT: f64 = 30.0 * 60.0;
/// Age of the samples that lower bounds are compared with, in seconds.
const FRESH: f64 = 180.0;
/// Members whose values count if fewer than three are recent.
const NEWEST: usize = 16;
/// Relative difference from the median above which a member's own value is used. A smaller one may be an error of
/// measurement.
const UNEVEN: f64 = 0.1;

/// Known capacities of members.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberCapacities {
    values: Vec<MemberCapacity>,
    /// Number of the next samples that are blended into the capacity that an earlier process measured.
    blended: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct MemberCapacity {
    key: u32,
    value: f32,
    at: PolicyTime,
}

impl MemberCapacity {
    fn is_fresh(&self, now: PolicyTime) -> bool {
        now.since(self.at) <= FRESH
    }
}

impl MemberCapacities {
    /// Starts without values. If an earlier process measured the capacity, the first samples are blended into it and do
    /// not replace it, because they may come from one slow member.
    pub(super) fn after_restart(knows_capacity: bool) -> Self {
        Self {
            values: Vec::new(),
            blended: if knows_capacity {
                MIN_CAPACITY_SAMPLES
            } else {
                0
            },
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.values
            .capacity()
            .saturating_mul(size_of::<MemberCapacity>())
    }

    /// The capacity of each member that has samples: its own if it differs clearly from `median`, or else the median.
    pub(super) fn by_member(&self, median: f64) -> HashMap<u32, f64> {
        let values = self.values.iter().map(|member| {
            let own = f64::from(member.value);
            let is_uneven = (own - median).abs() > UNEVEN * median;
            (member.key, if is_uneven { own } else { median })
        });
        values.collect()
    }

    /// Median over the members with recent samples. A pod that falls behind is a slow one, so each member counts once,
    /// however often it is busy.
    fn median(&self, now: PolicyTime) -> Option<f64> {
        let recent = |member: &&MemberCapacity| now.since(member.at) <= RECENT;
        let mut members: Vec<_> = self.values.iter().filter(recent).collect();
        if members.len() < 3 {
            members = self.values.iter().collect();
            members.sort_by_key(|member| std::cmp::Reverse(member.at));
            members.truncate(NEWEST);
        }
        members.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
        let middle = |place: usize| members.get(place).map(|member| f64::from(member.value));
        let (low, high) = (members.len().saturating_sub(1) / 2, members.len() / 2);
        Some((middle(low)? + middle(high)?) / 2.0)
    }
}

/// Records the samples of one reading, in O(log n) for each of n members. All members may have one at once.
#[derive(Debug)]
pub(super) struct CapacitySamples<'a> {
    capacities: &'a mut MemberCapacities,
    now: PolicyTime,
    /// Places of the members in `values`.
    places: HashMap<u32, usize>,
    /// Times and places of all values.
    by_time: BTreeSet<(PolicyTime, usize)>,
    /// Fresh values with their places. The values are stored as bits, which for positive numbers have the same order.
    fresh: BTreeSet<(u32, usize)>,
    has_any: bool,
    is_median_due: bool,
}

impl<'a> CapacitySamples<'a> {
    pub(super) fn begin(capacities: &'a mut MemberCapacities, now: PolicyTime) -> Self {
        Self {
            now,
            places: HashMap::new(),
            by_time: BTreeSet::new(),
            fresh: BTreeSet::new(),
            has_any: false,
            is_median_due: false,
            capacities,
        }
    }

    /// Finds the places of all members, once there is a sample: most readings have none.
    fn find_places(&mut self) {
        if !std::mem::replace(&mut self.has_any, true) {
            for place in 0..self.capacities.values.len() {
                self.index(place);
            }
        }
    }

    /// Adds the value at a place to the indexes.
    fn index(&mut self, place: usize) {
        let Some(member) = self.capacities.values.get(place) else {
            return;
        };
        self.places.insert(member.key, place);
        self.by_time.insert((member.at, place));
        if member.is_fresh(self.now) {
            self.fresh.insert((member.value.to_bits(), place));
        }
    }

    /// Removes the value at a place from the indexes, before it changes.
    fn unindex(&mut self, place: usize) {
        let Some(member) = self.capacities.values.get(place) else {
            return;
        };
        self.places.remove(&member.key);
        self.by_time.remove(&(member.at, place));
        self.fresh.remove(&(member.value.to_bits(), place));
    }

    /// Adds a sample of a member. Beyond `most` members, one that had no sample for longest is forgotten.
    pub(super) fn add(
        &mut self,
        (key, sample): (u32, f64),
        most: usize,
        learned: &mut LearnedPolicy,
    ) {
        self.find_places();
        let known = self.places.get(&key).copied();
        let place = known.unwrap_or_else(|| {
            if self.capacities.values.len() >= most.max(NEWEST) {
                self.forget_oldest();
            }
            self.capacities.values.len()
        });
        self.unindex(place);
        match self.capacities.values.get_mut(place) {
            Some(member) => {
                let old = f64::from(member.value);
                member.value = compact(old + WEIGHT * (sample - old));
                member.at = self.now;
            }
            None => {
                let values = &mut self.capacities.values;
                values.reserve_exact(1);
                values.push(MemberCapacity {
                    key,
                    value: compact(sample),
                    at: self.now,
                });
            }
        }
        self.index(place);
        learned.capacity_samples = learned.capacity_samples.saturating_add(1);
        self.is_median_due = true;
        // Each of the first medians after a restart moves the capacity. Otherwise the last one counts.
        if self.capacities.blended > 0 {
            self.take_median(learned);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, oldest)) = self.by_time.first().copied() else {
            return;
        };
        let last = self.capacities.values.len().saturating_sub(1);
        self.unindex(oldest);
        self.unindex(last);
        self.capacities.values.swap_remove(oldest);
        if oldest != last {
            self.index(oldest);
        }
    }

    fn take_median(&mut self, learned: &mut LearnedPolicy) {
        self.is_median_due = false;
        let median = self.capacities.median(self.now);
        learned.capacity = match (median, learned.capacity) {
            (Some(median), Some(before)) if self.capacities.blended > 0 => {
                self.capacities.blended = self.capacities.blended.saturating_sub(1);
                Some(before + WEIGHT * (median - before))
            }
            _ => median,
        };
    }

    /// Lowers the lower bounds to what at least half of the members show while they are busy: the capacity has become
    /// smaller, or a bound was wrong.
    pub(super) fn lower_floors(&self, members: usize, learned: &mut LearnedPolicy) {
        if self.fresh.len().saturating_mul(2) < members {
            return;
        }
        let highest = self.fresh.last();
        let highest = highest.map_or(0.0, |(bits, _)| f64::from(f32::from_bits(*bits)));
        learned.recent_floor.value = learned.recent_floor.value.min(highest);
        learned.best_floor.value = learned.best_floor.value.min(highest);
    }

    /// Computes the capacity from the samples.
    pub(super) fn finish(mut self, learned: &mut LearnedPolicy) {
        if self.is_median_due {
            self.take_median(learned);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, as plainly as it can be written: a search, a median and a maximum for each sample.
    #[derive(Clone, Debug, Default)]
    struct PlainCapacities(MemberCapacities);

    impl PlainCapacities {
        fn add(
            &mut self,
            (key, sample): (u32, f64),
            now: PolicyTime,
            (most, members): (usize, usize),
            learned: &mut LearnedPolicy,
        ) {
            let values = &mut self.0.values;
            match values.iter_mut().find(|member| member.key == key) {
                Some(member) => {
                    let old = f64::from(member.value);
                    member.value = compact(old + WEIGHT * (sample - old));
                    member.at = now;
                }
                None => {
                    if values.len() >= most.max(NEWEST) {
                        let oldest = (0..values.len()).min_by_key(|place| values[*place].at);
                        values.swap_remove(oldest.unwrap());
                    }
                    let value = compact(sample);
                    values.push(MemberCapacity {
                        key,
                        value,
                        at: now,
                    });
                }
            }
            learned.capacity_samples += 1;
            let median = self.0.median(now);
            learned.capacity = match (median, learned.capacity) {
                (Some(median), Some(before)) if self.0.blended > 0 => {
                    self.0.blended -= 1;
                    Some(before + WEIGHT * (median - before))
                }
                _ => median,
            };
            let fresh = self.0.values.iter().filter(|member| member.is_fresh(now));
            let highest = fresh.clone().map(|member| f64::from(member.value));
            let highest = highest.fold(0.0, f64::max);
            if fresh.count() * 2 >= members {
                learned.recent_floor.value = learned.recent_floor.value.min(highest);
                learned.best_floor.value = learned.best_floor.value.min(highest);
            }
        }
    }

    fn learned(capacity: Option<f64>) -> LearnedPolicy {
        let mut learned = LearnedPolicy {
            capacity,
            ..LearnedPolicy::default()
        };
        learned.raise_floors(70.0, 0.0);
        learned
    }

    proptest! {
        #[test]
        fn equals_the_samples_in_sequence(
            readings in proptest::collection::vec(
                (1u32..900, proptest::collection::vec((0u32..40, 0u32..200), 0..30)),
                1..20,
            ),
            capacity in proptest::option::of(1.0f64..200.0),
            (most, members) in (1usize..30, 1usize..40),
        ) {
            let mut quick = MemberCapacities::after_restart(capacity.is_some());
            let mut plain = PlainCapacities(quick.clone());
            let (mut by_quick, mut by_plain) = (learned(capacity), learned(capacity));
            let mut seconds = 0.0;
            for (elapsed, samples) in readings {
                seconds += f64::from(elapsed);
                let now = PolicyTime::from_seconds(seconds);
                let mut batch = CapacitySamples::begin(&mut quick, now);
                for (key, sample) in samples {
                    let sample = (key, f64::from(sample) / 2.0);
                    batch.add(sample, most, &mut by_quick);
                    batch.lower_floors(members, &mut by_quick);
                    plain.add(sample, now, (most, members), &mut by_plain);
                    // The floor of another member may rise between two samples.
                    if key % 7 == 0 {
                        by_quick.raise_floors(sample.1, seconds);
                        by_plain.raise_floors(sample.1, seconds);
                    }
                }
                batch.finish(&mut by_quick);
                prop_assert_eq!(by_quick, by_plain);
                prop_assert_eq!(&quick.values, &plain.0.values);
            }
        }
    }

    #[test]
    fn members_that_differ_clearly_have_their_own_capacity() {
        let mut capacities = MemberCapacities::default();
        let mut batch = CapacitySamples::begin(&mut capacities, PolicyTime::from_seconds(5.0));
        let mut learned = LearnedPolicy::default();
        for (key, sample) in [(1, 70.0), (2, 95.0), (3, 100.0), (4, 130.0)] {
            batch.add((key, sample), 10, &mut learned);
        }
        batch.finish(&mut learned);
        let found = capacities.by_member(100.0);
        let expected = [(1, 70.0), (2, 100.0), (3, 100.0), (4, 130.0)];
        assert_eq!(found, HashMap::from(expected));
    }

    fn capacity_after(samples: &[f64], known: Option<f64>) -> f64 {
        let mut learned = LearnedPolicy {
            capacity: known,
            ..LearnedPolicy::default()
        };
        let mut capacities = MemberCapacities::after_restart(known.is_some());
        for sample in samples {
            let now = PolicyTime::from_seconds(5.0);
            let mut batch = CapacitySamples::begin(&mut capacities, now);
            batch.add((1, *sample), 10, &mut learned);
            batch.finish(&mut learned);
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
