//! An embedded cluster: librdkafka's mock brokers in this process, for the demo and fast tests.
//!
//! They implement only a part of the protocol; tests of Kafka's behaviour use real brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::{ClientKind, ClientSettings, SetupError};
use crate::model::units::newtypes::ClusterName;

/// Mock brokers on loopback ports, stopped when dropped.
pub struct EmbeddedCluster {
    cluster: MockCluster<'static, DefaultProducerContext>,
    name: ClusterName,
}

impl EmbeddedCluster {
    /// Starts a cluster of `brokers` brokers.
    ///
    /// # Errors
    /// The error of librdkafka.
    pub fn start(name: &str, brokers: i32) -> Result<Self, SetupError> {
        let name = ClusterName::from(name);
        match MockCluster::new(brokers) {
            Ok(cluster) => Ok(Self { cluster, name }),
            Err(error) => Err(SetupError {
                cluster: name,
                reason: error.to_string().into(),
            }),
        }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// The error of librdkafka.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), SetupError> {
        let created = self.cluster.create_topic(topic, partitions, 1);
        created.map_err(|error| SetupError {
            cluster: self.name.clone(),
            reason: error.to_string().into(),
        })
    }

    /// Delays every response by `latency`.
    ///
    /// # Errors
    /// The error of librdkafka.
    pub fn set_latency(&self, latency: Duration) -> Result<(), SetupError> {
        const ALL: i32 = -1;
        let set = self.cluster.broker_round_trip_time(ALL, latency);
        set.map_err(|error| SetupError {
            cluster: self.name.clone(),
            reason: error.to_string().into(),
        })
    }

    /// The value for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Settings of a client for this cluster.
    #[must_use]
    pub fn settings(&self) -> ClientSettings {
        ClientSettings {
            name: self.name.clone(),
            properties: BTreeMap::from([("bootstrap.servers".into(), self.bootstrap())]),
            max_groups: 50,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client: ClientKind::Librdkafka,
        }
    }
}
