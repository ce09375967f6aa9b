//! The arithmetic of the HPA controller: from an HPA's spec and the observed scale to replicas.
//!
//! Each metric proposes a number and the largest wins ([`stage`]). That number is then bounded by the
//! limits of the HPA and by the controller's recommendations of earlier syncs ([`memory`]). These are not
//! visible from outside, so a prediction from one observation may be a range ([`outlook`]).
//!
//! Source: `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go` of Kubernetes 1.36. The
//! oracle of the end-to-end tests compares every sync with that code.

pub mod memory;
pub mod outlook;
pub mod policies;
pub mod stage;

use std::time::Duration;

use serde::Serialize;

use super::facts::{DEFAULT_TOLERANCE_THOUSANDTHS, MetricTarget};
use crate::model::units::quantity::Milli;

/// Default of `--horizontal-pod-autoscaler-downscale-stabilization`: the window in which the controller
/// keeps the highest recommendation if the HPA sets none.
pub const DEFAULT_DOWNSCALE_STABILISATION: Duration = Duration::from_secs(300);

/// Maximum number of replicas (`int32`).
const MAX_REPLICAS: u32 = i32::MAX.unsigned_abs();

/// `spec` of an HPA, with the defaults of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaSpec {
    /// `minReplicas`.
    pub min: u32,
    /// `maxReplicas`.
    pub max: u32,
    /// `metrics`, in order.
    pub metrics: Vec<MetricSource>,
    /// `behavior`, if set.
    pub behavior: Option<Behavior>,
}

impl HpaSpec {
    /// Approximate memory that the struct owns, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let policies = |behavior: &Behavior| {
            let policies = behavior
                .up
                .policies
                .len()
                .saturating_add(behavior.down.policies.len());
            policies.saturating_mul(size_of::<Policy>())
        };
        let metrics = self.metrics.len().saturating_mul(size_of::<MetricSource>());
        metrics.saturating_add(self.behavior.as_ref().map_or(0, policies))
    }

    /// Tolerances for scaling down and up, in thousandths.
    #[must_use]
    pub fn tolerances(&self) -> (u64, u64) {
        let default = DEFAULT_TOLERANCE_THOUSANDTHS;
        let tolerance = |rules: &ScalingRules| rules.tolerance.map_or(default, Milli::thousandths);
        let behavior = self.behavior.as_ref();
        behavior.map_or((default, default), |b| {
            (tolerance(&b.down), tolerance(&b.up))
        })
    }

    /// Whether one of the metrics has a value without pods, so that it can wake the workload.
    fn wakes_by_a_metric(&self) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.any(|source| !matches!(source, MetricSource::Pods))
    }
}

/// Source of a metric of an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// An External metric.
    External(MetricTarget),
    /// An Object metric.
    Object,
    /// A metric of the pods: `Resource`, `ContainerResource` or `Pods`.
    Pods,
}

/// `spec.behavior`, with the defaults of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Behavior {
    /// `scaleUp`.
    pub up: ScalingRules,
    /// `scaleDown`.
    pub down: ScalingRules,
}

/// Scaling rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScalingRules {
    /// `stabilizationWindowSeconds`; `None` = [`DEFAULT_DOWNSCALE_STABILISATION`].
    pub window_seconds: Option<u32>,
    /// `selectPolicy`.
    pub select: Select,
    /// `policies`.
    pub policies: Vec<Policy>,
    /// `tolerance`; `None` = [`DEFAULT_TOLERANCE_THOUSANDTHS`].
    pub tolerance: Option<Milli>,
}

impl ScalingRules {
    /// Default of `scaleUp` (`pkg/apis/autoscaling/v2/defaults.go`).
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

    /// Default of `scaleDown`.
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
        self.window_seconds
            .map_or(DEFAULT_DOWNSCALE_STABILISATION, seconds)
    }

    /// Longest period of the policies.
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
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No change.
    Disabled,
}

/// Limit of the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Maximum change.
    pub change: PolicyKind,
    /// `periodSeconds`.
    pub period_seconds: u32,
}

impl Policy {
    fn period(&self) -> Duration {
        Duration::from_secs(u64::from(self.period_seconds))
    }
}

/// Kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// Number of pods.
    Pods(u32),
    /// Percentage of the replicas at the start of the period.
    Percent(u32),
}

/// The scale and the metrics as the controller sees them at a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedScale {
    /// `spec.replicas` of the scale.
    pub spec_replicas: u32,
    /// `status.replicas` of the scale, which exceeds the spec while a rollout surges.
    pub status_replicas: u32,
    /// Pods that the selector of the scale matches; `None` if they were not counted.
    pub pods: Option<PodCount>,
    /// Reading of each metric of the spec, in order.
    pub readings: Vec<MetricReading>,
    /// Whether the condition `ScaledToZero` is true: the HPA itself scaled to zero. Never true without the
    /// feature `HPAScaleToZero`.
    pub scaled_to_zero: bool,
}

/// Number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCount {
    /// All pods.
    pub all: u32,
    /// Running pods that are ready.
    pub ready: u32,
}

/// Reading of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricReading {
    /// Sum of its items.
    Value(Milli),
    /// An error, or no items.
    Failed,
    /// Served by another metrics API, so its value is unknown here.
    Elsewhere,
}

/// Part of the controller that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncCase {
    /// Zero replicas that the HPA did not set itself: it does nothing (`ScalingDisabled`).
    Disabled,
    /// More replicas than `maxReplicas`: reduced to it at once, regardless of the metrics.
    AboveMax,
    /// Fewer replicas than `minReplicas`: raised to it at once.
    BelowMin,
    /// The metrics decide.
    Metrics,
}

/// Determines the part of the controller that decides.
#[must_use]
pub fn case(spec: &HpaSpec, seen: &ObservedScale) -> SyncCase {
    let current = seen.spec_replicas;
    if current == 0 {
        // A workload that the HPA scaled to zero starts again if minReplicas is raised, or if a metric that needs no
        // pods proposes replicas.
        let is_awake = seen.scaled_to_zero && (spec.min != 0 || spec.wakes_by_a_metric());
        return if is_awake {
            SyncCase::Metrics
        } else {
            SyncCase::Disabled
        };
    }
    if current > spec.max {
        SyncCase::AboveMax
    } else if current < spec.min {
        SyncCase::BelowMin
    } else {
        SyncCase::Metrics
    }
}

/// Converts a rounded number of replicas, saturating at 0 and [`MAX_REPLICAS`]; NaN becomes 0.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides, and whole"
)]
fn to_replicas(number: f64) -> u32 {
    number.clamp(0.0, f64::from(MAX_REPLICAS)) as u32
}

#[cfg(test)]
mod tests;
