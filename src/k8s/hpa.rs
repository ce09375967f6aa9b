//! Watches and lists HPAs, and converts them to [`HpaFacts`].

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, MetricSpec, MetricTarget as HpaMetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch::Sender;

use super::api_error::{ApiError, in_time};
use super::resilient_watch;
use crate::model::decisions::fencing::EPOCH;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget, ScaleTarget};
use crate::model::hpa::selector::{Operator, Requirement, Selector, is_label_value};
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::quantity::Milli;

/// HPAs in one page of a listing. The JSON of an HPA takes many times the memory of its facts, and the
/// allocator would not return it to the system.
const PAGE: u32 = 100;

/// Watches the HPAs of `namespaces` (empty = all) for ever. Publishes all of them at every change, sorted
/// by namespace and name, once all are listed.
pub async fn watch(
    client: Client,
    namespaces: Vec<String>,
    facts: Sender<Option<Vec<Arc<HpaFacts>>>>,
) {
    let namespaces: BTreeSet<_> = namespaces.into_iter().collect();
    let apis: Vec<Api<HorizontalPodAutoscaler>> = if namespaces.is_empty() {
        vec![Api::all(client)]
    } else {
        let one = |namespace: &String| Api::namespaced(client.clone(), namespace);
        namespaces.iter().map(one).collect()
    };
    let mut known: Vec<KnownHpas> = apis.iter().map(|_| KnownHpas::default()).collect();
    let mut events = select_all(apis.into_iter().enumerate().map(|(scope, api)| {
        let config = watcher::Config::default().page_size(PAGE);
        resilient_watch::events(api, config, "HorizontalPodAutoscalers")
            .map(move |event| (scope, event))
            .boxed()
    }));
    while let Some((scope, event)) = events.next().await {
        // Most events are the HPA controller's writes to the status, which change no facts.
        if !known.get_mut(scope).is_some_and(|known| known.apply(event)) {
            continue;
        }
        let all = union(&known);
        facts.send_if_modified(|facts| {
            // A new listing replaces the old one when it is complete, so this never goes back to `None`.
            let differs = all.is_some() && *facts != all;
            if differs {
                *facts = all;
            }
            differs
        });
    }
}

/// HPAs as they were listed.
#[derive(Clone, Debug, Default)]
pub struct HpaList {
    /// Sorted by namespace and name.
    pub facts: Vec<Arc<HpaFacts>>,
    /// The current replicas in the status of each; an HPA without a status is missing.
    pub replicas: BTreeMap<HpaKey, u32>,
}

/// Lists the HPAs of `namespaces` (empty = all).
///
/// # Errors
/// The API server's.
pub async fn list(
    client: &Client,
    namespaces: &[String],
    within: Duration,
) -> Result<HpaList, ApiError> {
    let apis: Vec<Api<HorizontalPodAutoscaler>> = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        let one = |namespace: &String| Api::namespaced(client.clone(), namespace);
        namespaces.iter().map(one).collect()
    };
    let mut all = Vec::new();
    for api in apis {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = in_time(within, api.list(&page)).await?;
            all.extend(listed.items);
            match listed.metadata.continue_ {
                Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
                _ => break,
            }
        }
    }
    let key = |hpa: &HorizontalPodAutoscaler| {
        let of = &hpa.metadata;
        (of.namespace.clone(), of.name.clone())
    };
    all.sort_by_key(key);
    Ok(HpaList {
        facts: all.iter().map(|hpa| Arc::new(facts_of(hpa))).collect(),
        replicas: current_replicas(&all),
    })
}

/// The HPAs of one watch. The old set stays until a new listing is complete, so that no target is lost
/// meanwhile.
#[derive(Debug, Default)]
struct KnownHpas {
    listed: bool,
    current: BTreeMap<HpaKey, Arc<HpaFacts>>,
    listing: BTreeMap<HpaKey, Arc<HpaFacts>>,
}

impl KnownHpas {
    /// Takes in an event. Returns whether it may have changed the facts.
    fn apply(&mut self, event: Event<HorizontalPodAutoscaler>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(hpa) => {
                let facts = facts_of(&hpa);
                self.listing.insert(facts.key(), Arc::new(facts));
                false
            }
            Event::InitDone => {
                self.current = mem::take(&mut self.listing);
                self.listed = true;
                true
            }
            Event::Apply(hpa) => {
                let facts = facts_of(&hpa);
                let before = self.current.get(&facts.key());
                let differs = before.is_none_or(|before| **before != facts);
                if differs {
                    self.current.insert(facts.key(), Arc::new(facts));
                }
                differs
            }
            Event::Delete(hpa) => self.current.remove(&facts_of(&hpa).key()).is_some(),
        }
    }
}

/// The HPAs of all watches; `None` until each has listed its own.
fn union(known: &[KnownHpas]) -> Option<Vec<Arc<HpaFacts>>> {
    if !known.iter().all(|known| known.listed) {
        return None;
    }
    let mut all: Vec<_> = known
        .iter()
        .flat_map(|known| known.current.values().cloned())
        .collect();
    all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Some(all)
}

/// Extracts the facts of an HPA.
#[must_use]
pub fn facts_of(hpa: &HorizontalPodAutoscaler) -> HpaFacts {
    let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
    let tolerance = |of: fn(&HorizontalPodAutoscalerBehavior) -> Option<&HPAScalingRules>| {
        let rules = of(hpa.spec.behavior.as_ref()?)?;
        Milli::parse(&rules.tolerance.as_ref()?.0)
    };
    let window = |of: fn(&HorizontalPodAutoscalerBehavior) -> Option<&HPAScalingRules>| {
        let rules = of(hpa.spec.behavior.as_ref()?)?;
        u32::try_from(rules.stabilization_window_seconds?).ok()
    };
    HpaFacts {
        namespace: text(&hpa.metadata.namespace),
        name: text(&hpa.metadata.name),
        uid: text(&hpa.metadata.uid),
        scale_target: scale_target(hpa),
        controller: controller_of(hpa),
        min_replicas: hpa.spec.min_replicas.and_then(|n| u32::try_from(n).ok()),
        metrics: hpa
            .spec
            .metrics
            .iter()
            .flatten()
            .filter_map(|metric| external_metric(metric.external.as_ref()?))
            .collect(),
        // Only lagwise's: other controllers may write theirs at every sync.
        annotations: hpa
            .metadata
            .annotations
            .iter()
            .flatten()
            // The leader's term is no setting, and no reason to rebuild the targets.
            .filter(|(key, _)| key.starts_with(PREFIX) && *key != EPOCH)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        max_replicas: u32::try_from(hpa.spec.max_replicas).unwrap_or(0),
        tolerance_up: tolerance(|behavior| behavior.scale_up.as_ref()),
        tolerance_down: tolerance(|behavior| behavior.scale_down.as_ref()),
        window_up: window(|behavior| behavior.scale_up.as_ref()),
        window_down: window(|behavior| behavior.scale_down.as_ref()),
        other_metrics: metrics_of_others(hpa),
    }
}

/// The metrics that are not External, as `Type name`.
fn metrics_of_others(hpa: &HorizontalPodAutoscaler) -> Vec<Arc<str>> {
    let name = |metric: &MetricSpec| {
        let resource = metric.resource.as_ref().map(|m| &m.name);
        let container = metric.container_resource.as_ref().map(|m| &m.name);
        let pods = metric.pods.as_ref().map(|m| &m.metric.name);
        let object = metric.object.as_ref().map(|m| &m.metric.name);
        let name = resource.or(container).or(pods).or(object)?;
        Some(format!("{} {name}", metric.type_).into())
    };
    hpa.spec.metrics.iter().flatten().filter_map(name).collect()
}

fn current_replicas(hpas: &[HorizontalPodAutoscaler]) -> BTreeMap<HpaKey, u32> {
    let known = hpas.iter().filter_map(|hpa| {
        let of = &hpa.metadata;
        let key = HpaKey::new(of.namespace.as_deref()?, of.name.as_deref()?);
        let seen = hpa.status.as_ref()?.current_replicas?;
        Some((key, u32::try_from(seen).ok()?))
    });
    known.collect()
}

fn scale_target(hpa: &HorizontalPodAutoscaler) -> ScaleTarget {
    let of = &hpa.spec.scale_target_ref;
    ScaleTarget {
        api_version: of.api_version.as_deref().unwrap_or_default().into(),
        kind: of.kind.as_str().into(),
        name: of.name.as_str().into(),
    }
}

fn controller_of(hpa: &HorizontalPodAutoscaler) -> Option<Arc<str>> {
    let mut owners = hpa.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name).into())
}

pub(super) fn external_metric(source: &ExternalMetricSource) -> Option<ExternalMetric> {
    Some(ExternalMetric {
        name: source.metric.name.clone(),
        selector: match &source.metric.selector {
            Some(selector) => selector_of(selector)?,
            None => Selector::default(),
        },
        target: target_of(&source.target),
    })
}

/// Converts a selector. `None` if the HPA controller itself rejects it: for its operator, or for a value that
/// no label can have.
fn selector_of(selector: &LabelSelector) -> Option<Selector> {
    let labels = selector.match_labels.iter().flatten();
    let equal = labels.map(|(key, value)| {
        let operator = Operator::In(vec![value.clone()]);
        is_label_value(value).then(|| Requirement::new(key, operator))
    });
    let expressions = selector.match_expressions.iter().flatten();
    equal.chain(expressions.map(requirement_of)).collect()
}

fn requirement_of(requirement: &LabelSelectorRequirement) -> Option<Requirement> {
    let values = || requirement.values.clone().unwrap_or_default();
    if !values().iter().all(|value| is_label_value(value)) {
        return None;
    }
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Some(Requirement::new(&requirement.key, operator))
}

/// Converts a target as the HPA controller does: an average value takes precedence over a value, whatever
/// `type` says.
pub(super) fn target_of(target: &HpaMetricTarget) -> Option<MetricTarget> {
    let positive = |quantity: &Quantity| Milli::parse(&quantity.0).filter(|m| m.thousandths() > 0);
    match (&target.average_value, &target.value) {
        (Some(average), _) => positive(average).map(MetricTarget::AverageValue),
        (None, Some(value)) => positive(value).map(MetricTarget::Value),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hpa(namespace: &str, name: &str, metrics: Value) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "maxReplicas": 9,
                "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "metrics": metrics,
            },
        }))
        .unwrap()
    }

    fn external(metric: Value, target: Value) -> Value {
        json!([{"type": "External", "external": {"metric": metric, "target": target}}])
    }

    #[test]
    fn reads_selectors_and_targets() {
        let average = |milli| Some(MetricTarget::AverageValue(Milli::parse(milli).unwrap()));
        let value = |milli| Some(MetricTarget::Value(Milli::parse(milli).unwrap()));
        for (selector, target, expected_selector, expected_target) in [
            (
                json!({"matchLabels": {"topic": "t", "group": "g"}}),
                json!({"type": "AverageValue", "averageValue": "100"}),
                "group=g,topic=t",
                average("100"),
            ),
            (
                json!({
                    "matchLabels": {"group": "g"},
                    "matchExpressions": [
                        {"key": "topic", "operator": "In", "values": ["b", "a"]},
                        {"key": "x", "operator": "NotIn", "values": ["c"]},
                        {"key": "y", "operator": "Exists"},
                        {"key": "z", "operator": "DoesNotExist"},
                    ],
                }),
                json!({"type": "AverageValue", "averageValue": "1500m"}),
                "group=g,topic in (a,b),x!=c,y,!z",
                average("1500m"),
            ),
            (
                json!({"matchExpressions": [{"key": "group", "operator": "In", "values": ["g"]}]}),
                json!({"type": "Value", "value": "1k"}),
                "group=g",
                value("1k"),
            ),
            (
                json!(null),
                json!({"type": "Value", "averageValue": "2", "value": "1"}),
                "",
                average("2"),
            ),
            (
                json!({}),
                json!({"type": "AverageValue", "averageValue": "many"}),
                "",
                None,
            ),
            (
                json!({}),
                json!({"type": "AverageValue", "averageValue": "0"}),
                "",
                None,
            ),
            (
                json!({}),
                json!({"type": "AverageValue", "averageValue": "-1"}),
                "",
                None,
            ),
            (json!({}), json!({"type": "AverageValue"}), "", None),
        ] {
            let metrics = external(json!({"name": "kafka_lag", "selector": selector}), target);
            let shown = metrics.to_string();
            let facts = facts_of(&hpa("shop", "orders", metrics));
            assert_eq!((&*facts.namespace, &*facts.name), ("shop", "orders"));
            let [metric] = facts.metrics.as_slice() else {
                panic!("{shown}: {facts:?}");
            };
            let selector = Selector::parse(expected_selector).unwrap();
            assert_eq!(metric.name, "kafka_lag", "{shown}");
            assert_eq!(metric.selector, selector, "{shown}");
            assert_eq!(metric.target, expected_target, "{shown}");
        }
    }

    #[test]
    fn omits_other_metric_types() {
        let mut metrics = external(
            json!({"name": "other", "selector": {"matchLabels": {"a": "b"}}}),
            json!({"type": "Value", "value": "1"}),
        );
        let resource = json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        });
        metrics.as_array_mut().unwrap().insert(0, resource);
        for selector in [
            json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b/c"]}]}),
            json!({"matchLabels": {"group": "g".repeat(64)}}),
        ] {
            let unusable = external(
                json!({"name": "kafka_lag", "selector": selector}),
                json!({"type": "Value", "value": "1"}),
            );
            metrics.as_array_mut().unwrap().push(unusable[0].clone());
        }
        let facts = facts_of(&hpa("shop", "orders", metrics));
        let names: Vec<_> = facts.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["other"]);
        // But for that it is there.
        assert_eq!(facts.other_metrics, ["Resource cpu".into()]);
        assert_eq!(facts_of(&HorizontalPodAutoscaler::default()).metrics, []);
    }

    #[test]
    fn reads_annotations_and_replica_bounds() {
        let mut given = hpa("shop", "orders", json!([]));
        given.metadata.annotations = Some(
            [("lagwise.dev/even", "true"), ("other.dev/even", "x")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        );
        let facts = facts_of(&given);
        let annotations = [("lagwise.dev/even".to_owned(), "true".to_owned())];
        assert_eq!(facts.annotations, annotations.into());
        assert_eq!(facts.max_replicas, 9);
        assert_eq!((facts.tolerance_up, facts.tolerance_down), (None, None));
        given.spec.behavior = serde_json::from_value(json!({
            "scaleUp": {"tolerance": "0"},
            "scaleDown": {"tolerance": "50m", "stabilizationWindowSeconds": 60},
        }))
        .unwrap();
        let facts = facts_of(&given);
        assert_eq!(facts.tolerance_up, Milli::parse("0"));
        assert_eq!(facts.tolerance_down, Milli::parse("50m"));
        assert_eq!((facts.window_up, facts.window_down), (None, Some(60)));
        assert_eq!(
            current_replicas(std::slice::from_ref(&given)),
            BTreeMap::new()
        );
        given.status = serde_json::from_value(json!({"currentReplicas": 3})).unwrap();
        let key = HpaKey::new("shop", "orders");
        assert_eq!(current_replicas(&[given]), [(key, 3)].into());
    }

    #[test]
    fn reads_scale_target_and_controller() {
        let mut given = hpa("shop", "orders", json!([]));
        let facts = facts_of(&given);
        assert_eq!((facts.min_replicas, facts.controller), (None, None));
        given.metadata.uid = Some("u-1".into());
        given.spec.min_replicas = Some(0);
        let target = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r"});
        given.spec.scale_target_ref = serde_json::from_value(target).unwrap();
        let owner = |kind: &str, controller: Value| json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "x", "controller": controller});
        let owners = json!([
            owner("Team", json!(null)),
            owner("ScaledObject", json!(true))
        ]);
        given.metadata.owner_references = serde_json::from_value(owners).unwrap();
        let facts = facts_of(&given);
        assert_eq!((&*facts.uid, facts.min_replicas), ("u-1", Some(0)));
        assert_eq!(facts.controller.as_deref(), Some("ScaledObject/o"));
        let ScaleTarget {
            api_version,
            kind,
            name,
        } = &facts.scale_target;
        let shown = (&**api_version, &**kind, &**name);
        assert_eq!(shown, ("argoproj.io/v1alpha1", "Rollout", "r"));
    }

    #[test]
    fn new_listing_replaces_the_set_once_complete() {
        let one = |name: &str| hpa("shop", name, json!([]));
        let mut known = KnownHpas::default();
        let names = |known: &KnownHpas| {
            let all = union(std::slice::from_ref(known))?;
            Some(all.iter().map(|f| f.name.to_string()).collect::<Vec<_>>())
        };
        for event in [
            Event::Init,
            Event::InitApply(one("b")),
            Event::InitApply(one("a")),
        ] {
            known.apply(event);
            assert_eq!(names(&known), None);
        }
        let mut step = |event, expected: &[&str]| {
            let shown = format!("{event:?}");
            known.apply(event);
            let expected = expected.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(names(&known), Some(expected), "{shown}");
        };
        step(Event::InitDone, &["a", "b"]);
        step(Event::Apply(one("c")), &["a", "b", "c"]);
        step(Event::Delete(one("a")), &["b", "c"]);
        // Everything is listed anew, fails half-way, and once more.
        step(Event::Init, &["b", "c"]);
        step(Event::InitApply(one("z")), &["b", "c"]);
        step(Event::Init, &["b", "c"]);
        step(Event::InitApply(one("c")), &["b", "c"]);
        step(Event::InitDone, &["c"]);
    }

    #[test]
    fn joins_watches_of_several_namespaces_in_order() {
        let mut known = [KnownHpas::default(), KnownHpas::default()];
        known[0].apply(Event::InitDone);
        known[0].apply(Event::Apply(hpa("z", "a", json!([]))));
        assert_eq!(union(&known), None, "the other has not listed its own");
        known[1].apply(Event::InitDone);
        known[1].apply(Event::Apply(hpa("a", "b", json!([]))));
        let all = union(&known).unwrap();
        let shown: Vec<_> = all.iter().map(|f| (&*f.namespace, &*f.name)).collect();
        assert_eq!(shown, [("a", "b"), ("z", "a")]);
    }
}
