//! Reads what growing a topic depends on, and adds partitions to it.

use std::time::Instant;

use super::{
    ActiveClient, ClientKind, ClientSettings, KafkaSource, librdkafka, prepare_login, with_client,
};
use crate::blocking_work::do_blocking;
use crate::model::diagnostics::topic_growth::{RecordKeys, TopicToGrow, UnknownKeys};
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// Why partitions were not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowError {
    /// With the message of the broker.
    #[error("the broker refused it with error code {code}: {message}")]
    Refused { code: i16, message: String },
    #[error("{0}")]
    Fault(Fault),
    #[error(
        "only lagwise's own client adds partitions, and this cluster uses librdkafka; run kafka-topics.sh --alter instead"
    )]
    Librdkafka,
}

impl GrowError {
    /// Whether the service or its rights forbid it, rather than that it went wrong.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            GrowError::Refused { .. } | GrowError::Fault(Fault::Code(35))
        )
    }
}

impl KafkaSource {
    /// Reads what growing a topic depends on.
    ///
    /// # Errors
    /// A topic that cannot be read, or a client that cannot do it.
    pub async fn topic_to_grow(
        &self,
        topic: &TopicName,
        deadline: Instant,
    ) -> Result<TopicToGrow, GrowError> {
        match self.0.active().as_ref() {
            ActiveClient::Wire(wire) => {
                let found = wire.topic_to_grow(topic, deadline).await;
                found.map_err(GrowError::Fault)
            }
            ActiveClient::Librdkafka(_) => Err(GrowError::Librdkafka),
        }
    }

    /// Adds partitions until the topic has `total`; a dry run only has the broker check it.
    ///
    /// # Errors
    /// The broker's.
    pub async fn grow_topic(
        &self,
        topic: &TopicName,
        total: u32,
        is_dry_run: bool,
        deadline: Instant,
    ) -> Result<(), GrowError> {
        match self.0.active().as_ref() {
            ActiveClient::Wire(wire) => wire.grow_topic(topic, total, is_dry_run, deadline).await,
            ActiveClient::Librdkafka(_) => Err(GrowError::Librdkafka),
        }
    }

    /// The reason why the cluster does not answer, if it does not.
    #[must_use]
    pub fn connection_reason(&self) -> Option<String> {
        match self.0.active().as_ref() {
            ActiveClient::Wire(wire) => wire.connection_reason(),
            ActiveClient::Librdkafka(_) => None,
        }
    }
}

/// Reads the latest records of some partitions of the topic, to see whether they have keys. Whatever client the cluster
/// has, librdkafka reads them: lagwise's own client reads no records.
pub async fn sample_record_keys(
    settings: ClientSettings,
    topic: TopicName,
    partitions: u32,
    deadline: Instant,
) -> RecordKeys {
    let allowed_hosts = settings.allowed_hosts;
    let settings = ClientSettings {
        client: ClientKind::Librdkafka,
        allowed_hosts: Vec::new(),
        ..settings
    };
    let prepared = with_client(settings).and_then(|settings| prepare_login(settings, None));
    let settings = match prepared {
        // Daemons are refused librdkafka with limited hosts, but the client that samples keeps to them.
        Ok(settings) => ClientSettings {
            allowed_hosts,
            ..settings
        },
        Err(error) => {
            return RecordKeys::Unknown(UnknownKeys::unreadable(error.reason.to_string()));
        }
    };
    do_blocking(move || librdkafka::sample_record_keys(settings, &topic, partitions, deadline))
        .await
}
