//! Asking Kafka. The only place that knows its protocol and its client libraries.
//!
//! [`Source`] is one Kafka cluster as an [`OffsetSource`]; which client is behind it is nobody
//! else's concern. There are two: [`wire`], at one connection per broker whatever the number of
//! groups, and [`librdkafka`], for any login and any broker, at a client per group.

mod codes;
pub mod embedded;
mod health;
mod heard;
pub mod librdkafka;
mod past;
mod starts;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Instant;

use self::wire::Support;
use crate::model::fault::ConnectionFault;
use crate::model::observation::{Observation, SweepPlan};
use crate::model::types::{ClusterName, GroupId};
use crate::poller::OffsetSource;

/// What a client needs to know of a cluster.
#[derive(Clone)]
pub struct Settings {
    /// Its configured name.
    pub name: ClusterName,
    /// librdkafka properties, secrets resolved. Never logged, hence no `Debug`.
    pub properties: BTreeMap<String, String>,
    /// The most groups that are read at once.
    pub max_groups: usize,
    /// Which client asks.
    pub client: Client,
}

/// Which client asks a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The wire client where it supports the properties, else librdkafka.
    #[default]
    Auto,
    /// The wire client: a connection to each broker, whatever the number of groups.
    Wire,
    /// librdkafka: every login it knows, old brokers too, at a client for each group.
    Librdkafka,
}

/// Why a client could not be set up, without the values of its properties.
#[derive(Debug, thiserror::Error)]
#[error("cluster {cluster:?}: {reason}")]
pub struct SetupError {
    /// The cluster.
    pub cluster: ClusterName,
    /// What the client refuses, naming the property.
    pub reason: String,
}

/// One Kafka cluster.
pub enum Source {
    /// By librdkafka.
    Librdkafka(librdkafka::Librdkafka),
    /// By our own client.
    Wire(wire::Wire),
}

impl Source {
    /// Sets up the client. Does not wait for the cluster, which may be unreachable for long.
    ///
    /// # Errors
    /// A property that the client refuses.
    pub fn connect(settings: Settings) -> Result<Self, SetupError> {
        match (settings.client, Support::of(&settings.properties)) {
            (Client::Auto | Client::Wire, Support::Wire) => {
                wire::Wire::connect(settings).map(Self::Wire)
            }
            (Client::Wire, Support::Librdkafka(reasons)) => Err(SetupError {
                cluster: settings.name,
                reason: format!(
                    "client: wire does not support {}; auto and librdkafka do",
                    reasons.join(", ")
                ),
            }),
            (Client::Auto, Support::Librdkafka(reasons)) => {
                let because = reasons.join(", ");
                tracing::info!(cluster = %settings.name, because, "read by librdkafka");
                librdkafka::Librdkafka::connect(settings).map(Self::Librdkafka)
            }
            (Client::Librdkafka, _) => {
                librdkafka::Librdkafka::connect(settings).map(Self::Librdkafka)
            }
        }
    }

    /// The names of all the cluster's groups, as far as brokers tell by `deadline`.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        match self {
            Self::Librdkafka(source) => source.list_groups(deadline).await,
            Self::Wire(source) => source.list_groups(deadline).await,
        }
    }
}

impl OffsetSource for Source {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        match self {
            Self::Librdkafka(source) => source.observe(plan, deadline).await,
            Self::Wire(source) => source.observe(plan, deadline).await,
        }
    }
}

/// The groups of a cluster.
#[derive(Clone, Debug)]
pub struct GroupList {
    /// Their names, sorted.
    pub groups: Vec<GroupId>,
    /// What is missing from them and why, in words; empty where every broker answered.
    pub faults: Vec<String>,
    /// What keeps the cluster from answering, where something does.
    pub connection: Option<ConnectionFault>,
}

/// The version of librdkafka that this binary carries.
#[must_use]
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
