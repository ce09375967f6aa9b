//! Triggers of type `external` and `external-push` that name lagwise as their scaler. Their metadata is translated into
//! a metric of the HPA that KEDA keeps for the ScaledObject.
//!
//! Metadata has the same settings as annotations, parsed by the same table, with keys in KEDA's spelling:
//! `threads-per-replica` is `threadsPerReplica`. It is untrusted: every user who may write ScaledObjects sets it.

mod metadata;

use std::collections::BTreeMap;

use self::metadata::{TriggerMetadata, check_name, checked, parse_activation, parse_setting};
use super::scaled_object::{hpa_controller, hpa_name};
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::label;
use crate::model::hpa::selector::{Operator, Requirement};
use crate::model::settings::Settings;
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::names;
use crate::model::units::newtypes::Lag;
use crate::model::units::quantity::Milli;

pub use self::metadata::{MAX_METADATA_BYTES, MetadataError, OWN_KEYS, metadata_key, setting_keys};

/// Memory of a trigger besides its text, in bytes.
const OVERHEAD_BYTES: usize = 2 * 1024;

/// One trigger of a ScaledObject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalTrigger {
    /// Name of the ScaledObject.
    pub scaled_object: String,
    /// The HPA that KEDA keeps for it.
    pub hpa: HpaKey,
    /// The metric of lagwise that the trigger requests.
    pub metric: Metric,
    /// The metric that the HPA would have if it used lagwise directly.
    pub external: ExternalMetric,
    /// Lag up to which the trigger is not active.
    pub activation: Lag,
    /// The settings of the metric, as annotations of the HPA.
    annotations: BTreeMap<String, String>,
    /// The group or configured target: the `.NAME` in the keys of these annotations.
    name: String,
    /// The original metadata, for forwarding the request to another replica.
    metadata: BTreeMap<String, String>,
}

impl ExternalTrigger {
    /// Parses the metadata of a trigger of the ScaledObject `name` in `namespace`.
    ///
    /// # Errors
    /// The first mistake, with its key, its value and what to do.
    pub fn parse<'a>(
        namespace: &str,
        name: &str,
        metadata: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, MetadataError> {
        check_name("namespace", namespace, names::namespace)?;
        check_name("ScaledObject", name, names::object)?;
        let mut given = TriggerMetadata::read(metadata)?;
        let metadata = given.to_owned();
        let metric = given.metric()?;
        let (group, topic) = (given.take("group"), given.take("topic"));
        let (cluster, target) = (given.take("cluster"), given.take("target"));
        for (other, value) in [("group", &group), ("topic", &topic), ("cluster", &cluster)] {
            if target.is_some() && value.is_some() {
                let one = "target";
                return Err(MetadataError::Both { one, other });
            }
        }
        let threshold = given.take("lagThreshold");
        let activation = given.take("activationLag");
        let mut settings = Settings::default();
        let mut annotations = given.settings(&mut settings)?;
        for (one, is_set) in [
            ("topicRegex", settings.topic_regex.is_some()),
            ("topic", topic.is_some()),
        ] {
            if is_set && settings.topics.is_some() {
                let other = "topics";
                return Err(MetadataError::Both { one, other });
            }
        }
        let threshold =
            threshold.map(|text| parse_setting("lagThreshold", "lag-per-replica", text));
        let threshold = threshold.transpose()?.and_then(|read| read.lag_per_replica);
        let external_target = match (metric, threshold) {
            (Metric::Lag, Some(lag)) => lag,
            (Metric::DesiredReplicas, Some(lag)) => {
                annotations.insert("lag-per-replica".to_owned(), lag.to_string());
                Milli::ONE
            }
            (Metric::DesiredReplicas, None) if target.is_some() => Milli::ONE,
            (_, None) => {
                return Err(MetadataError::Missing {
                    key: "lagThreshold",
                    remedy: "set it to the messages of lag that one replica may have, such as \"100\"",
                });
            }
        };
        if settings.fallback_after.is_some() && settings.fallback_replicas.is_none() {
            return Err(MetadataError::Missing {
                key: "fallbackReplicas",
                remedy: "set it, or remove fallbackAfter",
            });
        }
        let name_of_group = match (group, target) {
            (Some(group), _) => (
                label::GROUP,
                checked("group", group, names::GROUP, names::group)?,
            ),
            (None, Some(target)) => {
                let allowed = names::LABEL_VALUE;
                let target = checked("target", target, allowed, names::label_value)?;
                (label::TARGET, target)
            }
            (None, None) => {
                return Err(MetadataError::Missing {
                    key: "group",
                    remedy: "set it to the consumer group, or set target to the name of a target of lagwise's configuration",
                });
            }
        };
        let topic = topic.map(|topic| checked("topic", topic, names::TOPIC, names::topic));
        let cluster =
            cluster.map(|name| checked("cluster", name, names::LABEL_VALUE, names::label_value));
        let hpa = HpaKey::new(namespace, hpa_name(name));
        let labels = [
            Some(name_of_group),
            topic.transpose()?.map(|topic| (label::TOPIC, topic)),
            cluster
                .transpose()?
                .map(|cluster| (label::CLUSTER, cluster)),
            // So that another HPA of the namespace may use the same group with another target.
            Some((label::HPA, &*hpa.name)),
        ];
        let labels = labels.into_iter().flatten();
        let labels =
            labels.map(|(key, value)| Requirement::new(key, Operator::In(vec![value.to_owned()])));
        let external = ExternalMetric {
            name: metric.name().to_owned(),
            selector: labels.collect(),
            target: Some(MetricTarget::AverageValue(external_target)),
        };
        let suffix = name_of_group.1;
        let annotation =
            |(key, value): (String, String)| (format!("{PREFIX}{key}.{suffix}"), value);
        Ok(Self {
            scaled_object: name.to_owned(),
            metric,
            activation: parse_activation(activation)?,
            annotations: annotations.into_iter().map(annotation).collect(),
            name: suffix.to_owned(),
            metadata,
            external,
            hpa,
        })
    }

    /// The metadata from which [`parse`](Self::parse) makes this trigger.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let metadata = self.metadata.iter();
        metadata.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Lag per replica, or 1 for the metric of replicas.
    #[must_use]
    pub fn target(&self) -> Milli {
        match self.external.target {
            Some(MetricTarget::AverageValue(target) | MetricTarget::Value(target)) => target,
            None => Milli::ONE,
        }
    }

    /// The controller of the HPA that KEDA keeps, as [`HpaFacts::controller`] has it.
    #[must_use]
    pub fn controller(&self) -> String {
        hpa_controller(&self.scaled_object)
    }

    /// Whether both are versions of the same trigger: they have the same metric of the same group and topic.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        let this = (&self.hpa, &self.scaled_object, &self.external.name);
        let that = (&other.hpa, &other.scaled_object, &other.external.name);
        this == that && self.external.selector == other.external.selector
    }

    /// Whether both are for the same group or configured target, but with different settings.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        self.name == other.name && self.annotations != other.annotations
    }

    /// Approximate memory of the trigger, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.metadata.iter().chain(&self.annotations);
        let texts = texts.map(|(key, value)| key.len().saturating_add(value.len()));
        let text = texts.fold(self.external.selector.text_bytes(), usize::saturating_add);
        text.saturating_add(OVERHEAD_BYTES)
    }

    /// Adds the metric and its settings to an HPA.
    pub(super) fn add_to(&self, facts: &mut HpaFacts) {
        facts.metrics.push(self.external.clone());
        let annotations = self.annotations.iter();
        let annotations = annotations.map(|(key, value)| (key.clone(), value.clone()));
        facts.annotations.extend(annotations);
    }

    /// Whether an HPA has this metric with these settings.
    #[must_use]
    pub fn is_in(&self, facts: &HpaFacts) -> bool {
        let is_of_name = |key: &str| {
            let key = key.strip_prefix(PREFIX).and_then(|key| key.split_once('.'));
            key.is_some_and(|(_, suffix)| suffix == self.name)
        };
        let own = facts.annotations.iter().filter(|(key, _)| is_of_name(key));
        facts.metrics.contains(&self.external) && own.eq(&self.annotations)
    }
}

#[cfg(test)]
mod tests;
