//! History of an HPA's numbers: bounded, in memory, of compact points that become coarser with age.
//!
//! [`recorder`] keeps one [`HpaHistory`] for each HPA.

pub mod marker;
mod recorded_rule;
pub mod recorder;

use std::collections::VecDeque;

use serde::Serialize;

use self::marker::HistoryMarker;
pub use self::recorded_rule::RecordedRule;

/// Maximum number of points of the recent past: 6 h at 15 s.
pub const MAX_RECENT_POINTS: usize = 1440;

/// Maximum number of points before these. Each covers [`OLDER_STEPS`] steps, so that there are 18 h of them at 15 s.
pub const MAX_OLDER_POINTS: usize = 216;

/// Steps of a recent point in one older point: 5 min at 15 s.
const OLDER_STEPS: u32 = 20;

/// Maximum number of markers. The oldest are removed.
pub const MAX_MARKERS: usize = 128;

/// Minimum number of points by which a list grows. Small, because every HPA has a history.
const MIN_GROWTH_POINTS: usize = 4;

/// Maximum number of points by which a list grows, so that it never has room for twice as many as it keeps.
const MAX_GROWTH_POINTS: usize = 48;

/// The numbers of an HPA at one time. Unknown values are `None`, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HistoryPoint {
    /// Seconds since 1970.
    pub at: u32,
    /// Current replicas.
    pub replicas: Option<u32>,
    pub desired: Option<u32>,
    /// Replicas that the lag is worth without the ceiling.
    pub uncapped: Option<u32>,
    /// Replica ceiling; `None` if unknown or unbounded.
    pub ceiling: Option<u32>,
    /// `spec.maxReplicas`.
    pub max_replicas: Option<u32>,
    pub lag: Option<u64>,
    /// Age of the oldest unread message.
    pub lag_seconds: Option<f32>,
    pub produced_per_second: Option<f32>,
    pub consumed_per_second: Option<f32>,
    /// The rule of the metric that desires the most replicas; `None` while a metric has no value.
    pub rule: Option<RecordedRule>,
}

impl HistoryPoint {
    /// Merges this point with a later one. Keeps the time of this point, and the larger of each pair of counts and
    /// rates, so that a short peak stays visible; of the ceiling, `maxReplicas` and the rule the later one. A value that
    /// only one of the points has is kept.
    fn merged_with(self, later: Self) -> Self {
        let seconds = |a: Option<f32>, b: Option<f32>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => b.or(a),
        };
        Self {
            at: self.at,
            replicas: self.replicas.max(later.replicas),
            desired: self.desired.max(later.desired),
            uncapped: self.uncapped.max(later.uncapped),
            ceiling: later.ceiling.or(self.ceiling),
            max_replicas: later.max_replicas.or(self.max_replicas),
            lag: self.lag.max(later.lag),
            lag_seconds: seconds(self.lag_seconds, later.lag_seconds),
            produced_per_second: seconds(self.produced_per_second, later.produced_per_second),
            consumed_per_second: seconds(self.consumed_per_second, later.consumed_per_second),
            rule: later.rule.or(self.rule),
        }
    }
}

/// A number in a stored point. The largest value means unknown, which halves the size of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedCount(u32);

impl PackedCount {
    const UNKNOWN: u32 = u32::MAX;

    fn new(count: Option<u32>) -> Self {
        Self(count.map_or(Self::UNKNOWN, |count| {
            count.min(Self::UNKNOWN.saturating_sub(1))
        }))
    }

    fn get(self) -> Option<u32> {
        Some(self.0).filter(|count| *count != Self::UNKNOWN)
    }
}

/// A [`HistoryPoint`] in half of its memory.
#[derive(Clone, Copy, Debug)]
struct StoredPoint {
    lag: u64,
    at: u32,
    replicas: PackedCount,
    desired: PackedCount,
    uncapped: PackedCount,
    ceiling: PackedCount,
    max_replicas: PackedCount,
    /// Not a number if unknown, as are the rates.
    lag_seconds: f32,
    produced_per_second: f32,
    consumed_per_second: f32,
    rule: Option<RecordedRule>,
}

/// Memory of a stored point, in bytes.
pub const POINT_BYTES: usize = size_of::<StoredPoint>();

impl From<HistoryPoint> for StoredPoint {
    fn from(point: HistoryPoint) -> Self {
        let lag = point.lag.map(|lag| lag.min(u64::MAX.saturating_sub(1)));
        Self {
            at: point.at,
            replicas: PackedCount::new(point.replicas),
            desired: PackedCount::new(point.desired),
            uncapped: PackedCount::new(point.uncapped),
            ceiling: PackedCount::new(point.ceiling),
            max_replicas: PackedCount::new(point.max_replicas),
            lag: lag.unwrap_or(u64::MAX),
            lag_seconds: point.lag_seconds.unwrap_or(f32::NAN),
            produced_per_second: point.produced_per_second.unwrap_or(f32::NAN),
            consumed_per_second: point.consumed_per_second.unwrap_or(f32::NAN),
            rule: point.rule,
        }
    }
}

impl From<StoredPoint> for HistoryPoint {
    fn from(point: StoredPoint) -> Self {
        let known = |number: f32| Some(number).filter(|number| !number.is_nan());
        Self {
            at: point.at,
            replicas: point.replicas.get(),
            desired: point.desired.get(),
            uncapped: point.uncapped.get(),
            ceiling: point.ceiling.get(),
            max_replicas: point.max_replicas.get(),
            lag: Some(point.lag).filter(|lag| *lag != u64::MAX),
            lag_seconds: known(point.lag_seconds),
            produced_per_second: known(point.produced_per_second),
            consumed_per_second: known(point.consumed_per_second),
            rule: point.rule,
        }
    }
}

/// How densely and how far back the history of each HPA is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryResolution {
    /// Seconds between recent points.
    pub step: u32,
    /// How often that was doubled, and the points halved, because there are many HPAs.
    halvings: u32,
}

impl HistoryResolution {
    /// A point every `step` seconds.
    #[must_use]
    pub fn new(step: u32) -> Self {
        Self {
            step: step.max(1),
            halvings: 0,
        }
    }

    /// The same time with half of the points.
    #[must_use]
    pub fn halved(self) -> Self {
        Self {
            step: self.step.saturating_mul(2),
            halvings: self.halvings.saturating_add(1),
        }
    }

    fn share_of(self, full: usize) -> usize {
        full.checked_shr(self.halvings).unwrap_or(0).max(1)
    }

    fn older_step(self) -> u32 {
        self.step.saturating_mul(OLDER_STEPS)
    }

    /// Maximum memory of one history, in bytes.
    #[must_use]
    pub fn bytes_per_hpa(self) -> usize {
        let recent = self.share_of(MAX_RECENT_POINTS);
        let points = recent.saturating_add(self.share_of(MAX_OLDER_POINTS));
        let marker_bytes = self.share_of(MAX_MARKERS).saturating_mul(MARKER_BYTES);
        let point_bytes = points.saturating_mul(POINT_BYTES);
        point_bytes
            .saturating_add(marker_bytes)
            .saturating_add(size_of::<HpaHistory>())
    }
}

/// Memory of a marker, in bytes.
const MARKER_BYTES: usize = size_of::<HistoryMarker>();

/// The history of one HPA.
#[derive(Clone, Debug, Default)]
pub struct HpaHistory {
    older: VecDeque<StoredPoint>,
    recent: VecDeque<StoredPoint>,
    markers: VecDeque<HistoryMarker>,
}

impl HpaHistory {
    /// Adds a point. Points of the same step become one; one that is earlier than the last, as after a change of the
    /// clock, is left out.
    pub fn add(&mut self, point: HistoryPoint, resolution: HistoryResolution) {
        if self.recent.back().is_some_and(|last| point.at < last.at) {
            return;
        }
        push_merged(&mut self.recent, point, resolution.step);
        while self.recent.len() > resolution.share_of(MAX_RECENT_POINTS) {
            if let Some(oldest) = self.recent.pop_front() {
                push_merged(&mut self.older, oldest.into(), resolution.older_step());
            }
        }
        while self.older.len() > resolution.share_of(MAX_OLDER_POINTS) {
            self.older.pop_front();
        }
    }

    /// Adds something that happened.
    pub fn mark(&mut self, marker: HistoryMarker, resolution: HistoryResolution) {
        let most = resolution.share_of(MAX_MARKERS);
        while self.markers.len() >= most {
            self.markers.pop_front();
        }
        reserve(&mut self.markers);
        self.markers.push_back(marker);
    }

    /// The same history with a coarser resolution, and in less memory.
    #[must_use]
    pub fn coarsened(&self, resolution: HistoryResolution) -> Self {
        let mut coarse = Self::default();
        for point in self.points() {
            coarse.add(point, resolution);
        }
        for marker in &self.markers {
            coarse.mark(*marker, resolution);
        }
        coarse
    }

    /// All points, in the order of time.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = HistoryPoint> {
        let all = self.older.iter().chain(&self.recent);
        all.map(|point| HistoryPoint::from(*point))
    }

    /// The most replicas that the lag was worth without the ceiling; `None` if that was never known.
    #[must_use]
    pub fn uncapped_peak(&self) -> Option<u32> {
        self.points().filter_map(|point| point.uncapped).max()
    }

    /// What happened, in the order of time.
    pub fn markers(&self) -> impl DoubleEndedIterator<Item = &HistoryMarker> {
        self.markers.iter()
    }

    /// The last point.
    #[must_use]
    pub fn latest(&self) -> Option<HistoryPoint> {
        self.recent.back().map(|point| HistoryPoint::from(*point))
    }

    /// Memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let points = self.older.capacity().saturating_add(self.recent.capacity());
        let markers = self.markers.capacity().saturating_mul(MARKER_BYTES);
        let points = points.saturating_mul(POINT_BYTES);
        points
            .saturating_add(markers)
            .saturating_add(size_of::<Self>())
    }
}

/// Adds a point to a list with one point in each slot of `step` seconds.
fn push_merged(points: &mut VecDeque<StoredPoint>, point: HistoryPoint, step: u32) {
    let slot = |at: u32| at.checked_div(step).unwrap_or(at);
    match points.back_mut() {
        Some(last) if slot(last.at) == slot(point.at) => {
            *last = HistoryPoint::from(*last).merged_with(point).into();
        }
        _ => {
            reserve(points);
            points.push_back(point.into());
        }
    }
}

/// Reserves memory for one more, in small steps.
fn reserve<T>(list: &mut VecDeque<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().clamp(MIN_GROWTH_POINTS, MAX_GROWTH_POINTS));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, clippy::cast_precision_loss)]

    use super::marker::MarkerKind;
    use super::*;
    use crate::model::evaluation::ValueRule;

    fn point(at: u32, lag: Option<u64>) -> HistoryPoint {
        HistoryPoint {
            at,
            lag,
            ..HistoryPoint::default()
        }
    }

    #[test]
    fn the_peak_outlasts_unknown_and_merged_points() {
        let resolution = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        assert_eq!(history.uncapped_peak(), None);
        let wanted = |step: u32| match step {
            7 => Some(18),
            _ if step.is_multiple_of(2) => None,
            _ => Some(3),
        };
        for step in 0..2000 {
            let uncapped = wanted(step);
            let at = 15 * step;
            history.add(
                HistoryPoint {
                    uncapped,
                    ..point(at, None)
                },
                resolution,
            );
        }
        assert_eq!(history.uncapped_peak(), Some(18));
    }

    #[test]
    fn a_stored_point_equals_the_recorded_one() {
        let known = HistoryPoint {
            at: 1_800_000_000,
            replicas: Some(0),
            desired: Some(3),
            uncapped: Some(40),
            ceiling: Some(12),
            max_replicas: Some(20),
            lag: Some(u64::MAX - 1),
            lag_seconds: Some(0.5),
            produced_per_second: Some(0.0),
            consumed_per_second: Some(1e9),
            rule: Some(ValueRule::Lifted.into()),
        };
        let unknown = point(7, None);
        for point in [known, unknown] {
            assert_eq!(HistoryPoint::from(StoredPoint::from(point)), point);
        }
        let most = point(1, Some(u64::MAX));
        let stored = HistoryPoint::from(StoredPoint::from(most));
        assert_eq!(stored.lag, Some(u64::MAX - 1), "known stays known");
    }

    #[test]
    fn keeps_six_hours_at_fifteen_seconds_and_a_day_in_all() {
        let resolution = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        let end = 30 * 3600;
        for at in (0..end).step_by(15) {
            history.add(point(at, Some(u64::from(at))), resolution);
            history.mark(
                HistoryMarker {
                    at,
                    kind: MarkerKind::Scaled { from: at, to: 1 },
                },
                resolution,
            );
        }
        let points: Vec<_> = history.points().collect();
        assert_eq!(points.len(), MAX_RECENT_POINTS + MAX_OLDER_POINTS);
        let first = points[0].at;
        assert!((end - first).abs_diff(24 * 3600) <= 300, "{first}");
        let gaps = points.windows(2).map(|two| two[1].at - two[0].at);
        assert!(gaps.clone().skip(MAX_OLDER_POINTS).all(|gap| gap == 15));
        assert!(
            gaps.clone()
                .take(MAX_OLDER_POINTS - 1)
                .all(|gap| gap == 300)
        );
        // The largest of the merged points.
        assert_eq!(points[0].lag, Some(u64::from(first) + 285));
        assert_eq!(history.markers().count(), MAX_MARKERS);
        let bytes = history.bytes();
        assert!(bytes < 100 * 1024, "{bytes}");
        assert!(bytes <= resolution.bytes_per_hpa() + 3 * MAX_GROWTH_POINTS * POINT_BYTES);
    }

    #[test]
    fn unknown_is_not_zero_and_gaps_remain() {
        let resolution = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        for (at, lag) in [(0, Some(5)), (15, None), (60, Some(0))] {
            history.add(point(at, lag), resolution);
        }
        let lags: Vec<_> = history
            .points()
            .map(|point| (point.at, point.lag))
            .collect();
        assert_eq!(lags, [(0, Some(5)), (15, None), (60, Some(0))]);
    }

    #[test]
    fn a_step_has_one_point_and_time_does_not_go_back() {
        let resolution = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        for (at, lag) in [(30, Some(5)), (31, Some(9)), (44, None), (20, Some(1))] {
            history.add(point(at, lag), resolution);
        }
        let lags: Vec<_> = history
            .points()
            .map(|point| (point.at, point.lag))
            .collect();
        assert_eq!(lags, [(30, Some(9))]);
    }

    #[test]
    fn a_coarser_history_covers_the_same_time_in_half_of_the_memory() {
        let fine = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        for at in (0..24 * 3600).step_by(15) {
            history.add(point(at, Some(1)), fine);
        }
        let coarse = history.coarsened(fine.halved());
        assert!(coarse.bytes() < history.bytes() * 6 / 10);
        let first = |history: &HpaHistory| history.points().next().unwrap().at;
        assert!(first(&coarse).abs_diff(first(&history)) <= 600);
        assert_eq!(coarse.latest().unwrap().lag, Some(1));
    }
}
