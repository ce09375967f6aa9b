//! Peaks: the highest arrivals of the last 15 minutes, which tell a batch that comes again from a rise.

use super::policy_time::compact;

/// Number of slots. They are those of [`SlotClock`](super::rates::SlotClock), so this is 15 minutes.
const SLOTS: usize = 30;
/// The newest slots, which are left out: 60..90 s, so that a rise does not count as its own predecessor.
const PRESENT_SLOTS: usize = 3;
/// Factor by which arrivals may exceed earlier ones and still count as the same.
const SAME: f64 = 1.15;

/// Arrivals of a group in messages per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ArrivalRates {
    /// Over 20 s.
    pub(super) fast: f64,
    /// Over 60 s.
    pub(super) medium: f64,
}

/// The highest arrivals over 20 s and over 60 s in each slot, the present slot first.
#[derive(Clone, Debug, Default)]
pub(super) struct ArrivalPeaks([(f32, f32); SLOTS]);

impl ArrivalPeaks {
    pub(super) fn begin_slots(&mut self, count: usize) {
        let count = count.min(SLOTS);
        self.0.rotate_right(count);
        for slot in self.0.iter_mut().take(count) {
            *slot = (0.0, 0.0);
        }
    }

    pub(super) fn add(&mut self, rates: ArrivalRates) {
        if let Some(first) = self.0.first_mut() {
            *first = raise(*first, (compact(rates.fast), compact(rates.medium)));
        }
    }

    /// The highest arrivals over 60 s of the last 15 minutes, if the present ones have been reached before: then they
    /// will end as they ended before. `None` if they are higher than all earlier ones.
    pub(super) fn repeated(&self, rates: ArrivalRates) -> Option<f64> {
        let earlier = self.0.iter().skip(PRESENT_SLOTS).copied();
        let (fast, medium) = earlier.fold((0.0, 0.0), raise);
        let (fast, medium) = (f64::from(fast), f64::from(medium));
        let is_repeated = rates.fast <= SAME * fast && rates.medium <= SAME * medium;
        is_repeated.then(|| medium.max(rates.medium))
    }
}

fn raise(peak: (f32, f32), rates: (f32, f32)) -> (f32, f32) {
    (peak.0.max(rates.0), peak.1.max(rates.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(fast: f64, medium: f64) -> ArrivalRates {
        ArrivalRates { fast, medium }
    }

    /// Peaks of slots, the oldest one first.
    fn peaks(slots: &[(f64, f64)]) -> ArrivalPeaks {
        let mut peaks = ArrivalPeaks::default();
        for (fast, medium) in slots {
            peaks.begin_slots(1);
            peaks.add(rates(*fast, *medium));
        }
        peaks
    }

    const QUIET: (f64, f64) = (10.0, 10.0);
    const BATCH: (f64, f64) = (1200.0, 400.0);

    #[test]
    fn a_batch_counts_as_repeated_if_it_came_before() {
        let present = [BATCH; PRESENT_SLOTS];
        let with = |earlier: &[(f64, f64)]| peaks(&[earlier, &present].concat());
        for (earlier, now, expected) in [
            // Nothing was seen before.
            (vec![], BATCH, None),
            (vec![QUIET], BATCH, None),
            (vec![BATCH, QUIET], BATCH, Some(400.0)),
            (vec![BATCH, QUIET], (1300.0, 420.0), Some(420.0)),
            // It is larger, or lasts longer.
            (vec![BATCH, QUIET], (1400.0, 400.0), None),
            (vec![BATCH, QUIET], (1200.0, 470.0), None),
            // The minute's arrivals were higher at another time.
            (vec![(800.0, 600.0), BATCH], BATCH, Some(600.0)),
            // Steady arrivals are as high over 60 s.
            (vec![(300.0, 300.0)], (300.0, 300.0), Some(300.0)),
        ] {
            let found = with(&earlier).repeated(rates(now.0, now.1));
            let expected = expected.map(|rate: f64| f64::from(compact(rate)));
            assert_eq!(found, expected, "{now:?} after {earlier:?}");
        }
    }

    #[test]
    fn peaks_are_forgotten_after_15_minutes() {
        let mut peaks = peaks(&[BATCH]);
        let batch = rates(BATCH.0, BATCH.1);
        peaks.begin_slots(PRESENT_SLOTS);
        assert_eq!(peaks.repeated(batch), Some(400.0));
        peaks.begin_slots(SLOTS - PRESENT_SLOTS - 1);
        assert_eq!(peaks.repeated(batch), Some(400.0));
        peaks.begin_slots(1);
        assert_eq!(peaks.repeated(batch), None);
        peaks.add(batch);
        peaks.begin_slots(usize::MAX);
        assert_eq!(peaks.repeated(batch), None);
    }
}
