//! The poller: asks every cluster in turn, applies the model, publishes. It owns all state that
//! changes; only snapshots leave it.

mod findings_tracker;
mod saved_state;
mod sweep_task;
mod transitions;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::findings_tracker::FindingsTracker;
use self::saved_state::{HistoryWriter, LoadedHistory};
use self::sweep_task::{spawn, spawn_new};
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::idle::IdleSince;
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::lag::history::memory::SavedHistory;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{ConfiguredTarget, Targets, WatchKey};
use crate::model::units::lag_thresholds::LagRules;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::snapshot_channel::Publisher;
use crate::telemetry::{FindingRaised, PollFinished};

pub use self::saved_state::HistoryStore;

/// Where offsets come from: one Kafka cluster, by whatever client.
pub trait OffsetSource: Send + Sync + 'static {
    /// Reads what the plan asks for, committed offsets before log ends.
    ///
    /// The source keeps `deadline` itself and returns what it has by then, each missing reading
    /// with its fault: it is never cancelled from outside, since a request abandoned half-way
    /// would keep its place on a connection.
    fn observe(
        &self,
        plan: SweepPlan,
        deadline: Instant,
    ) -> impl Future<Output = Observation> + Send;
}

/// Requests' interests that are remembered at most; the one asked for longest ago goes first.
const MAX_INTERESTS: usize = 200;

/// How long a group stays watched after the last request for it.
const INTEREST_LASTS: Duration = Duration::from_secs(300);

/// What the poller is told from outside.
#[derive(Debug)]
pub struct Inputs {
    /// The HPAs of the Kubernetes cluster, always all of them; `None` until they have been listed.
    pub hpas: watch::Receiver<Option<Vec<Arc<HpaFacts>>>>,
    /// Groups that requests ask for: a bounded channel, so that no flood of requests grows memory.
    pub interests: mpsc::Receiver<WatchKey>,
}

/// When to poll.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// From one sweep's start to the next one's.
    pub interval: Duration,
    /// The longest that a sweep may take.
    pub deadline: Duration,
}

/// The poller and its state.
#[derive(Debug)]
pub struct Poller<S> {
    clusters: BTreeMap<ClusterName, PolledCluster<S>>,
    names: Vec<ClusterName>,
    fixed: Vec<ConfiguredTarget>,
    cadence: Cadence,
    publisher: Publisher,
    targets: Arc<Targets>,
    interests: BTreeMap<WatchKey, Instant>,
    rules: LagRules,
    remembered: Option<LoadedHistory>,
    telling: FindingsTracker,
    idle: Arc<IdleSince>,
}

#[derive(Debug)]
struct PolledCluster<S> {
    source: Arc<S>,
    history: ClusterHistory,
    latest: Arc<ClusterSnapshot>,
    sweeping: bool,
}

type Sweeps = JoinSet<(Observation, Scope)>;

impl<S: OffsetSource> Poller<S> {
    /// A poller over `sources`, in the configuration's order.
    pub fn new(
        sources: Vec<(ClusterName, S)>,
        fixed: Vec<ConfiguredTarget>,
        cadence: Cadence,
        publisher: Publisher,
    ) -> Self {
        let names: Vec<_> = sources.iter().map(|(name, _)| name.clone()).collect();
        let cluster = |source| PolledCluster {
            source: Arc::new(source),
            history: ClusterHistory::default(),
            latest: Arc::default(),
            sweeping: false,
        };
        Self {
            clusters: sources
                .into_iter()
                .map(|(name, source)| (name, cluster(source)))
                .collect(),
            targets: Arc::default(),
            names,
            fixed,
            cadence,
            publisher,
            interests: BTreeMap::new(),
            rules: LagRules::default(),
            remembered: None,
            telling: FindingsTracker::by_default(cadence.interval.saturating_mul(6)),
            idle: Arc::default(),
        }
    }

    /// The same, with the rules by which requests are answered.
    #[must_use]
    pub fn with_answers(self, rules: ServingPolicy) -> Self {
        Self {
            telling: FindingsTracker::new(rules),
            ..self
        }
    }

    /// The same, with these rules for targets that want no others.
    #[must_use]
    pub fn with_rules(self, rules: LagRules) -> Self {
        Self { rules, ..self }
    }

    /// The same, remembering over a restart.
    #[must_use]
    pub fn with_memory(self, ends: HistoryStore) -> Self {
        Self {
            remembered: Some(LoadedHistory::new(ends)),
            ..self
        }
    }

    /// Polls until it is told to stop, for ever where nobody can. Ends when a sweep's task dies,
    /// which is a defect that must not go unseen.
    ///
    /// # Errors
    /// The panic of a sweep.
    pub async fn run(self, mut inputs: Inputs) -> Result<(), tokio::task::JoinError> {
        self.run_on(&mut inputs).await
    }

    /// As [`run`](Self::run), leaving to the next poller what this one is told from outside.
    ///
    /// # Errors
    /// The panic of a sweep.
    pub async fn run_on(mut self, inputs: &mut Inputs) -> Result<(), tokio::task::JoinError> {
        let mut sweeps = Sweeps::new();
        let mut ticks = tokio::time::interval(self.cadence.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut hpas_end, mut interests_end) = (false, false);
        let mut asked = Vec::new();
        self.merge(inputs);
        self.publish();
        match LoadedHistory::first(&mut self.remembered).await {
            Some(HistoryWriter::Stop) => return Ok(()),
            Some(HistoryWriter::Recalled(memory)) => self.recall(&memory),
            None => {}
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // A cluster that is not at it is asked for everything anyway.
                    let is_sweeping = self.clusters.values().any(|cluster| cluster.sweeping);
                    let before = if is_sweeping { self.plans() } else { BTreeMap::new() };
                    // HPAs that changed say so themselves.
                    if self.expire_interests() {
                        self.merge(inputs);
                    }
                    self.sweep_all(&before, &mut sweeps);
                    if self.remembered.as_ref().is_some_and(LoadedHistory::is_due) {
                        self.keep();
                    }
                }
                told = LoadedHistory::told(&mut self.remembered) => match told {
                    HistoryWriter::Recalled(memory) => self.recall(&memory),
                    HistoryWriter::Stop => {
                        self.keep();
                        return Ok(());
                    }
                },
                changed = inputs.hpas.changed(), if !hpas_end => {
                    hpas_end = changed.is_err();
                    let before = self.plans();
                    self.merge(inputs);
                    self.publish();
                    self.sweep_new(&before, &mut sweeps);
                }
                // As many as wait: a sweep for each would let a flood of requests make one of sweeps.
                received = inputs.interests.recv_many(&mut asked, MAX_INTERESTS), if !interests_end => {
                    interests_end = received == 0;
                    let before = self.plans();
                    let mut is_new = false;
                    for interest in asked.drain(..) {
                        is_new |= self.remember(interest);
                    }
                    if is_new {
                        self.merge(inputs);
                        self.sweep_new(&before, &mut sweeps);
                    }
                }
                Some(done) = sweeps.join_next() => {
                    let (observation, scope) = done?;
                    // What it tells of a group's members may be topics that nobody has named.
                    let before = self.targets.leave_topics_open().then(|| self.plans());
                    self.apply(observation, scope, inputs);
                    if let Some(before) = before {
                        self.sweep_new(&before, &mut sweeps);
                    }
                }
            }
        }
    }

    fn publish(&self) {
        self.publisher.publish(self.snapshot());
    }

    fn snapshot(&self) -> LagSnapshot {
        LagSnapshot {
            sequence: 0,
            term: 0,
            targets: Arc::clone(&self.targets),
            clusters: self
                .clusters
                .iter()
                .map(|(name, c)| (name.clone(), Arc::clone(&c.latest)))
                .collect(),
            idle: Arc::clone(&self.idle),
            findings: self.telling.told(),
        }
    }

    fn recall(&mut self, memory: &SavedHistory) {
        let now = Moment::now();
        for (name, cluster) in &mut self.clusters {
            if let Some(known) = memory.clusters.get(name.as_str()) {
                cluster.history.import(known, memory.saved, &now);
            }
        }
    }

    fn keep(&mut self) {
        let Some(remembered) = self.remembered.as_mut().filter(|r| r.is_recalled()) else {
            return;
        };
        let now = Moment::now();
        let since_1970 = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let clusters = self.clusters.iter_mut();
        remembered.keep(SavedHistory {
            saved: since_1970.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX)),
            clusters: clusters
                .map(|(name, cluster)| (name.to_string(), cluster.history.export(&now)))
                .collect(),
            ..SavedHistory::default()
        });
    }

    fn merge(&mut self, inputs: &Inputs) {
        let interests = self.interests.keys().cloned().collect();
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
    }

    fn plans(&self) -> BTreeMap<ClusterName, SweepPlan> {
        self.names
            .iter()
            .filter_map(|name| {
                let known = &self.clusters.get(name)?.latest;
                Some((name.clone(), self.targets.plan(name, known.topics_read())))
            })
            .collect()
    }

    fn sweep_all(&mut self, before: &BTreeMap<ClusterName, SweepPlan>, sweeps: &mut Sweeps) {
        for (name, cluster) in &mut self.clusters {
            let plan = self.targets.plan(name, cluster.latest.topics_read());
            // One sweep at a time: a cluster that takes its whole deadline is asked less often.
            if cluster.sweeping {
                spawn_new(
                    sweeps,
                    cluster,
                    plan,
                    before.get(name),
                    self.cadence.deadline,
                );
            } else {
                cluster.sweeping = true;
                spawn(sweeps, cluster, plan, Scope::Whole, self.cadence.deadline);
            }
        }
    }

    /// Reads at once what is wanted now and was not before, so that nobody waits for a tick.
    fn sweep_new(&mut self, before: &BTreeMap<ClusterName, SweepPlan>, sweeps: &mut Sweeps) {
        for (name, cluster) in &mut self.clusters {
            let plan = self.targets.plan(name, cluster.latest.topics_read());
            spawn_new(
                sweeps,
                cluster,
                plan,
                before.get(name),
                self.cadence.deadline,
            );
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
        transitions::report_transitions(&name, &before, &cluster.latest, &finished);
        if scope == Scope::Whole {
            let snapshot = self.snapshot();
            self.idle = self.telling.idle_since(&snapshot);
            let hpas = inputs.hpas.borrow();
            let hpas = hpas.as_deref().unwrap_or_default();
            self.telling.find(&snapshot, hpas);
        }
        self.publish();
    }

    /// Whether it is new.
    fn remember(&mut self, interest: WatchKey) -> bool {
        let is_new = !self.interests.contains_key(&interest);
        if is_new && self.interests.len() >= MAX_INTERESTS {
            let oldest = self
                .interests
                .iter()
                .min_by_key(|(_, asked)| **asked)
                .map(|(i, _)| i.clone());
            if let Some(oldest) = oldest {
                self.interests.remove(&oldest);
            }
        }
        self.interests.insert(interest, Instant::now());
        is_new
    }

    /// Whether any was.
    fn expire_interests(&mut self) -> bool {
        let before = self.interests.len();
        self.interests
            .retain(|_, asked| asked.elapsed() < INTEREST_LASTS);
        self.interests.len() < before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;
    use crate::model::hpa::facts::ExternalMetric;
    use crate::model::hpa::selector::Selector;
    use crate::model::kafka::fault::Fault;
    use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
    use crate::model::kafka::observation::{GroupObservation, TopicOffsets};
    use crate::model::units::metric::LAG_METRIC;
    use crate::model::units::newtypes::{GroupId, Offset, TopicName};
    use crate::snapshot_channel::{self, SnapshotReader};

    /// Answers every plan at once with a lag of 7 per group, and records the plans.
    #[derive(Debug)]
    struct Fake {
        name: ClusterName,
        plans: Arc<Mutex<Vec<SweepPlan>>>,
        /// Where given, whole sweeps wait for it.
        held: Option<watch::Receiver<bool>>,
    }

    impl OffsetSource for Fake {
        async fn observe(&self, plan: SweepPlan, _deadline: Instant) -> Observation {
            self.plans.lock().unwrap().push(plan.clone());
            if let Some(mut held) = self.held.clone()
                && plan.groups.len() != 1
            {
                held.wait_for(|open| *open).await.unwrap();
            }
            // A sweep that was held up on its way to its thread begins this late.
            let started = Moment::now();
            let topics: BTreeSet<TopicName> =
                plan.groups.iter().flat_map(|g| g.topics.clone()).collect();
            let offsets = |end| TopicOffsets {
                starts: vec![Ok(Offset(0))],
                ends: vec![Ok(Offset(end))],
                ..TopicOffsets::default()
            };
            Observation {
                cluster: self.name.clone(),
                started,
                finished: Moment::now(),
                topics: topics
                    .into_iter()
                    .map(|topic| (topic, Ok(Arc::new(offsets(7)))))
                    .collect(),
                groups: plan
                    .groups
                    .into_iter()
                    .map(|plan| GroupObservation {
                        committed: Ok(plan
                            .topics
                            .iter()
                            .map(|t| (t.clone(), vec![Ok(Some(Offset(0)))]))
                            .collect()),
                        description: describe(&plan.group),
                        plan,
                    })
                    .collect(),
                connection: None,
                traffic: None,
            }
        }
    }

    /// The members of the group `reads` read a topic that nobody has named.
    fn describe(group: &GroupId) -> Result<Arc<GroupDescription>, Fault> {
        let member = Member {
            id: "m".into(),
            instance: None,
            client: "c".into(),
            host: "/10.0.0.1".into(),
            subscribed: Some(["unnamed".into()].into()),
            assigned: Vec::new(),
        };
        if group.as_str() != "reads" {
            return Err(Fault::Untold);
        }
        Ok(Arc::new(GroupDescription {
            kind: GroupKind::Classic,
            state: GroupState::Stable,
            assignor: Some("range".into()),
            members: vec![member],
            subtopologies: Vec::new(),
        }))
    }

    struct Running {
        reader: SnapshotReader,
        hpas: watch::Sender<Option<Vec<Arc<HpaFacts>>>>,
        interests: mpsc::Sender<WatchKey>,
        plans: Arc<Mutex<Vec<SweepPlan>>>,
    }

    fn fake(held: Option<watch::Receiver<bool>>) -> (Poller<Fake>, SnapshotReader) {
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let source = Fake {
            name: "main".into(),
            plans: Arc::default(),
            held,
        };
        // Long enough that only what is wanted anew is read after the first tick.
        let cadence = Cadence {
            interval: Duration::from_secs(3600),
            deadline: Duration::from_secs(1),
        };
        let sources = vec![("main".into(), source)];
        let poller = Poller::new(sources, Vec::new(), cadence, publisher);
        (poller, reader)
    }

    fn start(held: Option<watch::Receiver<bool>>) -> Running {
        let (hpas, hpas_in) = watch::channel(None);
        let (interests, interests_in) = mpsc::channel(8);
        let (poller, reader) = fake(held);
        let plans = Arc::clone(&poller.clusters["main"].source.plans);
        tokio::spawn(poller.run(Inputs {
            hpas: hpas_in,
            interests: interests_in,
        }));
        Running {
            reader,
            hpas,
            interests,
            plans,
        }
    }

    fn hpa() -> HpaFacts {
        HpaFacts {
            namespace: "n".into(),
            name: "h".into(),
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse("group=g,topic=t").unwrap(),
                target: None,
            }],
            ..HpaFacts::default()
        }
    }

    async fn until(
        reader: &SnapshotReader,
        condition: impl Fn(&LagSnapshot) -> bool,
    ) -> Arc<LagSnapshot> {
        let mut reader = reader.clone();
        let found = async {
            loop {
                let latest = reader.latest();
                if condition(&latest) {
                    return latest;
                }
                assert!(reader.changed().await, "the poller is gone");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found)
            .await
            .expect("the condition did not come true")
    }

    fn interest(group: &str) -> WatchKey {
        WatchKey {
            cluster: "main".into(),
            group: group.into(),
            topics: ["t".into()].into(),
        }
    }

    fn knows(group: &'static str) -> impl Fn(&LagSnapshot) -> bool {
        move |snapshot| {
            snapshot
                .clusters
                .get("main")
                .is_some_and(|c| c.groups.contains_key(&GroupId::from(group)))
        }
    }

    #[tokio::test]
    async fn what_was_remembered_is_recalled_first_and_said_again_at_the_end() {
        let (poller, reader) = fake(None);
        let (recall, recalled) = tokio::sync::oneshot::channel();
        let (keep, mut kept) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let poller = poller.with_memory(HistoryStore {
            recalled,
            keep,
            stop: stopping,
        });
        let (_hpas, hpas) = watch::channel(Some(vec![hpa().into()]));
        let (_interests, interests) = mpsc::channel(1);
        let running = tokio::spawn(poller.run(Inputs { hpas, interests }));
        let known = r#"{"version":1,"saved":1000,"clusters":{"main":{"topics":{},"groups":
            {"g":{"assignor":"sticky","topics":{"t":{"offsets":[0],"since":[500]}}}}}}}"#;
        let known: SavedHistory = serde_json::from_str(known).unwrap();
        assert!(recall.send(known).is_ok());
        let snapshot = until(&reader, knows("g")).await;
        let assignor = snapshot.clusters["main"].groups["g"]
            .remembered
            .assignor
            .as_deref();
        assert_eq!(assignor, Some("sticky"));
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        let said = kept.borrow_and_update().clone().unwrap();
        let said = serde_json::to_value(&said.clusters["main"].groups["g"]).unwrap();
        assert_eq!(said["topics"]["t"]["offsets"], serde_json::json!([0]));
        // It stands still since long before this process: 500 seconds before 1000.
        assert!(said["topics"]["t"]["since"][0].as_u64().unwrap() > 1_000_000);
    }

    #[tokio::test]
    async fn nothing_is_said_before_what_was_remembered_is_known() {
        let (poller, _reader) = fake(None);
        let (_recall, recalled) = tokio::sync::oneshot::channel();
        let (keep, kept) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let poller = poller.with_memory(HistoryStore {
            recalled,
            keep,
            stop: stopping,
        });
        let (_hpas, hpas) = watch::channel(None);
        let (_interests, interests) = mpsc::channel(1);
        let running = tokio::spawn(poller.run(Inputs { hpas, interests }));
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        assert!(kept.borrow().is_none());
    }

    #[tokio::test]
    async fn it_sweeps_even_when_nothing_is_wanted() {
        let running = start(None);
        until(&running.reader, LagSnapshot::is_swept).await;
    }

    #[tokio::test]
    async fn a_new_hpa_is_read_at_once() {
        let running = start(None);
        until(&running.reader, |snapshot| snapshot.targets.hpas_unlisted).await;
        running.hpas.send_replace(Some(vec![hpa().into()]));
        let snapshot = until(&running.reader, knows("g")).await;
        assert_eq!(snapshot.targets.all.len(), 1);
        assert!(!snapshot.targets.hpas_unlisted);
    }

    #[tokio::test]
    async fn a_topic_that_members_turn_out_to_read_is_read_at_once() {
        let running = start(None);
        let mut reads = hpa();
        reads.metrics[0].selector = Selector::parse("group=reads").unwrap();
        running.hpas.send_replace(Some(vec![reads.into()]));
        until(&running.reader, |snapshot| {
            let cluster = snapshot.clusters.get("main");
            let group = cluster.and_then(|cluster| cluster.groups.get("reads"));
            group.is_some_and(|group| group.topics.contains_key("unnamed"))
        })
        .await;
        // And once is enough: only what was not in the plan before is read out of turn.
        let plans = running.plans.lock().unwrap();
        let of_group = plans.iter().filter(|plan| !plan.groups.is_empty());
        assert!(of_group.count() <= 3, "{plans:?}");
    }

    #[tokio::test]
    async fn an_hpa_that_a_tick_finds_while_a_sweep_is_under_way_is_read_at_once() {
        let (mut poller, _reader) = fake(None);
        let (_interests, interests) = mpsc::channel(1);
        let (hpas_in, hpas) = watch::channel(None);
        let (inputs, mut sweeps) = (Inputs { hpas, interests }, Sweeps::new());
        for (hpas, under_way) in [
            (vec![], 1),
            (vec![hpa().into()], 2),
            (vec![hpa().into()], 2),
        ] {
            hpas_in.send_replace(Some(hpas));
            let before = poller.plans();
            poller.merge(&inputs);
            poller.sweep_all(&before, &mut sweeps);
            assert_eq!(sweeps.len(), under_way);
        }
    }

    #[tokio::test]
    async fn a_request_is_read_while_a_sweep_is_under_way() {
        let (open, held) = watch::channel(false);
        let running = start(Some(held));
        while running.plans.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        running.interests.send(interest("g")).await.unwrap();
        let snapshot = until(&running.reader, knows("g")).await;
        assert!(!snapshot.is_swept());
        open.send_replace(true);
        until(&running.reader, |snapshot| {
            snapshot.is_swept() && knows("g")(snapshot)
        })
        .await;
    }

    #[tokio::test]
    async fn asking_again_reads_nothing_anew() {
        let running = start(None);
        // Its first sweep reads all that was asked for before it.
        until(&running.reader, LagSnapshot::is_swept).await;
        running.interests.send(interest("g")).await.unwrap();
        until(&running.reader, knows("g")).await;
        running.interests.send(interest("g")).await.unwrap();
        running.interests.send(interest("h")).await.unwrap();
        until(&running.reader, knows("h")).await;
        let plans = running.plans.lock().unwrap();
        let reads = plans
            .iter()
            .filter(|plan| plan.groups.iter().any(|g| g.group.as_str() == "g"))
            .count();
        assert_eq!(reads, 1);
    }

    #[tokio::test]
    async fn interests_are_bounded_and_the_latest_stay() {
        let running = start(None);
        for i in 0..=MAX_INTERESTS {
            running
                .interests
                .send(interest(&format!("g{i:03}")))
                .await
                .unwrap();
        }
        let last = format!("g{MAX_INTERESTS:03}");
        let snapshot = until(&running.reader, |snapshot| {
            snapshot
                .targets
                .interests
                .iter()
                .any(|i| i.group.as_str() == last)
        })
        .await;
        assert_eq!(snapshot.targets.interests.len(), MAX_INTERESTS);
        assert!(!snapshot.targets.interests.contains(&interest("g000")));
    }
}
