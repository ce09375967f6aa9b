//! Commits: how often members commit, from the gaps between changes of committed offsets.

/// Maximum number of gaps that are kept.
const MAX_GAPS: usize = 60;
/// Minimum number of gaps with which the interval counts as measured.
const MIN_GAPS: usize = 8;
/// Interval between commits assumed before any were seen, in seconds: Kafka's `auto.commit.interval.ms`.
const INTERVAL_PRIOR: f64 = 5.0;
/// Assumption about the longest usual gap before any were seen, in seconds.
const LONGEST_PRIOR: f64 = 30.0;

/// The last gaps between commits of a partition, over all partitions, in tenths of a second.
#[derive(Clone, Debug, Default)]
pub(super) struct CommitGaps {
    gaps: Vec<u16>,
    next: usize,
    /// Whether the gaps have changed since they were measured.
    has_changed: bool,
    interval: Option<f32>,
    longest: Option<f32>,
}

impl CommitGaps {
    /// Starts from the interval and the longest gap of an earlier run.
    pub(super) fn restored(interval: Option<f64>, longest: Option<f64>) -> Self {
        Self {
            interval: interval.map(super::policy_time::compact),
            longest: longest.map(super::policy_time::compact),
            ..Self::default()
        }
    }

    /// Adds a gap in tenths of a second.
    pub(super) fn add(&mut self, tenths: u32) {
        let gap = u16::try_from(tenths).unwrap_or(u16::MAX);
        match self.gaps.get_mut(self.next) {
            Some(slot) => {
                self.has_changed |= *slot != gap;
                *slot = gap;
            }
            None => {
                self.gaps.reserve_exact(1);
                self.gaps.push(gap);
                self.has_changed = true;
            }
        }
        self.next = self.next.saturating_add(1) % MAX_GAPS;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.gaps.capacity().saturating_mul(2)
    }

    /// Recomputes the percentiles, if the gaps have changed. Many groups commit so evenly that they have not.
    pub(super) fn measure(&mut self, scratch: &mut Vec<u16>) {
        if self.gaps.len() < MIN_GAPS || !std::mem::take(&mut self.has_changed) {
            return;
        }
        scratch.clear();
        scratch.extend_from_slice(&self.gaps);
        let place = |percent: usize| scratch.len().saturating_sub(1).saturating_mul(percent) / 100;
        let (middle, high) = (place(75), place(95));
        let (below, longest, _) = scratch.select_nth_unstable(high);
        let longest = *longest;
        let interval = match middle < high {
            true => *below.select_nth_unstable(middle).1,
            false => longest,
        };
        let seconds = |gap: u16| Some(super::policy_time::compact(f64::from(gap) / 10.0));
        (self.interval, self.longest) = (seconds(interval), seconds(longest));
    }

    /// The 75th percentile of the gaps, in seconds, if it was measured.
    pub(super) fn measured_interval(&self) -> Option<f64> {
        self.interval.map(f64::from)
    }

    /// The 95th percentile of the gaps, in seconds, if it was measured.
    pub(super) fn measured_longest(&self) -> Option<f64> {
        self.longest.map(f64::from)
    }

    /// Usual time between two commits, in seconds.
    pub(super) fn interval(&self) -> f64 {
        self.measured_interval().unwrap_or(INTERVAL_PRIOR)
    }

    /// Longest usual time between two commits, in seconds.
    pub(super) fn longest(&self) -> f64 {
        self.measured_longest().unwrap_or(LONGEST_PRIOR)
    }

    /// Time without a commit after which a partition's lag is taken as it is, in seconds.
    pub(super) fn stale(&self) -> f64 {
        1.5 * self.longest() + 7.5
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_gaps(tenths in proptest::collection::vec(prop_oneof![0u16..900, 49u16..52], 1..200)) {
            let mut gaps = CommitGaps::default();
            let mut scratch = Vec::new();
            for poll in tenths.chunks(3) {
                for tenth in poll {
                    gaps.add(u32::from(*tenth));
                }
                gaps.measure(&mut scratch);
            }
            let mut kept = gaps.gaps.clone();
            kept.sort_unstable();
            let at = |percent: usize| f64::from(kept[(kept.len() - 1) * percent / 100]) / 10.0;
            let is_near = |found: Option<f64>, percent| match found {
                Some(found) => (found - at(percent)).abs() < 1e-4,
                None => kept.len() < MIN_GAPS,
            };
            prop_assert!(is_near(gaps.measured_interval(), 75), "{:?}", gaps);
            prop_assert!(is_near(gaps.measured_longest(), 95), "{:?}", gaps);
        }
    }
}
