//! An HPA as it is at one moment, for those who explain it.

use serde::{Deserialize, Serialize};

use crate::model::hpa::controller::HpaSpec;
use crate::model::hpa::controller::outlook::KnownHistory;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts};

/// One HPA: what it asks for, what it scales, and what its controller says.
#[derive(Clone, Debug)]
pub struct LiveHpa {
    /// What somebody wrote into it.
    pub facts: HpaFacts,
    /// Its spec, as its controller reads it.
    pub spec: HpaSpec,
    /// Its metrics, in the order of the spec.
    pub metrics: Vec<LiveMetric>,
    /// What its status tells of the syncs before.
    pub past: KnownHistory,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What it scales: the replicas that it is to have and those that it has, or why they are not known.
    pub scale: Result<(u32, u32), String>,
}

/// One metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveMetric {
    /// Its type and name, such as `External kafka_lag`.
    pub name: String,
    /// How it is asked for, if it is External.
    pub external: Option<ExternalMetric>,
    /// What its controller last read of it, as its status shows it.
    pub current: Option<String>,
}

/// One condition of an HPA, in its controller's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited` or `ScaledToZero`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Condition {
    /// Whether it keeps the HPA from setting the replicas that its metrics want.
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
