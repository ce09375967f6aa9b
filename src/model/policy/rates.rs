//! Rates: the growth of a counter over windows of up to 180 s, and the shares of partitions in it.

use super::policy_time::PolicyTime;

/// Windows over which rates are measured, in seconds.
pub(super) const FAST: f64 = 20.0;
pub(super) const MEDIUM: f64 = 60.0;
pub(super) const SLOW: f64 = 180.0;
/// The newest arrivals are those of so many seconds, or of the last poll if that is longer.
const NEWEST: f64 = 5.0;

/// The newest samples are at least so many seconds apart.
const NEWEST_SPACING: f64 = 1.0;
/// Samples older than the first number of seconds are thinned until neighbours of a sample are further apart than the
/// second.
const THINNING: [(f64, f64); 2] = [(30.0, 16.0), (NEWEST + 1.0, 3.0)];
/// Maximum number of samples. Regular polls need fewer, however frequent they are.
const MAX_SAMPLES: usize = 32;

/// A growing counter's samples over the last 180 s: dense for the last seconds, thinned before.
#[derive(Clone, Debug, Default)]
pub(super) struct GrowthRing {
    /// The time of each sample, and how far the counter was below its current value then: a difference, so that it is
    /// small enough for single precision.
    samples: Vec<(PolicyTime, f32)>,
    /// Everything that was added since the beginning.
    total: f64,
}

impl GrowthRing {
    /// Adds the growth of the counter since the previous sample.
    pub(super) fn add(&mut self, at: PolicyTime, growth: f64) {
        for (_, below) in &mut self.samples {
            *below += super::policy_time::compact(growth);
        }
        self.total += growth;
        // Frequent polls move the newest sample: with one for each poll, the older half of the window would not fit.
        if let [.., before, newest] = self.samples.as_mut_slice()
            && newest.0.since(before.0) < NEWEST_SPACING
        {
            *newest = (at, 0.0);
        } else {
            self.samples.reserve_exact(1);
            self.samples.push((at, 0.0));
        }
        self.thin(at);
    }

    /// Removes samples that are older than any window, and thins out the others as they age.
    fn thin(&mut self, now: PolicyTime) {
        while let [_, second, ..] = self.samples.as_slice()
            && now.since(second.0) >= SLOW
        {
            self.samples.remove(0);
        }
        for (age, spacing) in THINNING {
            let mut aged = self.samples.windows(3).take_while(|three| match three {
                [_, middle, _] => now.since(middle.0) > age,
                _ => false,
            });
            let needless = aged.position(|three| match three {
                [before, _, after] => after.0.since(before.0) <= spacing,
                _ => false,
            });
            if let Some(before) = needless {
                self.samples.remove(before.saturating_add(1));
            }
        }
        if self.samples.len() > MAX_SAMPLES
            && let Some(before) = self.closest_neighbours()
        {
            self.samples.remove(before.saturating_add(1));
        }
    }

    /// Index of the sample before the one whose neighbours are closest to each other.
    fn closest_neighbours(&self) -> Option<usize> {
        let distances = self.samples.windows(3).map(|three| match three {
            [before, _, after] => after.0.since(before.0),
            _ => f64::INFINITY,
        });
        let closest = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        closest.map(|(index, _)| index)
    }

    /// Growth per second over the last `window` seconds, or over as much of it as was watched. `None` before the
    /// second sample.
    pub(super) fn per_second(&self, window: f64) -> Option<f64> {
        let (now, _) = *self.samples.last()?;
        let sample = |place: usize| {
            let sample = self.samples.get(place);
            sample.map(|(at, below)| (now.since(*at), f64::from(*below)))
        };
        // The first sample within the window, and the one before.
        let first = self
            .samples
            .partition_point(|(at, _)| now.since(*at) >= window);
        let (ago, below) = sample(first)?;
        match first.checked_sub(1).and_then(sample) {
            Some((earlier_ago, earlier_below)) => {
                let part = (window - ago) / (earlier_ago - ago).max(0.1);
                Some((below + (earlier_below - below) * part) / window)
            }
            None => (ago > 0.0).then(|| below / ago),
        }
    }

    /// Growth per second since the last poll, or over the last 5 s if that is longer, while the counter grows clearly
    /// faster than `fast`, the rate over the last [`FAST`] seconds. `None` if it does not.
    pub(super) fn rising_rate(&self, fast: f64, poll_seconds: f64) -> Option<f64> {
        let window = poll_seconds.max(NEWEST);
        let newest = self.per_second(window)?;
        let is_rising = window < FAST && newest > fast && differs(newest * window, fast * window);
        is_rising.then_some(newest)
    }

    pub(super) fn total(&self) -> f64 {
        self.total
    }

    /// Growth per second over the last `window` seconds; `None` if they were not watched.
    pub(super) fn per_second_of_whole(&self, window: f64) -> Option<f64> {
        let ((first, _), (last, _)) = (self.samples.first()?, self.samples.last()?);
        (last.since(*first) >= window).then(|| self.per_second(window))?
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.samples
            .capacity()
            .saturating_mul(size_of::<(PolicyTime, f32)>())
    }
}

/// Length of a slot of [`SlotRing`], in seconds.
const SLOT: f64 = 30.0;
/// Number of slots: 300 s.
const SLOTS: usize = 10;

/// Messages of a partition in the last 300 s, and in the last 60..90 s.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotTotals {
    long: f64,
    short: f64,
}

/// A partition's growth in slots of 30 s, the present one first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlotRing([u32; SLOTS]);

impl SlotRing {
    pub(super) fn add(&mut self, messages: u32) {
        if let Some(first) = self.0.first_mut() {
            *first = first.saturating_add(messages);
        }
    }

    pub(super) fn begin_slots(&mut self, count: usize) {
        for _ in 0..count.min(SLOTS) {
            self.0.rotate_right(1);
            if let Some(first) = self.0.first_mut() {
                *first = 0;
            }
        }
    }

    /// Messages of the last 300 s, and of the last 60..90 s.
    pub(super) fn totals(&self) -> SlotTotals {
        SlotTotals {
            long: self.sum(SLOTS),
            short: self.sum(3),
        }
    }

    /// Messages of so many slots. Summed as whole numbers, which is much faster and as exact.
    fn sum(&self, slots: usize) -> f64 {
        let total: u64 = self.0.iter().take(slots).copied().map(u64::from).sum();
        super::policy_time::from_total(total)
    }
}

/// Counts the slots that ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlotClock(PolicyTime);

impl SlotClock {
    /// Number of slots that ended since the last call. `seconds` is `now`, not rounded.
    pub(super) fn ended(&mut self, now: PolicyTime, seconds: f64) -> usize {
        let ended = super::policy_time::to_counter(now.since(self.0) / SLOT);
        if ended > 0 {
            self.0 = PolicyTime::from_seconds(seconds - seconds % SLOT);
        }
        usize::try_from(ended).unwrap_or(usize::MAX)
    }
}

/// Whether a number of messages differs from the expected one by more than 5 standard deviations and 15 %.
fn differs(messages: f64, expected: f64) -> bool {
    (messages - expected).abs() > 5.0 * expected.sqrt() + 0.15 * expected
}

/// Fills `shares` with each partition's share in the arrivals: that of 300 s, or that of the last minute for a
/// partition where it [`differs`].
///
/// Below 50 messages per partition the shares are equal, because a few messages show nothing.
pub(super) fn measure_shares(totals: &[SlotTotals], shares: &mut [f32]) {
    let count = super::policy_time::from_count(shares.len());
    let (mut long, mut short) = (0.0, 0.0);
    for of_partition in totals {
        long += of_partition.long;
        short += of_partition.short;
    }
    if long < 50.0 * count {
        shares.fill(super::policy_time::compact(1.0 / count.max(1.0)));
        return;
    }
    let mut sum = 0.0;
    for (share, of_partition) in shares.iter_mut().zip(totals) {
        let (of_long, of_short) = (of_partition.long / long, of_partition.short);
        let expected = of_long * short;
        let value = match differs(of_short, expected) && short > 0.0 {
            true => of_short / short,
            false => of_long,
        };
        *share = super::policy_time::compact(value);
        sum += value;
    }
    if sum > 0.0 {
        for share in shares {
            *share = super::policy_time::compact(f64::from(*share) / sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Goes from sample to sample, from the newest one.
    fn plain_rate(ring: &GrowthRing, window: f64) -> Option<f64> {
        let (now, _) = *ring.samples.last()?;
        let mut later: Option<(f64, f64)> = None;
        for (at, below) in ring.samples.iter().rev() {
            let (ago, below) = (now.since(*at), f64::from(*below));
            match later {
                Some((later_ago, later_below)) if ago >= window => {
                    let part = (window - later_ago) / (ago - later_ago).max(0.1);
                    return Some((later_below + (below - later_below) * part) / window);
                }
                _ => later = Some((ago, below)),
            }
        }
        let (ago, below) = later?;
        (ago > 0.0).then(|| below / ago)
    }

    proptest! {
        #[test]
        fn rates_are_found_by_halves(polls in prop::collection::vec((0.0f64..40.0, 0.0f64..1000.0), 0..80)) {
            let mut ring = GrowthRing::default();
            let mut now = 0.0;
            for (step, growth) in polls {
                now += step;
                ring.add(PolicyTime::from_seconds(now), growth);
                for window in [FAST, MEDIUM, SLOW, 33.3] {
                    let bits = |rate: Option<f64>| rate.map(f64::to_bits);
                    prop_assert_eq!(bits(ring.per_second(window)), bits(plain_rate(&ring, window)));
                }
            }
        }
    }

    #[test]
    fn rates_are_those_of_the_window() {
        for poll in [1u32, 5, 17] {
            let mut ring = GrowthRing::default();
            // 10 messages per second, and 30 in the last 60 s.
            for place in 0..=600 / poll {
                let now = place * poll;
                let rate = if now > 540 { 30 } else { 10 };
                ring.add(PolicyTime::from_seconds(now.into()), f64::from(rate * poll));
            }
            let is_near = |window, expected: f64| {
                let rate = ring.per_second(window).unwrap();
                (rate - expected).abs() < 0.15 * expected
            };
            assert!(is_near(FAST, 30.0) && is_near(SLOW, 50.0 / 3.0), "{poll}");
            assert!(ring.samples.len() <= MAX_SAMPLES, "{poll}");
        }
    }

    #[test]
    fn rates_after_a_step_do_not_depend_on_the_poll_interval() {
        for poll in [0.1, 0.3, 0.5, 0.9, 1.0, 1.3, 1.5, 2.0, 2.7, 5.0, 15.0] {
            let mut ring = GrowthRing::default();
            let mut now = 0.0;
            while now < 1800.0 {
                now += poll;
                let rate = if now > 900.0 { 1500.0 } else { 300.0 };
                ring.add(PolicyTime::from_seconds(now), rate * poll);
                assert!(ring.samples.len() <= MAX_SAMPLES, "{poll}");
            }
            for window in [FAST, MEDIUM, SLOW] {
                let rate = ring.per_second(window).unwrap();
                assert!((rate - 1500.0).abs() < 15.0, "{poll} {window}: {rate}");
            }
        }
    }

    proptest! {
        /// The rate over the longest window is that of a counter that is sampled at any times.
        #[test]
        fn old_samples_are_not_kept_for_ever(polls in prop::collection::vec(0.05f64..12.0, 400)) {
            let mut ring = GrowthRing::default();
            let mut now = 0.0;
            for poll in polls {
                now += poll;
                // Nothing arrives in the first 200 s.
                ring.add(PolicyTime::from_seconds(now), if now > 200.0 { 100.0 * poll } else { 0.0 });
                prop_assert!(ring.samples.len() <= MAX_SAMPLES);
            }
            prop_assume!(now > 420.0);
            let rate = ring.per_second(SLOW).unwrap();
            prop_assert!((rate - 100.0).abs() < 1.0, "{}", rate);
        }
    }

    #[test]
    fn newest_arrivals_count_while_they_rise_clearly() {
        for (poll, before, after, expected) in [
            (1, 20, 130, Some(130.0)),
            (5, 20, 130, Some(130.0)),
            (10, 20, 130, Some(130.0)),
            // The window is as long as that of the fast rate.
            (20, 20, 130, None),
            // Steady, hardly more, and less.
            (5, 20, 20, None),
            (5, 100, 130, None),
            (5, 130, 20, None),
        ] {
            let mut ring = GrowthRing::default();
            for now in (0..=200).step_by(poll) {
                let rate = if now > 200 - poll.max(5) {
                    after
                } else {
                    before
                };
                let growth = f64::from(rate) * super::super::policy_time::from_count(poll);
                ring.add(
                    PolicyTime::from_seconds(f64::from(u32::try_from(now).unwrap())),
                    growth,
                );
            }
            let poll_seconds = super::super::policy_time::from_count(poll);
            assert_eq!(
                ring.rising_rate(ring.per_second(FAST).unwrap(), poll_seconds),
                expected,
                "{poll} {before} {after}"
            );
        }
    }
}
