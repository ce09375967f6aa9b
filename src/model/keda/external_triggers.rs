//! The triggers that KEDA requests, as metrics of KEDA's HPAs.
//!
//! With these metrics, such an HPA is a target like any other: it is within tenancy and budgets, and it has a ceiling,
//! a status and findings. Nothing is written to it, since KEDA owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::external_trigger::ExternalTrigger;
use crate::model::hpa::bounded_facts::bound;
use crate::model::hpa::facts::{HpaFacts, HpaMap, ScaleTarget};
use crate::model::units::hpa_key::HpaKey;

/// How long a trigger is kept after its last request. KEDA sends a request at every `pollingInterval`, 30 s by default.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// Maximum number of ScaledObjects.
const MAX_SCALED_OBJECTS: usize = 4096;

/// Maximum memory of all their triggers, in bytes. A usual trigger takes some 3 KiB.
const MAX_TRIGGER_BYTES: usize = 32 * 1024 * 1024;

/// Maximum number of triggers of one ScaledObject.
const MAX_TRIGGERS: usize = 16;

/// The triggers of ScaledObjects with recent requests, by HPA.
#[derive(Debug, Default)]
pub struct ExternalTriggers(BTreeMap<HpaKey, ScaledObjectTriggers>);

#[derive(Debug, Default)]
struct ScaledObjectTriggers {
    /// Each with the time of its last request, in the order of their first requests.
    triggers: Vec<(Arc<ExternalTrigger>, Instant)>,
    /// Memory of the triggers.
    bytes: usize,
    /// The HPA with the metrics, and its inputs.
    made: Option<(Option<Arc<HpaFacts>>, Arc<HpaFacts>)>,
}

impl ExternalTriggers {
    /// Records that a trigger is asked for at `now`. Returns whether it is new or differs from its former version.
    pub fn insert(&mut self, trigger: Arc<ExternalTrigger>, now: Instant) -> bool {
        if !self.0.contains_key(&trigger.hpa) && self.0.len() >= MAX_SCALED_OBJECTS {
            self.evict_largest(|_| 1);
        }
        let of_hpa = self.0.entry(trigger.hpa.clone()).or_default();
        let is_changed = of_hpa.insert(trigger, now);
        if is_changed {
            while self.bytes() > MAX_TRIGGER_BYTES {
                self.evict_largest(|of_hpa| of_hpa.bytes);
            }
        }
        is_changed
    }

    fn bytes(&self) -> usize {
        let bytes = self.0.values().map(|of_hpa| of_hpa.bytes);
        bytes.fold(0, usize::saturating_add)
    }

    /// Forgets the ScaledObject with the oldest request, of the namespace whose ScaledObjects are the largest together,
    /// so that no namespace can use up the room of others.
    fn evict_largest(&mut self, size: impl Fn(&ScaledObjectTriggers) -> usize) {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, of_hpa) in &self.0 {
            let sum = sizes.entry(&key.namespace).or_default();
            *sum = sum.saturating_add(size(of_hpa));
        }
        let largest = sizes.into_iter().max_by_key(|(_, size)| *size);
        let largest = largest.map(|(namespace, _)| namespace);
        let of_largest = self
            .0
            .iter()
            .filter(|(key, _)| Some(&*key.namespace) == largest);
        let oldest = of_largest.min_by_key(|(_, of_hpa)| of_hpa.last_request());
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.0.remove(&key);
        }
    }

    /// Forgets the triggers without a recent request. Returns whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut is_changed = false;
        self.0.retain(|_, of_hpa| {
            let before = of_hpa.triggers.len();
            let is_recent = |last: &Instant| now.saturating_duration_since(*last) < KEPT_FOR;
            of_hpa.triggers.retain(|(_, last)| is_recent(last));
            if of_hpa.triggers.len() < before {
                of_hpa.update();
                is_changed = true;
            }
            !of_hpa.triggers.is_empty()
        });
        is_changed
    }

    /// The HPAs of the cluster, with the metrics of these triggers. An HPA that does not exist yet has them as well. An
    /// HPA that is not the ScaledObject's stays as it is.
    #[must_use]
    pub fn add_to(&mut self, hpas: &HpaMap) -> HpaMap {
        let mut all = hpas.clone();
        for (key, of_hpa) in &mut self.0 {
            if let Some(facts) = of_hpa.facts(key, hpas.get(key)) {
                all.insert(key.clone(), facts);
            }
        }
        all
    }
}

impl ScaledObjectTriggers {
    /// Records that a trigger is asked for at `now`. Returns whether it is new or differs from its former version.
    fn insert(&mut self, trigger: Arc<ExternalTrigger>, now: Instant) -> bool {
        // The former version of a trigger that has another topic or metric by now must not keep its settings.
        let before = self.triggers.len();
        let stays =
            |known: &ExternalTrigger| trigger.replaces(known) || !trigger.contradicts(known);
        self.triggers.retain(|(known, _)| stays(known));
        let is_one_gone = self.triggers.len() < before;
        if is_one_gone {
            self.update();
        }
        let mut known = self.triggers.iter_mut();
        if let Some((known, last)) = known.find(|(known, _)| trigger.replaces(known)) {
            *last = now;
            let is_changed = **known != *trigger;
            if is_changed {
                *known = trigger;
                self.update();
            }
            return is_changed || is_one_gone;
        }
        if self.triggers.len() >= MAX_TRIGGERS {
            let oldest = self.triggers.iter().enumerate();
            if let Some((place, _)) = oldest.min_by_key(|(_, (_, last))| *last) {
                self.triggers.remove(place);
            }
        }
        self.triggers.push((trigger, now));
        self.update();
        true
    }

    /// Records that the triggers have changed.
    fn update(&mut self) {
        let bytes = self.triggers.iter().map(|(trigger, _)| trigger.bytes());
        self.bytes = bytes.fold(0, usize::saturating_add);
        self.made = None;
    }

    fn last_request(&self) -> Option<Instant> {
        self.triggers.iter().map(|(_, last)| *last).max()
    }

    /// The HPA with the metrics of these triggers. It stays the same object as long as nothing changes.
    fn facts(&mut self, key: &HpaKey, found: Option<&Arc<HpaFacts>>) -> Option<Arc<HpaFacts>> {
        let (first, _) = self.triggers.first()?;
        let controller = first.controller();
        if found.is_some_and(|found| found.controller.as_deref() != Some(&*controller)) {
            return None;
        }
        if let Some((from, made)) = &self.made
            && from.as_ref() == found
        {
            return Some(Arc::clone(made));
        }
        let mut facts = match found {
            Some(found) => HpaFacts {
                metrics: Vec::new(),
                annotations: BTreeMap::new(),
                ..(**found).clone()
            },
            None => HpaFacts {
                namespace: Arc::clone(&key.namespace),
                name: Arc::clone(&key.name),
                controller: Some(controller.into()),
                scale_target: ScaleTarget {
                    api_version: "keda.sh/v1alpha1".into(),
                    kind: "ScaledObject".into(),
                    name: first.scaled_object.as_str().into(),
                },
                max_replicas: i32::MAX.unsigned_abs(),
                ..HpaFacts::default()
            },
        };
        for (trigger, _) in &self.triggers {
            trigger.add_to(&mut facts);
        }
        let made = Arc::new(bound(facts));
        self.made = Some((found.cloned(), Arc::clone(&made)));
        Some(made)
    }
}

#[cfg(test)]
mod tests;
