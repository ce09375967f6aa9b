//! An HPA as read from the Kubernetes API, for explaining its replicas.

use serde::{Deserialize, Serialize};

use crate::model::hpa::controller::HpaSpec;
use crate::model::hpa::controller::outlook::KnownHistory;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts};

/// One HPA: its spec, its scale target, and its status.
#[derive(Clone, Debug)]
pub struct LiveHpa {
    pub facts: HpaFacts,
    /// The spec, as the HPA controller reads it.
    pub spec: HpaSpec,
    /// The metrics, in the order of the spec.
    pub metrics: Vec<LiveMetric>,
    /// Facts about earlier syncs from the status.
    pub past: KnownHistory,
    pub conditions: Vec<Condition>,
    /// `spec.replicas` and `status.replicas` of the scale target, or why they cannot be read.
    pub scale: Result<(u32, u32), String>,
}

/// One metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveMetric {
    /// Type and name, such as `External kafka_lag`.
    pub name: String,
    /// `None` if it is not External.
    pub external: Option<ExternalMetric>,
    /// The last value in the HPA's status, for people.
    pub current: Option<String>,
}

/// One status condition of an HPA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited` or `ScaledToZero`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// In camel case, such as `SucceededRescale`.
    pub reason: String,
    pub message: String,
}

impl Condition {
    /// Whether it keeps the HPA from setting the replicas that its metrics propose.
    #[must_use]
    pub fn blocks(&self) -> bool {
        let is = |status: &str| self.status == status;
        match self.kind.as_str() {
            "AbleToScale" | "ScalingActive" => !is("True"),
            "ScalingLimited" => is("True"),
            _ => false,
        }
    }
}
