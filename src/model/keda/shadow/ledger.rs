//! Computes KEDA's and lagwise's replicas at each sample, and sums them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::objects::{ComparedObject, ShadowObject};
use super::observed_set::ObservedSet;
use super::report::{ShadowReport, ShadowRow, ShadowTotals};
use super::samples::{TriggerSample, compare_jobs, describe_logins, explain, read_triggers};
use super::virtual_scale::{ScaleInputs, VirtualScale};
use crate::model::evaluation::EvaluationsAt;
use crate::model::hpa::controller::MetricReading;
use crate::model::kafka::group::GroupDescription;
use crate::model::keda::arithmetic::{self, PreviousOffsets, ReplicaBounds};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Moment};
use crate::model::units::quantity::Milli;

/// KEDA's and lagwise's replicas of all objects over time.
#[derive(Debug)]
pub struct ShadowLedger {
    /// Time between two samples. A longer time is a pause, which is not counted.
    step: Duration,
    /// Time of the first sample.
    since: Option<Moment>,
    objects: BTreeMap<(HpaKey, &'static str), ObjectLedger>,
}

/// One object.
#[derive(Debug)]
struct ObjectLedger {
    compared: Arc<ComparedObject>,
    /// The previous offsets of each trigger, as KEDA keeps them.
    previous: Vec<PreviousOffsets>,
    /// The groups of the triggers at the last sample.
    groups: Vec<Option<Arc<GroupDescription>>>,
    running: Option<u32>,
    keda: VirtualScale,
    lagwise: VirtualScale,
    last: Option<Duration>,
    totals: ShadowTotals,
}

impl ShadowLedger {
    /// A ledger for samples at this interval.
    #[must_use]
    pub fn new(step: Duration) -> Self {
        Self {
            step,
            since: None,
            objects: BTreeMap::new(),
        }
    }

    /// Takes a sample of all objects. `problems` name objects of KEDA that cannot be read.
    pub fn record(
        &mut self,
        set: &ObservedSet,
        evaluations: EvaluationsAt<'_>,
        problems: Vec<String>,
    ) -> ShadowReport {
        let now = evaluations.now();
        let since = *self.since.get_or_insert(*now);
        let elapsed = now.since(&since);
        let mut before = std::mem::take(&mut self.objects);
        let mut report = ShadowReport {
            since: Some(rfc3339(&since)),
            at: Some(rfc3339(now)),
            omitted: set.omitted(),
            problems,
            ..ShadowReport::default()
        };
        for object in set.iter() {
            let mut row = ShadowRow {
                kind: object.kind.to_owned(),
                namespace: object.key.namespace.to_string(),
                name: object.key.name.to_string(),
                hpa: object.hpa.name.to_string(),
                ..ShadowRow::default()
            };
            match &object.compared {
                Err(why) => row.not_compared = Some(why.clone()),
                Ok(compared) => {
                    describe_logins(compared, &set.authentications, &mut row);
                    let key = (object.key.clone(), object.kind);
                    let known = before.remove(&key);
                    let mut ledger = known.unwrap_or_else(|| ObjectLedger::new(compared));
                    ledger.update_object(compared);
                    ledger.record(object, evaluations, (elapsed, self.step), &mut row);
                    row.totals = ledger.totals.clone();
                    report.totals.join(&row.totals);
                    self.objects.insert(key, ledger);
                }
            }
            report.objects.push(row);
        }
        report
    }
}

fn rfc3339(moment: &Moment) -> String {
    humantime::format_rfc3339_seconds(moment.wall).to_string()
}

impl ObjectLedger {
    fn new(compared: &Arc<ComparedObject>) -> Self {
        let triggers = compared.triggers.len();
        Self {
            compared: Arc::clone(compared),
            previous: vec![PreviousOffsets::new(); triggers],
            groups: vec![None; triggers],
            running: None,
            keda: VirtualScale::default(),
            lagwise: VirtualScale::default(),
            last: None,
            totals: ShadowTotals::default(),
        }
    }

    /// Replaces the object if it has changed. The sums stay.
    fn update_object(&mut self, compared: &Arc<ComparedObject>) {
        if Arc::ptr_eq(&self.compared, compared) {
            return;
        }
        let totals = std::mem::take(&mut self.totals);
        *self = Self {
            totals,
            running: self.running,
            last: self.last,
            ..Self::new(compared)
        };
        self.keda.changes = self.totals.keda.scale_changes;
        self.lagwise.changes = self.totals.lagwise.scale_changes;
    }

    fn record(
        &mut self,
        object: &ShadowObject,
        evaluations: EvaluationsAt<'_>,
        (now, step): (Duration, Duration),
        row: &mut ShadowRow,
    ) {
        let compared = Arc::clone(&self.compared);
        let facts = evaluations.targets().facts().get(&object.hpa);
        let facts = facts.filter(|facts| facts.controller == compared.facts.controller);
        row.remarks.extend(compared.remarks.iter().cloned());
        row.running = facts.and_then(|facts| facts.replicas);
        if facts.is_none() {
            row.not_compared = Some(format!(
                "HPA {} does not belong to this {}, or lagwise has not read it yet",
                object.hpa.name, object.kind
            ));
            self.last = None;
            return;
        }
        let samples = read_triggers(&compared, &object.hpa, evaluations, &mut self.previous);
        if let Some(rules) = &compared.jobs {
            compare_jobs(rules, &samples, row);
            return;
        }
        self.count_rebalances(&samples);
        let current = row.running.or(self.keda.replicas).unwrap_or(0);
        let readings = samples.iter().map(|sample| {
            let reading = sample.keda.as_ref()?.as_ref().ok()?;
            Some((&sample.observed.trigger, reading))
        });
        let readings = readings.collect::<Option<Vec<_>>>();
        let bounds = ReplicaBounds {
            min: compared.min,
            max: compared.keda.max,
            idle: compared.idle,
        };
        let tolerances = compared.keda.tolerances();
        row.keda = readings
            .as_ref()
            .map(|readings| arithmetic::replicas(readings, bounds, current, tolerances));
        let values = samples.iter().map(|sample| sample.lagwise.as_ref());
        let values = values.collect::<Result<Vec<_>, _>>();
        row.lagwise = values.as_ref().ok().and_then(|values| {
            let desired = values.iter().map(|value| value.desired);
            let most = desired.collect::<Option<Vec<_>>>()?.into_iter().max()?;
            let least = if compared.sleeps && most == 0 {
                0
            } else {
                compared.lagwise.min
            };
            Some(most.clamp(least, compared.lagwise.max.max(least)))
        });
        explain(&samples, current, tolerances, row);
        let (Some(readings), Ok(values), Some(running)) = (readings, values, row.running) else {
            self.last = None;
            return;
        };
        let keda = ScaleInputs {
            spec: &compared.keda,
            readings: readings
                .iter()
                .map(|(_, reading)| value_of(u64::try_from(reading.value).unwrap_or(0)))
                .collect(),
            is_active: readings.iter().any(|(_, reading)| reading.active),
            idle: idle(&compared, compared.idle.unwrap_or(compared.min)),
            running,
        };
        let lagwise = ScaleInputs {
            spec: &compared.lagwise,
            readings: values
                .iter()
                .map(|value| MetricReading::Value(value.value))
                .collect(),
            // The value itself waits for the cooldown, which is counted here.
            is_active: values.iter().any(|value| value.lag != Some(Lag(0))),
            idle: idle(&compared, 0),
            running,
        };
        self.add_up(&keda, &lagwise, (now, step), row);
    }

    /// Counts the rebalances of the groups since the last sample.
    fn count_rebalances(&mut self, samples: &[TriggerSample<'_>]) {
        for (known, sample) in self.groups.iter_mut().zip(samples) {
            let description = sample.group.and_then(|group| group.description.as_ref());
            let Some(description) = description else {
                continue;
            };
            if let Some(before) = known.as_ref()
                && description.has_rebalanced_since(before)
            {
                self.totals.rebalances = self.totals.rebalances.saturating_add(1);
            }
            *known = Some(Arc::clone(description));
        }
    }

    /// Adds the time since the last sample to the sums, with the numbers of the last sample.
    fn add_up(
        &mut self,
        keda: &ScaleInputs<'_>,
        lagwise: &ScaleInputs<'_>,
        (now, step): (Duration, Duration),
        row: &ShadowRow,
    ) {
        let totals = &mut self.totals;
        let since = self.last.map(|last| now.saturating_sub(last));
        let most = step.saturating_mul(2);
        if let (Some(since), Some(of_keda), Some(own)) = (
            since.filter(|since| *since <= most),
            self.keda.replicas,
            self.lagwise.replicas,
        ) {
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            totals.observed_millis = totals.observed_millis.saturating_add(millis);
            totals
                .running
                .add(self.running.unwrap_or(keda.running), millis);
            totals.keda.add(of_keda, millis);
            totals.lagwise.add(own, millis);
            let more = |a: u32, b: u32| u64::from(a.saturating_sub(b)).saturating_mul(millis);
            let keda_more = &mut totals.keda_more_replica_millis;
            *keda_more = keda_more.saturating_add(more(of_keda, own));
            let lagwise_more = &mut totals.lagwise_more_replica_millis;
            *lagwise_more = lagwise_more.saturating_add(more(own, of_keda));
            for reason in &row.reasons {
                let held = totals.reason_millis.entry(reason.clone()).or_default();
                *held = held.saturating_add(millis);
            }
        }
        if self.running.is_some_and(|before| before != keda.running) {
            let changes = &mut totals.running.scale_changes;
            *changes = changes.saturating_add(1);
        }
        self.running = Some(keda.running);
        self.keda.step(keda, now);
        self.lagwise.step(lagwise, now);
        totals.keda.scale_changes = self.keda.changes;
        totals.lagwise.scale_changes = self.lagwise.changes;
        self.last = Some(now);
    }
}

fn value_of(units: u64) -> MetricReading {
    MetricReading::Value(Milli::from_units(units))
}

/// The replicas without work, and after which time without it; `None` if the HPA decides on them.
fn idle(compared: &ComparedObject, replicas: u32) -> Option<(u32, Duration)> {
    let is_idle = compared.sleeps || (compared.idle.is_some() && replicas > 0);
    is_idle.then_some((replicas, compared.cooldown))
}

#[cfg(test)]
mod tests;
