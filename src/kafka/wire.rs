//! The wire client: Kafka's protocol over one pipelined connection per broker, whatever the number
//! of groups.
//!
//! Requests are encoded by `kafka-protocol`, whose codecs are generated from Kafka's message
//! schemas, except the two that name every partition, for which `request_writer` is faster. Responses are decoded
//! straight into columns by a bounded cursor of our own, because the library's decoders allocate whatever count a
//! response claims.
//!
//! `handshake` sets up a connection, `connection` serves it, `broker` maintains one per broker;
//! `cluster` knows partition leaders and group coordinators; `commits`, `share_offsets`, `describe`
//! and `list_offsets` read; `logs` decides which log offsets to read; `sweep` runs all of them in
//! order.

mod address;
mod broker;
mod cluster;
mod commits;
mod connect_pacer;
mod connection;
mod coordinators;
mod cursor;
#[doc(hidden)]
pub mod decoding;
mod describe;
mod discovery_cache;
mod first_bytes;
mod frame;
mod groups;
mod grow;
mod handshake;
mod list_offsets;
mod logs;
mod offset_fetch;
mod options;
mod probe;
mod property_support;
mod request_writer;
mod response_memory;
mod responses;
mod sasl;
mod share_offsets;
mod silence;
mod stats;
mod sweep;
mod tls;
mod topic_names;
mod topics;
mod versions;

use std::sync::Arc;
use std::time::Instant;

use self::broker::ClusterContext;
use self::cluster::WireCluster;
use self::describe::DescriptionCache;
use self::discovery_cache::DiscoveryCache;
use self::options::WireOptions;
use super::group_listing::GroupListing;
use super::health::ConnectionHealth;
use super::log_start_cache::LogStartCache;
use super::login::TokenSettings;
use super::time_lookup::TimeLookups;
use super::topic_growth::GrowError;
use super::topic_listing::ListingCache;
use super::{ClientSettings, GroupList, SetupError};
use crate::model::diagnostics::preflight::kafka::BrokerProbe;
use crate::model::diagnostics::topic_growth::TopicToGrow;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{CertificateExpiry, Observation};
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{ClusterName, Moment, TopicName};
use crate::poller::OffsetSource;

pub use self::property_support::PropertySupport;
pub(super) use self::property_support::check_names;

/// The hosts of `bootstrap.servers`.
pub(super) fn bootstrap_hosts(servers: &str) -> Vec<Arc<str>> {
    let addresses = servers.split(',').filter_map(address::Address::parse);
    addresses.map(|address| address.host).collect()
}

/// The wire client of one Kafka cluster.
pub struct WireClient(Box<WireInner>);

struct WireInner {
    name: ClusterName,
    bootstrap: String,
    cluster: WireCluster,
    discovered: DiscoveryCache,
    descriptions: DescriptionCache,
    starts: LogStartCache,
    past: TimeLookups,
    listing: GroupListing,
    topic_names: ListingCache,
}

impl WireClient {
    /// Sets up the client; does not wait for the cluster.
    ///
    /// # Errors
    /// A property or certificate file that cannot be read.
    pub(super) fn connect(settings: &ClientSettings) -> Result<Self, SetupError> {
        let options = options(settings)?;
        if options.tls.as_ref().is_some_and(|tls| tls.system_roots) {
            tracing::info!(cluster = %settings.name, "ssl.ca.location is not set: verifying brokers against the system's root certificates");
        }
        Ok(Self(Box::new(WireInner {
            bootstrap: settings.bootstrap().to_owned(),
            cluster: WireCluster::new(ClusterContext::new(options)),
            discovered: DiscoveryCache::default(),
            descriptions: DescriptionCache::default(),
            starts: LogStartCache::default(),
            past: TimeLookups::default(),
            listing: GroupListing::default(),
            topic_names: ListingCache::default(),
            name: settings.name.clone(),
        })))
    }

    /// Checks what [`connect`](Self::connect) rejects.
    pub(super) fn check(settings: &ClientSettings) -> Result<(), SetupError> {
        options(settings).map(drop)
    }

    /// Uses new credentials for every new connection; existing connections are closed within
    /// seconds.
    ///
    /// # Errors
    /// A property or certificate file that cannot be read; then nothing changes.
    pub(super) fn reload(&self, settings: &ClientSettings) -> Result<(), SetupError> {
        let options = options(settings)?;
        self.0
            .cluster
            .shared
            .options
            .send_replace(Arc::new(options));
        Ok(())
    }

    /// Connects to each bootstrap server by itself.
    pub(super) async fn probe(&self, deadline: Instant) -> Vec<BrokerProbe> {
        self.0.probe(deadline).await
    }

    /// Reads what growing a topic depends on.
    pub(super) async fn topic_to_grow(
        &self,
        topic: &TopicName,
        deadline: Instant,
    ) -> Result<TopicToGrow, Fault> {
        self.0.topic_to_grow(topic, deadline).await
    }

    /// Adds partitions until the topic has `total`.
    pub(super) async fn grow_topic(
        &self,
        topic: &TopicName,
        total: u32,
        is_dry_run: bool,
        deadline: Instant,
    ) -> Result<(), GrowError> {
        self.0.grow_topic(topic, total, is_dry_run, deadline).await
    }

    /// Why no broker answers, by the connection errors so far.
    pub(super) fn connection_reason(&self) -> Option<String> {
        let fault = self
            .0
            .health()
            .record_silence(&self.0.bootstrap, Moment::now());
        Some(fault.reason.to_string())
    }

    /// Lists all groups.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        self.0.list_groups(deadline).await
    }
}

impl OffsetSource for WireClient {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let observation = self.0.sweep(plan, deadline).await;
        let shared = &self.0.cluster.shared;
        Observation {
            certificates: CertificateExpiry {
                client: shared.options().client_certificate_expires,
                broker: shared.traffic.first_expiry(),
            },
            ..observation
        }
    }
}

/// Parses the properties and reads the files they name.
fn options(settings: &ClientSettings) -> Result<WireOptions, SetupError> {
    let tokens = settings.token.as_ref().and_then(TokenSettings::tokens);
    let options = WireOptions::read(&settings.properties, tokens)
        .map_err(|reason| settings.setup_error(reason))?;
    Ok(WireOptions {
        allowed_hosts: settings.allowed_hosts.clone(),
        ..options
    })
}

impl WireInner {
    fn health(&self) -> &ConnectionHealth {
        &self.cluster.shared.health
    }
}
