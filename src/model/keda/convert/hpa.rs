//! Converts a ScaledObject to an HPA.

mod external;
mod object_notes;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ConvertOptions;
use super::annotations::{fallback, print_metrics, print_settings};
use super::login::{ClusterLogin, LoginReader};
use super::metric::{KafkaMetric, distinguish_groups};
use super::note::{Note, Notes};
use crate::model::keda::manifests::KedaManifests;
use crate::model::keda::scaled_object::{DEFAULT_COOLDOWN_SECONDS, ScaledObject, Trigger};
use crate::model::keda::trigger::{KafkaTrigger, TriggerKind, option_value};
use crate::model::settings::{SettingScope, Settings};
use crate::model::units::quantity::Milli;

/// KEDA's default of `maxReplicaCount`.
pub(super) const DEFAULT_MAX_REPLICAS: u32 = 100;

/// A ScaledObject on its way to an HPA.
#[derive(Debug)]
pub(super) struct ObjectReader<'a> {
    object: &'a ScaledObject,
    namespace: String,
    /// Each Kafka trigger with its login.
    kafka: Vec<(KafkaMetric, Option<ClusterLogin>)>,
    /// Metrics of CPU and memory.
    resources: Vec<Value>,
    tolerance: bool,
    notes: Notes,
}

impl<'a> ObjectReader<'a> {
    /// Reads an object. What differs is in its notes.
    pub(super) fn read(
        (source, object): (&str, &'a ScaledObject),
        manifests: &KedaManifests,
        options: &ConvertOptions,
    ) -> Self {
        let own = object.metadata.namespace.clone();
        let mut reader = Self {
            object,
            namespace: own.unwrap_or_else(|| options.namespace.clone()),
            kafka: Vec::new(),
            resources: Vec::new(),
            tolerance: options
                .kubernetes
                .is_none_or(|version| version.has_tolerance()),
            notes: Notes::default(),
        };
        for (index, trigger) in object.spec.triggers.iter().enumerate() {
            reader.read_trigger(trigger, &format!("triggers[{index}]"), (source, manifests));
        }
        distinguish_groups(reader.kafka.iter_mut().map(|(metric, _)| metric));
        reader
    }

    /// Namespace and name of the object.
    pub(super) fn place(&self) -> (String, String) {
        (self.namespace.clone(), self.object.metadata.name.clone())
    }

    pub(super) fn logins(&self) -> impl Iterator<Item = &ClusterLogin> {
        self.kafka.iter().filter_map(|(_, login)| login.as_ref())
    }

    fn read_trigger(
        &mut self,
        trigger: &Trigger,
        path: &str,
        (source, manifests): (&str, &KedaManifests),
    ) {
        for name in trigger.unknown.keys() {
            self.notes
                .lost(format!("{path}.{name}"), "KEDA has no such field");
        }
        if let Some(kind) = TriggerKind::find(&trigger.trigger_type) {
            if let Some(metric) = KafkaMetric::read(kind, trigger, path, &mut self.notes) {
                let login = LoginReader {
                    trigger,
                    namespace: &self.namespace,
                    manifests,
                    source,
                    path,
                };
                let login = login.read(&mut self.notes);
                if login.is_none() {
                    self.notes.todo(
                        format!("{path}.metadata.bootstrapServers"),
                        "it is missing: add the Kafka cluster to the configuration",
                    );
                }
                self.kafka.push((metric, login));
            }
            return;
        }
        match trigger.trigger_type.as_str() {
            "cpu" | "memory" => self.read_resource(trigger, path),
            "cron" => self.notes.lost(path, "lagwise has no schedules: the replicas follow the lag at all times. For more replicas at fixed times change minReplicas of the HPA, for example by a CronJob"),
            other => self.notes.lost(path, format!("the metric of a trigger {other:?} is KEDA's, which no longer answers once lagwise serves external metrics")),
        }
    }

    fn read_resource(&mut self, trigger: &Trigger, path: &str) {
        let metadata = |key: &str| option_value(&trigger.metadata, key);
        let kind = trigger.metric_type.as_deref().or_else(|| metadata("type"));
        let value = metadata("value").unwrap_or_default();
        let target = match (kind, value.parse::<u32>()) {
            (Some("Utilization"), Ok(percent @ 1..)) => {
                json!({"type": "Utilization", "averageUtilization": percent})
            }
            (Some("AverageValue"), _) if Milli::parse(value).is_some() => {
                json!({"type": "AverageValue", "averageValue": value})
            }
            _ => {
                let text = "KEDA refuses the trigger: it needs metricType Utilization or AverageValue, and a value";
                self.notes.refused(path, text);
                return;
            }
        };
        let name = trigger.trigger_type.as_str();
        self.resources.push(match metadata("containerName") {
            Some(container) => json!({
                "type": "ContainerResource",
                "containerResource": {"name": name, "container": container, "target": target},
            }),
            None => json!({"type": "Resource", "resource": {"name": name, "target": target}}),
        });
    }

    /// The Kafka triggers that can be converted, each with its login.
    pub(super) fn triggers(&self) -> impl Iterator<Item = (&KafkaTrigger, Option<&ClusterLogin>)> {
        let kafka = self.kafka.iter();
        kafka.map(|(metric, login)| (&metric.trigger, login.as_ref()))
    }

    /// The HPA, and the notes. `label` has the label `cluster` of a login; `None` if it needs none.
    pub(super) fn finish<'l>(
        mut self,
        label: impl Fn(&ClusterLogin) -> Option<&'l str>,
    ) -> (Option<Value>, Vec<Note>) {
        if self.kafka.is_empty() {
            self.notes.refused("triggers", "none of them can become a metric of lagwise: leave the object to KEDA, as long as KEDA serves external metrics");
            return (None, self.notes.sorted());
        }
        let spec = &self.object.spec;
        for (field, name) in [
            ("metadata.name", &self.object.metadata.name),
            ("scaleTargetRef.name", &spec.scale_target_ref.name),
        ] {
            if name.is_empty() {
                self.notes.refused(field, "it is missing");
                return (None, self.notes.sorted());
            }
        }
        let whole = self.whole_settings();
        let mut annotations = print_settings(&whole, SettingScope::Hpa, None);
        let fallback = fallback(spec, &mut self.notes);
        for (metric, _) in &mut self.kafka {
            let own = &mut metric.settings;
            (own.fallback_replicas, own.fallback_after) = fallback.unzip();
        }
        let kafka = Vec::from_iter(self.kafka.iter().map(|(metric, _)| metric));
        annotations.extend(print_metrics(&kafka, &mut self.notes));
        let kafka_specs = self.kafka.iter().map(|(metric, login)| {
            let cluster = login.as_ref().and_then(&label);
            metric.spec(cluster)
        });
        let metrics = Vec::from_iter(kafka_specs.chain(self.resources.iter().cloned()));
        let (min, max) = self.bounds();
        let target = &spec.scale_target_ref;
        let behavior = self.behavior();
        let mut body = json!({
            "scaleTargetRef": {
                "apiVersion": target.api_version.as_deref().unwrap_or("apps/v1"),
                "kind": target.kind.as_deref().unwrap_or("Deployment"),
                "name": target.name,
            },
            "minReplicas": min,
            "maxReplicas": max,
            "metrics": metrics,
        });
        if let (Some(behavior), Some(body)) = (behavior, body.as_object_mut()) {
            body.insert("behavior".to_owned(), behavior);
        }
        self.note_object();
        let hpa = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": self.metadata(annotations),
            "spec": body,
        });
        (Some(hpa), self.notes.sorted())
    }

    fn metadata(&mut self, annotations: BTreeMap<String, String>) -> Value {
        let object = &self.object.metadata;
        let mut metadata = Map::new();
        let of_keda = self
            .object
            .spec
            .advanced
            .horizontal_pod_autoscaler_config
            .own_name();
        let name = match of_keda {
            Some(of_keda) if of_keda == object.name => {
                let name = format!("{}-lagwise", object.name);
                self.notes.differs("advanced.horizontalPodAutoscalerConfig.name", format!("the HPA is named {name}, since KEDA deletes {of_keda} with its ScaledObject"));
                name
            }
            Some(of_keda) => {
                self.notes.differs("advanced.horizontalPodAutoscalerConfig.name", format!("the HPA is named as the ScaledObject, since KEDA deletes {of_keda} with its ScaledObject"));
                object.name.clone()
            }
            None => object.name.clone(),
        };
        metadata.insert("name".to_owned(), json!(name));
        if let Some(namespace) = &object.namespace {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let labels = object
            .labels
            .iter()
            .filter(|(key, _)| !key.contains("keda.sh/"));
        let labels = BTreeMap::from_iter(labels);
        if !labels.is_empty() {
            metadata.insert("labels".to_owned(), json!(labels));
        }
        if !annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(annotations));
        }
        Value::Object(metadata)
    }

    fn whole_settings(&mut self) -> Settings {
        let spec = &self.object.spec;
        let activations = self
            .kafka
            .iter()
            .map(|(metric, _)| metric.activation_lag_threshold);
        let activation = activations.max().filter(|most| *most > 0);
        if !self.object.scales_to_zero() {
            let has_cooldown = spec.cooldown_period.is_some();
            for (field, is_set) in [
                ("cooldownPeriod", has_cooldown),
                ("activationLagThreshold", activation.is_some()),
            ] {
                if is_set {
                    let text = "it never applies, since the workload is not scaled to zero";
                    self.notes.unneeded(field, text);
                }
            }
            return Settings::default();
        }
        if let Some(most) = activation {
            self.notes.lost(
                "activationLagThreshold",
                format!(
                    "lagwise starts the workload with the first message, not above a lag of {most}"
                ),
            );
        }
        let cooldown = spec
            .cooldown_period
            .unwrap_or(DEFAULT_COOLDOWN_SECONDS)
            .max(1);
        let settings = Settings {
            scale_to_zero: Some(true),
            cooldown: Some(Duration::from_secs(cooldown.into())),
            ..Settings::default()
        };
        self.notes.todo(
            "minReplicaCount",
            "scale to zero needs scaleToZero.enabled in the values of lagwise's chart",
        );
        if self.object.is_held_above_zero() {
            let annotations = print_settings(&settings, SettingScope::Hpa, None);
            let lines = annotations
                .iter()
                .map(|(key, value)| format!("{key}: {value:?}"));
            let printed = Vec::from_iter(lines).join(" and ");
            self.notes.todo("minReplicaCount", format!("the workload is not scaled to zero while it is paused: annotate the HPA with {printed} to end the pause"));
            return Settings::default();
        }
        settings
    }

    fn bounds(&mut self) -> (u32, u32) {
        let spec = &self.object.spec;
        let min = spec.min_replica_count.unwrap_or(0).max(1);
        let mut max = spec.max_replica_count.unwrap_or(DEFAULT_MAX_REPLICAS);
        if max < min {
            self.notes.differs(
                "maxReplicaCount",
                format!("maxReplicas is {min} instead of {max}, which is less than minReplicas"),
            );
            max = min;
        }
        match self
            .object
            .annotation("paused-replicas")
            .map(str::parse::<u32>)
        {
            Some(Ok(replicas)) if replicas > 0 => {
                self.notes.differs("autoscaling.keda.sh/paused-replicas", format!("minReplicas and maxReplicas are {replicas}: once it is no longer paused, set them to {min} and {max}"));
                (replicas, replicas)
            }
            Some(_) => {
                self.notes.lost("autoscaling.keda.sh/paused-replicas", "an HPA cannot hold this number: scale the workload to zero by hand, and lagwise leaves it there");
                (min, max)
            }
            None => (min, max),
        }
    }

    /// `behavior`, with a tolerance of zero where the object sets none.
    fn behavior(&mut self) -> Option<Value> {
        let config = &self.object.spec.advanced.horizontal_pod_autoscaler_config;
        let mut behavior = config.behavior.clone().unwrap_or_default();
        behavior.retain(|_, rules| !rules.is_null());
        let directions = [
            ("scaleUp", "paused-scale-out"),
            ("scaleDown", "paused-scale-in"),
        ];
        for (direction, annotation) in directions {
            let is_paused = self.object.is_annotated(annotation);
            let rules = behavior.entry(direction).or_insert_with(|| json!({}));
            let Some(rules) = rules.as_object_mut() else {
                continue;
            };
            if is_paused {
                rules.insert("selectPolicy".to_owned(), json!("Disabled"));
                self.notes.differs(format!("autoscaling.keda.sh/{annotation}"), format!("the HPA has behavior.{direction}.selectPolicy: Disabled; remove it to end the pause"));
            }
            if self.tolerance {
                rules.entry("tolerance").or_insert_with(|| json!("0"));
            }
        }
        if !self.tolerance {
            self.notes.differs("advanced.horizontalPodAutoscalerConfig.behavior", "this version of Kubernetes has no tolerance in an HPA's behavior, so that the HPA may stop a tenth short of the replicas that the lag is worth, as with KEDA");
        }
        behavior.retain(|_, rules| rules.as_object().is_none_or(|rules| !rules.is_empty()));
        (!behavior.is_empty()).then_some(Value::Object(behavior))
    }
}
