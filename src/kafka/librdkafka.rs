//! The librdkafka client: supports every login that librdkafka knows, every broker, and its
//! embedded mock cluster, at the price of one client per group.
//!
//! Committed offsets are read by one consumer per group that never subscribes, because librdkafka's
//! call for many groups at once crashes the process when a coordinator moves
//! (<https://github.com/confluentinc/librdkafka/issues/5040>). Log offsets come from `ListOffsets`,
//! in chunks by leader. The calls block, so a sweep runs on a blocking thread; another thread
//! serves the clients' callbacks.

mod client;
mod faults;
mod ffi;
mod groups;
pub(super) mod kerberos;
mod logs;
mod record_keys;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use self::client::OffsetConsumer;
use self::faults::fault_of;
use self::groups::GroupClients;
use self::logs::LogReader;
use self::topics::TopicCache;
use super::client_certificate::client_certificate;
use super::health::ConnectionHealth;
use super::reachability::{
    Reachability, classify_answers, lacks_connection, unreachable_observation,
};
use super::{ClientSettings, GroupList, SettingError, SetupError};
use crate::blocking_work::do_blocking;
use crate::model::diagnostics::topic_growth::{RecordKeys, UnknownKeys};
use crate::model::kafka::observation::{CertificateExpiry, Observation};
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{GroupId, Moment, TopicName};
use crate::poller::OffsetSource;

/// The librdkafka client of one Kafka cluster.
pub struct LibrdkafkaClient(Arc<LibrdkafkaInner>);

struct LibrdkafkaInner {
    settings: ClientSettings,
    health: Arc<ConnectionHealth>,
    client: OffsetConsumer,
    groups: GroupClients,
    topics: TopicCache,
    logs: LogReader,
    /// When lagwise's own certificate expires.
    client_certificate_expires: Option<SystemTime>,
}

impl LibrdkafkaClient {
    /// Sets up the clients; does not wait for the cluster.
    ///
    /// # Errors
    /// A property that librdkafka rejects, or SASL extensions with a token.
    pub(super) fn connect(settings: ClientSettings) -> Result<Self, SetupError> {
        if client::trusts_system_roots(&settings) {
            tracing::info!(cluster = %settings.name, "ssl.ca.location is not set: verifying brokers against the system's root certificates");
        }
        check_extensions(&settings)?;
        let health = Arc::new(ConnectionHealth::default());
        let inner = Arc::new(LibrdkafkaInner {
            client: client::client(&settings, &health, None)?,
            groups: GroupClients::default(),
            topics: TopicCache::default(),
            logs: LogReader::default(),
            client_certificate_expires: client_certificate(&settings.properties)
                .map(|own| own.expires),
            health,
            settings,
        });
        let served = Arc::downgrade(&inner);
        let name = format!("kafka-{}", inner.settings.name);
        let spawned = thread::Builder::new()
            .name(name)
            .spawn(move || serve_callbacks(&served));
        spawned.map_err(|error| SetupError {
            cluster: inner.settings.name.clone(),
            reason: format!("cannot start a thread for librdkafka's callbacks: {error}").into(),
        })?;
        Ok(Self(inner))
    }

    /// Checks what [`connect`](Self::connect) rejects, without connecting.
    pub(super) fn check(settings: &ClientSettings) -> Result<(), SetupError> {
        check_extensions(settings)?;
        client::check(settings)
    }

    /// Lists all groups.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        self.blocking(move |inner| inner.list_groups(deadline))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LibrdkafkaInner) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(&self.0);
        do_blocking(move || work(&inner)).await
    }
}

impl OffsetSource for LibrdkafkaClient {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let observation = self
            .blocking(move |inner| inner.sweep(plan, deadline))
            .await;
        Observation {
            certificates: CertificateExpiry {
                client: self.0.client_certificate_expires,
                broker: None,
            },
            ..observation
        }
    }
}

/// Reads the latest records of some partitions of a topic, to see whether they have keys. Blocks until the deadline at
/// most.
pub(super) fn sample_record_keys(
    settings: ClientSettings,
    topic: &TopicName,
    partitions: u32,
    deadline: Instant,
) -> RecordKeys {
    match check_extensions(&settings) {
        Ok(()) => record_keys::sample(settings, topic, partitions, deadline),
        Err(error) => RecordKeys::Unknown(UnknownKeys::unreadable(error.reason.to_string())),
    }
}

fn check_extensions(settings: &ClientSettings) -> Result<(), SetupError> {
    let token = settings.token.as_ref();
    if token.is_none_or(|token| token.extensions.is_empty()) {
        return Ok(());
    }
    let problem =
        "librdkafka does not support SASL extensions with a token; set client: wire or auto";
    Err(settings.setup_error(SettingError::key("client", problem)))
}

/// librdkafka runs callbacks (errors, logs) inside `poll`, so every client must be polled.
fn serve_callbacks(inner: &Weak<LibrdkafkaInner>) {
    while let Some(inner) = inner.upgrade() {
        let _ = inner.client.poll(Duration::from_millis(100));
        inner.groups.serve_callbacks();
    }
}

impl LibrdkafkaInner {
    fn sweep(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let started = Moment::now();
        // Deadlines as shares of the budget: metadata by 2/5, commits by 3/5. A step that ends
        // early leaves its time to the later ones.
        let budget = deadline.saturating_duration_since(started.monotonic);
        let by = |fifths: u32| started.monotonic + budget / 5 * fifths;
        let named: BTreeSet<&TopicName> = plan
            .groups
            .iter()
            .flat_map(|group| &*group.topics)
            .collect();
        let (known, is_new) = match self.topics.current(&self.client, &named, by(2)) {
            Ok(known) => known,
            Err(fault) => {
                let connection = self.health.record_silence(self.bootstrap(), Moment::now());
                let name = self.settings.name.clone();
                let brokers = self.health.unreachable_brokers(Instant::now(), None);
                return unreachable_observation(name, plan, started, fault, connection, brokers);
            }
        };
        let groups = self
            .groups
            .read_all(plan, &known, &self.settings, &self.health, by(3));
        let (topics, moved) = self
            .logs
            .read(&self.client, &known, &groups, &started, deadline);
        if moved {
            self.topics.invalidate();
        }
        let is_silent = match classify_answers(&groups) {
            Reachability::NotAsked if !is_new => None,
            Reachability::NoAnswer if !is_new => {
                // No broker answered, and the metadata came from the cache: either a coordinator is down, or the whole
                // cluster. New metadata shows which.
                self.topics.invalidate();
                let refetched = self
                    .topics
                    .current(&self.client, &BTreeSet::new(), deadline);
                Some(refetched.is_err())
            }
            _ => Some(false),
        };
        let connection = self.health.record_sweep(is_silent, self.bootstrap());
        if !lacks_connection(&groups, &topics) {
            // librdkafka does not report that a broker answers again.
            self.health.forget_brokers();
        }
        Observation {
            cluster: self.settings.name.clone(),
            started,
            finished: Moment::now(),
            topics,
            groups,
            connection,
            unreachable_brokers: self.health.unreachable_brokers(Instant::now(), None),
            traffic: None,
            listings: BTreeMap::new(),
            // Only for groups that are known to have no members, which this client does not report.
            group_names: None,
            certificates: CertificateExpiry::default(),
        }
    }

    fn bootstrap(&self) -> &str {
        self.settings
            .properties
            .get("bootstrap.servers")
            .map_or("the cluster", String::as_str)
    }

    fn list_groups(&self, deadline: Instant) -> GroupList {
        let (names, codes) = ffi::list_groups(&self.client, deadline);
        let mut groups: Vec<_> = names.into_iter().map(GroupId::from).collect();
        groups.sort();
        groups.dedup();
        let faults: Vec<_> = codes.into_iter().map(fault_of).collect();
        let silent = groups.is_empty() && faults.iter().any(|fault| fault.is_connection());
        GroupList {
            groups,
            connection: silent.then(|| self.health.record_silence(self.bootstrap(), Moment::now())),
            faults,
        }
    }
}
