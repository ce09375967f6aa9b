//! The fields of KEDA's objects that lagwise reads.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::trigger::parse_flag;

/// Fields that lagwise does not know.
pub type UnknownFields = BTreeMap<String, Value>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ObjectMetadata {
    pub name: String,
    pub namespace: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScaledObject {
    pub metadata: ObjectMetadata,
    pub spec: ScaledObjectSpec,
}

/// The HPA that KEDA keeps for a ScaledObject that does not name it.
#[must_use]
pub fn hpa_name(scaled_object: &str) -> String {
    format!("keda-hpa-{scaled_object}")
}

/// The controller of that HPA, as [`HpaFacts::controller`](crate::model::hpa::facts::HpaFacts::controller) has it.
#[must_use]
pub fn hpa_controller(scaled_object: &str) -> String {
    format!("ScaledObject/{scaled_object}")
}

/// The name in place of an HPA for a ScaledJob, which has none. No HPA can have this name.
#[must_use]
pub fn job_hpa_name(scaled_job: &str) -> String {
    format!("ScaledJob/{scaled_job}")
}

impl ScaledObject {
    /// The value of an annotation `autoscaling.keda.sh/NAME`.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let key = format!("autoscaling.keda.sh/{name}");
        self.metadata.annotations.get(&key).map(String::as_str)
    }

    /// Whether an annotation `autoscaling.keda.sh/NAME` is set, by KEDA's rules.
    #[must_use]
    pub fn is_annotated(&self, name: &str) -> bool {
        self.annotation(name)
            .is_some_and(|value| parse_flag(value) != Some(false))
    }

    /// Whether KEDA scales the workload to zero while the object is not paused.
    #[must_use]
    pub fn scales_to_zero(&self) -> bool {
        let is_zero = match self.spec.idle_replica_count {
            Some(idle) => idle == 0,
            None => self.spec.min_replica_count.unwrap_or(0) == 0,
        };
        is_zero && !self.is_annotated("force-activation")
    }

    /// Whether the object is paused so that KEDA does not scale the workload to zero.
    #[must_use]
    pub fn is_held_above_zero(&self) -> bool {
        let is_above_zero = |text: &str| text.parse::<u32>().is_ok_and(|replicas| replicas > 0);
        self.annotation("paused-replicas")
            .is_some_and(is_above_zero)
            || self.is_annotated("paused-scale-in")
    }
}

/// KEDA's default of `cooldownPeriod`, in seconds.
pub(super) const DEFAULT_COOLDOWN_SECONDS: u32 = 300;

/// `spec` of a ScaledObject.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScaledObjectSpec {
    pub scale_target_ref: TargetRef,
    pub polling_interval: Option<u32>,
    pub cooldown_period: Option<u32>,
    pub initial_cooldown_period: Option<u32>,
    pub idle_replica_count: Option<u32>,
    pub min_replica_count: Option<u32>,
    pub max_replica_count: Option<u32>,
    pub fallback: Option<KedaFallback>,
    #[serde(deserialize_with = "or_default")]
    pub advanced: Advanced,
    #[serde(deserialize_with = "or_default")]
    pub triggers: Vec<Trigger>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `spec.scaleTargetRef`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub env_source_container_name: Option<String>,
}

/// `spec.fallback`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KedaFallback {
    pub failure_threshold: u32,
    pub replicas: u32,
    pub behavior: Option<String>,
}

/// `spec.advanced`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Advanced {
    #[serde(deserialize_with = "or_default")]
    pub restore_to_original_replica_count: bool,
    #[serde(deserialize_with = "or_default")]
    pub horizontal_pod_autoscaler_config: HpaConfig,
    pub scaling_modifiers: Option<Value>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `spec.advanced.horizontalPodAutoscalerConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HpaConfig {
    pub name: Option<String>,
    pub behavior: Option<serde_json::Map<String, Value>>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl HpaConfig {
    /// The name of the HPA; `None` if KEDA chooses it.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }
}

/// One trigger.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Trigger {
    #[serde(rename = "type")]
    pub trigger_type: String,
    pub name: Option<String>,
    pub metric_type: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub use_cached_metrics: bool,
    pub authentication_ref: Option<AuthenticationRef>,
    #[serde(deserialize_with = "texts")]
    pub metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// `authenticationRef` of a trigger.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthenticationRef {
    pub name: String,
    pub kind: Option<String>,
}

/// A TriggerAuthentication or ClusterTriggerAuthentication.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TriggerAuthentication {
    pub metadata: ObjectMetadata,
    pub spec: AuthenticationSpec,
}

/// `spec` of a TriggerAuthentication.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthenticationSpec {
    #[serde(deserialize_with = "or_default")]
    pub secret_target_ref: Vec<KeyRef>,
    #[serde(deserialize_with = "or_default")]
    pub config_map_target_ref: Vec<KeyRef>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<EnvRef>,
    pub pod_identity: Option<PodIdentity>,
    /// Other sources of parameters, such as hashiCorpVault.
    #[serde(flatten)]
    pub others: UnknownFields,
}

/// A parameter in a key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    pub parameter: String,
    pub name: String,
    pub key: String,
}

/// A parameter in an environment variable of the scaled container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EnvRef {
    pub parameter: String,
    pub name: String,
}

/// `spec.podIdentity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodIdentity {
    pub provider: String,
    pub role_arn: Option<String>,
}

/// Reads a value that may be null, as in Kubernetes.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a map of texts. People also write numbers and flags there, which Kubernetes refuses.
fn texts<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let values: BTreeMap<String, Value> = or_default(deserializer)?;
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => Some((key, text)),
        Value::Bool(_) | Value::Number(_) => Some((key, value.to_string())),
        _ => None,
    };
    Ok(values.into_iter().filter_map(text).collect())
}
