//! Simulates how an HPA with these metrics would have scaled a workload over time.

use std::time::Duration;

use crate::model::hpa::controller::memory::Recommendations;
use crate::model::hpa::controller::{HpaSpec, MetricReading, ObservedScale};

/// Inputs of the decision at one sample.
#[derive(Clone, Debug)]
pub(super) struct ScaleInputs<'a> {
    pub(super) spec: &'a HpaSpec,
    /// The reading of each metric of the spec.
    pub(super) readings: Vec<MetricReading>,
    /// Whether there is work.
    pub(super) is_active: bool,
    /// The replicas without work, and after which time without it.
    pub(super) idle: Option<(u32, Duration)>,
    /// The replicas that run, with which the simulation starts.
    pub(super) running: u32,
}

/// The simulated replicas by one side. The load is that of the real group with the replicas that really run.
#[derive(Clone, Debug, Default)]
pub(super) struct VirtualScale {
    pub(super) replicas: Option<u32>,
    pub(super) changes: u64,
    recommendations: Recommendations,
    idle_since: Option<Duration>,
}

impl VirtualScale {
    /// Advances the simulation to `now`.
    pub(super) fn step(&mut self, inputs: &ScaleInputs<'_>, now: Duration) {
        let before = *self.replicas.get_or_insert(inputs.running);
        let after = self.next(inputs, before, now);
        if after != before {
            self.changes = self.changes.saturating_add(1);
        }
        self.replicas = Some(after);
    }

    fn next(&mut self, inputs: &ScaleInputs<'_>, before: u32, now: Duration) -> u32 {
        let least = inputs.spec.min.max(1);
        if let (Some((idle, cooldown)), false) = (inputs.idle, inputs.is_active) {
            let since = *self.idle_since.get_or_insert(now);
            if before <= idle || now.saturating_sub(since) >= cooldown {
                return idle;
            }
        } else {
            self.idle_since = None;
        }
        if before < least {
            // KEDA, and scale to zero, start the workload with this number, and its HPA starts without a history.
            self.recommendations = Recommendations::default();
            return least;
        }
        let seen = ObservedScale {
            spec_replicas: before,
            status_replicas: before,
            pods: None,
            readings: inputs.readings.clone(),
            scaled_to_zero: false,
        };
        let sync = self.recommendations.sync(inputs.spec, &seen, now);
        sync.replicas.unwrap_or(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::controller::MetricSource;
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::units::quantity::Milli;

    fn spec(min: u32) -> HpaSpec {
        HpaSpec {
            min,
            max: 20,
            metrics: vec![MetricSource::External(MetricTarget::AverageValue(
                Milli::from_units(10),
            ))],
            behavior: None,
        }
    }

    /// The replicas at samples 15 s apart with these lags.
    fn replicas(spec: &HpaSpec, idle: Option<(u32, Duration)>, lags: &[u64]) -> (Vec<u32>, u64) {
        let mut scale = VirtualScale::default();
        let mut now = Duration::ZERO;
        let mut all = Vec::new();
        for lag in lags {
            let inputs = ScaleInputs {
                spec,
                readings: vec![MetricReading::Value(Milli::from_units(*lag))],
                is_active: *lag > 0,
                idle,
                running: 0,
            };
            scale.step(&inputs, now);
            all.extend(scale.replicas);
            now += Duration::from_secs(15);
        }
        (all, scale.changes)
    }

    #[test]
    fn follows_the_hpa_with_its_stabilisation() {
        let mut lags = vec![100; 3];
        lags.resize(22, 5);
        let (all, changes) = replicas(&spec(2), None, &lags);
        // From 0 to the minimum, then at most doubled or by 4, up to the proposal; down after five minutes.
        assert_eq!(all[..4], [2, 4, 8, 10]);
        assert_eq!((all[21], changes), (10, 4));
        lags.resize(26, 5);
        assert_eq!(replicas(&spec(2), None, &lags).0[25], 2);
    }

    #[test]
    fn idles_after_the_cooldown_and_starts_at_once() {
        let idle = Some((0, Duration::from_secs(30)));
        let (all, changes) = replicas(&spec(1), idle, &[0, 5, 0, 0, 0, 0, 5]);
        assert_eq!(all, [0, 1, 1, 1, 0, 0, 1]);
        assert_eq!(changes, 3);
    }
}
