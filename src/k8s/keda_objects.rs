//! Watches KEDA's ScaledObjects and ScaledJobs with Kafka triggers, and TriggerAuthentications, where the cluster has
//! them.

/// Implements `kube::Resource` for an object of KEDA with a field `metadata`.
macro_rules! is_keda_resource {
    ($object:ty) => {
        impl kube::Resource for $object {
            type DynamicType = crate::k8s::keda_objects::listing::KedaKind;
            type Scope = kube::core::DynamicResourceScope;

            fn kind(kind: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                kind.name().into()
            }

            fn group(_: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                "keda.sh".into()
            }

            fn version(_: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                "v1alpha1".into()
            }

            fn plural(kind: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                kind.resource().into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

mod authentications;
mod listing;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::runtime::watcher::Event;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::watch::Sender;

use self::listing::{KedaEvent, events};
use super::hpa::facts_of;
use super::live_hpa::spec_of;
use crate::model::keda::convert::observed::{KnownCluster, observe};
use crate::model::keda::jobs::{JobRules, ScalingStrategy};
use crate::model::keda::scaled_object::{ObjectMetadata, ScaledObject, ScaledObjectSpec};
use crate::model::keda::shadow::{ConvertedSpecs, ObservedSet, ShadowObject};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::untrusted_text::cut_message;

pub use self::listing::KedaKind;

/// KEDA's objects that were read.
#[derive(Clone, Debug, Default)]
pub struct KedaState {
    pub objects: ObservedSet,
    /// Why objects of a kind cannot be read, each as a sentence without a full stop.
    pub problems: Vec<String>,
    /// The same for TriggerAuthentications.
    login_problems: Vec<String>,
}

impl KedaState {
    /// The objects, and all problems.
    #[must_use]
    pub fn into_parts(self) -> (ObservedSet, Vec<String>) {
        let mut problems = self.problems;
        problems.extend(self.login_problems);
        (self.objects, problems)
    }
}

/// An object of KEDA in a watch. Fields that a comparison does not need are dropped as soon as they are read.
#[derive(Clone, Debug)]
pub struct WatchedKedaObject {
    /// Fields that the watch itself needs.
    metadata: ObjectMeta,
    /// The object, or why it cannot be used.
    object: Result<ScaledObject, String>,
    /// `spec.scalingStrategy`, which only a ScaledJob has.
    scaling_strategy: ScalingStrategy,
}

impl<'de> Deserialize<'de> for WatchedKedaObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct AnyObject {
            #[serde(default)]
            metadata: ObjectMeta,
            /// Accepts any value, so that one malformed object does not fail the whole listing.
            #[serde(default)]
            spec: Value,
        }
        let AnyObject { metadata, spec } = AnyObject::deserialize(deserializer)?;
        let named = ObjectMetadata {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone(),
            annotations: metadata.annotations.unwrap_or_default(),
            ..ObjectMetadata::default()
        };
        let unreadable =
            |error: serde_json::Error| cut_message(format!("its spec cannot be read: {error}"));
        let scaling_strategy = match spec.get("scalingStrategy") {
            Some(Value::Null) | None => Ok(ScalingStrategy::default()),
            Some(strategy) => ScalingStrategy::deserialize(strategy).map_err(unreadable),
        };
        let spec = ScaledObjectSpec::deserialize(spec).map_err(unreadable);
        let object = spec.and_then(|spec| {
            let metadata = named;
            ScaledObject { metadata, spec }.bounded()
        });
        let (object, scaling_strategy) = match scaling_strategy {
            Ok(strategy) => (object, strategy),
            Err(why) => (object.and(Err(why)), ScalingStrategy::default()),
        };
        Ok(Self {
            metadata: ObjectMeta {
                namespace: metadata.namespace,
                name: metadata.name,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            object,
            scaling_strategy,
        })
    }
}

is_keda_resource!(WatchedKedaObject);

impl WatchedKedaObject {
    fn key(&self) -> HpaKey {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        HpaKey::new(text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// The triggers to compare; `None` if it has no Kafka trigger.
    fn shadow(self, kind: KedaKind, clusters: &[KnownCluster]) -> Option<ShadowObject> {
        let key = self.key();
        if let Ok(object) = &self.object
            && !object.has_kafka_trigger()
        {
            return None;
        }
        let (object, problem) = match self.object {
            Ok(object) => (object, None),
            Err(why) => {
                let metadata = ObjectMetadata {
                    name: key.name.to_string(),
                    namespace: Some(key.namespace.to_string()),
                    ..ObjectMetadata::default()
                };
                let spec = ScaledObjectSpec::default();
                (ScaledObject { metadata, spec }, Some(why))
            }
        };
        let converted = |object: &ScaledObject| match problem {
            Some(why) => Err(why),
            None => convert(object, clusters),
        };
        Some(match kind {
            KedaKind::ScaledObject => {
                let converted = converted(&object);
                ShadowObject::scaled_object(&object, converted)
            }
            KedaKind::TriggerAuthentication | KedaKind::ClusterTriggerAuthentication => {
                return None;
            }
            KedaKind::ScaledJob => {
                let spec = &object.spec;
                let (min, max) = (spec.min_replica_count, spec.max_replica_count);
                let rules = JobRules::new(min, max, &self.scaling_strategy);
                let object = object.of_job();
                let converted = converted(&object);
                ShadowObject::scaled_job(&object, converted, rules)
            }
        })
    }
}

/// The converted HPA of lagwise, and the specs that the HPA controller would read from it and from KEDA's HPA.
fn convert(object: &ScaledObject, clusters: &[KnownCluster]) -> ConvertedSpecs {
    let observed = observe(object, clusters)?;
    let read = |hpa: &Value| {
        let read = HorizontalPodAutoscaler::deserialize(hpa);
        read.map_err(|error| format!("the HPA that lagwise would have is not valid: {error}"))
    };
    let (own, of_keda) = (read(&observed.lagwise_hpa)?, read(&observed.keda_hpa)?);
    let facts = facts_of(&own);
    Ok((observed, facts, spec_of(&own), spec_of(&of_keda)))
}

/// Watches the objects in `namespaces` (empty = all) forever, and publishes them at every change. `clusters` are the
/// configured Kafka clusters.
pub async fn watch(
    client: Client,
    namespaces: Vec<String>,
    clusters: Vec<KnownCluster>,
    state: Sender<KedaState>,
) {
    tokio::join!(
        watch_objects(&client, &namespaces, &clusters, &state),
        authentications::watch(&client, &namespaces, &state),
    );
}

async fn watch_objects(
    client: &Client,
    namespaces: &[String],
    clusters: &[KnownCluster],
    state: &Sender<KedaState>,
) {
    let mut watches = Vec::new();
    for kind in [KedaKind::ScaledObject, KedaKind::ScaledJob] {
        watches.extend(scopes(namespaces).map(|namespace| KedaWatch {
            kind,
            namespace,
            problem: None,
            listing: ObservedSet::default(),
        }));
    }
    let streams = watches.iter().enumerate().map(|(index, watch)| {
        let events = events(client, watch.kind, watch.namespace.as_deref());
        events.map(move |event| (index, event)).boxed()
    });
    let mut events = select_all(Vec::from_iter(streams));
    while let Some((index, event)) = events.next().await {
        let Some(watch) = watches.get_mut(index) else {
            continue;
        };
        let is_changed = match event {
            KedaEvent::Unlistable(why) => note_problem(&mut watch.problem, why, watch.kind),
            KedaEvent::Listable => watch.problem.take().is_some(),
            KedaEvent::Watch(event) => {
                // Converted before the state is locked, so that its readers do not wait for that.
                if let Some(change) = watch.convert_event(*event, clusters) {
                    state.send_modify(|state| watch.apply(change, &mut state.objects));
                }
                false
            }
        };
        if is_changed {
            let problems = distinct(watches.iter().map(|watch| &watch.problem));
            state.send_modify(|state| state.problems = problems);
        }
    }
}

/// The namespaces to watch; `None` for all.
fn scopes(namespaces: &[String]) -> impl Iterator<Item = Option<String>> {
    let all = namespaces.is_empty().then_some(None);
    all.into_iter().chain(namespaces.iter().cloned().map(Some))
}

/// Records why a kind cannot be listed. Returns whether the reason is new.
fn note_problem(known: &mut Option<String>, why: Option<String>, kind: KedaKind) -> bool {
    let is_new = *known != why;
    if let (true, Some(problem)) = (is_new, &why) {
        tracing::warn!(resource = kind.resource(), "{problem}");
    }
    *known = why;
    is_new
}

/// The problems without repetitions: one cause can lead to the same problem in several namespaces.
fn distinct<'a>(problems: impl Iterator<Item = &'a Option<String>>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let new = problems.flatten().filter(|problem| seen.insert(*problem));
    new.cloned().collect()
}

/// One watch: a kind, in one namespace or in all.
struct KedaWatch {
    kind: KedaKind,
    namespace: Option<String>,
    problem: Option<String>,
    /// The listing that is under way.
    listing: ObservedSet,
}

impl KedaWatch {
    /// Converts an event to a change of the objects. Collects those of a listing until it is complete.
    fn convert_event(
        &mut self,
        event: Event<WatchedKedaObject>,
        clusters: &[KnownCluster],
    ) -> Option<ObjectChange> {
        match event {
            Event::Init => {
                self.listing = ObservedSet::default();
                None
            }
            Event::InitApply(object) => {
                if let Some(object) = object.shadow(self.kind, clusters) {
                    self.listing.insert(object);
                }
                None
            }
            Event::InitDone => Some(ObjectChange::Listed(std::mem::take(&mut self.listing))),
            Event::Apply(object) => {
                let key = object.key();
                Some(match object.shadow(self.kind, clusters) {
                    Some(object) => ObjectChange::Present(Arc::new(object)),
                    None => ObjectChange::Gone(key),
                })
            }
            Event::Delete(object) => Some(ObjectChange::Gone(object.key())),
        }
    }

    fn apply(&self, change: ObjectChange, objects: &mut ObservedSet) {
        let kind = self.kind.name();
        match change {
            ObjectChange::Listed(listing) => {
                objects.replace(kind, self.namespace.as_deref(), &listing);
            }
            ObjectChange::Present(object) => objects.insert(object),
            ObjectChange::Gone(key) => objects.remove(kind, &key),
        }
    }
}

/// A change of the objects of a watch.
enum ObjectChange {
    /// These are all objects.
    Listed(ObservedSet),
    Present(Arc<ShadowObject>),
    Gone(HpaKey),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::keda::authentications::LoginKind;

    fn object(name: &str, spec: &Value) -> WatchedKedaObject {
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"namespace": "shop", "name": name, "resourceVersion": "7"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn kafka() -> Value {
        json!({"type": "kafka", "metadata": {
            "bootstrapServers": "k:9092", "consumerGroup": "g", "topic": "t", "lagThreshold": "5",
        }})
    }

    fn clusters() -> [KnownCluster; 1] {
        [KnownCluster::new(
            "main".into(),
            "k:9092",
            LoginKind::default(),
        )]
    }

    #[test]
    fn a_problem_of_several_namespaces_is_reported_once() {
        let [a, b] = ["no right", "too many"].map(|why| Some(why.to_owned()));
        let of_watches = [&a, &b, &None, &a, &b];
        assert_eq!(distinct(of_watches.into_iter()), ["no right", "too many"]);
        assert!(distinct([&None].into_iter()).is_empty());
    }

    #[test]
    fn a_scaled_object_becomes_the_hpa_of_both() {
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
        let spec = json!({
            "scaleTargetRef": {"name": "billing"}, "minReplicaCount": 2, "maxReplicaCount": 9,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
            "triggers": [kafka(), {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}],
        });
        let shadow = object("billing", &spec).shadow(KedaKind::ScaledObject, &clusters());
        let shadow = shadow.unwrap();
        assert_eq!(shadow.hpa.to_string(), "shop/keda-hpa-billing");
        let compared = shadow.compared.unwrap();
        assert_eq!((compared.keda.min, compared.keda.max), (2, 9));
        assert_eq!(compared.keda.tolerances(), (100, 100));
        assert_eq!(compared.lagwise.tolerances(), (0, 0));
        for spec in [&compared.keda, &compared.lagwise] {
            let down = &spec.behavior.as_ref().unwrap().down;
            assert_eq!((down.window_seconds, spec.metrics.len()), (Some(60), 1));
        }
        let facts = &compared.facts;
        assert_eq!(facts.controller.as_deref(), Some("ScaledObject/billing"));
        assert_eq!(facts.metrics[0].selector.to_string(), "group=g,topic=t");
        assert_eq!(
            compared.remarks,
            ["triggers[1] of type cpu is left out on both sides"]
        );
    }

    #[test]
    fn objects_that_are_wrong_are_listed_with_the_reason() {
        for (spec, expected) in [
            (
                json!({"triggers": [kafka()], "pollingInterval": -5}),
                "its spec cannot be read",
            ),
            (json!(5), "its spec cannot be read"),
            (json!({"triggers": vec![kafka(); 17]}), "17 triggers"),
            (json!({"triggers": [kafka()]}), "scaleTargetRef.name"),
            (
                // Where lagwise has the metrics of a ScaledJob.
                json!({"triggers": [kafka()], "scaleTargetRef": {"name": "billing"},
                    "advanced": {"horizontalPodAutoscalerConfig": {"name": "ScaledJob/import"}}}),
                "horizontalPodAutoscalerConfig.name",
            ),
        ] {
            let shadow = object("billing", &spec).shadow(KedaKind::ScaledObject, &clusters());
            let why = shadow.unwrap().compared.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn keda_names_an_hpa_whose_name_is_left_empty() {
        for (name, expected) in [("", "keda-hpa-billing"), ("own", "own")] {
            let spec = json!({
                "scaleTargetRef": {"name": "billing"}, "triggers": [kafka()],
                "advanced": {"horizontalPodAutoscalerConfig": {"name": name}},
            });
            let shadow = object("billing", &spec).shadow(KedaKind::ScaledObject, &clusters());
            let shadow = shadow.unwrap();
            assert_eq!(&*shadow.hpa.name, expected);
            assert!(shadow.compared.is_ok());
        }
    }

    #[test]
    fn objects_without_a_kafka_trigger_are_left_out() {
        for spec in [json!({}), json!({"triggers": [{"type": "cron"}]})] {
            for kind in [KedaKind::ScaledObject, KedaKind::ScaledJob] {
                assert_eq!(object("billing", &spec).shadow(kind, &clusters()), None);
            }
        }
    }

    #[test]
    fn a_scaled_job_has_metrics_without_an_hpa() {
        let strategy = json!({"strategy": "accurate", "multipleScalersCalculation": "sum"});
        let shadow = |spec: Value| {
            let job = object("import", &spec);
            job.shadow(KedaKind::ScaledJob, &clusters()).unwrap()
        };
        let job = shadow(json!({
            "triggers": [kafka()], "maxReplicaCount": 9, "scalingStrategy": strategy,
            "jobTargetRef": {"template": {"spec": {"containers": []}}},
        }));
        assert_eq!(
            (job.kind, job.hpa.to_string()),
            ("ScaledJob", "shop/ScaledJob/import".to_owned())
        );
        let compared = job.compared.unwrap();
        let rules = compared.jobs.as_ref().unwrap();
        assert_eq!(
            rules.to_string(),
            "less the Jobs that are pending, up to 9 in all"
        );
        let facts = &compared.facts;
        assert_eq!(facts.metrics[0].selector.to_string(), "group=g,topic=t");
        assert_eq!(compared.lagwise.max, 9);
        for (spec, expected) in [
            (
                json!({"triggers": [kafka()], "scalingStrategy": {"customScalingQueueLengthDeduction": "a"}}),
                "its spec cannot be read",
            ),
            (
                json!({"triggers": [{"type": "kafka", "metricType": "Value", "metadata": {}}]}),
                "KEDA finds no threshold",
            ),
        ] {
            let why = shadow(spec).compared.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_listing_replaces_the_objects_and_events_change_them() {
        let mut watch = KedaWatch {
            kind: KedaKind::ScaledObject,
            namespace: None,
            problem: None,
            listing: ObservedSet::default(),
        };
        let spec = json!({"scaleTargetRef": {"name": "billing"}, "triggers": [kafka()]});
        let (mut set, known) = (ObservedSet::default(), clusters());
        let mut names = |event| {
            if let Some(change) = watch.convert_event(event, &known) {
                watch.apply(change, &mut set);
            }
            Vec::from_iter(set.iter().map(|object| object.key.name.to_string()))
        };
        assert_eq!(names(Event::Apply(object("old", &spec))), ["old"]);
        names(Event::Init);
        assert_eq!(names(Event::InitApply(object("a", &spec))), ["old"]);
        assert_eq!(names(Event::InitDone), ["a"]);
        assert_eq!(names(Event::Apply(object("b", &spec))), ["a", "b"]);
        // It no longer has a Kafka trigger.
        assert_eq!(names(Event::Apply(object("b", &json!({})))), ["a"]);
        assert!(names(Event::Delete(object("a", &spec))).is_empty());
    }
}
