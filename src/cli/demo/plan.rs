//! The schedule of the demo, in fractions of its length.

use std::time::Duration;

use crate::model::hpa::controller::{
    Behavior, HpaSpec, MetricSource, Policy, PolicyKind, ScalingRules,
};
use crate::model::hpa::facts::MetricTarget;
use crate::model::units::quantity::Milli;

/// Records that one consumer handles per second.
pub(super) const RECORDS_PER_SECOND: u32 = 100;

/// The HPA's target: lag per replica.
pub(super) const LAG_PER_REPLICA: u32 = 100;

/// `maxReplicas` minus the partitions, so that only the ceiling limits the replicas.
const REPLICAS_ABOVE_PARTITIONS: u32 = 8;

/// Minimum length: replicas must go up and down again, and each rebalance takes seconds.
pub(super) const MIN_LENGTH: Duration = Duration::from_secs(20);

/// Maximum length: the mock broker keeps 100,000 records per partition.
pub(super) const MAX_LENGTH: Duration = Duration::from_secs(30 * 60);

/// Phases of the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A load that one consumer can handle.
    Base,
    /// A third more than the consumers of all partitions can handle.
    Surge,
    /// A low load.
    Quiet,
    /// No load, so that consumers reach the end of the log before the demo ends.
    Still,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Base => "base load",
            Phase::Surge => "surge",
            Phase::Quiet => "quiet",
            Phase::Still => "still",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Length from the first record on.
    pub(super) length: Duration,
    /// The topic's partitions.
    pub(super) partitions: u32,
}

impl Plan {
    /// The phase at this time since the first record.
    pub(super) fn phase(&self, at: Duration) -> Phase {
        let still = (self.length / 10).max(Duration::from_secs(3));
        if at < self.share(15) {
            Phase::Base
        } else if at < self.share(30) {
            Phase::Surge
        } else if at + still < self.length {
            Phase::Quiet
        } else {
            Phase::Still
        }
    }

    /// Records produced per second.
    pub(super) fn rate(&self, phase: Phase) -> u32 {
        match phase {
            Phase::Base => RECORDS_PER_SECOND / 2,
            // In 15 % of the demo, as many records as all useful consumers handle in 20 % of it.
            Phase::Surge => self.partitions * RECORDS_PER_SECOND * 4 / 3,
            // So little that less than the lag of one replica accumulates during a rebalance.
            Phase::Quiet => RECORDS_PER_SECOND / 10,
            Phase::Still => 0,
        }
    }

    /// Interval of the HPA's syncs.
    pub(super) fn sync_period(&self) -> Duration {
        let seconds = if self.length < Duration::from_secs(60) {
            1
        } else {
            2
        };
        Duration::from_secs(seconds)
    }

    /// The lag that one replica may have.
    pub(super) fn per_replica() -> Milli {
        Milli::from_units(u64::from(LAG_PER_REPLICA))
    }

    /// `behavior.scaleDown.stabilizationWindowSeconds`: scales down to the highest recommendation
    /// in this time.
    pub(super) fn down_window(&self) -> Duration {
        let seconds = (self.length / 9).as_secs().clamp(2, 30);
        Duration::from_secs(seconds)
    }

    /// The HPA.
    pub(super) fn hpa(&self) -> HpaSpec {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let period_seconds = seconds(self.sync_period());
        let policy = |change| Policy {
            change,
            period_seconds,
        };
        let tolerance = Some(Milli::default());
        HpaSpec {
            min: 1,
            max: self.partitions + REPLICAS_ABOVE_PARTITIONS,
            metrics: vec![MetricSource::External(MetricTarget::AverageValue(
                Self::per_replica(),
            ))],
            behavior: Some(Behavior {
                up: ScalingRules {
                    policies: vec![
                        policy(PolicyKind::Percent(100)),
                        policy(PolicyKind::Pods(4)),
                    ],
                    tolerance,
                    ..ScalingRules::up()
                },
                down: ScalingRules {
                    window_seconds: Some(seconds(self.down_window())),
                    tolerance,
                    ..ScalingRules::down()
                },
            }),
        }
    }

    fn share(&self, percent: u32) -> Duration {
        self.length * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_all_phases_and_a_surge_beyond_the_maximum() {
        for seconds in [20, 30, 45, 90, 600, 1800] {
            for partitions in [1, 12, 24] {
                let plan = Plan {
                    length: Duration::from_secs(seconds),
                    partitions,
                };
                let phases: Vec<Phase> = (0..seconds)
                    .map(|s| plan.phase(Duration::from_secs(s)))
                    .collect();
                let mut seen = phases.clone();
                seen.dedup();
                assert_eq!(
                    seen,
                    [Phase::Base, Phase::Surge, Phase::Quiet, Phase::Still]
                );
                let of = |phase| phases.iter().filter(|p| **p == phase).count();
                let surge =
                    of(Phase::Surge) * usize::try_from(plan.rate(Phase::Surge)).unwrap_or(0);
                if partitions == 12 {
                    assert!(surge > 2 * 20 * 100, "{seconds} s: {surge}");
                }
                assert!(plan.rate(Phase::Base) < RECORDS_PER_SECOND);
                // The rest of the time after the drain is for scaling down.
                let drain = surge / usize::try_from(partitions * RECORDS_PER_SECOND).unwrap_or(1);
                assert!(drain < of(Phase::Quiet), "{seconds} s: {drain} s of drain");
            }
        }
    }
}
