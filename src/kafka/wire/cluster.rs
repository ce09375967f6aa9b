//! The cluster as far as it is known: its brokers, its topics' leaders, its groups' coordinators.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::broker::{Broker, BrokerState};
use super::coordinators::Coordinators;
use super::cursor::Malformed;
use super::topics::{self, TopicCatalog};
use crate::kafka::health::rank;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;

/// How long metadata is used without asking again.
const LASTS: Duration = Duration::from_secs(10);

/// How many brokers a cluster may have.
const MAX_BROKERS: usize = 10_000;

/// One cluster.
pub(super) struct Cluster {
    pub(super) shared: Arc<BrokerState>,
    brokers: Mutex<HashMap<Address, Arc<Broker>>>,
    topics: Mutex<Arc<TopicCatalog>>,
    pub(super) coordinators: Coordinators,
}

impl Cluster {
    pub(super) fn new(shared: BrokerState) -> Self {
        Self {
            shared: Arc::new(shared),
            brokers: Mutex::default(),
            topics: Mutex::default(),
            coordinators: Coordinators::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Address, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Arc<TopicCatalog>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker at that address; its connection is made when it is first asked something.
    pub(super) fn broker(&self, address: &Address) -> Arc<Broker> {
        let mut all = self.all();
        if let Some(broker) = all.get(address) {
            return Arc::clone(broker);
        }
        let broker = Arc::new(Broker::start(address.clone(), Arc::clone(&self.shared)));
        all.insert(address.clone(), Arc::clone(&broker));
        broker
    }

    /// The brokers that the cluster named last.
    pub(super) fn nodes(&self) -> Vec<Address> {
        self.kept().nodes.values().cloned().collect()
    }

    /// Where to ask what any broker can answer: brokers with a connection first, then the others,
    /// then the configured addresses.
    fn candidates(&self) -> VecDeque<Address> {
        let mut candidates = VecDeque::new();
        let nodes = self.nodes();
        let all = self.all();
        let (up, down): (Vec<_>, Vec<_>) = nodes
            .into_iter()
            .partition(|node| all.get(node).is_some_and(|broker| broker.is_up()));
        let options = self.shared.options();
        let bootstrap = options.bootstrap.iter().cloned();
        for address in up.into_iter().chain(down).chain(bootstrap) {
            if !candidates.contains(&address) {
                candidates.push_back(address);
            }
        }
        candidates
    }

    /// The first answer that any broker gives. One that takes a quarter of the time is not given up,
    /// but the next is asked beside it.
    pub(super) async fn any<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        deadline: Instant,
        ask: impl Fn(Arc<Broker>, Address) -> F,
    ) -> Result<T, Fault> {
        let patience = deadline.saturating_duration_since(Instant::now()) / 4;
        let mut candidates = self.candidates();
        let mut asked = FuturesUnordered::new();
        let mut fault = Fault::NoAnswer;
        loop {
            let until = match candidates.pop_front() {
                Some(address) => {
                    asked.push(ask(self.broker(&address), address));
                    deadline.min(Instant::now() + patience)
                }
                None if asked.is_empty() => return Err(fault),
                None => deadline,
            };
            match timeout_at(until, asked.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(found))) if rank(found) < rank(fault) => fault = found,
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => return Err(fault),
                Err(_) => {}
            }
        }
    }

    /// The topics by these names, asked anew when what is kept of one is old, and whether they were.
    pub(super) async fn topics(
        &self,
        wanted: &BTreeSet<TopicName>,
        deadline: Instant,
    ) -> Result<(Arc<TopicCatalog>, bool), Fault> {
        let kept = Arc::clone(&self.kept());
        let is_young = |at: Instant| at.elapsed() < LASTS;
        if kept.fetched.is_some_and(is_young)
            && wanted
                .iter()
                .all(|topic| kept.age(topic).is_some_and(is_young))
        {
            return Ok((kept, false));
        }
        self.refresh(wanted, deadline).await.map(|new| (new, true))
    }

    /// The topics by these names, asked anew.
    pub(super) async fn refresh(
        &self,
        wanted: &BTreeSet<TopicName>,
        deadline: Instant,
    ) -> Result<Arc<TopicCatalog>, Fault> {
        let asked = Instant::now();
        let ask = |broker: Arc<Broker>, address: Address| async move {
            let (version, body) = topics::ask(&broker, wanted, deadline).await?;
            topics::read(&body, version, asked).map_err(|error| self.garbled(&address, &error))
        };
        let mut new = self.any(deadline, ask).await?;
        for topic in wanted {
            // A broker answers by name, also for what is missing.
            new.missing(topic, asked);
        }
        let mut kept = self.kept();
        new.keep_from(&kept, LASTS * 6);
        let new = Arc::new(new);
        *kept = Arc::clone(&new);
        drop(kept);
        self.let_go(&new.nodes);
        Ok(new)
    }

    /// Has the next sweep ask anew: a leader has moved, or does not answer.
    pub(super) fn forget_topics(&self) {
        let mut kept = self.kept();
        *kept = Arc::new(kept.without_topics());
    }

    /// Closes connections to brokers that are the cluster's no more.
    fn let_go(&self, nodes: &BTreeMap<i32, Address>) {
        let options = self.shared.options();
        let known: BTreeSet<_> = nodes.values().chain(&options.bootstrap).collect();
        let coordinators = self.coordinators.addresses();
        self.all()
            .retain(|address, _| known.contains(address) || coordinators.contains(address));
    }

    /// A broker's answer made no sense.
    pub(super) fn garbled(&self, address: &Address, error: &Malformed) -> Fault {
        let reason = format!("{address}: {error}");
        let now = std::time::Instant::now();
        self.shared.health.report(Fault::Unreachable, &reason, now);
        Fault::Unreachable
    }
}

/// Bounds what one answer may name.
pub(super) fn few(nodes: &BTreeMap<i32, Address>) -> bool {
    nodes.len() < MAX_BROKERS
}
