//! The HPA's own arithmetic: what the controller of Kubernetes makes of one External metric with an
//! `AverageValue` target and of `spec.behavior`. Pure: time is an argument.
//!
//! Sources: the algorithm's page in the Kubernetes documentation ("Horizontal Pod Autoscaling"), and
//! `pkg/controller/podautoscaler` (`GetExternalPerPodMetricReplicas`,
//! `normalizeDesiredReplicasWithBehaviors`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::quantity::Milli;

/// What an HPA's `spec` says, as far as the demo needs it.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// `minReplicas`.
    pub(super) min: u32,
    /// `maxReplicas`.
    pub(super) max: u32,
    /// The metric's `averageValue`: how much of it one replica may have.
    pub(super) per_replica: Milli,
    /// `behavior.*.tolerance`: a ratio this near to 1 changes nothing.
    pub(super) tolerance: Milli,
    /// `behavior.scaleUp`: the larger of the two counts (`selectPolicy: Max`).
    pub(super) up: Growth,
    /// `behavior.scaleDown.stabilizationWindowSeconds`: down only to the most that was wanted in it.
    /// The policy itself is the default one, 100 % at once.
    pub(super) down_window: Duration,
}

/// How fast replicas may grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// `type: Percent`.
    pub(super) percent: u32,
    /// `type: Pods`.
    pub(super) pods: u32,
    /// `periodSeconds` of both.
    pub(super) period: Duration,
}

/// What one sync came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// What the metric alone wants, within the HPA's own bounds.
    pub(super) desired: u32,
    /// What is set: `desired` after `behavior`.
    pub(super) replicas: u32,
}

/// The replicas that `value` wants: ceil(value / target), where the ratio is beyond the tolerance.
pub(super) fn wanted(value: Milli, per_replica: Milli, current: u32, tolerance: Milli) -> u32 {
    let in_all = u128::from(per_replica.times(current).thousandths());
    let off = u128::from(value.thousandths()).abs_diff(in_all);
    if off * 1000 <= in_all * u128::from(tolerance.thousandths()) {
        return current;
    }
    let replicas = value.ceil_div(per_replica).unwrap_or(u64::from(current));
    u32::try_from(replicas).unwrap_or(u32::MAX)
}

impl Spec {
    /// What the metric alone wants, within the HPA's own bounds.
    pub(super) fn desired(&self, value: Milli, current: u32) -> u32 {
        let wanted = wanted(value, self.per_replica, current, self.tolerance);
        wanted.max(self.min).min(self.max)
    }
}

/// An HPA: its spec and what it remembers from one sync to the next.
#[derive(Clone, Debug)]
pub(super) struct Hpa {
    spec: Spec,
    recommendations: VecDeque<(Instant, u32)>,
    /// When replicas were added, and how many.
    added: VecDeque<(Instant, u32)>,
    /// When replicas were removed, and how many.
    removed: VecDeque<(Instant, u32)>,
}

impl Hpa {
    pub(super) fn new(spec: Spec) -> Self {
        Self {
            spec,
            recommendations: VecDeque::new(),
            added: VecDeque::new(),
            removed: VecDeque::new(),
        }
    }

    /// One sync of the controller at `now`, with `current` replicas. A metric that is an error
    /// (`None`) leaves the replicas as they are.
    pub(super) fn sync(&mut self, now: Instant, current: u32, value: Option<Milli>) -> Decision {
        let Some(value) = value else {
            return Decision {
                desired: current,
                replicas: current,
            };
        };
        let desired = self.spec.desired(value, current);
        let stable = self.stabilise(now, desired);
        let replicas = if stable > current {
            stable.min(self.growth_limit(now, current))
        } else {
            stable
        };
        match replicas.cmp(&current) {
            std::cmp::Ordering::Greater => self.added.push_back((now, replicas - current)),
            std::cmp::Ordering::Less => self.removed.push_back((now, current - replicas)),
            std::cmp::Ordering::Equal => {}
        }
        Decision { desired, replicas }
    }

    /// The largest recommendation of the window, this one included.
    fn stabilise(&mut self, now: Instant, desired: u32) -> u32 {
        self.recommendations.push_back((now, desired));
        forget(&mut self.recommendations, now, self.spec.down_window);
        let within = self.recommendations.iter().map(|(_, replicas)| *replicas);
        within.max().unwrap_or(desired)
    }

    /// The most replicas that `behavior.scaleUp` allows now.
    fn growth_limit(&mut self, now: Instant, current: u32) -> u32 {
        let Growth {
            percent,
            pods,
            period,
        } = self.spec.up;
        let added = recent(&mut self.added, now, period);
        let removed = recent(&mut self.removed, now, period);
        // What there was when the period began: both policies count from there.
        let start = current.saturating_sub(added).saturating_add(removed);
        let share = u64::from(start) * (100 + u64::from(percent));
        let by_percent = u32::try_from(share.div_ceil(100)).unwrap_or(u32::MAX);
        let by_pods = start.saturating_add(pods);
        by_percent.max(by_pods).max(current)
    }
}

fn recent(changes: &mut VecDeque<(Instant, u32)>, now: Instant, period: Duration) -> u32 {
    forget(changes, now, period);
    changes
        .iter()
        .fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

/// Drops what happened a whole `period` ago or earlier.
fn forget(events: &mut VecDeque<(Instant, u32)>, now: Instant, period: Duration) {
    events.retain(|(at, _)| now.saturating_duration_since(*at) < period);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spec() -> Spec {
        Spec {
            min: 1,
            max: 20,
            per_replica: Milli::from_units(100),
            tolerance: Milli::default(),
            up: Growth {
                percent: 100,
                pods: 4,
                period: SECOND,
            },
            down_window: SECOND * 10,
        }
    }

    #[test]
    fn wants_the_ceiling_of_value_by_target() {
        for (value, per_replica, current, expected) in [
            (0, 100, 1, 0),
            (1, 100, 3, 1),
            (99, 100, 1, 1),
            (100, 100, 1, 1),
            (101, 100, 1, 2),
            (1100, 100, 12, 11),
            (1101, 100, 12, 12),
            (1200, 100, 1, 12),
            (1201, 100, 12, 13),
            (28, 5, 4, 6),
            (u64::MAX, 1, 1, u32::MAX),
            (7, 0, 3, 3),
        ] {
            let (value, per_replica) = (Milli::from_units(value), Milli::from_units(per_replica));
            assert_eq!(
                wanted(value, per_replica, current, Milli::default()),
                expected,
                "{value} by {per_replica} at {current}"
            );
        }
    }

    #[test]
    fn a_tolerance_holds_what_is_near() {
        let tolerance = Milli::parse("0.1").unwrap_or_default();
        for (value, current, expected) in [
            // 24 partitions at 1000 each: the default tolerance of a tenth sticks at 22.
            (24_000, 22, 22),
            (24_000, 21, 24),
            (11_000, 10, 10),
            (11_001, 10, 12),
            (9_000, 10, 10),
            (8_999, 10, 9),
        ] {
            let value = Milli::from_units(value);
            let replicas = wanted(value, Milli::from_units(1000), current, tolerance);
            assert_eq!(replicas, expected, "{value} at {current}");
        }
    }

    #[test]
    fn bounds_hold() {
        let value = Milli::from_units;
        assert_eq!(spec().desired(value(0), 5), 1);
        assert_eq!(spec().desired(value(50_000), 5), 20);
        // The clamp is worth a ceiling of 12: nothing of the HPA's own stops at 12.
        assert_eq!(spec().desired(value(1200), 12), 12);
        assert_eq!(spec().desired(value(1201), 12), 13);
    }

    /// Syncs a second apart, each from where the one before left off.
    fn series(spec: Spec, values: &[Option<u64>]) -> Vec<u32> {
        let start = Instant::now();
        let mut hpa = Hpa::new(spec);
        let mut current = 1;
        let mut at = start;
        values
            .iter()
            .map(|value| {
                current = hpa.sync(at, current, value.map(Milli::from_units)).replicas;
                at += SECOND;
                current
            })
            .collect()
    }

    #[test]
    fn grows_by_the_larger_of_pods_and_percent() {
        let all = [Some(1200); 5];
        assert_eq!(series(spec(), &all), [5, 10, 12, 12, 12]);
        let far = [Some(9999); 5];
        assert_eq!(series(spec(), &far), [5, 10, 20, 20, 20]);
    }

    #[test]
    fn a_period_counts_from_its_beginning() {
        let mut slow = spec();
        slow.up.period = SECOND * 3;
        let all = [Some(1200); 8];
        assert_eq!(series(slow, &all), [5, 5, 5, 10, 10, 10, 12, 12]);
    }

    #[test]
    fn falls_when_the_window_has_passed() {
        let mut short = spec();
        short.down_window = SECOND * 3;
        let values = [1200, 1200, 1200, 50, 50, 50, 50].map(Some);
        assert_eq!(series(short, &values), [5, 10, 12, 12, 12, 1, 1]);
    }

    #[test]
    fn the_window_keeps_the_most_that_was_wanted_in_it() {
        let mut short = spec();
        short.down_window = SECOND * 3;
        let values = [1200, 1200, 1200, 700, 300, 0, 0, 0].map(Some);
        assert_eq!(series(short, &values), [5, 10, 12, 12, 12, 7, 3, 1]);
    }

    #[test]
    fn an_unknown_metric_holds() {
        let values = [Some(500), None, None, Some(500)];
        assert_eq!(series(spec(), &values), [5, 5, 5, 5]);
        let mut hpa = Hpa::new(spec());
        let decision = hpa.sync(Instant::now(), 7, None);
        assert_eq!((decision.desired, decision.replicas), (7, 7));
    }

    #[test]
    fn desired_is_told_before_behavior() {
        let mut hpa = Hpa::new(spec());
        let decision = hpa.sync(Instant::now(), 1, Some(Milli::from_units(1200)));
        assert_eq!((decision.desired, decision.replicas), (12, 5));
    }
}
