//! The poller: sweeps every cluster, evaluates what was read, publishes snapshots. It owns all state that
//! changes; only snapshots leave it.

mod findings_tracker;
mod polled_cluster;
mod recently_asked;
mod saved_state;
mod transitions;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::findings_tracker::FindingsTracker;
use self::polled_cluster::PolledCluster;
use self::recently_asked::RecentlyAsked;
use self::saved_state::{HistoryEvent, HistoryHandle};
use crate::model::decisions::scale_to_zero;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::{Clusters, Evaluations, EvaluationsAt, ServingPolicy};
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::lag::assembly::Scope;
use crate::model::lag::history::memory::SavedHistory;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::AdHocQuery;
use crate::model::targets::{ConfiguredTarget, Targets, WatchKey};
use crate::model::units::lag_thresholds::LagRules;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::snapshot_channel::Publisher;
use crate::telemetry::{FindingRaised, PollFinished};

pub use self::saved_state::HistoryStore;

/// A client of one Kafka cluster.
pub trait OffsetSource: Send + Sync + 'static {
    /// Reads what the plan asks for, committed offsets before log ends.
    ///
    /// The source enforces `deadline` itself and returns what it has by then, with a fault for each missing
    /// reading. It is never cancelled from outside, because an abandoned request would still occupy its
    /// connection.
    fn observe(
        &self,
        plan: SweepPlan,
        deadline: Instant,
    ) -> impl Future<Output = Observation> + Send;
}

/// The most groups, and the most queries, that are kept because requests asked for them lately.
const MAX_AD_HOC: usize = 200;

/// The inputs of the poller.
#[derive(Debug)]
pub struct Inputs {
    /// The HPAs of the Kubernetes cluster, always all of them; `None` until they have been listed.
    pub hpas: watch::Receiver<Option<Vec<Arc<HpaFacts>>>>,
    /// Groups that requests ask for and no HPA does. Bounded, so that a flood of requests cannot grow memory.
    pub interests: mpsc::Receiver<WatchKey>,
    /// Queries that were answered and that no HPA asks. Bounded as well.
    pub queries: mpsc::Receiver<AdHocQuery>,
}

/// How often to poll, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// From the start of one sweep to the start of the next.
    pub interval: Duration,
    /// The longest time that a sweep may take.
    pub deadline: Duration,
}

/// The poller. Its task owns everything that changes between snapshots.
#[derive(Debug)]
pub struct Poller<S> {
    clusters: BTreeMap<ClusterName, PolledCluster<S>>,
    names: Vec<ClusterName>,
    fixed: Vec<ConfiguredTarget>,
    cadence: Cadence,
    publisher: Publisher,
    targets: Arc<Targets>,
    interests: RecentlyAsked<WatchKey>,
    queries: RecentlyAsked<AdHocQuery>,
    rules: LagRules,
    saved_state: Option<HistoryHandle>,
    evaluations: Arc<Evaluations>,
    findings: FindingsTracker,
    idle: Arc<IdleSince>,
}

type Sweeps = JoinSet<(Observation, Scope)>;

impl<S: OffsetSource> Poller<S> {
    /// A poller of these clusters, in the order of the configuration.
    pub fn new(
        sources: Vec<(ClusterName, S)>,
        fixed: Vec<ConfiguredTarget>,
        cadence: Cadence,
        publisher: Publisher,
    ) -> Self {
        let names: Vec<_> = sources.iter().map(|(name, _)| name.clone()).collect();
        let policy = ServingPolicy {
            max_staleness: cadence.interval.saturating_mul(6),
            ..ServingPolicy::default()
        };
        Self {
            clusters: sources
                .into_iter()
                .map(|(name, source)| (name, PolledCluster::new(source)))
                .collect(),
            targets: Arc::default(),
            names,
            fixed,
            cadence,
            publisher,
            interests: RecentlyAsked::new(MAX_AD_HOC),
            queries: RecentlyAsked::new(MAX_AD_HOC),
            rules: LagRules::default(),
            saved_state: None,
            evaluations: Arc::new(Evaluations::new(policy)),
            findings: FindingsTracker::default(),
            idle: Arc::default(),
        }
    }

    /// Evaluates by this policy.
    #[must_use]
    pub fn with_policy(self, policy: ServingPolicy) -> Self {
        Self {
            evaluations: Arc::new(Evaluations::new(policy)),
            ..self
        }
    }

    /// Applies these lag rules to targets that set no others.
    #[must_use]
    pub fn with_rules(self, rules: LagRules) -> Self {
        Self { rules, ..self }
    }

    /// Loads and saves the history that must survive a restart.
    #[must_use]
    pub fn with_memory(self, store: HistoryStore) -> Self {
        Self {
            saved_state: Some(HistoryHandle::new(store)),
            ..self
        }
    }

    /// Polls until it is told to stop; without [`HistoryStore`] for ever.
    ///
    /// # Errors
    /// A sweep panicked.
    pub async fn run(self, mut inputs: Inputs) -> Result<(), tokio::task::JoinError> {
        self.run_on(&mut inputs).await
    }

    /// As [`run`](Self::run), but leaves the inputs to the next poller.
    ///
    /// # Errors
    /// A sweep panicked.
    pub async fn run_on(mut self, inputs: &mut Inputs) -> Result<(), tokio::task::JoinError> {
        let mut sweeps = Sweeps::new();
        let mut ticks = tokio::time::interval(self.cadence.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut hpas_end, mut interests_end, mut queries_end) = (false, false, false);
        let (mut asked, mut queries) = (Vec::new(), Vec::new());
        self.merge(inputs);
        self.publish();
        for (name, cluster) in &mut self.clusters {
            cluster.replan(name, &self.targets);
        }
        match HistoryHandle::first_event(&mut self.saved_state).await {
            Some(HistoryEvent::Stop) => return Ok(()),
            Some(HistoryEvent::Loaded(saved)) => self.load(&saved),
            None => {}
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.queries.expire();
                    // A change of the HPAs has its own branch below.
                    if self.interests.expire() {
                        self.merge(inputs);
                    }
                    self.sweep_all(&mut sweeps);
                    if self.saved_state.as_ref().is_some_and(HistoryHandle::is_due) {
                        self.save();
                    }
                }
                event = HistoryHandle::next_event(&mut self.saved_state) => match event {
                    HistoryEvent::Loaded(saved) => self.load(&saved),
                    HistoryEvent::Stop => {
                        self.save();
                        return Ok(());
                    }
                },
                changed = inputs.hpas.changed(), if !hpas_end => {
                    hpas_end = changed.is_err();
                    self.merge(inputs);
                    self.publish();
                    self.sweep_new(&mut sweeps);
                }
                // Drain the channel so that a burst of requests triggers one sweep.
                received = inputs.interests.recv_many(&mut asked, MAX_AD_HOC), if !interests_end => {
                    interests_end = received == 0;
                    let mut is_new = false;
                    for key in asked.drain(..) {
                        is_new |= self.interests.insert(key);
                    }
                    if is_new {
                        self.merge(inputs);
                        self.sweep_new(&mut sweeps);
                    }
                }
                // Evaluated with the next snapshot: until then requests evaluate it themselves.
                received = inputs.queries.recv_many(&mut queries, MAX_AD_HOC), if !queries_end => {
                    queries_end = received == 0;
                    for query in queries.drain(..) {
                        self.queries.insert(query);
                    }
                }
                Some(done) = sweeps.join_next() => {
                    let (observation, scope) = done?;
                    self.apply(observation, scope, inputs);
                    // The members of a group may turn out to read topics that nobody has named.
                    self.sweep_new(&mut sweeps);
                }
            }
        }
    }

    /// Evaluates what was read and wanted since, and publishes the result.
    fn publish(&mut self) {
        self.evaluate();
        self.publisher.publish(self.snapshot());
    }

    fn evaluate(&mut self) {
        let queries = self.queries.iter();
        self.evaluations = self
            .evaluations
            .next(&self.latest(), &self.targets, queries);
    }

    /// What was read of every cluster.
    fn latest(&self) -> Clusters {
        let clusters = self.clusters.iter();
        clusters
            .map(|(name, cluster)| (name.clone(), Arc::clone(&cluster.latest)))
            .collect()
    }

    fn snapshot(&self) -> LagSnapshot {
        LagSnapshot {
            sequence: 0,
            term: 0,
            targets: Arc::clone(&self.targets),
            clusters: self.latest(),
            evaluations: Arc::clone(&self.evaluations),
            idle: Arc::clone(&self.idle),
            findings: self.findings.latest(),
        }
    }

    fn load(&mut self, saved: &SavedHistory) {
        let now = Moment::now();
        for (name, cluster) in &mut self.clusters {
            if let Some(known) = saved.clusters.get(name.as_str()) {
                cluster.history.import(known, saved.saved, &now);
            }
        }
    }

    fn save(&mut self) {
        let Some(saved_state) = self.saved_state.as_mut().filter(|r| r.is_loaded()) else {
            return;
        };
        let now = Moment::now();
        let since_1970 = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let clusters = self.clusters.iter_mut();
        saved_state.save(SavedHistory {
            saved: since_1970.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX)),
            clusters: clusters
                .map(|(name, cluster)| (name.to_string(), cluster.history.export(&now)))
                .collect(),
            ..SavedHistory::default()
        });
    }

    fn merge(&mut self, inputs: &Inputs) {
        let interests = self.interests.iter().cloned().collect();
        let merged = {
            let hpas = inputs.hpas.borrow();
            let listed = hpas.as_deref().unwrap_or_default();
            let mut merged = Targets::merge(&self.names, &self.fixed, listed, interests)
                .since(&self.targets, Moment::now());
            merged.hpas_unlisted = hpas.is_none();
            merged.rules = self.rules;
            merged
        };
        for finding in merged.findings.difference(&self.targets.findings) {
            FindingRaised(finding).emit();
        }
        self.targets = Arc::new(merged);
        for cluster in self.clusters.values_mut() {
            cluster.is_planned = false;
        }
    }

    fn sweep_all(&mut self, sweeps: &mut Sweeps) {
        for (name, cluster) in &mut self.clusters {
            let new = cluster.replan(name, &self.targets);
            // At most one whole sweep at a time: a slow cluster is swept less often.
            if cluster.sweeping {
                cluster.sweep_new(new, sweeps, self.cadence.deadline);
            } else {
                cluster.sweeping = true;
                cluster.sweep_all(sweeps, self.cadence.deadline);
            }
        }
    }

    /// Reads what is new in the plans at once, so that no request waits for the next tick.
    fn sweep_new(&mut self, sweeps: &mut Sweeps) {
        for (name, cluster) in &mut self.clusters {
            let new = cluster.replan(name, &self.targets);
            cluster.sweep_new(new, sweeps, self.cadence.deadline);
        }
    }

    fn apply(&mut self, observation: Observation, scope: Scope, inputs: &Inputs) {
        let name = observation.cluster.clone();
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        let took = observation.finished.since(&observation.started);
        let finished = observation.finished;
        let before = Arc::clone(&cluster.latest);
        cluster.latest = cluster.history.apply(observation, scope);
        if scope == Scope::Whole {
            cluster.sweeping = false;
            let groups = cluster.latest.groups.values();
            PollFinished {
                cluster: &name,
                took,
                group_topics: groups.map(|group| group.topics.len()).sum(),
                incomplete: cluster.latest.incomplete(),
            }
            .emit();
        }
        if self.targets.leave_topics_open() {
            cluster.is_planned = false;
        }
        transitions::report_transitions(&name, &before, &cluster.latest, &finished);
        if scope == Scope::Whole {
            self.evaluate();
            self.update_idle();
            let hpas = inputs.hpas.borrow();
            let hpas = hpas.as_deref().unwrap_or_default();
            let snapshot = self.snapshot();
            self.findings.update(&snapshot, hpas);
        }
        self.publish();
    }

    fn update_idle(&mut self) {
        let now = Moment::now();
        let candidates =
            scale_to_zero::candidates(EvaluationsAt::new(&self.evaluations, &self.idle, &now));
        if !candidates.is_empty() || !self.idle.is_empty() {
            let idle = scale_to_zero::idle_since(&self.idle, &candidates, &now);
            self.idle = Arc::new(idle);
        }
    }
}

#[cfg(test)]
mod tests;
