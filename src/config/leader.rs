//! `leader`: which of several daemons decides and writes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::schema::{duration_schema, serialize_duration};
use super::section::Section;
use crate::model::units::names;

const DURATION: Duration = Duration::from_secs(15);
const DURATION_MIN: Duration = Duration::from_secs(3);
const DURATION_MAX: Duration = Duration::from_secs(300);

/// Which of several daemons on one Kubernetes cluster decides and writes: the one that holds a Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct LeaderConfig {
    /// The name of the Lease in lagwise's own namespace (needs get, list, watch and update on it, and
    /// create). Left out: lagwise in a pod; none elsewhere, where a daemon is taken to be the only one.
    pub lease: Option<String>,
    /// Where the other daemons reach the external metrics API of this one while it leads: host and port.
    /// Left out: the pod's address (variable `POD_IP`), else that of the listener.
    pub address: Option<String>,
    /// For how long the Lease holds unless it is renewed, in whole seconds: 3s to 5m. So long at most
    /// nobody leads after a leader died.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub duration: Duration,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        Self {
            lease: None,
            address: None,
            duration: DURATION,
        }
    }
}

impl LeaderConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let lease = section.get("lease").and_then(|field| {
            field.checked(names::CONFIG_MAP, |text| {
                names::config_map(text).map(str::to_owned)
            })
        });
        let address = section.get("address").and_then(|field| {
            field.checked(names::ADDRESS, |text| {
                names::address(text).map(str::to_owned)
            })
        });
        let duration = section
            .get("duration")
            .and_then(|field| field.duration((DURATION_MIN, ""), (DURATION_MAX, "")));
        section.finish();
        Self {
            lease,
            address,
            // The Lease has room for seconds only.
            duration: Duration::from_secs(duration.unwrap_or(DURATION).as_secs()),
        }
    }
}
