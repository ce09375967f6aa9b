//! Lag in time: the age of the first message that a group has not read.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::model::units::newtypes::Offset;

/// An age in milliseconds, exact or a lower bound. Four bytes, also as an `Option`, because there is one
/// for every group and partition. Ages beyond 24 days are stored as "at least 24 days".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagAge(NonZeroU32);

const LONGEST_MILLIS: u32 = (1 << 31) - 2;

impl LagAge {
    /// An exact age.
    #[must_use]
    pub fn exactly(millis: u64) -> Self {
        Self::new(millis, false)
    }

    /// A lower bound.
    #[must_use]
    pub fn at_least(millis: u64) -> Self {
        Self::new(millis, true)
    }

    fn new(millis: u64, is_bound: bool) -> Self {
        let (millis, is_bound) = match u32::try_from(millis) {
            Ok(millis) if millis <= LONGEST_MILLIS => (millis, is_bound),
            _ => (LONGEST_MILLIS, true),
        };
        let packed = (millis << 1) | u32::from(is_bound);
        Self(NonZeroU32::MIN.saturating_add(packed))
    }

    fn packed(self) -> u32 {
        self.0.get().saturating_sub(1)
    }

    /// The age, or its lower bound.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.packed() >> 1))
    }

    /// Whether this is only a lower bound.
    #[must_use]
    pub fn is_bound(self) -> bool {
        self.packed() & 1 == 1
    }

    /// The larger of two ages; a lower bound if either of them is.
    #[must_use]
    pub fn or_older(self, other: Self) -> Self {
        let millis = (self.packed() >> 1).max(other.packed() >> 1);
        Self::new(u64::from(millis), self.is_bound() || other.is_bound())
    }
}

/// Maximum number of samples per topic. Old ones are thinned out, so that a few of them reach far back.
const SAMPLES_MAX: usize = 12;

/// Maximum age of a sample.
const REACH_MILLIS: u64 = 24 * 3600 * 1000;

/// Marks an unknown log-end offset; no log ends there.
const UNKNOWN: i64 = i64::MIN;

/// Log-end offsets of a topic's partitions at several times, shared by all groups that read the topic.
#[derive(Clone, Debug, Default)]
pub struct EndRing {
    partitions: usize,
    /// Sample times in milliseconds on one timeline, strictly ascending.
    times: Vec<u64>,
    /// [`SAMPLES_MAX`] slots per partition, partition after partition: the samples of one partition are
    /// contiguous, because a scrape computes [`Self::age`] for every group and partition.
    ends: Vec<i64>,
}

impl EndRing {
    /// Adds the latest sample. A time that is not later than the last one is ignored.
    pub fn push(&mut self, at: u64, ends: impl ExactSizeIterator<Item = Option<Offset>>) {
        if self.times.last().is_some_and(|last| *last >= at) {
            return;
        }
        self.grow(ends.len());
        if self.times.len() >= SAMPLES_MAX {
            let thinned = self.least_needed(at);
            self.remove(thinned);
        }
        self.insert(self.times.len(), at, ends);
    }

    /// Adds a sample from before the first one, unless there is one that old.
    pub fn seed(&mut self, at: u64, ends: impl ExactSizeIterator<Item = Option<Offset>>) {
        if self.times.first().is_some_and(|first| *first <= at) {
            return;
        }
        self.grow(ends.len());
        if self.times.len() >= SAMPLES_MAX {
            self.remove(0);
        }
        self.insert(0, at, ends);
    }

    /// Forgets the samples of a partition whose log was replaced.
    pub fn forget(&mut self, partition: usize) {
        let slots = self.ends.chunks_exact_mut(SAMPLES_MAX);
        if let Some(slots) = slots.into_iter().nth(partition) {
            slots.fill(UNKNOWN);
        }
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.times.clear();
        self.ends.fill(UNKNOWN);
    }

    /// Age at `now` of the message at offset `first_unread`: the time since the log-end offset passed
    /// it, interpolated between two samples. A lower bound if the message is older than the first
    /// sample, zero if it has not been written yet, and `None` if no end of the partition is known.
    #[must_use]
    pub fn age(&self, partition: usize, first_unread: Offset, now: u64) -> Option<LagAge> {
        let start = partition.checked_mul(SAMPLES_MAX)?;
        let slots = self.ends.get(start..start.checked_add(self.times.len())?)?;
        let mut later: Option<(u64, i64)> = None;
        for (time, end) in self.times.iter().zip(slots).rev() {
            if *end == UNKNOWN {
                continue;
            }
            if *end <= first_unread.0 {
                let Some((later_time, later_end)) = later else {
                    return Some(LagAge::exactly(0));
                };
                let passed = interpolated((*time, *end), (later_time, later_end), first_unread.0);
                return Some(LagAge::exactly(now.saturating_sub(passed)));
            }
            later = Some((*time, *end));
        }
        later.map(|(oldest, _)| LagAge::at_least(now.saturating_sub(oldest)))
    }

    fn insert(&mut self, index: usize, at: u64, ends: impl Iterator<Item = Option<Offset>>) {
        let count = self.times.len();
        // A copy of the ring has no room to spare, and doubling would waste half.
        self.times.reserve_exact(1);
        self.times.insert(index, at);
        let ends = ends.chain(std::iter::repeat(None));
        for (slots, end) in self.ends.chunks_exact_mut(SAMPLES_MAX).zip(ends) {
            if index < count {
                slots.copy_within(index..count, index.saturating_add(1));
            }
            if let Some(slot) = slots.get_mut(index) {
                *slot = end.map_or(UNKNOWN, |end| end.0);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let count = self.times.len();
        self.times.remove(index);
        for slots in self.ends.chunks_exact_mut(SAMPLES_MAX) {
            slots.copy_within(index.saturating_add(1)..count, index);
        }
    }

    /// Makes room for added partitions, of whose past nothing is known.
    fn grow(&mut self, partitions: usize) {
        if partitions <= self.partitions {
            return;
        }
        if self.partitions == 0 {
            self.times.clear();
        }
        self.partitions = partitions;
        let slots = partitions.saturating_mul(SAMPLES_MAX);
        // Exactly as much as is needed, as above.
        self.ends
            .reserve_exact(slots.saturating_sub(self.ends.len()));
        self.ends.resize(slots, UNKNOWN);
    }

    /// Index of the sample whose loss costs least: one beyond the reach, or the one whose gap would be
    /// the smallest fraction of its age.
    fn least_needed(&self, now: u64) -> usize {
        let since = |index: usize| {
            let time = self.times.get(index).copied().unwrap_or(now);
            u128::from(now.saturating_sub(time))
        };
        if since(1) >= u128::from(REACH_MILLIS) {
            return 0;
        }
        let mut least = (1, u128::MAX, 1);
        for index in 1..self.times.len().saturating_sub(1) {
            let age = since(index.saturating_sub(1));
            let gap = age.saturating_sub(since(index.saturating_add(1)));
            let (_, least_gap, least_age) = least;
            // gap / age < least_gap / least_age
            if gap.saturating_mul(least_age) < least_gap.saturating_mul(age) {
                least = (index, gap, age);
            }
        }
        least.0
    }
}

/// Time at which the log-end offset passed `offset`, if it grew evenly between two samples.
fn interpolated(earlier: (u64, i64), later: (u64, i64), offset: i64) -> u64 {
    let part = u128::from(offset.abs_diff(earlier.1));
    let whole = u128::from(later.1.abs_diff(earlier.1)).max(1);
    let took = u128::from(later.0.saturating_sub(earlier.0));
    let passed = took.saturating_mul(part).checked_div(whole).unwrap_or(0);
    earlier
        .0
        .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(ends: &[i64]) -> impl ExactSizeIterator<Item = Option<Offset>> {
        ends.iter().map(|end| Some(Offset(*end)))
    }

    fn ring(samples: &[(u64, i64)]) -> EndRing {
        let mut ring = EndRing::default();
        for (at, end) in samples {
            ring.push(*at, ends(&[*end]));
        }
        ring
    }

    #[test]
    fn an_age_is_interpolated_between_two_samples() {
        let ring = ring(&[(1000, 0), (2000, 100), (3000, 100), (4000, 200)]);
        for (offset, age) in [
            (0, LagAge::exactly(4000)),
            (50, LagAge::exactly(3500)),
            (99, LagAge::exactly(3010)),
            // Nothing came between 2000 and 3000.
            (100, LagAge::exactly(2000)),
            (150, LagAge::exactly(1500)),
            (200, LagAge::exactly(0)),
            (999, LagAge::exactly(0)),
        ] {
            assert_eq!(ring.age(0, Offset(offset), 5000), Some(age), "{offset}");
        }
    }

    #[test]
    fn an_age_before_the_first_sample_is_a_lower_bound() {
        let mut ring = ring(&[(1000, 50), (2000, 100)]);
        let age = |ring: &EndRing| ring.age(0, Offset(20), 3000);
        assert_eq!(age(&ring), Some(LagAge::at_least(2000)));
        ring.seed(500, ends(&[10]));
        assert_eq!(age(&ring), Some(LagAge::exactly(2375)));
        ring.seed(700, ends(&[0]));
        assert_eq!(age(&ring), Some(LagAge::exactly(2375)), "known already");
        assert_eq!(ring.age(1, Offset(20), 3000), None);
    }

    #[test]
    fn added_partitions_have_no_samples_before() {
        let mut ring = ring(&[(1000, 50)]);
        ring.push(2000, ends(&[60, 9]));
        assert_eq!(ring.age(0, Offset(55), 2000), Some(LagAge::exactly(500)));
        assert_eq!(ring.age(1, Offset(0), 2500), Some(LagAge::at_least(500)));
        ring.push(3000, [None, Some(Offset(10))].into_iter());
        assert_eq!(ring.age(0, Offset(55), 3000), Some(LagAge::exactly(1500)));
    }

    #[test]
    fn a_partition_whose_log_was_replaced_starts_over() {
        let mut ring = EndRing::default();
        ring.push(1000, ends(&[50, 50]));
        ring.forget(1);
        ring.push(2000, ends(&[60, 5]));
        assert_eq!(ring.age(0, Offset(50), 2000), Some(LagAge::exactly(1000)));
        assert_eq!(ring.age(1, Offset(0), 3000), Some(LagAge::at_least(1000)));
    }

    #[test]
    fn samples_are_dense_recently_and_reach_a_day_back() {
        let mut ring = EndRing::default();
        let day = 24 * 3600;
        for second in (0..2 * day).step_by(5) {
            // One message a second, so that an offset is the time at which it came.
            ring.push(second * 1000, ends(&[i64::try_from(second).unwrap()]));
        }
        assert!(ring.times.len() <= SAMPLES_MAX);
        assert_eq!(ring.ends.capacity(), SAMPLES_MAX);
        let now = (2 * day - 5) * 1000;
        assert!(now - ring.times[0] >= REACH_MILLIS / 2, "{:?}", ring.times);
        let ages: Vec<u64> = ring.times.iter().map(|time| (now - time) / 1000).collect();
        for pair in ages.windows(2).take(SAMPLES_MAX - 2) {
            assert!(pair[0] <= 6 * pair[1].max(5), "{ages:?}");
        }
        for behind in [3, 60, 600, 3600, 6 * 3600_u64] {
            let offset = i64::try_from(2 * day - 5 - behind).unwrap();
            assert_eq!(
                ring.age(0, Offset(offset), now),
                Some(LagAge::exactly(behind * 1000))
            );
        }
    }

    #[test]
    fn the_maximum_of_ages_is_a_bound_if_one_of_them_is() {
        let (short, long) = (LagAge::at_least(5), LagAge::exactly(9));
        assert_eq!(short.or_older(long), LagAge::at_least(9));
        assert_eq!(long.or_older(LagAge::exactly(2)), long);
        assert!(LagAge::exactly(u64::MAX).is_bound());
        assert_eq!(size_of::<Option<LagAge>>(), 4);
    }

    proptest! {
        #[test]
        fn an_age_never_exceeds_the_oldest_sample(
            samples in proptest::collection::vec((0u64..100_000, any::<i64>()), 0..40),
            offset: i64,
            now: u64,
        ) {
            let mut sorted = samples;
            sorted.sort_unstable();
            let ring = ring(&sorted);
            if let Some(age) = ring.age(0, Offset(offset), now) {
                let oldest = now.saturating_sub(ring.times[0]);
                prop_assert!(age.duration().as_millis() <= u128::from(oldest));
            }
        }

        #[test]
        fn a_later_offset_is_never_older(
            steps in proptest::collection::vec((1u64..60_000, 0i64..1000), 1..60),
            at in 0i64..30_000,
            more in 0i64..1000,
        ) {
            let mut ring = EndRing::default();
            let (mut time, mut end) = (0, 0);
            for (passed, came) in steps {
                time += passed;
                end += came;
                ring.push(time, ends(&[end]));
            }
            let age = |offset| ring.age(0, Offset(offset), time).unwrap().duration();
            prop_assert!(age(at + more) <= age(at));
        }
    }
}
