//! The embedded cluster: librdkafka's mock brokers in this process, for the demo and fast tests.
//!
//! What they answer is a part of the protocol only; how Kafka behaves is proven on a real one.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::{Client, ClientSettings, SetupError};
use crate::model::units::newtypes::ClusterName;

/// Mock brokers on loopback ports, gone when dropped.
pub struct Embedded {
    cluster: MockCluster<'static, DefaultProducerContext>,
    name: ClusterName,
}

impl Embedded {
    /// Starts `brokers` of them.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn start(name: &str, brokers: i32) -> Result<Self, SetupError> {
        let name = ClusterName::from(name);
        match MockCluster::new(brokers) {
            Ok(cluster) => Ok(Self { cluster, name }),
            Err(error) => Err(SetupError {
                cluster: name,
                reason: error.to_string(),
            }),
        }
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), SetupError> {
        let created = self.cluster.create_topic(topic, partitions, 1);
        created.map_err(|error| SetupError {
            cluster: self.name.clone(),
            reason: error.to_string(),
        })
    }

    /// Lets every answer take at least `latency`.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn answer_after(&self, latency: Duration) -> Result<(), SetupError> {
        const ALL: i32 = -1;
        let set = self.cluster.broker_round_trip_time(ALL, latency);
        set.map_err(|error| SetupError {
            cluster: self.name.clone(),
            reason: error.to_string(),
        })
    }

    /// Where its brokers listen.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// What a client needs to know.
    #[must_use]
    pub fn settings(&self) -> ClientSettings {
        ClientSettings {
            name: self.name.clone(),
            properties: BTreeMap::from([("bootstrap.servers".into(), self.bootstrap())]),
            max_groups: 50,
            token: None,
            renew: None,
            client: Client::Librdkafka,
        }
    }
}
