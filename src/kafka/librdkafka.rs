//! The portable source: any login that librdkafka knows, any broker, and its embedded mock
//! cluster; at the price of one client for each group.
//!
//! Committed offsets come from a consumer per group that never subscribes, since librdkafka's call
//! for many groups at once crashes the process when a coordinator moves
//! (<https://github.com/confluentinc/librdkafka/issues/5040>). Log offsets come from `ListOffsets`,
//! in chunks by leader. Calls block, so a sweep runs on a thread of its own; a further thread
//! serves the clients' callbacks.

mod client;
mod faults;
mod ffi;
mod groups;
pub(super) mod kerberos;
mod logs;
mod topics;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use self::client::LibrdkafkaClient;
use self::faults::fault_of;
use self::groups::GroupClients;
use self::logs::LogReader;
use self::topics::TopicCache;
use super::health::Health;
use super::reachability::{Reachability, heard, unheard};
use super::{ClientSettings, GroupList, SetupError};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{GroupId, Moment, TopicName};
use crate::poller::OffsetSource;

/// One Kafka cluster through librdkafka.
pub struct Librdkafka(Arc<Inner>);

struct Inner {
    settings: ClientSettings,
    health: Arc<Health>,
    client: LibrdkafkaClient,
    groups: GroupClients,
    topics: TopicCache,
    logs: LogReader,
}

impl Librdkafka {
    /// Sets up the clients; does not wait for the cluster.
    ///
    /// # Errors
    /// A property that librdkafka refuses, extensions beside a token.
    pub(super) fn connect(settings: ClientSettings) -> Result<Self, SetupError> {
        if client::trusts_system_roots(&settings) {
            tracing::info!(cluster = %settings.name, "no ssl.ca.location: brokers are checked against the system's roots");
        }
        if settings
            .token
            .as_ref()
            .is_some_and(|token| !token.extensions.is_empty())
        {
            let reason =
                "client: librdkafka carries no extensions beside a token; wire and auto do";
            return Err(settings.refused(reason.into()));
        }
        let health = Arc::new(Health::default());
        let inner = Arc::new(Inner {
            client: client::client(&settings, &health, None)?,
            groups: GroupClients::default(),
            topics: TopicCache::default(),
            logs: LogReader::default(),
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
            reason: format!("cannot start a thread: {error}"),
        })?;
        Ok(Self(inner))
    }

    /// The names of all groups.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        self.blocking(move |inner| inner.list_groups(deadline))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            // Blocking tasks are never cancelled, so it panicked: let the panic go on.
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}

impl OffsetSource for Librdkafka {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        self.blocking(move |inner| inner.sweep(plan, deadline))
            .await
    }
}

/// Callbacks (errors, logs) run inside of polls, so somebody has to poll every client.
fn serve_callbacks(inner: &Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let _ = inner.client.poll(Duration::from_millis(100));
        inner.groups.serve_callbacks();
    }
}

impl Inner {
    fn sweep(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let started = Moment::now();
        // A later step gets what earlier ones leave: metadata 2/5 of the time, commits up to 3/5.
        let budget = deadline.saturating_duration_since(started.monotonic);
        let by = |fifths: u32| started.monotonic + budget / 5 * fifths;
        let named: BTreeSet<&TopicName> =
            plan.groups.iter().flat_map(|group| &group.topics).collect();
        let (known, is_new) = match self.topics.current(&self.client, &named, by(2)) {
            Ok(known) => known,
            Err(fault) => {
                let connection = self.health.silent(self.bootstrap(), Moment::now());
                let name = self.settings.name.clone();
                return unheard(name, plan, started, fault, connection);
            }
        };
        let groups = self
            .groups
            .committed(plan, &known, &self.settings, &self.health, by(3));
        let (topics, moved) = self
            .logs
            .read(&self.client, &known, &groups, &started, deadline);
        if moved {
            self.topics.forget();
        }
        let is_silent = match heard(&groups) {
            Reachability::NothingAsked if !is_new => None,
            Reachability::Silence if !is_new => {
                // Only kept metadata speaks for the cluster: a coordinator is gone, or all of it.
                // New metadata tells.
                self.topics.forget();
                let asked_anew = self
                    .topics
                    .current(&self.client, &BTreeSet::new(), deadline);
                Some(asked_anew.is_err())
            }
            _ => Some(false),
        };
        let connection = self.health.after_sweep(is_silent, self.bootstrap());
        Observation {
            cluster: self.settings.name.clone(),
            started,
            finished: Moment::now(),
            topics,
            groups,
            connection,
            traffic: None,
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
            connection: silent.then(|| self.health.silent(self.bootstrap(), Moment::now())),
            faults: faults.iter().map(Fault::to_string).collect(),
        }
    }
}
