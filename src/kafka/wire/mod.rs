//! The constant-cost source: Kafka's protocol over one pipelined connection to each broker, whatever
//! the number of groups.
//!
//! Requests are written by `kafka-protocol`, whose codecs come from Kafka's own message schemas.
//! Responses are read by a bounded cursor of our own (the library's decoders believe any count that
//! a response claims), straight into columns. `setup` makes a connection, `connection` works with
//! it, `broker` keeps one to each broker; `cluster` knows who leads and coordinates what; `commits`,
//! `shares`, `describe` and `ends` read, `logs` says which ends, `sweep` puts all in order.

mod address;
mod broker;
mod cluster;
mod commits;
mod connection;
mod coordinators;
mod cursor;
#[doc(hidden)]
pub mod decoding;
mod describe;
mod ends;
mod frame;
mod groups;
mod logs;
mod offset_fetch;
mod options;
mod responses;
#[cfg(test)]
mod responses_tests;
mod sasl;
mod setup;
mod shares;
mod support;
mod sweep;
mod tls;
mod topics;
mod traffic;
mod versions;

use std::sync::Arc;
use std::time::Instant;

pub use self::support::Support;

use self::broker::{Pace, Shared};
use self::cluster::Cluster;
use self::describe::Descriptions;
use self::options::Options;
use self::sweep::Discovered;
use self::traffic::Counters;
use super::health::Health;
use super::past::Past;
use super::starts::Starts;
use super::{GroupList, Settings, SetupError};
use crate::model::observation::{Observation, SweepPlan};
use crate::model::types::ClusterName;
use crate::poller::OffsetSource;

/// One Kafka cluster through our own client.
pub struct Wire(Box<Inner>);

struct Inner {
    name: ClusterName,
    bootstrap: String,
    cluster: Cluster,
    discovered: Discovered,
    descriptions: Descriptions,
    starts: Starts,
    past: Past,
}

impl Wire {
    /// Sets up the client; does not wait for the cluster.
    ///
    /// # Errors
    /// A property that cannot be read, or a file of certificates.
    pub fn connect(settings: Settings) -> Result<Self, SetupError> {
        let refused = |reason| SetupError {
            cluster: settings.name.clone(),
            reason,
        };
        let options = Options::read(&settings.properties).map_err(refused)?;
        if let Some(tls) = &options.tls {
            // Found out now rather than at each connect.
            tls.config().map_err(refused)?;
            if tls.trusts_system_roots() {
                tracing::info!(cluster = %settings.name, "no ssl.ca.location: brokers are checked against the system's roots");
            }
        }
        let bootstrap = settings.properties.get("bootstrap.servers");
        Ok(Self(Box::new(Inner {
            bootstrap: bootstrap.cloned().unwrap_or_default(),
            cluster: Cluster::new(Shared {
                options,
                health: Arc::new(Health::default()),
                pace: Pace::new(),
                traffic: Counters::default(),
            }),
            discovered: Discovered::default(),
            descriptions: Descriptions::default(),
            starts: Starts::default(),
            past: Past::default(),
            name: settings.name,
        })))
    }

    /// The names of all groups.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        self.0.list_groups(deadline).await
    }
}

impl OffsetSource for Wire {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        self.0.sweep(plan, deadline).await
    }
}

impl Inner {
    fn health(&self) -> &Health {
        &self.cluster.shared.health
    }
}
