//! An HPA as a watch keeps it.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::hpa::facts_of;
use crate::model::hpa::facts::HpaFacts;

/// An HPA of a watch. Of the object only its facts are kept, and these as soon as it is read: a long one takes ten
/// times as much memory as its text, and a page of a listing has several.
#[derive(Clone, Debug)]
pub struct WatchedHpa {
    /// Fields that the watch itself needs.
    metadata: ObjectMeta,
    facts: Arc<HpaFacts>,
}

impl WatchedHpa {
    pub(super) fn take_facts(hpa: impl Into<Self>) -> Arc<HpaFacts> {
        let watched: Self = hpa.into();
        watched.facts
    }
}

impl From<HorizontalPodAutoscaler> for WatchedHpa {
    fn from(hpa: HorizontalPodAutoscaler) -> Self {
        let facts = Arc::new(facts_of(&hpa));
        let metadata = ObjectMeta {
            namespace: hpa.metadata.namespace,
            name: hpa.metadata.name,
            resource_version: hpa.metadata.resource_version,
            ..ObjectMeta::default()
        };
        Self { metadata, facts }
    }
}

impl<'de> Deserialize<'de> for WatchedHpa {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HorizontalPodAutoscaler::deserialize(deserializer).map(Self::from)
    }
}

impl Resource for WatchedHpa {
    type DynamicType = ();
    type Scope = <HorizontalPodAutoscaler as Resource>::Scope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        HorizontalPodAutoscaler::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        HorizontalPodAutoscaler::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        HorizontalPodAutoscaler::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        HorizontalPodAutoscaler::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn little_is_kept_of_a_long_hpa_as_soon_as_it_is_read() {
        let values: Vec<_> = (0..20_000).map(|i| format!("g{i}")).collect();
        let expression = json!({"key": "group", "operator": "In", "values": values});
        let metric = json!({"name": "kafka_lag", "selector": {"matchExpressions": [expression]}});
        let target = json!({"type": "AverageValue", "averageValue": "1"});
        let metric = json!({"type": "External", "external": {"metric": metric, "target": target}});
        let text = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": "shop", "name": "orders", "resourceVersion": "7"},
            "spec": {
                "maxReplicas": 9,
                "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "metrics": [metric],
            },
        })
        .to_string();
        let long: HorizontalPodAutoscaler = serde_json::from_str(&text).unwrap();
        let watched: WatchedHpa = serde_json::from_str(&text).unwrap();
        assert_eq!(*watched.facts, facts_of(&long));
        assert!(watched.facts.too_large.is_some());
        assert_eq!(*watched.meta(), long.metadata);
        assert_eq!(
            WatchedHpa::url_path(&(), Some("shop")),
            HorizontalPodAutoscaler::url_path(&(), Some("shop"))
        );
    }
}
