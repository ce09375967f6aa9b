//! Converts the Kafka triggers of a ScaledObject to triggers of lagwise's external scaler.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ObjectReader;
use crate::model::keda::convert::login::ClusterLogin;
use crate::model::keda::convert::metric::KafkaMetric;
use crate::model::keda::convert::note::Note;
use crate::model::keda::external_trigger::setting_keys;
use crate::model::settings::Settings;

/// The ClusterTriggerAuthentication with KEDA's client certificate, as the guide names it.
const AUTHENTICATION: &str = "lagwise";

/// Fields that the API server and kubectl add to an object.
const ADDED: [&str; 6] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl ObjectReader<'_> {
    /// The object of `document` with lagwise at `address` as the scaler of its Kafka triggers, and the notes. `label`
    /// has the key `cluster` of a login; `None` if it needs none.
    pub(in crate::model::keda::convert) fn finish_external<'l>(
        mut self,
        document: &Value,
        address: &str,
        label: impl Fn(&ClusterLogin) -> Option<&'l str>,
    ) -> (Option<Value>, Vec<Note>) {
        if self.kafka.is_empty() {
            self.notes.refused(
                "triggers",
                "it has no Kafka trigger that can ask lagwise: leave it as it is",
            );
            return (None, self.notes.sorted());
        }
        self.notes.todo(
            "authenticationRef",
            format!("the triggers need the ClusterTriggerAuthentication {AUTHENTICATION} with KEDA's client certificate"),
        );
        self.notes.differs(
            "triggers",
            "the HPA never asks for more replicas than can have work; with tolerance \"0\" in its behavior (Kubernetes 1.35) it does not stop short of them either",
        );
        let mut object = without_added(document.clone());
        for (metric, login) in &self.kafka {
            let cluster = login.as_ref().and_then(&label);
            let made = trigger(metric, address, cluster);
            let triggers = triggers_of(&mut object);
            let index = metric
                .path
                .trim_start_matches("triggers[")
                .trim_end_matches(']');
            let index = index.parse::<usize>().ok();
            if let Some(place) = index.and_then(|index| triggers?.get_mut(index)) {
                replace(place, made);
            }
        }
        (Some(object), self.notes.sorted())
    }
}

fn triggers_of(object: &mut Value) -> Option<&mut Vec<Value>> {
    object.pointer_mut("/spec/triggers")?.as_array_mut()
}

/// Replaces a trigger; its name stays.
fn replace(place: &mut Value, mut made: Map<String, Value>) {
    if let Some(name) = place.get("name") {
        made.insert("name".to_owned(), name.clone());
    }
    *place = Value::Object(made);
}

/// The trigger of lagwise's external scaler for the same group and topic as a Kafka trigger.
fn trigger(metric: &KafkaMetric, address: &str, cluster: Option<&str>) -> Map<String, Value> {
    let trigger = &metric.trigger;
    let mut metadata: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: String| metadata.insert(key.to_owned(), value);
    set("scalerAddress", address.to_owned());
    set("enableTLS", "true".to_owned());
    set("group", trigger.group.clone().unwrap_or_default());
    set("lagThreshold", trigger.lag_threshold.to_string());
    let activation = trigger.activation_lag_threshold;
    if activation > 0 {
        set("activationLag", activation.to_string());
    }
    if let Some(cluster) = cluster {
        set("cluster", cluster.to_owned());
    }
    let mut topics = trigger.topics.iter();
    let several = match (topics.next(), topics.next()) {
        (Some(only), None) => {
            set("topic", only.to_string());
            None
        }
        (None, _) => None,
        (Some(_), Some(_)) => Some(trigger.topics.clone()),
    };
    let settings = Settings {
        consumer_group: None,
        topics: several,
        ..metric.settings.clone()
    };
    for (key, setting) in setting_keys() {
        if let Some(value) = setting.print(&settings) {
            set(&key, value);
        }
    }
    let reference = json!({"name": AUTHENTICATION, "kind": "ClusterTriggerAuthentication"});
    let parts = [
        ("type", json!("external-push")),
        ("metadata", json!(metadata)),
        ("authenticationRef", reference),
    ];
    parts
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// The object as a person would write it.
fn without_added(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| !ADDED.contains(&key.as_str()));
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_other_tools_is_left_out() {
        let object = json!({
            "kind": "ScaledObject",
            "metadata": {
                "name": "billing", "uid": "7", "resourceVersion": "8", "managedFields": [],
                "annotations": {LAST_APPLIED: "{}"},
            },
            "spec": {"triggers": []},
            "status": {"conditions": []},
        });
        let expected = json!({
            "kind": "ScaledObject", "metadata": {"name": "billing"}, "spec": {"triggers": []},
        });
        assert_eq!(without_added(object), expected);
    }
}
