//! A Kafka trigger as a metric of the HPA and the settings that belong to it.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::UniqueNames;
use super::note::Notes;
use crate::model::hpa::label;
use crate::model::keda::scaled_object::Trigger;
use crate::model::keda::trigger::{KafkaTrigger, TriggerKind, key, option_value};
use crate::model::keda::version::KedaVersion;
use crate::model::settings::{By, Settings};
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::names;
use crate::model::units::newtypes::{GroupId, OffsetReset, TopicName};
use crate::model::units::partition_filter::PartitionFilter;

/// A Kafka trigger, converted.
#[derive(Clone, Debug)]
pub(super) struct KafkaMetric {
    /// Path of the trigger, such as `triggers[0]`.
    pub(super) path: String,
    /// Value of the label `group`.
    pub(super) group_label: String,
    /// The topics that labels can name.
    topic_labels: Vec<String>,
    lag_threshold: u64,
    /// Settings of the metric.
    pub(super) settings: Settings,
    pub(super) activation_lag_threshold: u64,
    /// What KEDA reads of the trigger.
    pub(super) trigger: KafkaTrigger,
}

impl KafkaMetric {
    /// Converts a trigger; `None` if it is refused, with the reasons in the notes.
    pub(super) fn read(
        kind: TriggerKind,
        trigger: &Trigger,
        path: &str,
        notes: &mut Notes,
    ) -> Option<Self> {
        let field = |key: &str| format!("{path}.metadata.{key}");
        let parsed = match KafkaTrigger::parse(kind, &trigger.metadata, KedaVersion::NEWEST) {
            Ok(parsed) => parsed,
            Err(problems) => {
                for problem in problems {
                    let text = format!("KEDA refuses the trigger: {}", problem.problem);
                    notes.refused(field(problem.key), text);
                }
                return None;
            }
        };
        for name in [key::CONSUMER_GROUP, key::TOPIC] {
            let from_env = format!("{name}FromEnv");
            let is_set = |key: &str| option_value(&trigger.metadata, key).is_some();
            if is_set(&from_env) && !is_set(name) {
                notes.refused(field(&from_env), format!("KEDA reads it from the environment of the scaled container: write its value as {name}"));
                return None;
            }
        }
        let Some(group) = parsed.group.clone() else {
            notes.refused(
                field(key::CONSUMER_GROUP),
                "KEDA refuses the trigger: it is required",
            );
            return None;
        };
        let mut metric = Self {
            path: path.to_owned(),
            group_label: label_of(&group),
            topic_labels: Vec::new(),
            lag_threshold: parsed.lag_threshold,
            settings: Settings::default(),
            activation_lag_threshold: parsed.activation_lag_threshold,
            trigger: parsed.clone(),
        };
        if metric.group_label != group {
            metric.settings.consumer_group = Some(GroupId::from(group));
        }
        metric.set_topics(&parsed, path, notes)?;
        metric.set_options(&parsed, trigger, path, notes);
        note_trigger(kind, trigger, path, notes);
        Some(metric)
    }

    fn set_topics(&mut self, parsed: &KafkaTrigger, path: &str, notes: &mut Notes) -> Option<()> {
        let field = format!("{path}.metadata.{}", key::TOPIC);
        for topic in &parsed.topics {
            if let Err(problem) = names::topic(topic.as_str()) {
                notes.refused(
                    field,
                    format!("{:?} is not a topic: {problem}", topic.as_str()),
                );
                return None;
            }
        }
        let is_label = |topic: &TopicName| names::label_value(topic.as_str()).is_ok();
        if parsed.topics.iter().all(is_label) {
            self.topic_labels = parsed
                .topics
                .iter()
                .map(|t| t.as_str().to_owned())
                .collect();
        } else {
            self.settings.topics = Some(parsed.topics.clone());
        }
        match (parsed.kind, parsed.topics.len()) {
            (TriggerKind::Kafka, 0) => notes.differs(field, "without a topic KEDA counts the topics on which the group has committed, lagwise those that its members subscribe to"),
            (TriggerKind::ApacheKafka, 0) => notes.differs(field, "without a topic KEDA counts every topic of the Kafka cluster, lagwise those that the members of the group subscribe to"),
            (_, 1) => {}
            _ => notes.differs(field, "for several topics KEDA limits the replicas to the sum of their partitions, lagwise to what the group's assignor can use"),
        }
        Some(())
    }

    fn set_options(
        &mut self,
        parsed: &KafkaTrigger,
        trigger: &Trigger,
        path: &str,
        notes: &mut Notes,
    ) {
        let field = |key: &str| format!("{path}.metadata.{key}");
        let settings = &mut self.settings;
        if trigger.metadata.contains_key(key::OFFSET_RESET_POLICY) {
            settings.offset_reset = Some(parsed.offset_reset);
        }
        if parsed.offset_reset == OffsetReset::Earliest {
            notes.differs(field(key::OFFSET_RESET_POLICY), "for a partition without a commit KEDA counts from offset 0, lagwise from the start of the log");
        }
        if parsed.allow_idle_consumers {
            notes.lost(field(key::ALLOW_IDLE_CONSUMERS), "lagwise never asks for more replicas than can have work, unless cap.clamp is false for all HPAs");
        }
        if parsed.limit_to_partitions_with_lag {
            settings.by = Some(By::Lagging);
        }
        if parsed.even {
            settings.even = Some(true);
            notes.differs(field(key::EVEN_DISTRIBUTION), "KEDA uses the divisors of the number of partitions, lagwise also numbers in between that share them evenly, such as 3 and 4 of 7");
        }
        if parsed.exclude_persistent_lag {
            settings.stuck_counts = Some(false);
            notes.differs(field(key::EXCLUDE_PERSISTENT_LAG), "KEDA leaves a partition out as soon as two readings find the same commit, lagwise once its commit has not moved for lagwise.dev/stuck-after (5m) while others progress");
        }
        let text = option_value(&trigger.metadata, key::PARTITION_LIMITATION);
        match (&parsed.partitions, text) {
            (Some(partitions), _) => match PartitionFilter::parse(&partitions.ranges()) {
                Ok(filter) => settings.partitions = Some(filter),
                Err(problem) => notes.lost(
                    field(key::PARTITION_LIMITATION),
                    format!("all partitions count: {problem}"),
                ),
            },
            (None, Some(_)) => {
                notes.unneeded(
                    field(key::PARTITION_LIMITATION),
                    "KEDA ignores it here, and lagwise counts all partitions, too",
                );
            }
            (None, None) => {}
        }
        if parsed.scale_to_zero_on_invalid_offset {
            notes.lost(
                field(key::SCALE_TO_ZERO_ON_INVALID_OFFSET),
                "a group that has never committed keeps one replica, so that it can start",
            );
        }
        let field = format!("{path}.metricType");
        match trigger.metric_type.as_deref() {
            None | Some("" | "AverageValue") => {}
            Some("Value") => notes.differs(field, "with Value the HPA multiplies by its ready pods at every sync, which is wrong for lag: the HPA has AverageValue"),
            Some(other) => notes.lost(field, format!("KEDA refuses {other:?} for a Kafka trigger: the HPA has AverageValue")),
        }
    }

    /// The metric in the HPA's spec; `cluster` is the label, if several clusters are configured.
    pub(super) fn spec(&self, cluster: Option<&str>) -> Value {
        let mut labels = Map::new();
        labels.insert(label::GROUP.to_owned(), json!(self.group_label));
        if let Some(cluster) = cluster {
            labels.insert(label::CLUSTER.to_owned(), json!(cluster));
        }
        let mut selector = Map::new();
        match self.topic_labels.as_slice() {
            [] => {}
            [topic] => {
                labels.insert(label::TOPIC.to_owned(), json!(topic));
            }
            several => {
                let expression = json!({"key": label::TOPIC, "operator": "In", "values": several});
                selector.insert("matchExpressions".to_owned(), json!([expression]));
            }
        }
        selector.insert("matchLabels".to_owned(), Value::Object(labels));
        json!({
            "type": "External",
            "external": {
                "metric": {"name": LAG_METRIC, "selector": selector},
                "target": {"type": "AverageValue", "averageValue": self.lag_threshold.to_string()},
            },
        })
    }
}

/// Notes on options of a trigger that have nothing to do with its value.
fn note_trigger(kind: TriggerKind, trigger: &Trigger, path: &str, notes: &mut Notes) {
    let field = |key: &str| format!("{path}.metadata.{key}");
    let has = |key: &str| trigger.metadata.contains_key(key);
    if has(key::VERSION) {
        notes.unneeded(
            field(key::VERSION),
            "lagwise asks each broker for the versions that it supports",
        );
    }
    if has(key::FULL_METADATA) {
        notes.unneeded(
            field(key::FULL_METADATA),
            "lagwise only asks for the topics in use",
        );
    }
    if trigger.use_cached_metrics {
        notes.unneeded(
            format!("{path}.useCachedMetrics"),
            "lagwise answers every request from memory",
        );
    }
    for name in trigger.metadata.keys() {
        let is_known = match name.strip_suffix("FromEnv") {
            Some(option) => key::FROM_ENV.contains(&option),
            None => key::ALL.contains(&name.as_str()),
        };
        if !is_known {
            notes.lost(
                field(name),
                format!(
                    "{:?} is not an option of KEDA's trigger {}",
                    name,
                    kind.name()
                ),
            );
        }
    }
}

/// Gives each group of an HPA a distinct label, since annotations with `.NAME` apply to all metrics with this label.
/// Names that are label values stay as they are; those made by [`label_of`] get a number where they are taken.
pub(super) fn distinguish_groups<'a>(metrics: impl Iterator<Item = &'a mut KafkaMetric>) {
    let (made, own): (Vec<_>, Vec<_>) =
        metrics.partition(|metric| metric.settings.consumer_group.is_some());
    let mut labels = UniqueNames {
        taken: own
            .iter()
            .map(|metric| metric.group_label.clone())
            .collect(),
        ..UniqueNames::default()
    };
    let mut by_group = HashMap::new();
    for metric in made {
        if let Some(group) = metric.settings.consumer_group.clone() {
            let label = by_group
                .entry(group)
                .or_insert_with(|| labels.take(&metric.group_label));
            metric.group_label.clone_from(label);
        }
    }
}

/// A label value for a group: its own name, or one derived from it.
fn label_of(group: &str) -> String {
    if names::label_value(group).is_ok() {
        return group.to_owned();
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = group
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    let is_end = |c: char| !c.is_ascii_alphanumeric();
    let short: String = plain.trim_matches(is_end).chars().take(40).collect();
    match short.trim_end_matches(is_end) {
        "" => "group".to_owned(),
        label => label.to_owned(),
    }
}
