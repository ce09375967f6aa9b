//! The rules of the autoscaler of Flink's Kubernetes operator, applied to a consumer group.
//!
//! Target rate = lag / catch-up + arrivals x restart / catch-up + arrivals / utilisation; replicas = target rate /
//! capacity, aligned to numbers that share the partitions evenly.

use super::scaler::{Truth, total_end, total_lag};
use crate::model::evaluation::sizing::even_step;
use crate::model::policy::learned::LearnedPolicy;
use crate::model::policy::reading::GroupReading;
use crate::model::policy::settings::RatePolicySettings;
use crate::model::policy::{PolicyScratch, RatePolicy};

/// Where the capacity of a consumer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacitySource {
    /// The true one, which Flink knows from the busy time of its tasks.
    Given,
    /// What Kafka shows, by the estimate of the rate policy: Flink has none for sources whose busy time is unknown.
    Observed,
}

/// Settings. Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlinkSettings {
    pub capacity: CapacitySource,
    pub is_tuned: bool,
    utilisation: f64,
    catch_up: f64,
    restart: f64,
    stabilisation: f64,
    window: f64,
    down_interval: f64,
    down_factor: f64,
}

impl FlinkSettings {
    /// Flink's defaults.
    #[must_use]
    pub fn defaults(capacity: CapacitySource) -> Self {
        Self {
            capacity,
            is_tuned: false,
            utilisation: 0.7,
            catch_up: 1800.0,
            restart: 300.0,
            stabilisation: 300.0,
            window: 900.0,
            down_interval: 3600.0,
            down_factor: 0.6,
        }
    }

    /// Tuned to consumer groups: short windows, since a rebalance takes seconds.
    #[must_use]
    pub fn tuned(capacity: CapacitySource) -> Self {
        Self {
            capacity,
            is_tuned: true,
            utilisation: 0.8,
            catch_up: 300.0,
            restart: 60.0,
            stabilisation: 60.0,
            window: 60.0,
            down_interval: 900.0,
            down_factor: 1.0,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match (self.capacity, self.is_tuned) {
            (CapacitySource::Given, false) => "flink-given",
            (CapacitySource::Given, true) => "flink-given-tuned",
            (CapacitySource::Observed, false) => "flink",
            (CapacitySource::Observed, true) => "flink-tuned",
        }
    }
}

/// The rules at work.
#[derive(Clone, Debug)]
pub struct FlinkPolicy {
    settings: FlinkSettings,
    output: Option<u32>,
    samples: Vec<(f64, u64)>,
    /// The rate policy, whose decisions are not used.
    estimator: Option<Box<(RatePolicy, PolicyScratch)>>,
    capacity: f64,
    changed: f64,
    last_down_check: f64,
    most_since: u32,
}

impl FlinkPolicy {
    #[must_use]
    pub fn new(settings: FlinkSettings) -> Self {
        Self {
            settings,
            estimator: match settings.capacity {
                CapacitySource::Given => None,
                CapacitySource::Observed => {
                    let settings = RatePolicySettings::default();
                    let policy = RatePolicy::new(settings, LearnedPolicy::default());
                    Some(Box::new((policy, PolicyScratch::default())))
                }
            },
            output: None,
            samples: Vec::new(),
            capacity: 0.0,
            changed: 0.0,
            last_down_check: 0.0,
            most_since: 0,
        }
    }

    pub(super) fn observe(&mut self, reading: &GroupReading<'_>, truth: Truth) -> Option<u32> {
        let now = reading.at.as_secs_f64();
        let settings = self.settings;
        let output = *self.output.get_or_insert(reading.status_replicas.max(1));
        let Some(lag) = total_lag(reading) else {
            return self.output;
        };
        let end = total_end(reading);
        self.samples.push((now, end));
        let outdated = self
            .samples
            .iter()
            .filter(|(at, _)| now - at > settings.window)
            .count();
        self.samples.drain(..outdated.saturating_sub(1));
        let (first, first_end) = *self.samples.first()?;
        let span = (now - first).max(1.0);
        let per_second =
            |from: u64, to: u64| super::numbers::to_float(to.saturating_sub(from)) / span;
        let arrivals = per_second(first_end, end);
        let lag = super::numbers::to_float(lag);
        self.capacity = match &mut self.estimator {
            None => truth.capacity,
            Some(estimator) => {
                let (policy, scratch) = &mut **estimator;
                let terms = policy.observe(reading, scratch).terms;
                terms.map_or(self.capacity, |terms| terms.capacity)
            }
        };
        if self.capacity <= 0.0 || now - self.changed < settings.stabilisation {
            return self.output;
        }
        let target = lag / settings.catch_up
            + arrivals * settings.restart / settings.catch_up
            + arrivals / settings.utilisation;
        let needed =
            super::numbers::whole((target / self.capacity).ceil()).clamp(1, reading.ceiling);
        let wanted = even_step(needed, reading.ceiling);
        self.most_since = self.most_since.max(wanted);
        if wanted > output {
            self.set(wanted, now);
        } else if now - self.last_down_check >= settings.down_interval {
            let lowest =
                super::numbers::whole((f64::from(output) * (1.0 - settings.down_factor)).ceil());
            let next = self.most_since.max(lowest).max(1);
            if next < output {
                self.set(next, now);
            }
            self.last_down_check = now;
            self.most_since = wanted;
        }
        self.output
    }

    fn set(&mut self, replicas: u32, now: f64) {
        self.output = Some(replicas);
        self.changed = now;
        self.last_down_check = now;
        self.most_since = 0;
    }
}
