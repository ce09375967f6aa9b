//! KEDA's objects, and their metrics in KEDA's HPAs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::hpa::bounded_facts::bound;
use crate::model::hpa::controller::{HpaSpec, MetricSource};
use crate::model::hpa::facts::{HpaFacts, HpaMap};
use crate::model::keda::authentications::Authentications;
use crate::model::keda::convert::observed::{ObservedConversion, ObservedTrigger};
use crate::model::keda::jobs::JobRules;
use crate::model::keda::scaled_object::{
    COOLDOWN_PERIOD, ScaledObject, hpa_controller, hpa_name, job_hpa_name,
};
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::settings::{SETTINGS, SettingScope};
use crate::model::units::hpa_key::HpaKey;

/// Maximum number of objects.
const MAX_OBJECTS: usize = 4096;

/// Maximum number of objects that are counted as left out.
const MAX_OMITTED: usize = 4096;

/// A ScaledObject or ScaledJob.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowObject {
    /// `ScaledObject` or `ScaledJob`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: HpaKey,
    /// The HPA that KEDA keeps for it. A ScaledJob has none: this is the name by which lagwise reads its groups.
    pub hpa: HpaKey,
    /// What is compared, or why nothing is, as a sentence without a full stop.
    pub compared: Result<Arc<ComparedObject>, String>,
}

/// What KEDA and lagwise have for one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedObject {
    pub triggers: Vec<ObservedTrigger>,
    /// The HPA that lagwise would have, by the name of KEDA's.
    pub facts: Arc<HpaFacts>,
    /// Limits, metrics and behavior of KEDA's HPA.
    pub keda: HpaSpec,
    /// Those of lagwise's.
    pub lagwise: HpaSpec,
    /// `minReplicaCount`.
    pub min: u32,
    /// `idleReplicaCount`.
    pub idle: Option<u32>,
    /// Whether KEDA scales the workload to zero.
    pub sleeps: bool,
    /// `cooldownPeriod`.
    pub cooldown: Duration,
    /// Of a ScaledJob: how many Jobs KEDA starts.
    pub jobs: Option<JobRules>,
    pub remarks: Vec<String>,
}

/// What an object comes to: the facts and the spec of lagwise's HPA, and the spec of KEDA's. Or why it is not compared.
pub type ConvertedSpecs = Result<(ObservedConversion, HpaFacts, HpaSpec, HpaSpec), String>;

impl ShadowObject {
    /// A ScaledObject.
    #[must_use]
    pub fn scaled_object(object: &ScaledObject, converted: ConvertedSpecs) -> Self {
        let name = object.metadata.name.as_str();
        let config = &object.spec.advanced.horizontal_pod_autoscaler_config;
        let hpa = config.name.clone().unwrap_or_else(|| hpa_name(name));
        let controller = hpa_controller(name);
        Self::new("ScaledObject", object, (hpa, controller), (converted, None))
    }

    /// A ScaledJob, whose triggers are converted as those of a ScaledObject.
    #[must_use]
    pub fn scaled_job(object: &ScaledObject, converted: ConvertedSpecs, rules: JobRules) -> Self {
        let hpa = job_hpa_name(&object.metadata.name);
        let named = (hpa.clone(), hpa);
        Self::new("ScaledJob", object, named, (converted, Some(rules)))
    }

    fn new(
        kind: &'static str,
        object: &ScaledObject,
        (hpa, controller): (String, String),
        (converted, jobs): (ConvertedSpecs, Option<JobRules>),
    ) -> Self {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let name = object.metadata.name.as_str();
        let hpa = HpaKey::new(namespace, hpa);
        let external = |mut spec: HpaSpec| {
            spec.metrics
                .retain(|source| matches!(source, MetricSource::External(_)));
            spec
        };
        let compared = converted.map(|(observed, mut facts, lagwise, keda)| {
            // Nothing is written to KEDA's HPA, and sleep is compared by the ledger.
            facts.annotations.retain(|key, _| !is_about_whole_hpa(key));
            let facts = bound(HpaFacts {
                namespace: Arc::clone(&hpa.namespace),
                name: Arc::clone(&hpa.name),
                controller: Some(controller.into()),
                // KEDA's other metrics ask for the same on both sides.
                other_metrics: Vec::new(),
                ..facts
            });
            let cooldown = object.spec.cooldown_period.unwrap_or(COOLDOWN_PERIOD);
            ComparedObject {
                triggers: observed.triggers,
                facts: Arc::new(facts),
                keda: external(keda),
                lagwise: external(lagwise),
                min: object.spec.min_replica_count.unwrap_or(0),
                idle: object.spec.idle_replica_count,
                sleeps: object.scales_to_zero(),
                cooldown: Duration::from_secs(cooldown.into()),
                jobs,
                remarks: observed.remarks,
            }
        });
        Self {
            kind,
            key: HpaKey::new(namespace, name),
            hpa,
            compared: compared.map(Arc::new),
        }
    }
}

/// Whether an annotation is a setting of the whole HPA, such as scale to zero.
fn is_about_whole_hpa(key: &str) -> bool {
    let key = key.strip_prefix(PREFIX).unwrap_or(key);
    let mut settings = SETTINGS.iter();
    settings.any(|setting| setting.scope == SettingScope::Hpa && setting.key == key)
}

/// What is known of KEDA's objects. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ObservedSet {
    objects: Arc<BTreeMap<(HpaKey, &'static str), Arc<ShadowObject>>>,
    /// Those that are left out because there are too many, as far as they are counted.
    omitted: Arc<BTreeSet<(HpaKey, &'static str)>>,
    /// Where KEDA has the logins of their triggers from.
    pub authentications: Authentications,
}

impl ObservedSet {
    /// The objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ShadowObject>> {
        self.objects.values()
    }

    /// How many objects are left out because there are too many; at most [`MAX_OMITTED`] are counted.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted.len()
    }

    /// Inserts an object. Where there are too many, the namespace with most of them loses one, so that no namespace can
    /// use up the room of others.
    pub fn insert(&mut self, object: impl Into<Arc<ShadowObject>>) {
        let object = object.into();
        let objects = Arc::make_mut(&mut self.objects);
        let key = (object.key.clone(), object.kind);
        if let Some(known) = objects.get_mut(&key) {
            if *known != object {
                *known = object;
            }
            return;
        }
        // The next listing decides again which objects are left out. An event must not: it would push out another one.
        if objects.len() >= MAX_OBJECTS && self.omitted.contains(&key) {
            return;
        }
        Arc::make_mut(&mut self.omitted).remove(&key);
        objects.insert(key, object);
        if objects.len() > MAX_OBJECTS {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (key, _) in objects.keys() {
                let count = counts.entry(&key.namespace).or_default();
                *count = count.saturating_add(1);
            }
            let largest = counts.into_iter().max_by_key(|(_, count)| *count);
            let largest = largest.map(|(namespace, _)| namespace.to_owned());
            let mut keys = objects.keys().rev();
            let last = keys.find(|(key, _)| Some(&*key.namespace) == largest.as_deref());
            if let Some(last) = last.cloned() {
                objects.remove(&last);
                if self.omitted.len() < MAX_OMITTED {
                    Arc::make_mut(&mut self.omitted).insert(last);
                }
            }
        }
    }

    pub fn remove(&mut self, kind: &'static str, key: &HpaKey) {
        let key = (key.clone(), kind);
        Arc::make_mut(&mut self.objects).remove(&key);
        Arc::make_mut(&mut self.omitted).remove(&key);
    }

    /// Replaces the objects of a kind, in one namespace or in all, by those of `listed`.
    pub fn replace(&mut self, kind: &'static str, namespace: Option<&str>, listed: &Self) {
        let is_elsewhere = |(key, of): &(HpaKey, &'static str)| {
            *of != kind || namespace.is_some_and(|namespace| namespace != &*key.namespace)
        };
        Arc::make_mut(&mut self.objects)
            .retain(|key, _| is_elsewhere(key) || listed.objects.contains_key(key));
        let omitted = Arc::make_mut(&mut self.omitted);
        omitted.retain(is_elsewhere);
        let room = MAX_OMITTED.saturating_sub(omitted.len());
        omitted.extend(listed.omitted.iter().take(room).cloned());
        for object in listed.iter() {
            self.insert(Arc::clone(object));
        }
    }
}

/// Gives KEDA's HPAs the metrics that lagwise would have there.
#[derive(Debug, Default)]
pub struct ShadowMerge(BTreeMap<HpaKey, MergedHpa>);

/// An HPA with these metrics, and what it was made from.
#[derive(Debug)]
struct MergedHpa {
    object: Arc<ComparedObject>,
    found: Option<Arc<HpaFacts>>,
    made: Arc<HpaFacts>,
}

impl ShadowMerge {
    /// The HPAs of the cluster, with the metrics of the objects. An HPA that does not exist yet has them as well. An HPA
    /// that another controller keeps stays as it is. An HPA stays the same object as long as nothing changes.
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
    use crate::model::fixtures;
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::units::quantity::Milli;

    fn object(namespace: &str, name: &str) -> ShadowObject {
        let target = MetricTarget::AverageValue(Milli::from_units(5));
        let spec = HpaSpec {
            min: 1,
            max: 20,
            metrics: vec![MetricSource::External(target)],
            behavior: None,
        };
        let facts = fixtures::hpa(name, "group=g,topic=t", target);
        let text = format!(r#"{{"metadata": {{"namespace": "{namespace}", "name": "{name}"}}}}"#);
        let scaled: ScaledObject = serde_json::from_str(&text).unwrap();
        let observed = ObservedConversion {
            lagwise_hpa: serde_json::Value::Null,
            keda_hpa: serde_json::Value::Null,
            triggers: Vec::new(),
            remarks: Vec::new(),
        };
        let converted = (observed, facts, spec.clone(), spec);
        ShadowObject::scaled_object(&scaled, Ok(converted))
    }

    fn scaled_job(namespace: &str, name: &str) -> ShadowObject {
        ShadowObject {
            kind: "ScaledJob",
            ..object(namespace, name)
        }
    }

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
    fn settings_of_the_metric_are_kept_and_those_of_the_hpa_are_not() {
        let all = [
            "even",
            "threads-per-replica.g",
            "scale-to-zero",
            "cooldown",
            "paused",
        ];
        let kept = all
            .into_iter()
            .filter(|key| !is_about_whole_hpa(&format!("{PREFIX}{key}")));
        assert_eq!(Vec::from_iter(kept), ["even", "threads-per-replica.g"]);
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

    #[test]
    fn a_namespace_with_too_many_objects_leaves_room_for_others() {
        let mut set = ObservedSet::default();
        for i in 0..MAX_OBJECTS {
            set.insert(scaled_job("large", &format!("o{i:05}")));
        }
        set.insert(scaled_job("small", "a"));
        assert_eq!((set.iter().count(), set.omitted()), (MAX_OBJECTS, 1));
        assert!(set.iter().any(|object| &*object.key.namespace == "small"));
        // An event of the object that was left out changes nothing, and other kinds and namespaces are counted apart.
        let left_out = scaled_job("large", &format!("o{:05}", MAX_OBJECTS - 1));
        set.insert(left_out.clone());
        assert_eq!((set.iter().count(), set.omitted()), (MAX_OBJECTS, 1));
        assert!(set.iter().any(|object| &*object.key.namespace == "small"));
        set.replace("ScaledObject", None, &ObservedSet::default());
        assert_eq!(set.omitted(), 1);
        set.remove(left_out.kind, &left_out.key);
        assert_eq!(set.omitted(), 0);
    }

    #[test]
    fn a_listing_replaces_what_it_covers() {
        let mut set = ObservedSet::default();
        for (namespace, name) in [("a", "gone"), ("a", "stays"), ("b", "other")] {
            set.insert(scaled_job(namespace, name));
        }
        set.insert(object("a", "gone"));
        let mut listed = ObservedSet::default();
        listed.insert(scaled_job("a", "stays"));
        set.replace("ScaledJob", Some("a"), &listed);
        let left = set
            .iter()
            .map(|object| format!("{} {}", object.kind, object.key));
        let left: Vec<_> = left.collect();
        assert_eq!(
            left,
            [
                "ScaledObject a/gone",
                "ScaledJob a/stays",
                "ScaledJob b/other"
            ]
        );
    }
}
