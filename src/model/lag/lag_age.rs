//! Lag in time: the age of the first message that a group has not read.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::model::units::newtypes::{Lag, Offset};

/// An age in milliseconds, exact or a lower bound. Four bytes, also as an `Option`, because there is one
/// for every group and partition. Ages beyond 24 days are stored as "at least 24 days".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagAge(NonZeroU32);

const MAX_MILLIS: u32 = (1 << 31) - 2;

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
            Ok(millis) if millis <= MAX_MILLIS => (millis, is_bound),
            _ => (MAX_MILLIS, true),
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
const MAX_SAMPLES: usize = 12;

/// Maximum age of a sample.
const MAX_SAMPLE_AGE_MILLIS: u64 = 24 * 3600 * 1000;

/// Marks an unknown log-end offset; no log ends there.
const UNKNOWN: i64 = i64::MIN;

/// Maximum time between two samples during which the log counts as watched, unless the polls are further apart.
const MAX_WATCHED_GAP_MILLIS: u64 = 60 * 1000;

/// Log-end offsets of a topic's partitions at several times, shared by all groups that read the topic.
#[derive(Clone, Debug, Default)]
pub struct EndRing {
    partitions: usize,
    /// Sample times in milliseconds on one timeline, strictly ascending.
    times: Vec<u64>,
    /// For each sample, whether the log was watched since the sample before. If it was not, as before a start or during
    /// an outage, nothing says when the messages between the two were written.
    watched: Vec<bool>,
    /// How many of the first samples are from lookups by record timestamps, not from polls.
    looked_up: usize,
    /// Messages whose timestamps are known, sorted by partition and offset.
    messages: Vec<MessageTime>,
    /// [`MAX_SAMPLES`] slots per partition, partition after partition: the samples of one partition are
    /// contiguous, because a scrape computes [`Self::age`] for every group and partition.
    ends: Vec<i64>,
    /// Messages written to all partitions since the first poll.
    written: u64,
}

/// When a message was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MessageTime {
    partition: u32,
    offset: i64,
    /// In milliseconds on the timeline of the samples.
    at: u64,
}

impl MessageTime {
    fn key(&self) -> (u32, i64) {
        (self.partition, self.offset)
    }
}

impl EndRing {
    /// Adds the latest sample. A time that is not later than the last one is ignored.
    pub fn push(&mut self, at: u64, ends: impl ExactSizeIterator<Item = Option<Offset>>) {
        if self.times.last().is_some_and(|last| *last >= at) {
            return;
        }
        self.grow(ends.len());
        let polled = self.times.get(self.looked_up..).unwrap_or_default();
        let gap = |earlier: &u64, later: &u64| later.saturating_sub(*earlier);
        let usual = match polled {
            // The shorter of two, because one may be an outage.
            [.., first, before, last] => gap(first, before).min(gap(before, last)),
            [before, last] => gap(before, last),
            _ => 0,
        };
        let watched = polled.last().is_some_and(|last| {
            gap(last, &at) <= usual.saturating_mul(2).max(MAX_WATCHED_GAP_MILLIS)
        });
        if self.times.len() >= MAX_SAMPLES {
            let thinned = self.least_needed(at);
            self.remove(thinned);
        }
        self.insert(self.times.len(), at, watched, ends);
    }

    /// Adds a sample that was looked up. One that is not older than the first poll is ignored.
    pub fn seed(&mut self, at: u64, ends: impl ExactSizeIterator<Item = Option<Offset>>) {
        let polled = self.times.get(self.looked_up);
        let is_late = polled.is_some_and(|polled| *polled <= at);
        let looked_up = self.times.get(..self.looked_up).unwrap_or_default();
        let (Err(mut index), false) = (looked_up.binary_search(&at), is_late) else {
            return;
        };
        self.grow(ends.len());
        if self.times.len() >= MAX_SAMPLES {
            let now = self.times.last().copied().unwrap_or(at);
            let thinned = self.least_needed(now);
            self.remove(thinned);
            if thinned < index {
                index = index.saturating_sub(1);
            }
        }
        self.insert(index, at, false, ends);
        self.looked_up = self.looked_up.saturating_add(1);
    }

    /// Records when a message was written.
    pub fn record_message(&mut self, partition: usize, offset: Offset, at: u64) {
        let Ok(partition) = u32::try_from(partition) else {
            return;
        };
        let message = MessageTime {
            partition,
            offset: offset.0,
            at,
        };
        let key = message.key();
        if let Err(index) = self.messages.binary_search_by_key(&key, MessageTime::key) {
            self.messages.insert(index, message);
        }
    }

    /// Adds messages that a poll showed.
    pub fn add_written(&mut self, messages: Lag) {
        self.written = self.written.saturating_add(messages.0);
    }

    /// Messages written to all partitions since the first poll. It never falls, so the difference of two readings is
    /// what was written between them.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Messages written to each partition between the first of the samples that are at most this much older than the
    /// last one, and the last one; `None` if there are fewer than three, or one of the partitions is unknown.
    #[must_use]
    pub fn growth(&self, over: Duration) -> Option<Vec<Lag>> {
        let last = self.times.last()?;
        let over = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let begin = last.saturating_sub(over);
        let first = self.times.partition_point(|time| *time < begin);
        let count = self.times.len();
        if count.saturating_sub(first) < 3 {
            return None;
        }
        let of_partition = |slots: &[i64]| {
            let ends = (*slots.get(first)?, *slots.get(count.saturating_sub(1))?);
            let is_known = ends.0 != UNKNOWN && ends.1 != UNKNOWN;
            Offset(ends.1)
                .distance_from(Offset(ends.0))
                .filter(|_| is_known)
        };
        self.ends
            .chunks_exact(MAX_SAMPLES)
            .map(of_partition)
            .collect()
    }

    fn message_time(&self, partition: usize, offset: Offset) -> Option<u64> {
        let key = (u32::try_from(partition).ok()?, offset.0);
        let index = self.messages.binary_search_by_key(&key, MessageTime::key);
        self.messages.get(index.ok()?).map(|message| message.at)
    }

    /// Forgets the samples of a partition whose log was replaced.
    pub fn forget(&mut self, partition: usize) {
        self.messages
            .retain(|message| usize::try_from(message.partition) != Ok(partition));
        let slots = self.ends.chunks_exact_mut(MAX_SAMPLES);
        if let Some(slots) = slots.into_iter().nth(partition) {
            slots.fill(UNKNOWN);
        }
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.times.clear();
        self.watched.clear();
        self.looked_up = 0;
        self.messages.clear();
        self.ends.fill(UNKNOWN);
    }

    /// Age at `now` of the message at offset `first_unread`: by its timestamp where that is known, else the time since
    /// the log-end offset passed it, interpolated between two polls. Where the log was not watched at the time, it is a
    /// lower bound: the age of the oldest sample that has the message. Zero if the message has not been written yet,
    /// and `None` if no end of the partition is known.
    #[must_use]
    pub fn age(&self, partition: usize, first_unread: Offset, now: u64) -> Option<LagAge> {
        if let Some(at) = self.message_time(partition, first_unread) {
            return Some(LagAge::exactly(now.saturating_sub(at)));
        }
        let start = partition.checked_mul(MAX_SAMPLES)?;
        let slots = self.ends.get(start..start.checked_add(self.times.len())?)?;
        let mut later: Option<(usize, u64, i64)> = None;
        for (index, (time, end)) in self.times.iter().zip(slots).enumerate().rev() {
            if *end == UNKNOWN {
                continue;
            }
            if *end <= first_unread.0 {
                let Some((later_index, later_time, later_end)) = later else {
                    return Some(LagAge::exactly(0));
                };
                if !self.is_watched(index, later_index) {
                    return Some(LagAge::at_least(now.saturating_sub(later_time)));
                }
                let passed = interpolated((*time, *end), (later_time, later_end), first_unread.0);
                return Some(LagAge::exactly(now.saturating_sub(passed)));
            }
            later = Some((index, *time, *end));
        }
        later.map(|(_, oldest, _)| LagAge::at_least(now.saturating_sub(oldest)))
    }

    /// Whether the log was watched from one sample to another.
    fn is_watched(&self, from: usize, to: usize) -> bool {
        let samples = from.saturating_add(1)..=to;
        let watched = self.watched.get(samples);
        watched.is_some_and(|watched| watched.iter().all(|watched| *watched))
    }

    fn insert(
        &mut self,
        index: usize,
        at: u64,
        watched: bool,
        ends: impl Iterator<Item = Option<Offset>>,
    ) {
        let count = self.times.len();
        // A copy of the ring has no room to spare, and doubling would waste half.
        self.times.reserve_exact(1);
        self.times.insert(index, at);
        self.watched.insert(index, watched);
        let ends = ends.chain(std::iter::repeat(None));
        for (slots, end) in self.ends.chunks_exact_mut(MAX_SAMPLES).zip(ends) {
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
        // The next sample follows the one before now.
        let watched = self.watched.remove(index);
        if let Some(next) = self.watched.get_mut(index) {
            *next &= watched;
        }
        if index < self.looked_up {
            self.looked_up = self.looked_up.saturating_sub(1);
        }
        for slots in self.ends.chunks_exact_mut(MAX_SAMPLES) {
            slots.copy_within(index.saturating_add(1)..count, index);
        }
    }

    /// Adds the new partitions, whose past is unknown.
    fn grow(&mut self, partitions: usize) {
        if partitions <= self.partitions {
            return;
        }
        if self.partitions == 0 {
            self.clear();
        }
        self.partitions = partitions;
        let slots = partitions.saturating_mul(MAX_SAMPLES);
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
        if since(1) >= u128::from(MAX_SAMPLE_AGE_MILLIS) {
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
    let part = offset.abs_diff(earlier.1);
    let whole = later.1.abs_diff(earlier.1).max(1);
    let took = later.0.saturating_sub(earlier.0);
    // Division of 128 bits takes much longer, and there is one for each partition of each group.
    let passed = match took.checked_mul(part) {
        Some(product) => product.checked_div(whole).unwrap_or(0),
        None => {
            let product = u128::from(took).saturating_mul(u128::from(part));
            let passed = product.checked_div(u128::from(whole)).unwrap_or(0);
            u64::try_from(passed).unwrap_or(u64::MAX)
        }
    };
    earlier.0.saturating_add(passed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(ends: &[i64]) -> impl ExactSizeIterator<Item = Option<Offset>> {
        ends.iter().map(|end| Some(Offset(*end)))
    }

    #[test]
    fn times_are_interpolated_between_any_numbers() {
        for ((earlier, later), offset, expected) in [
            (((1000, 0), (2000, 10)), 5, 1500),
            (((1000, 10), (2000, 10)), 10, 1000),
            (((0, 0), (1 << 40, 1 << 40)), 1 << 39, 1 << 39),
            (((0, 0), (u64::MAX, i64::MAX)), i64::MAX, u64::MAX),
            (((500, 0), (1 << 62, i64::MAX)), i64::MAX / 2, 1 << 61),
        ] {
            let passed = interpolated(earlier, later, offset);
            assert!(passed.abs_diff(expected) <= 500, "{passed} {expected}");
        }
    }

    fn ring(samples: &[(u64, i64)]) -> EndRing {
        let mut ring = EndRing::default();
        for (at, end) in samples {
            ring.push(*at, ends(&[*end]));
        }
        ring
    }

    #[test]
    fn growth_is_that_of_the_last_samples() {
        let over = Duration::from_secs(10);
        let mut ring = EndRing::default();
        for (at, two) in [
            (0, [0, 0]),
            (5_000, [10, 100]),
            (10_000, [20, 300]),
            (15_000, [40, 300]),
        ] {
            ring.push(at, ends(&two));
        }
        assert_eq!(ring.growth(over), Some(vec![Lag(30), Lag(200)]));
        assert_eq!(ring.growth(Duration::from_secs(5)), None, "two samples");
        let partly = [Some(Offset(50)), None];
        ring.push(20_000, partly.into_iter());
        assert_eq!(ring.growth(over), None, "a partition is unknown");
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
        // Nothing says when the messages between a lookup and the first poll were written.
        ring.seed(500, ends(&[10]));
        assert_eq!(age(&ring), Some(LagAge::at_least(2000)));
        ring.seed(700, ends(&[30]));
        assert_eq!(age(&ring), Some(LagAge::at_least(2300)));
        ring.seed(600, ends(&[10]));
        assert_eq!(age(&ring), Some(LagAge::at_least(2300)));
        ring.seed(1500, ends(&[10]));
        assert_eq!(age(&ring), Some(LagAge::at_least(2300)), "polled already");
        assert_eq!(ring.age(1, Offset(20), 3000), None);
        assert_eq!(ring.age(0, Offset(75), 3000), Some(LagAge::exactly(1500)));
    }

    #[test]
    fn the_timestamp_of_a_message_is_its_age() {
        // Idle for ten minutes, then a message that is a second old.
        let mut ring = ring(&[(600_000, 101)]);
        ring.seed(0, ends(&[100]));
        assert_eq!(
            ring.age(0, Offset(100), 600_000),
            Some(LagAge::at_least(0)),
            "it may be ten minutes old"
        );
        for _ in 0..2 {
            ring.record_message(0, Offset(100), 599_000);
        }
        assert_eq!(ring.messages.len(), 1);
        assert_eq!(
            ring.age(0, Offset(100), 600_000),
            Some(LagAge::exactly(1000))
        );
        assert_eq!(
            ring.age(0, Offset(99), 600_000),
            Some(LagAge::at_least(600_000))
        );
        ring.forget(0);
        assert_eq!(ring.age(0, Offset(100), 600_000), None);
    }

    #[test]
    fn an_age_in_a_time_without_polls_is_a_lower_bound() {
        let minute = 60_000;
        for (polls, expected) in [
            // An outage.
            ([0, 5000, 10 * minute], LagAge::at_least(0)),
            // A poll every ten minutes.
            ([0, 10 * minute, 20 * minute], LagAge::exactly(10 * minute)),
        ] {
            let [a, b, now] = polls;
            let ring = ring(&[(a, 100), (b, 100), (now, 101)]);
            assert_eq!(ring.age(0, Offset(100), now), Some(expected));
        }
    }

    #[test]
    fn one_poll_between_two_outages_does_not_make_outages_usual() {
        let minute = 60_000;
        let now = 25 * minute;
        let ring = ring(&[(0, 100), (5000, 100), (10 * minute, 100), (now, 101)]);
        assert_eq!(ring.age(0, Offset(100), now), Some(LagAge::at_least(0)));
    }

    #[test]
    fn a_lower_bound_remains_one_after_samples_were_thinned_out() {
        let mut ring = ring(&[(0, 100), (5000, 100)]);
        for at in (600_000..2_000_000).step_by(5000) {
            ring.push(at, ends(&[101]));
        }
        let age = ring.age(0, Offset(100), 2_000_000).unwrap();
        assert!(age.is_bound(), "{age:?}");
        assert!(age.duration() <= Duration::from_secs(1400), "{age:?}");
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
        assert!(ring.times.len() <= MAX_SAMPLES);
        assert_eq!(ring.ends.capacity(), MAX_SAMPLES);
        let now = (2 * day - 5) * 1000;
        assert!(
            now - ring.times[0] >= MAX_SAMPLE_AGE_MILLIS / 2,
            "{:?}",
            ring.times
        );
        let ages: Vec<u64> = ring.times.iter().map(|time| (now - time) / 1000).collect();
        for pair in ages.windows(2).take(MAX_SAMPLES - 2) {
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
