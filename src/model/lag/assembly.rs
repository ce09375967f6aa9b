//! Observations -> snapshots: applies the lag rules, with what is remembered between sweeps.

mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::group::Assembly;
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

/// How long a topic or partition that a group was seen to read is missed before it is taken to be
/// gone. The metadata of a broker that has just started may leave some out, and a sum without them
/// would be too small.
const MISSED_FOR: Duration = Duration::from_secs(60);

/// How long a group is remembered that nobody asks about: an HPA may be replaced by another.
const KEPT_UNASKED: Duration = Duration::from_secs(3600);

/// How often what is remembered is looked through for what is not needed any more.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Which groups an observation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that are wanted: groups it does not name are wanted no more.
    Whole,
    /// Some, read out of turn: the others stay as they are.
    Some,
}

/// What is remembered of one Kafka cluster between sweeps. One owner, the poller.
#[derive(Debug, Default)]
pub struct ClusterHistory {
    current: Arc<ClusterSnapshot>,
    timeline: Timeline,
    logs: BTreeMap<TopicName, LogHistory>,
    groups: BTreeMap<GroupId, GroupHistory>,
    tidied: Stamp,
}

type SharedTopics = BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>;

impl ClusterHistory {
    /// Takes in what a sweep brought and returns what is known now.
    pub fn take_in(&mut self, observation: Observation, scope: Scope) -> Arc<ClusterSnapshot> {
        let Observation {
            started,
            finished,
            topics,
            groups: observed,
            connection,
            traffic,
            ..
        } = observation;
        let now = self.timeline.at(&started);
        for (topic, read) in &topics {
            let read = read.as_deref().map_err(|fault| *fault);
            if let Some(log) = self.logs.get_mut(topic) {
                log.take_in(&read, now);
            } else if read.is_ok() {
                let mut log = LogHistory::default();
                log.take_in(&read, now);
                self.logs.insert(topic.clone(), log);
            }
        }
        let before = Arc::clone(&self.current);
        // A group that was read out of turn after this sweep had begun is not in its plan.
        let is_newer = |group: &GroupSnapshot| group.asked.monotonic > started.monotonic;
        let (sweep, mut groups) = match scope {
            Scope::Whole => {
                let newer = before.groups.iter().filter(|(_, group)| is_newer(group));
                let newer = newer.map(|(id, group)| (id.clone(), Arc::clone(group)));
                (Some(Sweep { started, finished }), newer.collect())
            }
            Scope::Some => (before.sweep, before.groups.clone()),
        };
        for group in observed {
            let known = before.groups.get(&group.plan.group);
            if known.is_some_and(|known| is_newer(known)) {
                continue;
            }
            let id = group.plan.group.clone();
            let history = self.groups.entry(id.clone()).or_default();
            let assembly = Assembly {
                logs: &self.logs,
                topics: &topics,
                read: started,
                now,
            };
            let known = known.map(|known| &**known);
            groups.insert(id, Arc::new(assembly.group(group, history, known)));
        }
        let traffic = match (before.traffic, traffic) {
            // Of two sweeps at once the one that ends last may have counted first.
            (Some(known), Some(earlier)) if earlier.requests < known.requests => Some(known),
            (known, counted) => counted.or(known),
        };
        self.current = Arc::new(ClusterSnapshot {
            sweep,
            connection,
            traffic,
            groups,
        });
        if scope == Scope::Whole && self.tidied.elapsed(now) >= TIDY_EVERY {
            self.tidied = now.into();
            self.tidy(&topics, now);
        }
        Arc::clone(&self.current)
    }

    /// Names in the plan what its groups once committed on and the last reading did not bring: a
    /// commit that vanished is not discovered, and its topic's end has to be known all the same.
    pub fn name_remembered(&self, plan: &mut [GroupPlan]) {
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
                    plan.topics.insert(topic.clone());
                }
            }
        }
    }

    /// What has to survive a restart, at `now`.
    pub fn export(&mut self, now: &Moment) -> SavedCluster {
        let now = Stamp::from(self.timeline.at(now));
        let groups = self.groups.iter();
        let worth = groups.filter(|(_, g)| !g.topics.is_empty() || !g.remembered.is_nothing());
        let named: BTreeSet<_> = self.groups.values().flat_map(|g| g.topics.keys()).collect();
        let logs = self.logs.iter().filter(|(topic, _)| named.contains(topic));
        SavedCluster {
            topics: logs
                .map(|(topic, log)| (topic.to_string(), SavedTopic::of(log, now)))
                .collect(),
            groups: worth
                .map(|(id, group)| (id.to_string(), SavedGroup::of(group, now)))
                .collect(),
        }
    }

    /// Recalls what an earlier process exported at `saved`, in seconds since 1970. What was read
    /// since counts where the two disagree.
    pub fn import(&mut self, memory: &SavedCluster, saved: u32, now: &Moment) {
        let now = self.timeline.at(now);
        let mut others = BTreeSet::new();
        for (name, topic) in &memory.topics {
            let name = TopicName::from(name.as_str());
            let earlier = topic.restore(saved, now);
            match self.logs.get_mut(&name) {
                Some(log) if log.id.is_some() && earlier.id.is_some() && log.id != earlier.id => {
                    others.insert(name);
                }
                Some(log) => log.recall(&earlier),
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
                    // Of a log that has come and gone, it is of neither this one nor the last.
                    let back = if others.contains(topic) { 2 } else { 0 };
                    *state = state.of_epoch(log.epoch.wrapping_sub(back));
                }
            }
            let id = GroupId::from(id.as_str());
            self.groups.entry(id).or_default().recall(earlier, now);
        }
    }

    /// Forgets what nobody asks about, and topics that are gone.
    fn tidy(&mut self, read: &SharedTopics, now: Now) {
        let (logs, current) = (&self.logs, &self.current);
        let is_gone = |topic: &TopicName| {
            let missing = logs.get(topic).and_then(|log| log.missing);
            missing.is_some_and(|since| since.elapsed(now) >= MISSED_FOR)
        };
        self.groups.retain(|id, group| {
            group.topics.retain(|topic, _| !is_gone(topic));
            current.groups.contains_key(id) || group.asked.elapsed(now) < KEPT_UNASKED
        });
        let named: BTreeSet<_> = self.groups.values().flat_map(|g| g.topics.keys()).collect();
        self.logs
            .retain(|topic, _| named.contains(topic) || read.contains_key(topic));
    }
}

#[cfg(test)]
mod tests;
