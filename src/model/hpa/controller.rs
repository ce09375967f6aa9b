//! The HPA controller's own arithmetic: what it makes of an HPA's spec and of what it sees at a sync.
//!
//! First each metric proposes a number and the largest wins ([`stage`]); then that number is bounded
//! by the HPA's limits and by what the controller remembers of the syncs before ([`memory`]). Nobody
//! outside the controller knows its memory, so that one look from there may end in a range
//! ([`outlook`]).
//!
//! MetricSource: `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go` of Kubernetes 1.36. The
//! oracle of the end-to-end tests compares every sync with that code.

pub mod memory;
pub mod outlook;
mod policies;
pub mod stage;

use std::time::Duration;

use serde::Serialize;

use super::facts::MetricTarget;
use crate::model::units::quantity::Milli;

/// `--horizontal-pod-autoscaler-downscale-stabilization`, by default: how long the controller
/// remembers the highest recommendation where the HPA does not say.
pub const DOWNSCALE_STABILISATION: Duration = Duration::from_secs(300);

/// `--horizontal-pod-autoscaler-tolerance`, by default, in thousandths.
pub const TOLERANCE: u64 = 100;

/// An HPA's `spec`, with the API server's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaSpec {
    /// `minReplicas`.
    pub min: u32,
    /// `maxReplicas`.
    pub max: u32,
    /// `metrics`, in its order.
    pub metrics: Vec<MetricSource>,
    /// `behavior`, where there is one.
    pub behavior: Option<Behavior>,
}

impl HpaSpec {
    /// The tolerances downwards and upwards, in thousandths.
    #[must_use]
    pub fn tolerances(&self) -> (u64, u64) {
        let of = |rules: &ScalingRules| rules.tolerance.map_or(TOLERANCE, Milli::thousandths);
        let behavior = self.behavior.as_ref();
        behavior.map_or((TOLERANCE, TOLERANCE), |b| (of(&b.down), of(&b.up)))
    }

    /// Whether one of its metrics can be told at no replicas.
    fn wakes_by_a_metric(&self) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.any(|source| !matches!(source, MetricSource::Pods))
    }
}

/// What one of an HPA's metrics is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// An External metric.
    External(MetricTarget),
    /// A metric of one object of the cluster.
    Object,
    /// The pods: `Resource`, `ContainerResource` and `Pods` metrics.
    Pods,
}

/// `spec.behavior`, with the API server's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Behavior {
    /// `scaleUp`.
    pub up: ScalingRules,
    /// `scaleDown`.
    pub down: ScalingRules,
}

/// How replicas change in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScalingRules {
    /// `stabilizationWindowSeconds`; `None` = the controller's own, [`DOWNSCALE_STABILISATION`].
    pub window_seconds: Option<u32>,
    /// `selectPolicy`.
    pub select: Select,
    /// `policies`.
    pub policies: Vec<Policy>,
    /// `tolerance`; `None` = the controller's own, [`TOLERANCE`].
    pub tolerance: Option<Milli>,
}

impl ScalingRules {
    /// What the API server fills in for `scaleUp` (`pkg/apis/autoscaling/v2/defaults.go`).
    #[must_use]
    pub fn up() -> Self {
        let policy = |change| Policy {
            change,
            period_seconds: 15,
        };
        Self {
            window_seconds: Some(0),
            select: Select::Max,
            policies: vec![
                policy(PolicyKind::Pods(4)),
                policy(PolicyKind::Percent(100)),
            ],
            tolerance: None,
        }
    }

    /// What the API server fills in for `scaleDown`.
    #[must_use]
    pub fn down() -> Self {
        let all = Policy {
            change: PolicyKind::Percent(100),
            period_seconds: 15,
        };
        Self {
            window_seconds: None,
            select: Select::Max,
            policies: vec![all],
            tolerance: None,
        }
    }

    /// The stabilisation window.
    #[must_use]
    pub fn window(&self) -> Duration {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        self.window_seconds.map_or(DOWNSCALE_STABILISATION, seconds)
    }

    /// The longest period of its policies.
    #[must_use]
    pub fn longest_period(&self) -> Duration {
        let periods = self.policies.iter().map(Policy::period);
        periods.max().unwrap_or_default()
    }
}

/// `selectPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The policy that allows the most change.
    Max,
    /// The policy that allows the least change.
    Min,
    /// No change.
    Disabled,
}

/// How much may change within how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// How much.
    pub change: PolicyKind,
    /// `periodSeconds`.
    pub period_seconds: u32,
}

impl Policy {
    fn period(&self) -> Duration {
        Duration::from_secs(u64::from(self.period_seconds))
    }
}

/// How much one policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// So many pods.
    Pods(u32),
    /// So many per cent of what there was when the period began.
    Percent(u32),
}

/// What the controller sees at a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedScale {
    /// The scale's `spec.replicas`.
    pub spec_replicas: u32,
    /// The scale's `status.replicas`: more than its spec while a rollout surges.
    pub status_replicas: u32,
    /// The pods that the scale's selector finds; `None` where they were not looked at.
    pub pods: Option<PodCount>,
    /// What each metric of the spec came to, in its order.
    pub readings: Vec<MetricReading>,
    /// Whether the HPA's condition `ScaledToZero` holds: it went to zero by itself. Never where the
    /// feature `HPAScaleToZero` is off.
    pub scaled_to_zero: bool,
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCount {
    /// In all.
    pub all: u32,
    /// Those that run and are ready.
    pub ready: u32,
}

/// What one metric came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricReading {
    /// The sum of its items.
    Value(Milli),
    /// An error, or no items.
    Failed,
    /// It is read by others: what it came to is not known here.
    Elsewhere,
}

/// Which part of the controller decides, before any metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// No replicas, and not by the HPA's own doing: it does nothing (`ScalingDisabled`).
    Disabled,
    /// More replicas than `maxReplicas`: cut to it at once, whatever the metrics are.
    AboveMax,
    /// Fewer than `minReplicas`: raised to it at once.
    BelowMin,
    /// The metrics decide.
    Metrics,
}

/// Which part decides.
#[must_use]
pub fn case(spec: &HpaSpec, seen: &ObservedScale) -> Case {
    let current = seen.spec_replicas;
    if current == 0 {
        // Raising minReplicas wakes what the HPA has put to sleep; else only a metric does that exists
        // without pods.
        let is_awake = seen.scaled_to_zero && (spec.min != 0 || spec.wakes_by_a_metric());
        return if is_awake {
            Case::Metrics
        } else {
            Case::Disabled
        };
    }
    if current > spec.max {
        Case::AboveMax
    } else if current < spec.min {
        Case::BelowMin
    } else {
        Case::Metrics
    }
}

#[cfg(test)]
mod tests;
