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
mod frame;
mod groups;
mod handshake;
mod list_offsets;
mod logs;
mod offset_fetch;
mod options;
mod property_support;
mod responses;
mod sasl;
mod share_offsets;
mod stats;
mod sweep;
mod tls;
mod topics;
mod versions;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use self::broker::{BrokerState, Pace};
use self::cluster::Cluster;
use self::describe::Descriptions;
use self::options::WireOptions;
use self::stats::Counters;
use self::sweep::Discovered;
use super::health::Health;
use super::log_start_cache::LogStartCache;
use super::login::TokenSettings;
use super::time_lookup::TimeLookup;
use super::{ClientSettings, GroupList, SetupError};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::ClusterName;
use crate::poller::OffsetSource;

pub use self::property_support::Support;

/// One Kafka cluster through our own client.
pub struct Wire(Box<Inner>);

struct Inner {
    name: ClusterName,
    bootstrap: String,
    cluster: Cluster,
    discovered: Discovered,
    descriptions: Descriptions,
    starts: LogStartCache,
    past: TimeLookup,
}

impl Wire {
    /// Sets up the client; does not wait for the cluster.
    ///
    /// # Errors
    /// A property that cannot be read, or a file of certificates.
    pub(super) fn connect(settings: &ClientSettings) -> Result<Self, SetupError> {
        let options = options(settings)?;
        if options.tls.as_ref().is_some_and(|tls| tls.system_roots) {
            tracing::info!(cluster = %settings.name, "no ssl.ca.location: brokers are checked against the system's roots");
        }
        Ok(Self(Box::new(Inner {
            bootstrap: settings.bootstrap().to_owned(),
            cluster: Cluster::new(BrokerState {
                options: watch::Sender::new(Arc::new(options)),
                health: Arc::new(Health::default()),
                pace: Pace::new(),
                traffic: Counters::default(),
            }),
            discovered: Discovered::default(),
            descriptions: Descriptions::default(),
            starts: LogStartCache::default(),
            past: TimeLookup::default(),
            name: settings.name.clone(),
        })))
    }

    /// Has every connection from now on log in by these; those that there are end before long.
    ///
    /// # Errors
    /// A property that cannot be read, or a file of certificates: then nothing has changed.
    pub(super) fn renew(&self, settings: &ClientSettings) -> Result<(), SetupError> {
        let options = options(settings)?;
        self.0
            .cluster
            .shared
            .options
            .send_replace(Arc::new(options));
        Ok(())
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

/// Reads the properties, and the files that they name.
fn options(settings: &ClientSettings) -> Result<WireOptions, SetupError> {
    let tokens = settings.token.as_ref().and_then(TokenSettings::tokens);
    WireOptions::read(&settings.properties, tokens).map_err(|reason| settings.refused(reason))
}

impl Inner {
    fn health(&self) -> &Health {
        &self.cluster.shared.health
    }
}
