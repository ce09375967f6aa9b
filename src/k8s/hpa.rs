//! Watches and lists HPAs, and converts them to [`HpaFacts`].

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerCondition, MetricSpec,
};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use tokio::sync::watch::Sender;

use super::api_error::{ApiError, in_time};
use super::external_metric::external_metric;
use super::live_hpa::behavior_of;
use super::resilient_watch;
use super::watched_hpa::WatchedHpa;
use crate::model::decisions::fencing::TERM;
use crate::model::hpa::bounded_facts::bound;
use crate::model::hpa::controller::policies::raise_limit;
use crate::model::hpa::facts::{
    HpaFacts, HpaMap, OtherMetric, RunningReplicas, ScaleTarget, start_replicas, zeroed_since,
};
use crate::model::hpa::facts_budget::FactsBudget;
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::quantity::Milli;

/// HPAs in one page of a listing. The text of a page is in memory several times while it is parsed, and a user can make
/// each HPA larger than a megabyte.
pub(super) const PAGE: u32 = 16;

/// Watches the HPAs of `namespaces` (empty = all) forever. Publishes them at every change, once all are listed.
pub async fn watch(client: Client, namespaces: Vec<String>, facts: Sender<Option<HpaMap>>) {
    let (scopes, apis) = apis::<WatchedHpa>(&client, &namespaces);
    let mut watched = WatchedHpas::new(scopes);
    let mut events = select_all(apis.into_iter().enumerate().map(|(scope, api)| {
        let config = watcher::Config::default().page_size(PAGE);
        resilient_watch::events(api, config, "HorizontalPodAutoscalers")
            .map(move |event| (scope, event))
            .boxed()
    }));
    while let Some((scope, event)) = events.next().await {
        // Most events are the HPA controller's writes to the status, which change no facts.
        if watched.apply(scope, event) {
            facts.send_replace(Some(watched.all()));
        }
    }
}

/// The APIs that together have the HPAs of `namespaces` (empty = all), each with its namespace.
fn apis<K>(client: &Client, namespaces: &[String]) -> (Vec<Option<String>>, Vec<Api<K>>)
where
    K: Resource<DynamicType = (), Scope = <HorizontalPodAutoscaler as Resource>::Scope>,
{
    if namespaces.is_empty() {
        return (vec![None], vec![Api::all(client.clone())]);
    }
    let namespaces: BTreeSet<_> = namespaces.iter().collect();
    let one = |namespace: &String| {
        let api = Api::namespaced(client.clone(), namespace);
        (Some(namespace.clone()), api)
    };
    namespaces.into_iter().map(one).unzip()
}

/// HPAs as they were listed.
#[derive(Clone, Debug, Default)]
pub struct HpaList {
    /// Sorted by namespace and name.
    pub facts: Vec<Arc<HpaFacts>>,
    /// The current replicas of each; an HPA without a status is missing.
    pub replicas: BTreeMap<HpaKey, CurrentReplicas>,
}

/// The current replicas in an HPA's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentReplicas {
    pub count: u32,
    /// Time since which the workload is at zero, by lagwise's annotation or by the HPA's condition `ScaledToZero`;
    /// `None` if it has replicas, or neither is known.
    pub asleep_since: Option<String>,
}

/// Lists the HPAs of `namespaces` (empty = all).
///
/// # Errors
/// The API server's.
pub async fn list(
    client: &Client,
    namespaces: &[String],
    timeout: Duration,
) -> Result<HpaList, ApiError> {
    let mut all = Vec::new();
    for api in apis::<HorizontalPodAutoscaler>(client, namespaces).1 {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = in_time(timeout, api.list(&page)).await?;
            all.extend(listed.items);
            match listed.metadata.continue_ {
                Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
                _ => break,
            }
        }
    }
    all.sort_by_cached_key(key_of);
    Ok(HpaList {
        facts: all.iter().map(|hpa| Arc::new(facts_of(hpa))).collect(),
        replicas: current_replicas(&all),
    })
}

/// The HPAs of all watches, by their events. The HPAs of a watch stay until a new listing is complete, so that no
/// target is lost during the listing.
#[derive(Debug)]
pub struct WatchedHpas {
    all: KnownHpas,
    scopes: Vec<WatchScope>,
}

/// What one watch covers.
#[derive(Debug, Default)]
struct WatchScope {
    /// `None` = all namespaces.
    namespace: Option<String>,
    is_listed: bool,
    /// The listing that is under way.
    listing: BTreeMap<HpaKey, Arc<HpaFacts>>,
    /// Memory of its HPAs.
    listing_budget: FactsBudget,
}

/// The current HPAs, and their memory.
#[derive(Debug, Default)]
struct KnownHpas {
    hpas: HpaMap,
    budget: FactsBudget,
}

impl WatchedHpas {
    /// Watches of these namespaces, each different; `None` = of all namespaces, by a single watch.
    #[must_use]
    pub fn new(namespaces: impl IntoIterator<Item = Option<String>>) -> Self {
        let scope = |namespace| WatchScope {
            namespace,
            ..WatchScope::default()
        };
        Self {
            all: KnownHpas::default(),
            scopes: namespaces.into_iter().map(scope).collect(),
        }
    }

    /// The HPAs now. Shares with earlier ones what did not change.
    #[must_use]
    pub fn all(&self) -> HpaMap {
        self.all.hpas.clone()
    }

    /// Applies an event of one of the watches. Returns whether there is something to publish: all watches have
    /// listed their HPAs, and the facts may have changed.
    pub fn apply<H: Into<WatchedHpa>>(&mut self, scope: usize, event: Event<H>) -> bool {
        let Some(scope) = self.scopes.get_mut(scope) else {
            return false;
        };
        let is_changed = match event {
            Event::Init => {
                scope.listing.clear();
                scope.listing_budget = FactsBudget::default();
                false
            }
            Event::InitApply(hpa) => {
                let facts = scope.listing_budget.admit(WatchedHpa::take_facts(hpa));
                scope.listing.insert(facts.key(), facts);
                false
            }
            Event::InitDone => self.all.replace_scope(scope),
            Event::Apply(hpa) => self.all.insert(WatchedHpa::take_facts(hpa)),
            Event::Delete(hpa) => self.all.remove(&WatchedHpa::take_facts(hpa).key()),
        };
        is_changed && self.scopes.iter().all(|scope| scope.is_listed)
    }
}

impl KnownHpas {
    /// Replaces the HPAs of a watch by those that it has listed. Returns whether they differ, or were never listed.
    fn replace_scope(&mut self, scope: &mut WatchScope) -> bool {
        let listed = mem::take(&mut scope.listing);
        let is_in_scope = |key: &&HpaKey| {
            let namespace = scope.namespace.as_deref();
            namespace.is_none_or(|namespace| namespace == &*key.namespace)
        };
        let known = self.hpas.keys().filter(is_in_scope);
        let gone: Vec<_> = known
            .filter(|key| !listed.contains_key(key))
            .cloned()
            .collect();
        let mut is_changed = !mem::replace(&mut scope.is_listed, true) || !gone.is_empty();
        for key in &gone {
            self.hpas.remove(key);
        }
        for facts in listed.into_values() {
            is_changed |= self.replace(facts);
        }
        self.budget = self.hpas.values().map(|facts| &**facts).collect();
        is_changed
    }

    /// Inserts an HPA, within the memory budget. Returns whether its facts differ from those known before.
    fn insert(&mut self, facts: Arc<HpaFacts>) -> bool {
        if let Some(known) = self.hpas.get(&facts.key()) {
            self.budget.release(known);
        }
        let facts = self.budget.admit(facts);
        self.replace(facts)
    }

    fn replace(&mut self, facts: Arc<HpaFacts>) -> bool {
        let key = facts.key();
        let differs = self.hpas.get(&key).is_none_or(|known| *known != facts);
        if differs {
            self.hpas.insert(key, facts);
        }
        differs
    }

    /// Returns whether the HPA was known.
    fn remove(&mut self, key: &HpaKey) -> bool {
        let known = self.hpas.remove(key);
        if let Some(known) = &known {
            self.budget.release(known);
        }
        known.is_some()
    }
}

fn key_of(hpa: &HorizontalPodAutoscaler) -> HpaKey {
    let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
    HpaKey {
        namespace: text(&hpa.metadata.namespace),
        name: text(&hpa.metadata.name),
    }
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
    let (mut metrics, mut rejected_metrics) = (Vec::new(), Vec::new());
    let all = hpa.spec.metrics.iter().flatten();
    for external in all.filter_map(|metric| metric.external.as_ref()) {
        match external_metric(external) {
            Ok(metric) => metrics.push(metric),
            Err(rejected) => rejected_metrics.push(rejected),
        }
    }
    let mut facts = HpaFacts {
        namespace: text(&hpa.metadata.namespace),
        name: text(&hpa.metadata.name),
        uid: text(&hpa.metadata.uid),
        scale_target: scale_target(hpa),
        controller: controller_of(hpa),
        min_replicas: hpa.spec.min_replicas.and_then(|n| u32::try_from(n).ok()),
        metrics,
        rejected_metrics,
        // Only lagwise's: other controllers may write theirs at every sync.
        annotations: hpa
            .metadata
            .annotations
            .iter()
            .flatten()
            // The leader's term is no setting, and no reason to rebuild the targets.
            .filter(|(key, _)| key.starts_with(PREFIX) && *key != TERM)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        max_replicas: u32::try_from(hpa.spec.max_replicas).unwrap_or(0),
        tolerance_up: tolerance(|behavior| behavior.scale_up.as_ref()),
        tolerance_down: tolerance(|behavior| behavior.scale_down.as_ref()),
        window_up: window(|behavior| behavior.scale_up.as_ref()),
        window_down: window(|behavior| behavior.scale_down.as_ref()),
        raise_limit: None,
        running: RunningReplicas::new(current_count(hpa)),
        replicas: current_count(hpa),
        other_metrics: metrics_of_others(hpa),
        is_scaling_disabled: is_scaling_disabled(hpa),
        created: created(hpa),
        too_large: None,
    };
    let behavior = hpa.spec.behavior.as_ref().map(behavior_of);
    facts.raise_limit = Some(raise_limit(behavior.as_ref(), start_replicas(&facts)));
    bound(facts)
}

fn is_scaling_disabled(hpa: &HorizontalPodAutoscaler) -> bool {
    let status = hpa.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "ScalingActive"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("ScalingDisabled")
    })
}

/// When the HPA was created, in seconds since 1970.
fn created(hpa: &HorizontalPodAutoscaler) -> Option<i64> {
    let created = hpa.metadata.creation_timestamp.as_ref()?;
    Some(created.0.as_second())
}

/// The metrics that are not External.
fn metrics_of_others(hpa: &HorizontalPodAutoscaler) -> Vec<OtherMetric> {
    let name = |metric: &MetricSpec| {
        let resource = metric.resource.as_ref().map(|m| &m.name);
        let container = metric.container_resource.as_ref().map(|m| &m.name);
        let pods = metric.pods.as_ref().map(|m| &m.metric.name);
        let object = metric.object.as_ref().map(|m| &m.metric.name);
        let name = resource.or(container).or(pods).or(object)?;
        Some(OtherMetric {
            type_name: metric.type_.as_str().into(),
            name: name.as_str().into(),
        })
    };
    hpa.spec.metrics.iter().flatten().filter_map(name).collect()
}

fn current_replicas(hpas: &[HorizontalPodAutoscaler]) -> BTreeMap<HpaKey, CurrentReplicas> {
    let known = hpas.iter().filter_map(|hpa| {
        let count = current_count(hpa)?;
        let asleep_since = (count == 0).then(|| asleep_since(hpa)).flatten();
        Some((
            key_of(hpa),
            CurrentReplicas {
                count,
                asleep_since,
            },
        ))
    });
    known.collect()
}

/// The replicas in the status. The API omits zero, so a missing number means 0 if the controller could read the scale.
fn current_count(hpa: &HorizontalPodAutoscaler) -> Option<u32> {
    match hpa.status.as_ref()?.current_replicas {
        Some(count) => u32::try_from(count).ok(),
        None => condition(hpa, "AbleToScale").map(|_| 0),
    }
}

fn asleep_since(hpa: &HorizontalPodAutoscaler) -> Option<String> {
    let annotations = hpa.metadata.annotations.as_ref();
    let by_lagwise = annotations.and_then(zeroed_since);
    by_lagwise.or_else(|| {
        let by_itself = condition(hpa, "ScaledToZero")?;
        let since = by_itself.last_transition_time.as_ref()?;
        Some(humantime::format_rfc3339_seconds(SystemTime::from(since.0)).to_string())
    })
}

/// A status condition of an HPA that is true.
fn condition<'a>(
    hpa: &'a HorizontalPodAutoscaler,
    kind: &str,
) -> Option<&'a HorizontalPodAutoscalerCondition> {
    let mut all = hpa.status.as_ref()?.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind && condition.status == "True")
}

fn scale_target(hpa: &HorizontalPodAutoscaler) -> ScaleTarget {
    let target = &hpa.spec.scale_target_ref;
    ScaleTarget {
        api_version: target.api_version.as_deref().unwrap_or_default().into(),
        kind: target.kind.as_str().into(),
        name: target.name.as_str().into(),
    }
}

fn controller_of(hpa: &HorizontalPodAutoscaler) -> Option<Arc<str>> {
    let mut owners = hpa.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name).into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::hpa::facts::{MetricTarget, RejectedMetric};
    use crate::model::hpa::selector::{RejectedSelector, Selector};
    use crate::model::settings::annotation_keys::ZEROED_SINCE;

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
    fn replicas_are_unknown_until_the_hpa_controller_has_read_the_scale() {
        let conditions = json!([{"type": "AbleToScale", "status": "True"}]);
        for (status, expected) in [
            (json!(null), RunningReplicas::Unknown),
            (json!({"desiredReplicas": 0}), RunningReplicas::Unknown),
            (
                json!({"desiredReplicas": 0, "conditions": conditions}),
                RunningReplicas::None,
            ),
            (
                json!({"desiredReplicas": 1, "currentReplicas": 1, "conditions": conditions}),
                RunningReplicas::One,
            ),
            (
                json!({"desiredReplicas": 1, "currentReplicas": 5, "conditions": conditions}),
                RunningReplicas::Several,
            ),
        ] {
            let mut hpa = hpa("n", "h", json!([]));
            hpa.status = serde_json::from_value(status.clone()).unwrap();
            assert_eq!(facts_of(&hpa).running, expected, "{status}");
        }
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
    fn omits_other_metric_types_and_rejected_selectors() {
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
        let rejected = [
            RejectedSelector::operator("Like"),
            RejectedSelector::value("a", "b/c"),
            RejectedSelector::value("group", &"g".repeat(64)),
        ];
        let rejected = rejected.map(|reason| RejectedMetric::new("kafka_lag", reason));
        assert_eq!(facts.rejected_metrics, rejected);
        // But for that it is there.
        let others = facts.other_metrics.iter().map(OtherMetric::to_string);
        assert_eq!(others.collect::<Vec<_>>(), ["Resource cpu"]);
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
        // The controller's own limit without `behavior`.
        assert_eq!(facts.raise_limit, Some(4));
        given.spec.behavior = serde_json::from_value(json!({
            "scaleUp": {"tolerance": "0"},
            "scaleDown": {"tolerance": "50m", "stabilizationWindowSeconds": 60},
        }))
        .unwrap();
        let facts = facts_of(&given);
        assert_eq!(facts.tolerance_up, Milli::parse("0"));
        assert_eq!(facts.tolerance_down, Milli::parse("50m"));
        assert_eq!((facts.window_up, facts.window_down), (None, Some(60)));
        // The default policies of `behavior`, from one replica.
        assert_eq!(facts.raise_limit, Some(5));
        assert_eq!(
            current_replicas(std::slice::from_ref(&given)),
            BTreeMap::new()
        );
        given.status = serde_json::from_value(json!({"currentReplicas": 3})).unwrap();
        let key = HpaKey::new("shop", "orders");
        let running = CurrentReplicas {
            count: 3,
            asleep_since: None,
        };
        assert_eq!(current_replicas(&[given]), [(key, running)].into());
    }

    #[test]
    fn zero_replicas_are_known_where_the_controller_has_read_the_scale() {
        let status = |text: Value| {
            let mut given = hpa("shop", "orders", json!([]));
            given.status = serde_json::from_value(text).unwrap();
            given
        };
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": "2026-01-02T03:04:05Z"});
        let replicas = |hpa: HorizontalPodAutoscaler| current_replicas(&[hpa]).into_values().next();
        let zero = |since: Option<&str>| {
            Some(CurrentReplicas {
                count: 0,
                asleep_since: since.map(str::to_owned),
            })
        };
        // A new HPA, and one whose scale cannot be read.
        assert_eq!(replicas(status(json!({"desiredReplicas": 0}))), None);
        let unread = json!({"conditions": [condition("AbleToScale", "False")]});
        assert_eq!(replicas(status(unread)), None);

        let able = condition("AbleToScale", "True");
        let off = status(json!({"conditions": [able.clone()]}));
        assert_eq!(replicas(off.clone()), zero(None), "by a person");
        let mut asleep = off;
        let annotations = [(ZEROED_SINCE.to_owned(), "2026-01-01T00:00:00Z".to_owned())];
        asleep.metadata.annotations = Some(annotations.into());
        assert_eq!(replicas(asleep.clone()), zero(Some("2026-01-01T00:00:00Z")));
        let by_itself = status(json!({"conditions": [able, condition("ScaledToZero", "True")]}));
        assert_eq!(replicas(by_itself), zero(Some("2026-01-02T03:04:05Z")));
        // The annotation is left over on a workload that a user has started.
        asleep.status.as_mut().unwrap().current_replicas = Some(2);
        let running = replicas(asleep).unwrap();
        assert_eq!((running.count, running.asleep_since), (2, None));
    }

    #[test]
    fn reads_whether_scaling_is_disabled() {
        let mut given = hpa("shop", "orders", json!([]));
        assert!(!facts_of(&given).is_scaling_disabled);
        for (kind, status, reason, expected) in [
            ("ScalingActive", "False", Some("ScalingDisabled"), true),
            (
                "ScalingActive",
                "False",
                Some("FailedGetExternalMetric"),
                false,
            ),
            ("ScalingActive", "True", Some("ValidMetricFound"), false),
            ("ScalingActive", "False", None, false),
            ("AbleToScale", "False", Some("ScalingDisabled"), false),
        ] {
            let other = json!({"type": "AbleToScale", "status": "True"});
            let condition = json!({"type": kind, "status": status, "reason": reason});
            given.status =
                serde_json::from_value(json!({"conditions": [other, condition]})).unwrap();
            let found = facts_of(&given).is_scaling_disabled;
            assert_eq!(found, expected, "{kind} {status} {reason:?}");
        }
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

    /// The names of the HPAs that are published after an event; `None` where nothing is.
    fn published(
        watched: &mut WatchedHpas,
        scope: usize,
        event: Event<HorizontalPodAutoscaler>,
    ) -> Option<String> {
        let is_published = watched.apply(scope, event);
        let names = || {
            let keys = watched.all();
            let names: Vec<_> = keys.keys().map(ToString::to_string).collect();
            names.join(" ")
        };
        is_published.then(names)
    }

    #[test]
    fn a_new_listing_replaces_the_hpas_only_once_complete() {
        let one = |name: &str| hpa("shop", name, json!([]));
        let mut changed = one("b");
        changed.spec.max_replicas = 10;
        let mut watched = WatchedHpas::new([None]);
        for (event, expected) in [
            (Event::Init, None),
            (Event::InitApply(one("b")), None),
            (Event::InitApply(one("a")), None),
            (Event::InitDone, Some("shop/a shop/b")),
            (Event::Apply(one("c")), Some("shop/a shop/b shop/c")),
            // As the status changes, the facts do not.
            (Event::Apply(one("c")), None),
            (Event::Delete(one("a")), Some("shop/b shop/c")),
            (Event::Delete(one("a")), None),
            // The listing starts again, fails half-way, and starts once more.
            (Event::Init, None),
            (Event::InitApply(one("z")), None),
            (Event::Init, None),
            (Event::InitApply(one("b")), None),
            (Event::InitApply(one("c")), None),
            (Event::InitDone, None),
            (Event::Init, None),
            (Event::InitApply(changed), None),
            (Event::InitDone, Some("shop/b")),
        ] {
            let shown = format!("{event:?}");
            let found = published(&mut watched, 0, event);
            assert_eq!(found.as_deref(), expected, "{shown}");
        }
        assert_eq!(watched.all().values().next().unwrap().max_replicas, 10);
    }

    #[test]
    fn nothing_is_published_before_every_namespace_is_listed() {
        let mut watched = WatchedHpas::new([Some("z".into()), Some("a".into())]);
        let one = |namespace: &str| hpa(namespace, "h", json!([]));
        for (scope, event, expected) in [
            (0, Event::InitDone, None),
            (0, Event::Apply(one("z")), None),
            (1, Event::InitDone, Some("z/h")),
            (1, Event::Apply(one("a")), Some("a/h z/h")),
            // A new listing of one namespace leaves the other as it is.
            (0, Event::InitDone, Some("a/h")),
        ] {
            assert_eq!(published(&mut watched, scope, event).as_deref(), expected);
        }
    }

    #[test]
    fn large_hpas_of_a_namespace_are_kept_as_far_as_there_is_room() {
        let values: Vec<_> = (0..3000).map(|i| format!("{i:x}")).collect();
        let large = |namespace: &str, i: u32| {
            let expression = json!({"key": "topic", "operator": "NotIn", "values": values});
            let selector = json!({"matchLabels": {"group": "g"}, "matchExpressions": [expression]});
            let metrics = external(
                json!({"name": "kafka_lag", "selector": selector}),
                json!({"type": "AverageValue", "averageValue": "1"}),
            );
            hpa(namespace, &format!("h{i:03}"), metrics)
        };
        let whole = |watched: &WatchedHpas| {
            let hpas = watched.all();
            let whole = hpas.values().filter(|facts| facts.too_large.is_none());
            whole
                .map(|facts| facts.name.to_string())
                .collect::<Vec<_>>()
        };
        let mut watched = WatchedHpas::new([None]);
        for _ in 0..2 {
            watched.apply(0, Event::<HorizontalPodAutoscaler>::Init);
            for i in 0..60 {
                watched.apply(0, Event::InitApply(large("shop", i)));
            }
            watched.apply(0, Event::<HorizontalPodAutoscaler>::InitDone);
            // A status that changes, and HPAs that come later.
            for i in 0..100 {
                watched.apply(0, Event::Apply(large("shop", i)));
            }
            let whole = whole(&watched);
            assert!((5..50).contains(&whole.len()), "{whole:?}");
            assert_eq!(whole[0], "h000");
            assert!(whole.is_sorted() && watched.all().len() == 100);
        }
        let before = whole(&watched).len();
        watched.apply(0, Event::Apply(large("other", 0)));
        assert_eq!(whole(&watched).len(), before + 1);
        // Room for the next one that is written.
        watched.apply(0, Event::Delete(large("shop", 0)));
        assert!(watched.apply(0, Event::Apply(large("shop", 99))));
        assert_eq!(whole(&watched).len(), before + 1);
        assert!(!watched.apply(0, Event::Apply(large("shop", 98))));
    }

    #[test]
    fn a_cluster_without_hpas_is_published_too() {
        assert_eq!(
            published(&mut WatchedHpas::new([None]), 0, Event::InitDone).as_deref(),
            Some("")
        );
    }
}
