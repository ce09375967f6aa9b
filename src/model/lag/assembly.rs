//! Turns observations into cluster snapshots by the lag rules and the history of earlier sweeps.

mod group;
mod kept_reading;
mod similar_groups;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use self::group::Assembly;
use self::similar_groups::NameComparison;
use super::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, Sweep, TopicLag};
use super::history::clock::{Now, Stamp, Timeline};
use super::history::group::GroupHistory;
use super::history::log::LogHistory;
use super::history::memory::{SavedCluster, SavedGroup, SavedTopic};
use super::history::partition::{PartitionState, PartitionStateKind};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{Observation, TopicOffsets};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::units::newtypes::{GroupId, Moment, TopicName};

/// How long a topic or partition may be missing from the metadata before it is taken for deleted. A broker
/// that has just started may leave some out, and a sum without them would be too small.
const MISSING_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// How long the history of a group is kept that is no longer part of the sweep, since its HPA may be
/// recreated.
const KEEP_UNUSED_GROUPS: Duration = Duration::from_secs(3600);

/// Maximum number of such groups, and of their partitions. A user who may write HPAs could name other groups every
/// second.
const MAX_UNUSED_GROUPS: usize = 2_000;
const MAX_UNUSED_PARTITIONS: usize = 100_000;

/// How often histories that are no longer needed are dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Which groups an observation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All groups of the sweep plan; groups that it does not contain are dropped.
    Whole,
    /// Some groups, read between two whole sweeps; the others stay as they are.
    Partial,
}

/// History of one Kafka cluster across sweeps. Owned by the poller.
#[derive(Debug, Default)]
pub struct ClusterHistory {
    current: Arc<ClusterSnapshot>,
    timeline: Timeline,
    logs: BTreeMap<TopicName, LogHistory>,
    groups: BTreeMap<GroupId, GroupHistory>,
    pruned: Stamp,
    /// How many times the names of the cluster's groups were listed.
    times_listed: usize,
}

type SharedTopics = BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>;

impl ClusterHistory {
    /// Applies an observation and returns the new snapshot.
    pub fn apply(&mut self, observation: Observation, scope: Scope) -> Arc<ClusterSnapshot> {
        let Observation {
            started,
            finished,
            topics,
            groups: observed,
            connection,
            unreachable_brokers,
            traffic,
            listings,
            group_names,
            certificates,
            ..
        } = observation;
        let now = self.timeline.at(&started);
        for (topic, read) in &topics {
            let read = read.as_deref().map_err(|fault| *fault);
            if let Some(log) = self.logs.get_mut(topic) {
                log.apply(&read, now);
            } else if read.is_ok() {
                let mut log = LogHistory::default();
                log.apply(&read, now);
                self.logs.insert(topic.clone(), log);
            }
        }
        // Looked up for every topic of every group.
        let logs: HashMap<_, _> = topics
            .iter()
            .map(|(topic, read)| (topic, (read.as_ref(), self.logs.get(topic))))
            .collect();
        let before = Arc::clone(&self.current);
        // Keep groups that a partial sweep requested after this sweep started: the plan of this sweep does not have
        // them.
        let is_newer = |group: &GroupSnapshot| group.requested_at.monotonic > started.monotonic;
        let names = group_names.as_deref().map(|names| {
            let without_commit = observed.iter().filter(|group| group.has_no_commit());
            let comparison = NameComparison::new(names, without_commit.count(), self.times_listed);
            self.times_listed = self.times_listed.wrapping_add(1);
            comparison
        });
        let mut assembled = Vec::with_capacity(observed.len());
        for group in observed {
            let known = before.groups.get(&group.plan.group);
            if known.is_some_and(|known| is_newer(known)) {
                continue;
            }
            let id = group.plan.group.clone();
            let history = self.groups.entry(id.clone()).or_default();
            let assembly = Assembly {
                logs: &logs,
                read: started,
                now,
                listings: &listings,
                names: names.as_ref(),
            };
            let known = known.map(|known| &**known);
            assembled.push((id, Arc::new(assembly.group(group, history, known))));
        }
        drop(logs);
        let (sweep, groups) = match scope {
            Scope::Whole => {
                let newer = before.groups.iter().filter(|(_, group)| is_newer(group));
                assembled.extend(newer.map(|(id, group)| (id.clone(), Arc::clone(group))));
                // From a list that is nearly sorted, the map is built without a search for each group.
                (
                    Some(Sweep { started, finished }),
                    assembled.into_iter().collect(),
                )
            }
            Scope::Partial => {
                let mut groups = before.groups.clone();
                groups.extend(assembled);
                (before.sweep, groups)
            }
        };
        let unreachable_brokers = match scope {
            Scope::Whole => unreachable_brokers,
            // Brokers that this sweep did not need stay listed. One that failed again is listed with its new reason.
            Scope::Partial => {
                let known = before.unreachable_brokers.iter().cloned();
                let all = known.chain(unreachable_brokers);
                let all = all.map(|broker| (Arc::clone(&broker.address), broker));
                BTreeMap::from_iter(all).into_values().collect()
            }
        };
        let traffic = match (before.traffic, traffic) {
            // Of two overlapping sweeps the one that ends last may carry the older count.
            (Some(known), Some(earlier)) if earlier.requests < known.requests => Some(known),
            (known, counted) => counted.or(known),
        };
        self.current = Arc::new(ClusterSnapshot {
            sweep,
            connection,
            unreachable_brokers: unreachable_brokers.into(),
            traffic,
            certificates,
            groups,
        });
        if scope == Scope::Whole && self.pruned.elapsed(now) >= PRUNE_INTERVAL {
            self.pruned = now.into();
            self.prune(&topics, now);
        }
        Arc::clone(&self.current)
    }

    /// Adds to the plan the topics whose committed offsets have disappeared. OffsetFetch no longer reports
    /// these topics, and their log-end offsets are still needed.
    pub fn add_forgotten_topics(&self, plan: &mut [GroupPlan]) {
        for plan in plan.iter_mut().filter(|plan| plan.discover) {
            let Some(history) = self.groups.get(&plan.group) else {
                continue;
            };
            let read = self.current.groups.get(&plan.group);
            for (topic, states) in &history.topics {
                let found = read.and_then(|read| read.topics.get(topic));
                let commits = |lag: &TopicLag| lag.committed.iter().any(|c| c != Ok(None));
                let is_found = found.is_some_and(|t| t.latest.as_ref().is_ok_and(|l| commits(l)));
                let had_commit = |state: &PartitionState| {
                    matches!(
                        state.kind(),
                        PartitionStateKind::Committed | PartitionStateKind::Forgotten
                    )
                };
                if !is_found && states.iter().any(had_commit) {
                    Arc::make_mut(&mut plan.topics).insert(topic.clone());
                }
            }
        }
    }

    /// The part of the history that has to survive a restart.
    pub fn export(&mut self, now: &Moment) -> SavedCluster {
        let now = Stamp::from(self.timeline.at(now));
        let groups = self.groups.iter();
        let worth_saving =
            groups.filter(|(_, g)| !g.topics.is_empty() || !g.remembered.is_nothing());
        let named: BTreeSet<_> = self.groups.values().flat_map(|g| g.topics.keys()).collect();
        let logs = self.logs.iter().filter(|(topic, _)| named.contains(topic));
        SavedCluster {
            topics: logs
                .map(|(topic, log)| (topic.as_str().to_owned(), SavedTopic::of(log, now)))
                .collect(),
            groups: worth_saving
                .map(|(id, group)| (id.as_str().to_owned(), SavedGroup::of(group, now)))
                .collect(),
            policies: Vec::new(),
        }
    }

    /// Merges the history that an earlier process exported at `saved` (seconds since 1970). Where the two
    /// disagree, readings of this process are right.
    pub fn import(&mut self, memory: &SavedCluster, saved: u32, now: &Moment) {
        let now = self.timeline.at(now);
        let mut recreated = BTreeSet::new();
        for (name, topic) in &memory.topics {
            let name = TopicName::from(name.as_str());
            let earlier = topic.restore(saved, now);
            match self.logs.get_mut(&name) {
                Some(log) if log.id.is_some() && earlier.id.is_some() && log.id != earlier.id => {
                    recreated.insert(name);
                }
                Some(log) => log.restore(&earlier),
                None => {
                    self.logs.insert(name, earlier);
                }
            }
        }
        for (id, group) in &memory.groups {
            let mut earlier = group.restore(saved, now);
            let topics: Vec<_> = earlier.topics.keys().cloned().collect();
            for topic in &topics {
                let (log, states) = (self.logs.get(topic), earlier.topics.get_mut(topic));
                let logs = log.map(|log| log.partitions.as_slice()).unwrap_or_default();
                for (state, log) in states.into_iter().flatten().zip(logs) {
                    // The topic was recreated since: the saved state belongs to neither the current log nor the
                    // previous one.
                    let back = if recreated.contains(topic) { 2 } else { 0 };
                    *state = state.with_epoch(log.epoch.wrapping_sub(back));
                }
            }
            let id = GroupId::from(id.as_str());
            self.groups.entry(id).or_default().restore(earlier, now);
        }
    }

    /// Drops groups that are no longer part of the sweep, and deleted topics.
    fn prune(&mut self, read: &SharedTopics, now: Now) {
        let (logs, current) = (&self.logs, &self.current);
        let is_deleted = |topic: &TopicName| {
            let missing = logs.get(topic).and_then(|log| log.missing);
            missing.is_some_and(|since| since.elapsed(now) >= MISSING_GRACE_PERIOD)
        };
        self.groups.retain(|id, group| {
            group.topics.retain(|topic, _| !is_deleted(topic));
            current.groups.contains_key(id) || group.requested_at.elapsed(now) < KEEP_UNUSED_GROUPS
        });
        self.drop_excess_unused(now);
        let named: BTreeSet<_> = self.groups.values().flat_map(|g| g.topics.keys()).collect();
        self.logs
            .retain(|topic, _| named.contains(topic) || read.contains_key(topic));
    }

    /// Limits the number of groups that are no longer part of the sweep, by dropping those that left it first.
    fn drop_excess_unused(&mut self, now: Now) {
        let unused = self.groups.iter();
        let unused = unused.filter(|(id, _)| !self.current.groups.contains_key(*id));
        let mut unused: Vec<_> = unused
            .map(|(id, group)| {
                let partitions = group.topics.values().map(|states| states.len());
                let partitions = partitions.fold(0, usize::saturating_add);
                (group.requested_at.elapsed(now), partitions, id.clone())
            })
            .collect();
        unused.sort();
        let mut kept = 0usize;
        for (rank, (_, partitions, id)) in unused.into_iter().enumerate() {
            kept = kept.saturating_add(partitions);
            if rank >= MAX_UNUSED_GROUPS || kept > MAX_UNUSED_PARTITIONS {
                self.groups.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
