//! Watches KEDA's ScaledObjects and ScaledJobs with Kafka triggers, where the cluster has them.

use std::borrow::Cow;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt, select_all};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::watch::Sender;

use super::hpa::{PAGE, facts_of};
use super::live_hpa::spec_of;
use super::resilient_watch;
use crate::model::hpa::controller::HpaSpec;
use crate::model::hpa::facts::HpaFacts;
use crate::model::keda::convert::observed::{KnownCluster, ObservedConversion, observe};
use crate::model::keda::scaled_object::{ObjectMetadata, ScaledObject, ScaledObjectSpec};
use crate::model::keda::shadow::{ObservedSet, ShadowObject};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::untrusted_text::cut_message;

/// Timeout of the request that finds out whether KEDA's objects can be listed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time until it is sent again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// A kind of KEDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KedaKind {
    ScaledObject,
    ScaledJob,
}

impl KedaKind {
    fn name(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObject",
            Self::ScaledJob => "ScaledJob",
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::ScaledObject => "scaledobjects",
            Self::ScaledJob => "scaledjobs",
        }
    }
}

/// What is known of KEDA's objects.
#[derive(Clone, Debug, Default)]
pub struct KedaState {
    pub objects: ObservedSet,
    /// Why objects of a kind cannot be read, each as a sentence without a full stop.
    pub problems: Vec<String>,
}

/// An object of KEDA in a watch. What a comparison does not need is dropped as soon as it is read.
#[derive(Clone, Debug)]
pub struct WatchedKedaObject {
    /// What the watch itself needs.
    metadata: ObjectMeta,
    /// The object, or why it cannot be used.
    object: Result<ScaledObject, String>,
}

impl<'de> Deserialize<'de> for WatchedKedaObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct AnyObject {
            #[serde(default)]
            metadata: ObjectMeta,
            /// Of any form, so that a wrong one of a single object does not fail the whole listing.
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
        let spec = ScaledObjectSpec::deserialize(spec);
        let spec = spec.map_err(|error| cut_message(format!("its spec cannot be read: {error}")));
        let object = spec.and_then(|spec| {
            let metadata = named;
            ScaledObject { metadata, spec }.bounded()
        });
        Ok(Self {
            metadata: ObjectMeta {
                namespace: metadata.namespace,
                name: metadata.name,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            object,
        })
    }
}

impl Resource for WatchedKedaObject {
    type DynamicType = KedaKind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &KedaKind) -> Cow<'_, str> {
        kind.name().into()
    }

    fn group(_: &KedaKind) -> Cow<'_, str> {
        "keda.sh".into()
    }

    fn version(_: &KedaKind) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural(kind: &KedaKind) -> Cow<'_, str> {
        kind.resource().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl WatchedKedaObject {
    fn key(&self) -> HpaKey {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        HpaKey::new(text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// What is compared; `None` if it has no Kafka trigger.
    fn shadow(self, kind: KedaKind, clusters: &[KnownCluster]) -> Option<ShadowObject> {
        let key = self.key();
        if let Ok(object) = &self.object
            && !object.has_kafka_trigger()
        {
            return None;
        }
        if kind == KedaKind::ScaledJob {
            return Some(ShadowObject::scaled_job(&key.namespace, &key.name));
        }
        let named = || ScaledObject {
            metadata: ObjectMetadata {
                name: key.name.to_string(),
                namespace: Some(key.namespace.to_string()),
                ..ObjectMetadata::default()
            },
            ..ScaledObject::default()
        };
        Some(match self.object {
            Ok(object) => ShadowObject::scaled_object(&object, convert(&object, clusters)),
            Err(why) => ShadowObject::scaled_object(&named(), Err(why)),
        })
    }
}

/// The HPA of lagwise, and what the HPA controller makes of it and of KEDA's.
fn convert(
    object: &ScaledObject,
    clusters: &[KnownCluster],
) -> Result<(ObservedConversion, HpaFacts, HpaSpec, HpaSpec), String> {
    let observed = observe(object, clusters)?;
    let read = |hpa: &Value| {
        let read = HorizontalPodAutoscaler::deserialize(hpa);
        read.map_err(|error| format!("the HPA that lagwise would have is not valid: {error}"))
    };
    let (own, of_keda) = (read(&observed.lagwise_hpa)?, read(&observed.keda_hpa)?);
    let facts = facts_of(&own);
    Ok((observed, facts, spec_of(&own), spec_of(&of_keda)))
}

/// What happens in one watch.
enum KedaEvent {
    /// The objects cannot be listed, for this reason.
    Problem(String),
    /// They can.
    Listable,
    Watch(Box<Event<WatchedKedaObject>>),
}

/// One watch: a kind, in one namespace or in all.
struct KedaWatch {
    kind: KedaKind,
    namespace: Option<String>,
    problem: Option<String>,
    /// The listing that is under way.
    listing: ObservedSet,
}

/// Watches the objects in `namespaces` (empty = all) for ever, and publishes them at every change. `clusters` are the
/// configured Kafka clusters.
pub async fn watch(
    client: Client,
    namespaces: Vec<String>,
    clusters: Vec<KnownCluster>,
    state: Sender<KedaState>,
) {
    let scopes = match namespaces.as_slice() {
        [] => vec![None],
        _ => namespaces.into_iter().map(Some).collect(),
    };
    let mut watches = Vec::new();
    for kind in [KedaKind::ScaledObject, KedaKind::ScaledJob] {
        watches.extend(scopes.iter().map(|namespace| KedaWatch {
            kind,
            namespace: namespace.clone(),
            problem: None,
            listing: ObservedSet::default(),
        }));
    }
    let streams = watches.iter().enumerate().map(|(index, watch)| {
        let events = events(&client, watch.kind, watch.namespace.as_deref());
        events.map(move |event| (index, event)).boxed()
    });
    let mut events = select_all(Vec::from_iter(streams));
    while let Some((index, event)) = events.next().await {
        let Some(watch) = watches.get_mut(index) else {
            continue;
        };
        let is_changed = match event {
            KedaEvent::Problem(problem) => {
                let problem = Some(problem);
                let is_new = watch.problem != problem;
                if let (true, Some(problem)) = (is_new, &problem) {
                    tracing::warn!(resource = watch.kind.resource(), "{problem}");
                }
                watch.problem = problem;
                is_new
            }
            KedaEvent::Listable => watch.problem.take().is_some(),
            KedaEvent::Watch(event) => {
                state.send_if_modified(|state| watch.apply(*event, &clusters, &mut state.objects));
                false
            }
        };
        if is_changed {
            // Several namespaces have the same problem with one cause.
            let problems = watches.iter().filter_map(|watch| watch.problem.clone());
            let mut problems = Vec::from_iter(problems);
            problems.dedup();
            state.send_modify(|state| state.problems = problems);
        }
    }
}

impl KedaWatch {
    /// Takes in an event. Returns whether there may be a change.
    fn apply(
        &mut self,
        event: Event<WatchedKedaObject>,
        clusters: &[KnownCluster],
        objects: &mut ObservedSet,
    ) -> bool {
        match event {
            Event::Init => {
                self.listing = ObservedSet::default();
                false
            }
            Event::InitApply(object) => {
                if let Some(object) = object.shadow(self.kind, clusters) {
                    self.listing.insert(object);
                }
                false
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                objects.replace(self.kind.name(), self.namespace.as_deref(), &listing);
                true
            }
            Event::Apply(object) => {
                let key = object.key();
                match object.shadow(self.kind, clusters) {
                    Some(object) => objects.insert(object),
                    None => objects.remove(self.kind.name(), &key),
                }
                true
            }
            Event::Delete(object) => {
                objects.remove(self.kind.name(), &object.key());
                true
            }
        }
    }
}

/// The events of a kind in a namespace, once its objects can be listed.
fn events(
    client: &Client,
    kind: KedaKind,
    namespace: Option<&str>,
) -> BoxStream<'static, KedaEvent> {
    let api: Api<WatchedKedaObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let config = watcher::Config::default().page_size(PAGE);
    let watched = match kind {
        KedaKind::ScaledObject => "ScaledObjects",
        KedaKind::ScaledJob => "ScaledJobs",
    };
    let watching = resilient_watch::events(api.clone(), config, watched)
        .map(|event| KedaEvent::Watch(Box::new(event)));
    let probing = stream::unfold(Some((api, Duration::ZERO)), move |probe| async move {
        let (api, pause) = probe?;
        tokio::time::sleep(pause).await;
        Some(match find_problem(&api, kind).await {
            Some(problem) => (KedaEvent::Problem(problem), Some((api, PROBE_INTERVAL))),
            None => (KedaEvent::Listable, None),
        })
    });
    probing.chain(watching).boxed()
}

/// Why the objects cannot be listed, if they cannot.
async fn find_problem(api: &Api<WatchedKedaObject>, kind: KedaKind) -> Option<String> {
    let (kinds, resource) = (kind.name(), kind.resource());
    let page = ListParams::default().limit(1);
    let listed = tokio::time::timeout(PROBE_TIMEOUT, api.list(&page)).await;
    let why = match listed {
        Ok(Ok(_)) => return None,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            return Some(format!(
                "the cluster has no {kinds}s of keda.sh/v1alpha1, so there are none to compare; lagwise looks again every 30 seconds"
            ));
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            return Some(format!(
                "the right to get, list and watch {resource}.keda.sh is missing, so there are none to compare; the chart grants it with mode: observe"
            ));
        }
        Ok(Err(kube::Error::Api(status))) => status.message.clone(),
        Ok(Err(_)) | Err(_) => "the Kubernetes API server does not respond".to_owned(),
    };
    Some(format!("cannot list {resource}.keda.sh: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        [KnownCluster::new("main".into(), "k:9092")]
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
        ] {
            let shadow = object("billing", &spec).shadow(KedaKind::ScaledObject, &clusters());
            let why = shadow.unwrap().compared.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn objects_without_a_kafka_trigger_are_left_out() {
        for spec in [json!({}), json!({"triggers": [{"type": "cron"}]})] {
            for kind in [KedaKind::ScaledObject, KedaKind::ScaledJob] {
                assert_eq!(object("billing", &spec).shadow(kind, &clusters()), None);
            }
        }
        let job = object("import", &json!({"triggers": [kafka()]}));
        let job = job.shadow(KedaKind::ScaledJob, &clusters()).unwrap();
        assert_eq!((job.kind, job.compared.is_err()), ("ScaledJob", true));
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
            watch.apply(event, &known, &mut set);
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
