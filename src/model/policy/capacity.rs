//! Capacity: how many messages per second a member processes, from its commits while it is busy.
//!
//! A floor is a lower bound of the capacity: a throughput that a member has reached, busy or not.

use super::learned::LearnedPolicy;
use super::policy_time::{PolicyTime, compact, from_count};

/// Minimum number of samples with which the capacity counts as known.
pub(super) const MIN_CAPACITY_SAMPLES: u32 = 3;
/// Minimum window for a floor.
const MIN_FLOOR_WINDOW_SECONDS: f64 = 10.0;
/// Number of anchors of a member, and the shortest time between two in seconds. An anchor is an earlier progress, from
/// which a floor is computed.
const ANCHORS: usize = 4;
const ANCHOR_SPACING: f64 = 14.0;

/// The progress of one member since the last rebalance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemberProgress {
    /// The number that identifies the member, as in `GroupPartition::owner`.
    pub(super) key: u32,
    /// Messages committed since the oldest anchor.
    consumed: f32,
    /// When the current busy window began, and the value of `consumed` then, relative to the oldest anchor like
    /// `consumed` itself; `None` while the member is not busy.
    busy: Option<(PolicyTime, f32)>,
    /// Past times with the value of `consumed` then, relative to the oldest of them, which is the first.
    anchors: [(PolicyTime, f32); ANCHORS],
    anchor_count: u8,
}

/// The usual and the longest time between two commits, in seconds. A sample of the capacity needs a member that is busy
/// for three usual times, and floors are reduced by the longest one.
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

    /// Discards the progress: after a rebalance or missing readings, the change of the offsets may not be the work of
    /// this member.
    pub(super) fn restart(&mut self, now: PolicyTime) {
        self.consumed = 0.0;
        self.busy = None;
        self.anchors = [(now, 0.0); ANCHORS];
        self.anchor_count = 1;
    }

    /// Records a commit of `messages`. Returns the throughput of the busy window, if this commit completes it, and the
    /// highest floor, if there is one.
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
        (sample, self.update_floor(now, times))
    }

    /// Returns the highest throughput since an anchor, which is a floor. Also adds an anchor if one is due.
    fn update_floor(&mut self, now: PolicyTime, times: CommitTimes) -> Option<f64> {
        let window = (6.0 * times.interval).max(60.0);
        let count = usize::from(self.anchor_count).min(ANCHORS);
        let anchors = self.anchors.iter().take(count);
        let floors = anchors.filter_map(|(at, before)| {
            let elapsed = now.since(*at);
            let is_in_window = (MIN_FLOOR_WINDOW_SECONDS..=window).contains(&elapsed);
            // Messages of a commit may have been processed up to one commit earlier.
            is_in_window.then(|| f64::from(self.consumed - before) / (elapsed + times.longest))
        });
        let floor = floors.fold(0.0, f64::max);
        let spacing = (window / 4.0 - 1.0).max(ANCHOR_SPACING);
        let newest = self.anchors.get(count.saturating_sub(1));
        if newest.is_none_or(|(at, _)| now.since(*at) >= spacing) {
            if count == ANCHORS {
                self.anchors.rotate_left(1);
                self.rebase();
            } else {
                self.anchor_count = self.anchor_count.saturating_add(1);
            }
            let last = usize::from(self.anchor_count)
                .min(ANCHORS)
                .saturating_sub(1);
            if let Some(slot) = self.anchors.get_mut(last) {
                *slot = (now, self.consumed);
            }
        }
        (floor > 0.0).then_some(floor)
    }

    /// Makes all sums relative to the oldest anchor. Otherwise they would grow until the next rebalance, and an `f32`
    /// loses single messages from 2^24 on.
    fn rebase(&mut self) {
        let [(_, oldest), ..] = self.anchors;
        self.consumed -= oldest;
        if let Some((_, before)) = &mut self.busy {
            *before -= oldest;
        }
        for (_, before) in &mut self.anchors {
            *before -= oldest;
        }
    }
}

/// Capacity of a member in messages per second, and whether it counts as known: it was measured at least
/// [`MIN_CAPACITY_SAMPLES`] times.
/// `None` if nothing was processed yet.
///
/// `has_floor` says whether floors are used. `consumed` is the consumption of the group in messages per second, if it
/// was watched for long enough.
pub(super) fn estimate_capacity(
    learned: &LearnedPolicy,
    has_floor: bool,
    consumed: Option<f64>,
    members: u32,
    now: f64,
) -> Option<(f64, bool)> {
    let measured = learned.capacity.unwrap_or(0.0);
    let floor = |floor: f64| if has_floor { floor } else { 0.0 };
    if learned.capacity_samples >= MIN_CAPACITY_SAMPLES {
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

    #[test]
    fn capacity_stays_exact_without_a_rebalance() {
        const DAY: f64 = 86_400.0;
        let times = CommitTimes {
            interval: 1.0,
            longest: 1.0,
        };
        // Days, messages per second in them, and messages in each second after them.
        for (days, before, rate) in [(200, 1.0, 1.0), (1100, 1000.0, 100.0), (1, 1e9, 1.0)] {
            let mut member = MemberProgress::new(0, PolicyTime::from_seconds(0.0));
            let mut now = 0.0;
            for _ in 0..days {
                now += DAY;
                member.commit(PolicyTime::from_seconds(now), before * DAY, false, times);
            }
            let (mut samples, mut floors) = (Vec::new(), Vec::new());
            for second in 0..600 {
                now += 1.0;
                let (sample, floor) =
                    member.commit(PolicyTime::from_seconds(now), rate, true, times);
                if second >= 120 {
                    samples.extend(sample);
                    floors.extend(floor);
                }
            }
            let is_exact = |sample: &f64| (sample - rate).abs() < rate / 1000.0;
            assert!(samples.len() > 20, "{samples:?}");
            assert!(samples.iter().all(is_exact), "{days} days: {samples:?}");
            // Messages of a commit may have been processed up to one commit earlier.
            let is_close = |floor: &f64| *floor > 0.97 * rate && *floor < rate;
            assert_eq!(floors.len(), 480);
            assert!(floors.iter().all(is_close), "{days} days: {floors:?}");
        }
    }
}
