//! What sets the number of replicas in a simulation: a policy behind an external metric, and the HPA that reads it.

use serde::Serialize;

use super::competitors::{DivisorPolicy, KedaEven};
use super::flink::{FlinkPolicy, FlinkSettings};
use crate::model::hpa::controller::{
    Behavior, DEFAULT_DOWNSCALE_STABILISATION, HpaSpec, MetricSource, Policy, PolicyKind,
    ScalingRules, Select,
};
use crate::model::hpa::facts::MetricTarget;
use crate::model::policy::decision::RateDecision;
use crate::model::policy::learned::LearnedPolicy;
use crate::model::policy::reading::GroupReading;
use crate::model::policy::settings::RatePolicySettings;
use crate::model::policy::{PolicyScratch, RatePolicy};
use crate::model::units::quantity::Milli;

/// A policy to simulate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SimulatedPolicy {
    /// The rate policy.
    Rate(RatePolicySettings),
    /// As many replicas as partitions, always.
    Static,
    /// A schedule that was found with all arrivals known.
    Clairvoyant,
    /// An HPA on lag with this target per replica, and a stabilisation window if it is not the default one.
    Lag {
        threshold: u32,
        window_seconds: Option<u32>,
    },
    /// KEDA's even distribution of partitions with this threshold.
    KedaEven { threshold: u32 },
    /// Divisors of the number of partitions by the time to drain.
    Divisors,
    /// The rules of Flink's autoscaler.
    Flink(FlinkSettings),
}

impl SimulatedPolicy {
    /// Name on the command line and in tables.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            SimulatedPolicy::Rate(settings) => match settings.without {
                None => "rate".to_owned(),
                Some(rule) => format!("rate without {rule:?}"),
            },
            SimulatedPolicy::Static => "static".to_owned(),
            SimulatedPolicy::Clairvoyant => "clairvoyant".to_owned(),
            SimulatedPolicy::Lag {
                threshold,
                window_seconds: None,
            } => format!("lag-{threshold}"),
            SimulatedPolicy::Lag {
                threshold,
                window_seconds: Some(seconds),
            } => format!("lag-{threshold}-{seconds}s"),
            SimulatedPolicy::KedaEven { threshold } => format!("keda-even-{threshold}"),
            SimulatedPolicy::Divisors => "divisors".to_owned(),
            SimulatedPolicy::Flink(settings) => settings.name().to_owned(),
        }
    }

    /// Whether both scale alike, though one may name the default window and the other not, as `lag-200-300s` and
    /// `lag-200` do.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let without_default = |policy: &Self| match policy {
            Self::Lag {
                threshold,
                window_seconds,
            } => Self::Lag {
                threshold: *threshold,
                window_seconds: set_window(*window_seconds),
            },
            other => *other,
        };
        without_default(self) == without_default(other)
    }

    /// The policy's HPA, with this many replicas at most.
    #[must_use]
    pub fn hpa(&self, max: u32) -> HpaSpec {
        let (target, behavior) = match self {
            SimulatedPolicy::Lag {
                threshold,
                window_seconds,
            } => (*threshold, set_window(*window_seconds).map(stabilised)),
            SimulatedPolicy::KedaEven { threshold } => (*threshold, None),
            _ => (1, Some(undamped())),
        };
        let target = MetricTarget::AverageValue(Milli::from_units(u64::from(target)));
        HpaSpec {
            min: 1,
            max,
            metrics: vec![MetricSource::External(target)],
            behavior,
        }
    }
}

/// The behaviour of an HPA on `kafka_desired_replicas`: the policy has waited and damped already.
#[must_use]
pub fn undamped() -> Behavior {
    let zero = Some(Milli::default());
    let policy = |change| Policy {
        change,
        period_seconds: 15,
    };
    Behavior {
        up: ScalingRules {
            window_seconds: Some(0),
            select: Select::Max,
            policies: vec![
                policy(PolicyKind::Percent(900)),
                policy(PolicyKind::Pods(100)),
            ],
            tolerance: zero,
        },
        down: ScalingRules {
            window_seconds: Some(0),
            select: Select::Max,
            policies: vec![policy(PolicyKind::Percent(100))],
            tolerance: zero,
        },
    }
}

/// The stabilisation window that an HPA has to set; `None` for the default one, which it has anyway.
fn set_window(seconds: Option<u32>) -> Option<u32> {
    seconds.filter(|seconds| u64::from(*seconds) != DEFAULT_DOWNSCALE_STABILISATION.as_secs())
}

/// The default behaviour with another stabilisation window for scaling down.
fn stabilised(seconds: u32) -> Behavior {
    Behavior {
        up: ScalingRules::up(),
        down: ScalingRules {
            window_seconds: Some(seconds),
            ..ScalingRules::down()
        },
    }
}

/// A policy at work on one group.
#[derive(Clone, Debug)]
pub enum Scaler {
    Rate(Box<(RatePolicy, PolicyScratch)>),
    Static,
    Lag,
    KedaEven(KedaEven),
    Divisors(DivisorPolicy),
    Flink(FlinkPolicy),
}

/// Data from outside Kafka, for the policies that use it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Truth {
    /// Messages per second that a consumer processes.
    pub capacity: f64,
}

impl Scaler {
    #[must_use]
    pub fn new(policy: &SimulatedPolicy) -> Self {
        match policy {
            SimulatedPolicy::Rate(settings) => {
                let policy = RatePolicy::new(*settings, LearnedPolicy::default());
                Scaler::Rate(Box::new((policy, PolicyScratch::default())))
            }
            SimulatedPolicy::Static | SimulatedPolicy::Clairvoyant => Scaler::Static,
            SimulatedPolicy::Lag { .. } => Scaler::Lag,
            SimulatedPolicy::KedaEven { threshold } => Scaler::KedaEven(KedaEven::new(*threshold)),
            SimulatedPolicy::Divisors => Scaler::Divisors(DivisorPolicy::default()),
            SimulatedPolicy::Flink(settings) => Scaler::Flink(FlinkPolicy::new(*settings)),
        }
    }

    /// The external metric after a poll, in units; `None` if it is unknown. Also the decision of the rate policy.
    pub fn observe(
        &mut self,
        reading: &GroupReading<'_>,
        truth: Truth,
    ) -> (Option<u64>, Option<RateDecision>) {
        match self {
            Scaler::Rate(policy) => {
                let (policy, scratch) = &mut **policy;
                let decision = policy.observe(reading, scratch);
                (Some(u64::from(decision.replicas)), Some(decision))
            }
            Scaler::Static => (None, None),
            Scaler::Lag => (total_lag(reading), None),
            Scaler::KedaEven(policy) => (policy.observe(reading), None),
            Scaler::Divisors(policy) => (policy.observe(reading).map(u64::from), None),
            Scaler::Flink(policy) => (policy.observe(reading, truth).map(u64::from), None),
        }
    }
}

/// Sum of log ends minus committed offsets; `None` if one is unknown.
pub(super) fn total_lag(reading: &GroupReading<'_>) -> Option<u64> {
    let lags = reading.partitions.iter().map(|partition| {
        let lag = partition.end?.distance_from(partition.committed?);
        Some(lag.map_or(0, |lag| lag.0))
    });
    lags.sum()
}

/// Sum of the log ends that are known.
pub(super) fn total_end(reading: &GroupReading<'_>) -> u64 {
    let ends = reading.partitions.iter();
    let ends = ends.filter_map(|partition| partition.end);
    ends.map(|end| end.0.unsigned_abs()).sum()
}
