//! The client's state of a cluster: its brokers, its topics' leaders and its groups' coordinators.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::broker::{Broker, ClusterContext};
use super::coordinators::CoordinatorCache;
use super::cursor::Malformed;
use super::topics::{self, ClusterMetadata, DecodedMetadata, MAX_BROKERS};
use crate::kafka::codes;
use crate::kafka::health::cause_rank;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// How long metadata is used before it is fetched again.
const MAX_METADATA_AGE: Duration = Duration::from_secs(10);

/// How long topics that the latest request did not name stay in the metadata: partial sweeps and lookups of moved
/// leaders name only some.
const MAX_OTHER_TOPICS_AGE: Duration = Duration::from_secs(60);

/// Maximum number of brokers with a connection, or with one that is opened when needed: those of the metadata, and some
/// for bootstrap servers and coordinators that the metadata does not have.
const MAX_CONNECTIONS: usize = MAX_BROKERS + 24;

/// How long a coordinator that the metadata does not have is used: it may have joined after the
/// metadata was read.
const MAX_UNADVERTISED_COORDINATOR_AGE: Duration = Duration::from_secs(60);

pub(super) struct WireCluster {
    pub(super) shared: Arc<ClusterContext>,
    brokers: Mutex<HashMap<Address, Arc<Broker>>>,
    metadata: Mutex<Arc<ClusterMetadata>>,
    pub(super) coordinators: CoordinatorCache,
    /// When a broker last sent this client back to the bootstrap servers.
    rebootstrapped: Mutex<Option<Instant>>,
}

/// The fault of a broker that sends clients back to their bootstrap servers.
const REBOOTSTRAP: Fault = Fault::Code(codes::REBOOTSTRAP_REQUIRED as i32);

impl WireCluster {
    pub(super) fn new(shared: ClusterContext) -> Self {
        Self {
            shared: Arc::new(shared),
            brokers: Mutex::default(),
            metadata: Mutex::default(),
            rebootstrapped: Mutex::default(),
            coordinators: CoordinatorCache::default(),
        }
    }

    fn lock_brokers(&self) -> MutexGuard<'_, HashMap<Address, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_metadata(&self) -> MutexGuard<'_, Arc<ClusterMetadata>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_rebootstrapped(&self) -> MutexGuard<'_, Option<Instant>> {
        let guard = self.rebootstrapped.lock();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker at an address. Its connection is opened on the first request. Beyond
    /// [`MAX_CONNECTIONS`] brokers, requests to a new one fail.
    pub(super) fn broker(&self, address: &Address) -> Arc<Broker> {
        let mut brokers = self.lock_brokers();
        if let Some(broker) = brokers.get(address) {
            return Arc::clone(broker);
        }
        if brokers.len() >= MAX_CONNECTIONS {
            return Arc::new(Broker::refused());
        }
        let broker = Arc::new(Broker::start(address.clone(), Arc::clone(&self.shared)));
        brokers.insert(address.clone(), Arc::clone(&broker));
        broker
    }

    /// Addresses of the brokers in the latest metadata.
    pub(super) fn nodes(&self) -> Vec<Address> {
        self.lock_metadata().nodes.values().cloned().collect()
    }

    /// Addresses to try for a request that any broker can answer: connected brokers, then other
    /// known brokers, then the bootstrap servers.
    fn candidates(&self) -> VecDeque<Address> {
        let mut candidates = VecDeque::new();
        let nodes = self.nodes();
        let brokers = self.lock_brokers();
        let (up, down): (Vec<_>, Vec<_>) = nodes
            .into_iter()
            .partition(|node| brokers.get(node).is_some_and(|broker| broker.is_up()));
        let options = self.shared.options();
        let bootstrap = options.bootstrap.iter().cloned();
        for address in up.into_iter().chain(down).chain(bootstrap) {
            if !candidates.contains(&address) {
                candidates.push_back(address);
            }
        }
        candidates
    }

    /// Sends a request to one broker after another until one answers. If a broker takes more than a quarter of the
    /// time, the request also goes to the next one (a hedged request). Of several failures, returns the one that
    /// explains most. Ends if a response is too large, since those of other brokers would be too large as well, or if a
    /// broker sends clients back to their bootstrap servers.
    pub(super) async fn request_from_any<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        deadline: Instant,
        send: impl Fn(Arc<Broker>, Address) -> F,
    ) -> Result<T, Fault> {
        let hedge_after = deadline.saturating_duration_since(Instant::now()) / 4;
        let mut candidates = self.candidates();
        let mut in_flight = FuturesUnordered::new();
        let mut fault = Fault::NoAnswer;
        loop {
            let until = match candidates.pop_front() {
                Some(address) => {
                    in_flight.push(send(self.broker(&address), address));
                    deadline.min(Instant::now() + hedge_after)
                }
                None if in_flight.is_empty() => return Err(fault),
                None => deadline,
            };
            match timeout_at(until, in_flight.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(last @ (Fault::OverBudget | REBOOTSTRAP)))) => return Err(last),
                Ok(Some(Err(found))) if cause_rank(found) < cause_rank(fault) => fault = found,
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => return Err(fault),
                Err(_) => {}
            }
        }
    }

    /// Returns metadata that covers these topics, fetched again if anything cached is old, and
    /// whether it was fetched.
    pub(super) async fn metadata(
        &self,
        wanted: &HashSet<&TopicName>,
        deadline: Instant,
    ) -> Result<(Arc<ClusterMetadata>, bool), Fault> {
        let cached = Arc::clone(&self.lock_metadata());
        let now = Instant::now();
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < MAX_METADATA_AGE;
        if cached.fetched.is_some_and(is_fresh)
            && wanted
                .iter()
                .all(|topic| cached.fetched_at(topic).is_some_and(is_fresh))
        {
            return Ok((cached, false));
        }
        let wanted = wanted.iter().map(|name| (*name).clone()).collect();
        self.fetch_metadata(&wanted, deadline)
            .await
            .map(|new| (new, true))
    }

    /// Fetches the metadata of these topics and replaces the cached metadata.
    pub(super) async fn fetch_metadata(
        &self,
        wanted: &BTreeSet<TopicName>,
        deadline: Instant,
    ) -> Result<Arc<ClusterMetadata>, Fault> {
        let sent_at = Instant::now();
        let send = |broker: Arc<Broker>, address: Address| async move {
            let (version, body) = topics::request(&broker, wanted, deadline).await?;
            let decoded = topics::decode(&body, version, wanted, sent_at)
                .map_err(|error| self.report_malformed(&address, &error))?;
            self.check_metadata_code(decoded.code, &address)?;
            Ok(decoded)
        };
        let mut answer = self.request_from_any(deadline, send).await;
        if matches!(answer, Err(REBOOTSTRAP)) {
            self.rebootstrap();
            // A broker that still asks for a rebootstrap must not prevent requests to the others.
            let send_to_each = |broker: Arc<Broker>, address: Address| {
                let response = send(broker, address);
                async move {
                    response.await.map_err(|fault| match fault {
                        REBOOTSTRAP => Fault::Unreachable,
                        fault => fault,
                    })
                }
            };
            answer = self.request_from_any(deadline, send_to_each).await;
        }
        let DecodedMetadata {
            metadata: mut new,
            omitted_brokers,
            ..
        } = answer?;
        if omitted_brokers > 0 && self.shared.omissions.is_due(std::time::Instant::now()) {
            tracing::warn!(
                omitted = omitted_brokers,
                "the Kafka cluster has more than {MAX_BROKERS} brokers; lagwise does not read from the others"
            );
        }
        for topic in wanted {
            // Brokers answer for every requested topic; one that is left out anyway is treated as
            // missing.
            new.insert_missing(topic, sent_at);
        }
        let mut cached = self.lock_metadata();
        new.merge_older(&cached, MAX_OTHER_TOPICS_AGE);
        let new = Arc::new(new);
        *cached = Arc::clone(&new);
        drop(cached);
        self.drop_removed_brokers(&new.nodes);
        Ok(new)
    }

    /// Records the error code of a whole `Metadata` response as a connection problem.
    pub(super) fn check_metadata_code(&self, code: i16, address: &Address) -> Result<(), Fault> {
        let (fault, problem) = match code {
            codes::NONE => return Ok(()),
            codes::REBOOTSTRAP_REQUIRED => (
                REBOOTSTRAP,
                "the broker sends clients back to their bootstrap servers (REBOOTSTRAP_REQUIRED)"
                    .to_owned(),
            ),
            code => (
                Fault::Unreachable,
                format!("the broker answers Metadata with Kafka error code {code}"),
            ),
        };
        let reason = format!("{address}: {problem}");
        let now = std::time::Instant::now();
        self.shared.health.report(Fault::Unreachable, &reason, now);
        Err(fault)
    }

    /// Closes all connections and forgets the brokers, so that only the bootstrap servers remain, and their names are
    /// resolved again (KIP-1102). Does nothing if that was done within [`MAX_METADATA_AGE`].
    fn rebootstrap(&self) {
        let mut last = self.lock_rebootstrapped();
        if last.is_some_and(|last| last.elapsed() < MAX_METADATA_AGE) {
            return;
        }
        *last = Some(Instant::now());
        tracing::info!("a broker sends clients back to their bootstrap servers: reconnecting");
        *self.lock_metadata() = Arc::default();
        self.coordinators.retain(|_| false);
        self.lock_brokers().clear();
        self.shared.health.forget_brokers();
    }

    /// Makes the next sweep fetch metadata again, because a leader moved or does not answer.
    pub(super) fn invalidate_topics(&self) {
        let mut cached = self.lock_metadata();
        *cached = Arc::new(cached.without_topics());
    }

    /// Closes connections to brokers that left the cluster.
    fn drop_removed_brokers(&self, nodes: &BTreeMap<i32, Address>) {
        let options = self.shared.options();
        let known: BTreeSet<_> = nodes.values().chain(&options.bootstrap).collect();
        self.coordinators
            .forget_older(MAX_UNADVERTISED_COORDINATOR_AGE, |address| {
                !known.contains(address)
            });
        let coordinators = self.coordinators.addresses();
        self.lock_brokers().retain(|address, _| {
            let is_needed = known.contains(address) || coordinators.contains(address);
            if !is_needed {
                self.shared.health.forget_broker(&address.to_string());
            }
            is_needed
        });
    }

    /// Records a malformed response as a connection problem.
    pub(super) fn report_malformed(&self, address: &Address, error: &Malformed) -> Fault {
        let reason = format!("{address}: {error}");
        let now = std::time::Instant::now();
        self.shared.health.report(Fault::Unreachable, &reason, now);
        Fault::Unreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::wire::options::WireOptions;

    fn cluster() -> WireCluster {
        let properties = [("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())];
        let options = WireOptions::read(&properties.into(), None).unwrap();
        WireCluster::new(ClusterContext::new(options))
    }

    fn address(number: usize) -> Address {
        Address::parse(&format!("b-{number}.example:9092")).unwrap()
    }

    #[tokio::test]
    async fn brokers_beyond_the_limit_get_no_connection() {
        let cluster = cluster();
        let soon = Instant::now() + Duration::from_secs(1);
        for number in 0..MAX_CONNECTIONS {
            cluster.broker(&address(number));
        }
        for number in [MAX_CONNECTIONS, MAX_CONNECTIONS + 1] {
            let refused = cluster.broker(&address(number)).versions(soon).await;
            assert_eq!(refused.err(), Some(Fault::Unreachable));
        }
        assert_eq!(cluster.lock_brokers().len(), MAX_CONNECTIONS);
        // Brokers that are not advertised are dropped.
        cluster.drop_removed_brokers(&[(1, address(1))].into());
        assert_eq!(cluster.lock_brokers().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn coordinators_that_are_not_advertised_are_forgotten() {
        let cluster = cluster();
        for (group, number) in [("advertised", 1), ("unadvertised", 2)] {
            cluster.coordinators.insert(group.into(), address(number));
            cluster.broker(&address(number));
        }
        let nodes = [(1, address(1))].into();
        // It may have joined after the metadata was read.
        cluster.drop_removed_brokers(&nodes);
        assert_eq!(cluster.lock_brokers().len(), 2);
        tokio::time::advance(MAX_UNADVERTISED_COORDINATOR_AGE).await;
        cluster.drop_removed_brokers(&nodes);
        assert_eq!(cluster.lock_brokers().len(), 1);
        assert_eq!(
            cluster.coordinators.get(&"advertised".into()),
            Some(address(1))
        );
        assert_eq!(cluster.coordinators.get(&"unadvertised".into()), None);
    }
}
