//! The metrics of KEDA's objects in KEDA's HPAs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::objects::ComparedObject;
use super::observed_set::ObservedSet;
use crate::model::hpa::facts::{HpaFacts, HpaMap};
use crate::model::units::hpa_key::HpaKey;

/// Gives KEDA's HPAs the metrics that lagwise would have there.
#[derive(Debug, Default)]
pub struct ShadowMerge(BTreeMap<HpaKey, MergedHpa>);

/// An HPA with these metrics, and its inputs.
#[derive(Debug)]
struct MergedHpa {
    object: Arc<ComparedObject>,
    found: Option<Arc<HpaFacts>>,
    made: Arc<HpaFacts>,
}

impl ShadowMerge {
    /// The HPAs of the cluster, with the metrics of the objects. An HPA that does not exist yet has them as well. An
    /// HPA that another controller keeps stays as it is. An HPA stays the same object as long as nothing changes.
    #[must_use]
    pub fn add_to(&mut self, objects: &ObservedSet, hpas: &HpaMap) -> HpaMap {
        let mut all = hpas.clone();
        let mut merged = BTreeMap::new();
        for object in objects.iter() {
            let Ok(compared) = &object.compared else {
                continue;
            };
            let found = hpas.get(&object.hpa);
            let controller = &compared.facts.controller;
            if found.is_some_and(|found| found.controller != *controller) {
                continue;
            }
            let known = self.0.remove(&object.hpa);
            let is_same = |known: &MergedHpa| {
                Arc::ptr_eq(&known.object, compared) && known.found.as_ref() == found
            };
            let entry = known.filter(is_same).unwrap_or_else(|| MergedHpa {
                object: Arc::clone(compared),
                found: found.cloned(),
                made: Arc::new(merge(&compared.facts, found.map(|found| &**found))),
            });
            all.insert(object.hpa.clone(), Arc::clone(&entry.made));
            merged.insert(object.hpa.clone(), entry);
        }
        self.0 = merged;
        all
    }
}

/// lagwise's HPA with what KEDA's says about the workload.
fn merge(own: &HpaFacts, found: Option<&HpaFacts>) -> HpaFacts {
    let own = own.clone();
    match found {
        Some(found) => HpaFacts {
            uid: Arc::clone(&found.uid),
            running: found.running,
            replicas: found.replicas,
            is_scaling_disabled: found.is_scaling_disabled,
            created: found.created,
            ..own
        },
        None => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keda::shadow::objects::testing::object;

    fn keda_hpa(controller: &str, replicas: u32) -> HpaMap {
        let facts = HpaFacts {
            namespace: "shop".into(),
            name: "keda-hpa-billing".into(),
            controller: Some(controller.into()),
            replicas: Some(replicas),
            ..HpaFacts::default()
        };
        HpaMap::from_iter([Arc::new(facts)])
    }

    #[test]
    fn only_the_hpa_of_the_object_gets_its_metrics() {
        let mut set = ObservedSet::default();
        set.insert(object("shop", "billing"));
        let key = HpaKey::new("shop", "keda-hpa-billing");
        let mut merge = ShadowMerge::default();
        let own = merge.add_to(&set, &keda_hpa("ScaledObject/billing", 7));
        let facts = own.get(&key).unwrap();
        assert_eq!((facts.metrics.len(), facts.replicas), (1, Some(7)));
        let other = merge.add_to(&set, &keda_hpa("ScaledObject/other", 7));
        assert!(other.get(&key).unwrap().metrics.is_empty());
        let missing = merge.add_to(&set, &HpaMap::default());
        let facts = missing.get(&key).unwrap();
        assert_eq!((facts.metrics.len(), facts.replicas), (1, None));
    }

    #[test]
    fn an_hpa_stays_the_same_object_until_something_changes() {
        let mut set = ObservedSet::default();
        set.insert(object("shop", "billing"));
        let key = HpaKey::new("shop", "keda-hpa-billing");
        let mut merge = ShadowMerge::default();
        let mut made = |set: &ObservedSet, replicas| {
            let hpas = merge.add_to(set, &keda_hpa("ScaledObject/billing", replicas));
            Arc::clone(hpas.get(&key).unwrap())
        };
        let first = made(&set, 7);
        set.insert(object("shop", "billing"));
        assert!(Arc::ptr_eq(&first, &made(&set, 7)));
        assert!(!Arc::ptr_eq(&first, &made(&set, 8)));
    }
}
