//! The metric stage: the proposal of each metric, and the one that wins.
//!
//! It uses floating point exactly as the controller does: a ratio that equals the tolerance in decimals may
//! exceed it there.

use serde::Serialize;

use super::{HpaSpec, MetricReading, MetricSource, ObservedScale, PodCount, to_replicas};
use crate::model::hpa::facts::MetricTarget;
use crate::model::units::quantity::Milli;

/// Proposal of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// A number of replicas.
    Replicas {
        /// The number.
        replicas: u32,
        /// Whether the ratio is within the tolerance, so that the number does not change.
        within_tolerance: bool,
    },
    /// No proposal, because the metric failed.
    Failed,
    /// Unknown here.
    Unknown,
}

/// Result of the metric stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A number of replicas.
    Wants {
        /// The number.
        replicas: u32,
        /// Index of the metric that won.
        metric: usize,
    },
    /// A metric failed and the others would not scale up, so the replicas stay as they are.
    Frozen,
    /// At least this number, unless an unknown metric fails.
    AtLeast {
        /// The number.
        replicas: u32,
        /// Whether the replicas may stay as they are instead.
        may_freeze: bool,
    },
}

/// Computes the proposal of each metric (`computeReplicasForMetric`).
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

/// Determines the winning proposal (`computeReplicasForMetrics`).
#[must_use]
pub fn verdict(proposals: &[Proposal], spec_replicas: u32) -> Verdict {
    let mut most = 0;
    let mut metric = 0;
    let (mut failed, mut unknown) = (0usize, 0usize);
    for (place, proposal) in proposals.iter().enumerate() {
        match proposal {
            // As in the controller: of several zeros the last, of several equal numbers the first.
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
        // Any of the unknown metrics may have failed, or be the only one that has not.
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

/// `GetExternalPerPodMetricReplicas`: uses `status.replicas`, which includes the surge of a rollout.
fn by_average(value: Milli, target: Milli, status: u32, tolerances: (u64, u64)) -> Proposal {
    let (usage, per) = (float(value), float(target));
    if is_within(usage / (per * f64::from(status)), tolerances) {
        return Proposal::Replicas {
            replicas: status,
            within_tolerance: true,
        };
    }
    Proposal::Replicas {
        replicas: to_replicas((usage / per).ceil()),
        within_tolerance: false,
    }
}

/// `GetExternalMetricReplicas`: the ratio times the number of ready pods; at zero replicas the ratio itself.
fn by_value(value: Milli, target: Milli, seen: &ObservedScale, tolerances: (u64, u64)) -> Proposal {
    let ratio = float(value) / float(target);
    let beyond = |number: f64| Proposal::Replicas {
        replicas: to_replicas(number.ceil()),
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

/// Converts as `Quantity.AsApproximateFloat64` does for a canonical quantity.
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
