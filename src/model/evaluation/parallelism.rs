//! How many members of a group can have work at once, and by which rule.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Subtopology};
use crate::model::lag::subscription::RememberedGroup;
use crate::model::lag::topic_summary::TopicWork;
use crate::model::settings::By;
use crate::model::units::newtypes::{Replicas, TopicName};
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::model::units::partition_filter::PartitionFilter;

/// An upper limit that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At most this many.
    Bounded(Replicas),
    /// No limit.
    Unbounded,
}

impl Limit {
    /// The number, if there is a limit.
    #[must_use]
    pub fn bounded(self) -> Option<u32> {
        match self {
            Limit::Bounded(Replicas(most)) => Some(most),
            Limit::Unbounded => None,
        }
    }

    /// The larger of two limits.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        match (self, other) {
            (Limit::Bounded(a), Limit::Bounded(b)) => Limit::Bounded(a.max(b)),
            _ => Limit::Unbounded,
        }
    }

    /// Cuts a count to the limit.
    #[must_use]
    pub fn cut(self, count: u32) -> u32 {
        self.bounded().map_or(count, |most| count.min(most))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Bounded(most) => most.fmt(f),
            Limit::Unbounded => f.write_str("no limit"),
        }
    }
}

/// The most members of a group that can have work, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Parallelism {
    /// The number of members.
    pub limit: Limit,
    pub rule: ParallelismRule,
}

impl Parallelism {
    /// The most replicas that can have work, with `threads` members in each.
    #[must_use]
    pub fn ceiling(self, threads: NonZeroU32) -> Limit {
        match self.limit {
            Limit::Bounded(Replicas(most)) => {
                Limit::Bounded(Replicas(most.div_ceil(threads.get())))
            }
            Limit::Unbounded => Limit::Unbounded,
        }
    }
}

/// Inputs of the useful parallelism of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupWork<'a> {
    /// Remembered facts about the group while it has no members.
    pub remembered: &'a RememberedGroup,
    /// The description of the group, as last read.
    pub description: Option<&'a GroupDescription>,
    /// The topics that count.
    pub topics: &'a [(&'a TopicName, TopicWork)],
    /// The partitions that count; `None` for all.
    pub filter: Option<&'a PartitionFilter>,
}

/// Finds the most members that an assignor can give work to.
#[must_use]
pub fn useful_parallelism(group: &GroupWork<'_>, by: By) -> Parallelism {
    let sum = |count: fn(&TopicWork) -> u32| {
        let counts = group.topics.iter().map(|(_, work)| count(work));
        counts.fold(0, u32::saturating_add)
    };
    let of_all = by_kind(group, sum);
    let (By::Lagging, Limit::Bounded(Replicas(most))) = (by, of_all.limit) else {
        return of_all;
    };
    let lagging = sum(|work| work.lagging).max(1);
    if lagging < most {
        bounded(lagging, ParallelismRule::Lagging)
    } else {
        of_all
    }
}

fn bounded(most: u32, rule: ParallelismRule) -> Parallelism {
    Parallelism {
        limit: Limit::Bounded(Replicas(most)),
        rule,
    }
}

fn by_kind(group: &GroupWork<'_>, sum: impl Fn(fn(&TopicWork) -> u32) -> u32) -> Parallelism {
    let largest = group.topics.iter().map(|(_, work)| work.partitions);
    let largest = largest.max().unwrap_or(0);
    let kind = group.description.map(|d| d.kind).or(group.remembered.kind);
    match kind {
        Some(GroupKind::Share) => {
            return Parallelism {
                limit: Limit::Unbounded,
                rule: ParallelismRule::Shared,
            };
        }
        Some(GroupKind::Streams) => {
            let subtopologies = group.description.map(|d| d.subtopologies.as_slice());
            if let Some(tasks) = tasks(subtopologies.unwrap_or_default(), group) {
                return bounded(tasks, ParallelismRule::Tasks);
            }
        }
        Some(GroupKind::Classic) if is_manual(group) => {
            let committed = sum(|work| work.committed);
            if committed > 0 {
                return bounded(committed, ParallelismRule::ManualAssignment);
            }
        }
        Some(GroupKind::Classic | GroupKind::Consumer) | None => {}
    }
    if group.topics.len() <= 1 {
        return bounded(largest, ParallelismRule::OneTopic);
    }
    match group.remembered.assignor.as_deref() {
        Some("roundrobin" | "sticky" | "cooperative-sticky" | "uniform") => {
            bounded(sum(|work| work.partitions), ParallelismRule::AllTopics)
        }
        Some("range") => bounded(largest, ParallelismRule::LargestTopic),
        // So is the assignor class of a streams application on the classic protocol: the broker does
        // not know its topology, and a join makes one task of several topics.
        Some(_) | None => bounded(largest, ParallelismRule::AssignorUnknown),
    }
}

/// Whether the group was described without ever having had a member.
fn is_manual(group: &GroupWork<'_>) -> bool {
    let is_unjoined = |d: &GroupDescription| d.state == GroupState::Unjoined && !d.has_members();
    !group.remembered.had_members && group.description.is_some_and(is_unjoined)
}

/// The tasks of a streams group; `None` where the broker does not describe all of its topology.
fn tasks(subtopologies: &[Subtopology], group: &GroupWork<'_>) -> Option<u32> {
    let of_source = |(topic, count): &(TopicName, Option<u32>)| {
        let known = group.topics.iter().find(|(name, _)| *name == topic);
        match (count, group.filter) {
            (Some(partitions), Some(filter)) => Some(filter.count(*partitions)),
            (Some(partitions), None) => Some(*partitions),
            (None, _) => known.map(|(_, work)| work.partitions),
        }
    };
    let mut all = 0u32;
    for part in subtopologies {
        // A task reads one partition of each source that has it.
        let sources = part.sources.iter().map(of_source);
        let most = sources.collect::<Option<Vec<_>>>()?.into_iter().max();
        all = all.saturating_add(most.unwrap_or(0));
    }
    (all > 0).then_some(all)
}

#[cfg(test)]
mod tests;
