//! KEDA's objects.

use std::sync::Arc;
use std::time::Duration;

use crate::model::hpa::bounded_facts::bound;
use crate::model::hpa::controller::{HpaSpec, MetricSource};
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::facts_budget::memory_of;
use crate::model::keda::convert::observed::{ObservedConversion, ObservedTrigger};
use crate::model::keda::jobs::JobRules;
use crate::model::keda::scaled_object::{
    DEFAULT_COOLDOWN_SECONDS, ScaledObject, hpa_controller, hpa_name, job_hpa_name,
};
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::settings::{SETTINGS, SettingScope};
use crate::model::units::hpa_key::HpaKey;

/// A ScaledObject or ScaledJob.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowObject {
    /// `ScaledObject` or `ScaledJob`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: HpaKey,
    /// The HPA that KEDA keeps for it. A ScaledJob has none: this is the name by which lagwise reads its groups.
    pub hpa: HpaKey,
    /// The parts to compare, or why the object is not compared, as a sentence without a full stop.
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
    /// Limits, metrics and behavior of lagwise's HPA.
    pub lagwise: HpaSpec,
    /// `minReplicaCount`.
    pub min: u32,
    /// `idleReplicaCount`.
    pub idle: Option<u32>,
    /// Whether KEDA scales the workload to zero.
    pub sleeps: bool,
    /// `cooldownPeriod`.
    pub cooldown: Duration,
    /// Rules by which KEDA starts Jobs; `None` for a ScaledObject.
    pub jobs: Option<JobRules>,
    pub remarks: Vec<String>,
}

/// Result of converting an object: the facts and the spec of lagwise's HPA, and the spec of KEDA's. Or why it is not
/// compared.
pub type ConvertedSpecs = Result<(ObservedConversion, HpaFacts, HpaSpec, HpaSpec), String>;

impl ShadowObject {
    #[must_use]
    pub fn scaled_object(object: &ScaledObject, converted: ConvertedSpecs) -> Self {
        let name = object.metadata.name.as_str();
        let config = &object.spec.advanced.horizontal_pod_autoscaler_config;
        let own_name = config.own_name().map(ToOwned::to_owned);
        let hpa = own_name.unwrap_or_else(|| hpa_name(name));
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
                // KEDA's other metrics propose the same on both sides.
                other_metrics: Vec::new(),
                ..facts
            });
            let cooldown = object
                .spec
                .cooldown_period
                .unwrap_or(DEFAULT_COOLDOWN_SECONDS);
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

    /// Approximate memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match &self.compared {
            Ok(compared) => compared.bytes(),
            Err(why) => why.len(),
        }
    }
}

impl ComparedObject {
    fn bytes(&self) -> usize {
        let triggers = self
            .triggers
            .iter()
            .map(|observed| observed.trigger.bytes());
        let remarks = self.remarks.iter().map(String::len);
        let specs = [&self.keda, &self.lagwise].map(HpaSpec::heap_bytes);
        let facts = [size_of::<HpaFacts>(), memory_of(&self.facts)];
        let all = triggers.chain(remarks).chain(specs).chain(facts);
        all.fold(size_of::<Self>(), usize::saturating_add)
    }
}

/// Whether an annotation is a setting of the whole HPA, such as scale to zero.
fn is_about_whole_hpa(key: &str) -> bool {
    let key = key.strip_prefix(PREFIX).unwrap_or(key);
    let mut settings = SETTINGS.iter();
    settings.any(|setting| setting.scope == SettingScope::Hpa && setting.key == key)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::model::fixtures;
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::units::quantity::Milli;

    /// A ScaledObject with one trigger.
    pub(in super::super) fn object(namespace: &str, name: &str) -> ShadowObject {
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

    /// A ScaledJob whose triggers are those of [`object`].
    pub(in super::super) fn scaled_job(namespace: &str, name: &str) -> ShadowObject {
        ShadowObject {
            kind: "ScaledJob",
            ..object(namespace, name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
