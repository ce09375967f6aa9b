//! The demo's HPA: the HPA controller's arithmetic ([`model::hpa`](crate::model::hpa::controller))
//! on one External metric, with a complete history from the first sync on.

use std::time::Instant;

use crate::model::hpa::controller::memory::Recommendations;
use crate::model::hpa::controller::stage::{Proposal, proposals};
use crate::model::hpa::controller::{HpaSpec, MetricReading, ObservedScale};
use crate::model::units::quantity::Milli;

/// Result of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Replicas proposed by the metric, within the HPA's own bounds.
    pub(super) desired: u32,
    /// Replicas that the sync sets, after applying `behavior`.
    pub(super) replicas: u32,
}

/// Replicas proposed by the metric, within the HPA's own bounds; `current` if the metric fails.
pub(super) fn desired(spec: &HpaSpec, value: Option<Milli>, current: u32) -> u32 {
    match proposals(spec, &observe(value, current)).first() {
        Some(Proposal::Replicas { replicas, .. }) => (*replicas).max(spec.min).min(spec.max),
        _ => current,
    }
}

fn observe(value: Option<Milli>, current: u32) -> ObservedScale {
    ObservedScale {
        spec_replicas: current,
        // The demo's pods are ready at once.
        status_replicas: current,
        pods: None,
        readings: vec![value.map_or(MetricReading::Failed, MetricReading::Value)],
        scaled_to_zero: false,
    }
}

/// An HPA with the state of its controller between syncs.
#[derive(Clone, Debug)]
pub(super) struct SimulatedHpa {
    spec: HpaSpec,
    memory: Recommendations,
    started: Instant,
}

impl SimulatedHpa {
    pub(super) fn new(spec: HpaSpec, started: Instant) -> Self {
        Self {
            spec,
            memory: Recommendations::default(),
            started,
        }
    }

    /// One sync of the controller at `now` with `current` replicas. A failed metric (`None`) keeps
    /// the replicas.
    pub(super) fn sync(&mut self, now: Instant, current: u32, value: Option<Milli>) -> Decision {
        let at = now.saturating_duration_since(self.started);
        let sync = self.memory.sync(&self.spec, &observe(value, current), at);
        Decision {
            desired: desired(&self.spec, value, current),
            replicas: sync.replicas.unwrap_or(current),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::demo::plan::Plan;

    fn plan() -> Plan {
        Plan {
            length: Duration::from_secs(30),
            partitions: 12,
        }
    }

    #[test]
    fn stays_within_min_and_max_replicas() {
        let spec = plan().hpa();
        for (lag, current, expected) in [
            (0, 5, 1),
            (50_000, 5, 20),
            // The HPA itself does not limit the replicas to the 12 partitions; lagwise does, by clamping the value.
            (1200, 12, 12),
            (1201, 12, 13),
        ] {
            let value = Some(Milli::from_units(lag));
            assert_eq!(desired(&spec, value, current), expected, "{lag}");
        }
        assert_eq!(desired(&spec, None, 7), 7);
    }

    #[test]
    fn unknown_metric_keeps_replicas_and_desired_ignores_behavior() {
        let started = Instant::now();
        let mut hpa = SimulatedHpa::new(plan().hpa(), started);
        let mut sync = |seconds, current, value: Option<u64>| {
            let now = started + Duration::from_secs(seconds);
            let decision = hpa.sync(now, current, value.map(Milli::from_units));
            (decision.desired, decision.replicas)
        };
        assert_eq!(sync(0, 1, Some(1200)), (12, 5));
        assert_eq!(sync(1, 5, None), (5, 5));
        assert_eq!(sync(2, 5, Some(1200)), (12, 10));
    }
}
