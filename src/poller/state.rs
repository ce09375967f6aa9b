//! Everything that changes between snapshots: targets, readings, and the evaluations of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::findings_tracker::FindingsTracker;
use super::partition_ledger::PartitionLedger;
use super::polled_cluster::PolledCluster;
use super::recent_requests::RecentRequests;
use super::sweeps::{FinishedSweep, PlannedSweep};
use super::transitions;
use crate::model::decisions::scale_to_zero;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::target_policies::TargetPolicies;
use crate::model::evaluation::{Clusters, Evaluations, EvaluationsAt, ServingPolicy};
use crate::model::findings::ReportedFindings;
use crate::model::hpa::facts::HpaMap;
use crate::model::kafka::observation::Observation;
use crate::model::lag::assembly::Scope;
use crate::model::lag::history::memory::{SavedCluster, SavedHistory};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::budgets::BudgetExceeded;
use crate::model::targets::metric_query::AdHocQuery;
use crate::model::targets::{TargetOptions, Targets, WatchKey};
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::snapshot_channel::Publisher;
use crate::telemetry::PollFinished;
use crate::telemetry::finding_log::FindingLog;

/// Maximum number of groups, and of queries, that are kept because of recent requests.
pub(super) const MAX_AD_HOC: usize = 200;

/// The state of a poller, without the tasks that read from Kafka.
///
/// The work for a change of HPAs, up to the published snapshot, is proportional to the change. Users who may write HPAs
/// decide how large that is, so changes are made on threads for blocking tasks. Only [`publish`](Self::publish) and the
/// recording of requests are quick enough for the runtime.
#[derive(Debug)]
pub struct PollerState {
    publisher: Publisher,
    clusters: BTreeMap<ClusterName, PolledCluster>,
    /// Clusters that partial sweeps skip now.
    busy: BTreeSet<ClusterName>,
    targets: Arc<Targets>,
    watch_keys: RecentRequests<WatchKey>,
    queries: RecentRequests<AdHocQuery>,
    evaluations: Arc<Evaluations>,
    policies: TargetPolicies,
    findings: FindingsTracker,
    finding_log: FindingLog,
    idle: Arc<IdleSince>,
    ledger: PartitionLedger,
    unread_partitions: Arc<BTreeMap<BudgetExceeded, usize>>,
}

impl PollerState {
    /// Creates the state before anything was read and the HPAs were listed.
    #[must_use]
    pub fn new(
        clusters: &[ClusterName],
        options: TargetOptions,
        policy: ServingPolicy,
        publisher: Publisher,
    ) -> Self {
        let polled = clusters.iter();
        let mut state = Self {
            publisher,
            clusters: polled
                .map(|c| (c.clone(), PolledCluster::default()))
                .collect(),
            busy: BTreeSet::new(),
            targets: Arc::default(),
            watch_keys: RecentRequests::new(MAX_AD_HOC),
            queries: RecentRequests::new(MAX_AD_HOC),
            evaluations: Arc::new(Evaluations::new(policy)),
            policies: TargetPolicies::default(),
            findings: FindingsTracker::default(),
            finding_log: FindingLog::default(),
            idle: Arc::default(),
            ledger: PartitionLedger::default(),
            unread_partitions: Arc::default(),
        };
        let now = Some(Moment::now());
        let targets = Targets::new(clusters, options, now);
        state.set_targets(targets.with_hpas_unlisted());
        state
    }

    /// Replaces the HPAs and evaluates; `None` while they are not listed, which changes nothing.
    pub fn update_hpas(&mut self, hpas: Option<&HpaMap>) {
        if let Some(hpas) = hpas {
            self.set_targets(self.targets.with_hpas(hpas, Some(Moment::now())));
        }
        self.evaluate();
        self.resume_policies();
    }

    /// Records the keys of requests. Returns whether any of them is new, so that [`update_ad_hoc`](Self::update_ad_hoc)
    /// is due.
    pub(super) fn record_requests(&mut self, keys: impl Iterator<Item = WatchKey>) -> bool {
        let mut is_new = false;
        for key in keys {
            is_new |= self.watch_keys.insert(key);
        }
        is_new
    }

    /// Records a query that was answered and that no HPA sends. It is evaluated with the next snapshot; until then
    /// requests evaluate it themselves.
    pub(super) fn keep_query(&mut self, query: AdHocQuery) {
        self.queries.insert(query);
    }

    /// Forgets keys and queries without a recent request.
    pub(super) fn expire(&mut self) {
        self.queries.expire();
        if self.watch_keys.expire() {
            self.update_ad_hoc();
        }
    }

    /// Adds the recorded requests to the targets.
    pub(super) fn update_ad_hoc(&mut self) {
        let keys = self.watch_keys.iter().cloned().collect();
        self.set_targets(self.targets.with_ad_hoc(keys, Some(Moment::now())));
    }

    /// Replaces the targets, reports new findings and notes which groups need a new plan.
    fn set_targets(&mut self, targets: Targets) {
        let (log, now) = (&mut self.finding_log, Instant::now());
        self.targets.diff_findings(&targets, |finding, is_new| {
            if is_new {
                log.record(finding, now);
            }
        });
        let (clusters, ledger) = (&mut self.clusters, &mut self.ledger);
        let groups = self.targets.groups();
        groups.diff(targets.groups(), |key, before, _| {
            let (cluster, group) = key;
            if let Some(cluster) = clusters.get_mut(cluster) {
                cluster.outdated.insert(group.clone());
            }
            ledger.update_owners(key, before.map(Arc::as_ref), &targets);
        });
        self.targets = Arc::new(targets);
    }

    /// Sets the clusters that partial sweeps skip now. Plans that are outdated stay so.
    pub(super) fn set_busy(&mut self, clusters: BTreeSet<ClusterName>) {
        self.busy = clusters;
    }

    /// Updates the plan of every cluster that is not busy. Returns sweeps of the groups with a new or changed plan,
    /// within the budgets.
    pub fn replan(&mut self) -> Vec<PlannedSweep> {
        self.plan(|_| Scope::Partial)
    }

    /// Plans a sweep of every cluster. For clusters that are still being swept, it only covers new groups.
    pub(super) fn plan_sweeps(&mut self, sweeping: &BTreeSet<ClusterName>) -> Vec<PlannedSweep> {
        self.plan(|cluster| match sweeping.contains(cluster) {
            true => Scope::Partial,
            false => Scope::Whole,
        })
    }

    fn plan(&mut self, scope: impl Fn(&ClusterName) -> Scope) -> Vec<PlannedSweep> {
        let mut planned = Vec::new();
        for (name, cluster) in &mut self.clusters {
            let scope = scope(name);
            if scope == Scope::Partial && self.busy.contains(name) {
                continue;
            }
            let changed = cluster.replan(name, &self.targets);
            let plan = match scope {
                Scope::Whole => {
                    let changing: BTreeSet<_> = self.policies.changing_groups(name).collect();
                    cluster.whole_plan(|group| changing.contains(group))
                }
                Scope::Partial if changed.groups.is_empty() => continue,
                Scope::Partial => changed,
            };
            let (plan, left_out) = self.ledger.split_plan(name, plan, &self.targets);
            if scope == Scope::Whole {
                cluster.left_out = left_out;
            } else if plan.groups.is_empty() {
                continue;
            }
            planned.push(PlannedSweep {
                cluster: name.clone(),
                plan,
                scope,
            });
        }
        planned
    }

    /// Applies the observations of finished sweeps. A whole sweep also publishes the findings of other components.
    pub(super) fn apply_finished(
        &mut self,
        finished: Vec<FinishedSweep>,
        reported_findings: ReportedFindings,
    ) {
        self.findings.set_reported_findings(reported_findings);
        for (observation, scope) in finished {
            self.apply(observation, scope);
        }
    }

    /// Applies an observation of a cluster, and evaluates.
    pub fn apply(&mut self, mut observation: Observation, scope: Scope) {
        let name = observation.cluster.clone();
        self.ledger.apply(&mut observation, &self.targets);
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        if scope == Scope::Whole {
            observation.groups.append(&mut cluster.left_out);
        }
        let took = observation.finished.since(&observation.started);
        let (started, finished) = (observation.started, observation.finished);
        // The members of a group may read topics that no target names.
        let read = observation.groups.iter().map(|group| &group.plan);
        let discovering = read.filter(|plan| plan.discover);
        cluster
            .outdated
            .extend(discovering.map(|plan| plan.group.clone()));
        let before = Arc::clone(&cluster.latest);
        cluster.latest = cluster.history.apply(observation, scope);
        if scope == Scope::Whole {
            let groups = cluster.latest.groups.values();
            PollFinished {
                cluster: &name,
                took,
                group_topics: groups.map(|group| group.topics.len()).sum(),
                incomplete: cluster.latest.incomplete(),
            }
            .emit();
        }
        transitions::report_transitions(
            &name,
            &before,
            &cluster.latest,
            &finished,
            &mut cluster.broker_log,
        );
        self.evaluate();
        if scope == Scope::Whole {
            let evaluations = std::mem::take(&mut self.evaluations);
            self.evaluations = self.policies.observe_sweep(&name, evaluations, &started);
            self.update_idle();
            self.unread_partitions = Arc::new(self.ledger.exceeded_budgets());
            let snapshot = self.snapshot();
            self.findings.update(&snapshot, &mut self.finding_log);
            self.finding_log.log_omissions(Instant::now());
        } else {
            self.resume_policies();
        }
    }

    /// Publishes the latest evaluations. Returns the snapshot before, which may take long to free.
    pub fn publish(&self) -> Arc<LagSnapshot> {
        self.publisher.publish(self.snapshot())
    }

    fn evaluate(&mut self) {
        let queries = self.queries.iter();
        self.evaluations = self
            .evaluations
            .next(&self.latest(), &self.targets, queries);
    }

    fn resume_policies(&mut self) {
        self.evaluations = self.policies.resume(&self.evaluations, &Moment::now());
    }

    /// The latest readings of every cluster.
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
            unread_partitions: Arc::clone(&self.unread_partitions),
        }
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

    /// Merges the history that an earlier process saved.
    pub(super) fn load(&mut self, saved: &SavedHistory) {
        let now = Moment::now();
        for (name, cluster) in &mut self.clusters {
            if let Some(known) = saved.clusters.get(name.as_str()) {
                cluster.history.import(known, saved.saved, &now);
                self.policies.import(name, &known.policies, saved.saved);
            }
        }
        self.resume_policies();
    }

    /// Whether a policy has decided for another number of replicas since the last save.
    pub(super) fn has_unsaved_decisions(&self) -> bool {
        self.policies.is_unsaved()
    }

    /// The history to save.
    pub(super) fn export(&mut self) -> SavedHistory {
        let now = Moment::now();
        let since_1970 = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let policies = &mut self.policies;
        let clusters = self.clusters.iter_mut().map(|(name, cluster)| {
            let saved = SavedCluster {
                policies: policies.export(name, &now),
                ..cluster.history.export(&now)
            };
            (name.as_str().to_owned(), saved)
        });
        SavedHistory {
            saved: since_1970.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX)),
            clusters: clusters.collect(),
            ..SavedHistory::default()
        }
    }
}
