//! The metric stage: what each metric proposes, and which proposal wins.
//!
//! Floating point as in the controller, since its results depend on it: a ratio that is on the edge of
//! the tolerance in decimals may be beyond it there.

use serde::Serialize;

use super::{HpaSpec, MetricReading, MetricSource, ObservedScale, PodCount};
use crate::model::hpa::facts::MetricTarget;
use crate::model::units::quantity::Milli;

/// The most replicas that the controller can count.
const MOST: u32 = i32::MAX.unsigned_abs();

/// What one metric proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// So many replicas.
    Replicas {
        /// The number.
        replicas: u32,
        /// Whether the ratio is within the tolerance, so that the number is what there is already.
        within_tolerance: bool,
    },
    /// None: the metric is an error.
    Failed,
    /// Not known here.
    Unknown,
}

/// What the metric stage comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// So many replicas.
    Wants {
        /// The number.
        replicas: u32,
        /// The place of the metric that won.
        metric: usize,
    },
    /// A metric is an error and the others would not scale up: the replicas stay as they are.
    Frozen,
    /// At least so many, if the metrics that are not known here are no errors.
    AtLeast {
        /// The number.
        replicas: u32,
        /// Whether the replicas may stay as they are instead.
        may_freeze: bool,
    },
}

/// What each metric proposes (`computeReplicasForMetric`).
#[must_use]
pub fn proposals(spec: &HpaSpec, seen: &ObservedScale) -> Vec<Proposal> {
    let readings = seen.readings.iter().copied();
    let readings = readings.chain(std::iter::repeat(MetricReading::Elsewhere));
    let metrics = spec.metrics.iter().zip(readings);
    metrics
        .map(|(source, reading)| match (source, reading) {
            (_, MetricReading::Failed) => Proposal::Failed,
            (
                MetricSource::External(MetricTarget::AverageValue(target)),
                MetricReading::Value(value),
            ) => by_average(value, *target, seen.status_replicas, spec.tolerances()),
            (MetricSource::External(MetricTarget::Value(target)), MetricReading::Value(value)) => {
                by_value(value, *target, seen, spec.tolerances())
            }
            (MetricSource::Object | MetricSource::Pods, MetricReading::Value(_))
            | (_, MetricReading::Elsewhere) => Proposal::Unknown,
        })
        .collect()
}

/// Which proposal wins (`computeReplicasForMetrics`).
#[must_use]
pub fn verdict(proposals: &[Proposal], spec_replicas: u32) -> Verdict {
    let mut most = 0;
    let mut metric = 0;
    let (mut failed, mut unknown) = (0usize, 0usize);
    for (place, proposal) in proposals.iter().enumerate() {
        match proposal {
            // The last of those that want nothing, the first of those that want the same.
            Proposal::Replicas { replicas, .. } if most == 0 || *replicas > most => {
                most = *replicas;
                metric = place;
            }
            Proposal::Replicas { .. } => {}
            Proposal::Failed => failed = failed.saturating_add(1),
            Proposal::Unknown => unknown = unknown.saturating_add(1),
        }
    }
    let is_down = most < spec_replicas;
    let known = proposals.len().saturating_sub(failed);
    match (failed, unknown) {
        (0, 0) => Verdict::Wants {
            replicas: most,
            metric,
        },
        (_, 0) if known == 0 || is_down => Verdict::Frozen,
        (_, 0) => Verdict::Wants {
            replicas: most,
            metric,
        },
        // The unknown ones may be errors themselves, or the only ones that are not.
        _ => Verdict::AtLeast {
            replicas: if failed > 0 {
                most.max(spec_replicas)
            } else {
                most
            },
            may_freeze: is_down || known == unknown,
        },
    }
}

/// `GetExternalPerPodMetricReplicas`: compared with what there is, a rollout's surge included.
fn by_average(value: Milli, target: Milli, status: u32, tolerances: (u64, u64)) -> Proposal {
    let (usage, per) = (float(value), float(target));
    if is_within(usage / (per * f64::from(status)), tolerances) {
        return Proposal::Replicas {
            replicas: status,
            within_tolerance: true,
        };
    }
    Proposal::Replicas {
        replicas: replicas((usage / per).ceil()),
        within_tolerance: false,
    }
}

/// `GetExternalMetricReplicas`: the ratio times the pods that are ready; without replicas, the ratio.
fn by_value(value: Milli, target: Milli, seen: &ObservedScale, tolerances: (u64, u64)) -> Proposal {
    let ratio = float(value) / float(target);
    let beyond = |number: f64| Proposal::Replicas {
        replicas: replicas(number.ceil()),
        within_tolerance: false,
    };
    if seen.spec_replicas == 0 {
        return beyond(ratio);
    }
    if is_within(ratio, tolerances) {
        return Proposal::Replicas {
            replicas: seen.spec_replicas,
            within_tolerance: true,
        };
    }
    match seen.pods {
        Some(PodCount { all: 0, .. }) => Proposal::Failed,
        Some(PodCount { ready, .. }) => beyond(ratio * f64::from(ready)),
        None => Proposal::Unknown,
    }
}

fn is_within(ratio: f64, (down, up): (u64, u64)) -> bool {
    1.0 - tolerance(down) <= ratio && ratio <= 1.0 + tolerance(up)
}

/// As `Quantity.AsApproximateFloat64` has it of a canonical quantity.
fn tolerance(thousandths: u64) -> f64 {
    match (thousandths / 1000, thousandths % 1000) {
        (whole, 0) => as_float(whole),
        _ => as_float(thousandths) * 0.001,
    }
}

fn float(amount: Milli) -> f64 {
    as_float(amount.thousandths())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the controller loses the same bits: it converts int64 to float64"
)]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// A number that is already rounded, saturating at what the controller can count; no number is none.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides, and whole"
)]
fn replicas(number: f64) -> u32 {
    number.clamp(0.0, f64::from(MOST)) as u32
}
