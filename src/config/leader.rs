//! `leader`: leader election.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::kubernetes::KubernetesMode;
use super::schema::{duration_schema, serialize_duration};
use super::section::Section;
use crate::model::units::lease::{MAX_LEASE_DURATION, MIN_LEASE_DURATION};
use crate::model::units::names;

const DEFAULT_DURATION: Duration = Duration::from_secs(15);

/// Leader election by a Lease: only the leader reads Kafka, decides and writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct LeaderConfig {
    /// Name of the Lease in lagwise's own namespace (needs get, list, watch and update on it, and create).
    /// Default: `lagwise` in a pod. Outside of a pod, and with `kubernetes.mode: observe`, there is none, and
    /// the daemon assumes to be the only one.
    pub lease: Option<String>,
    /// Host and port at which the other daemons reach the external metrics API of this one. Default: the
    /// address of the pod (variable `POD_IP`), otherwise that of the listener.
    pub address: Option<String>,
    /// How long the Lease is valid without renewal, in whole seconds: 3s to 5m. After a leader has crashed,
    /// it takes up to this time until another one leads.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub duration: Duration,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        Self {
            lease: None,
            address: None,
            duration: DEFAULT_DURATION,
        }
    }
}

impl LeaderConfig {
    pub(super) fn read(mut section: Section<'_>, mode: KubernetesMode) -> Self {
        let lease = section.get("lease").and_then(|field| {
            if mode == KubernetesMode::Observe {
                field.refuse(
                    "kubernetes.mode is observe, and a Lease would be written",
                    "no value; every daemon that observes reads Kafka by itself",
                );
            }
            field.checked(names::OBJECT, |text| names::object(text).map(str::to_owned))
        });
        let address = section.get("address").and_then(|field| {
            field.checked(names::ADDRESS, |text| {
                names::address(text).map(str::to_owned)
            })
        });
        let duration = section
            .get("duration")
            .and_then(|field| field.duration((MIN_LEASE_DURATION, ""), (MAX_LEASE_DURATION, "")));
        section.finish();
        Self {
            lease,
            address,
            // A Lease stores whole seconds.
            duration: Duration::from_secs(duration.unwrap_or(DEFAULT_DURATION).as_secs()),
        }
    }
}
