//! Selects the topics and partitions of a group that count for a target, and adds up their lag.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::parallelism::{GroupWork, Parallelism, TopicWork, useful_parallelism};
use crate::model::kafka::fault::Fault;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::settings::By;
use crate::model::units::newtypes::{Lag, TopicName};
use crate::model::units::partition_filter::PartitionFilter;
use crate::model::units::topic_pattern::TopicPattern;

/// A topic of a group with its readings.
pub type SelectedTopic<'a> = (&'a TopicName, &'a GroupTopic);

/// The topics of a group that count.
#[derive(Debug, Default)]
pub struct TopicSelection<'a> {
    /// The topics that were read, in the order of names.
    pub topics: Vec<SelectedTopic<'a>>,
    /// Topics to which the group's members subscribe and that were not read yet.
    pub unread: BTreeSet<TopicName>,
}

/// Selects the topics of a group that count: those that are `named`; without names those to which its
/// members subscribe; without members those on which it has committed. The pattern filters topics that
/// are not named. A topic that the group does not read never counts.
#[must_use]
pub fn pick<'a>(
    group: &'a GroupSnapshot,
    named: &BTreeSet<TopicName>,
    pattern: Option<&TopicPattern>,
) -> TopicSelection<'a> {
    let all = group.topics.iter();
    if !named.is_empty() {
        return TopicSelection {
            topics: all.filter(|(topic, _)| named.contains(*topic)).collect(),
            unread: BTreeSet::new(),
        };
    }
    let mut reads = group.subscription();
    let matches = |topic: &TopicName| pattern.is_none_or(|p| p.matches(topic));
    let counts = |(topic, read): &SelectedTopic<'_>| {
        // A deleted topic has no lag, though its members still subscribe to it.
        let exists = read.latest.as_ref().err() != Some(&Fault::TopicMissing);
        let is_read = exists && reads.topics.contains(*topic);
        (is_read || (!reads.is_all && read.may_have_commits())) && matches(topic)
    };
    let topics = all.filter(counts).collect();
    reads
        .topics
        .retain(|topic| matches(topic) && !group.topics.contains_key(topic));
    TopicSelection {
        topics,
        unread: reads.topics,
    }
}

/// The reading of a topic that is served until it is stale: the last complete one, or, where only some
/// partitions count, the latest one in which these are known.
#[must_use]
pub fn usable<'a>(
    topic: &'a GroupTopic,
    filter: Option<&PartitionFilter>,
) -> Option<&'a Arc<TopicLag>> {
    let latest = topic.latest.as_ref().ok();
    // The latest reading is never older than the last complete one.
    latest
        .filter(|lag| filter.is_some() && total(lag, filter).is_ok())
        .or(topic.complete.as_ref())
}

/// The lags of the partitions that count.
fn counted<'a>(
    lag: &'a TopicLag,
    filter: Option<&'a PartitionFilter>,
) -> impl Iterator<Item = (usize, Result<PartitionLag, Fault>)> + 'a {
    let all = lag.lags.iter().copied().enumerate();
    all.filter(move |(partition, _)| filter.is_none_or(|f| f.contains(*partition)))
}

/// Sums the lag for scaling over the partitions that count. One unknown partition
/// makes the sum unknown.
///
/// # Errors
/// The first unknown partition's fault.
pub fn total(lag: &TopicLag, filter: Option<&PartitionFilter>) -> Result<Lag, Fault> {
    if filter.is_none() {
        return lag.total();
    }
    let lags = || counted(lag, filter).map(|(_, lag)| lag);
    let sum = lags().map(|lag| lag.map(PartitionLag::for_scaling));
    let is_stuck = |lag| matches!(lag, Ok(PartitionLag::Stuck { .. }));
    // As in `TopicLag::total`: a stuck partition keeps its group from being scaled to zero.
    let least = Lag(u64::from(lags().any(is_stuck)));
    Ok(sum.sum::<Result<Lag, Fault>>()?.max(least))
}

/// Whether every partition that counts is [`PartitionLag::NeverRan`].
#[must_use]
pub fn never_ran(lag: &TopicLag, filter: Option<&PartitionFilter>) -> bool {
    let mut lags = counted(lag, filter).map(|(_, lag)| lag).peekable();
    lags.peek().is_some() && lags.all(|lag| lag == Ok(PartitionLag::NeverRan))
}

/// Counts the partitions of a topic that can be assigned, that have a commit, and that have lag.
#[must_use]
pub fn work(lag: &TopicLag, filter: Option<&PartitionFilter>) -> TopicWork {
    let mut work = TopicWork::default();
    for (partition, lag_of) in counted(lag, filter) {
        let has_commit = matches!(lag.committed.get(partition), Some(Ok(Some(_))));
        let has_lag = lag_of.is_ok_and(|lag| lag.for_scaling() > Lag(0));
        work.partitions = work.partitions.saturating_add(1);
        work.committed = work.committed.saturating_add(u32::from(has_commit));
        work.lagging = work.lagging.saturating_add(u32::from(has_lag));
    }
    work
}

/// The useful parallelism of a group on these topics.
#[must_use]
pub fn parallelism(
    group: &GroupSnapshot,
    topics: &[(&TopicName, TopicWork)],
    filter: Option<&PartitionFilter>,
    by: By,
) -> Parallelism {
    let work = GroupWork {
        remembered: &group.remembered,
        description: group.description.as_deref(),
        topics,
        filter,
    };
    useful_parallelism(&work, by)
}

/// The useful parallelism of a group on everything that it reads. `None` while one of its topics is
/// unknown, since the others alone would give too low a limit, and where it reads nothing.
#[must_use]
pub fn whole_parallelism(group: &GroupSnapshot) -> Option<Parallelism> {
    let picked = pick(group, &BTreeSet::new(), None);
    let mut works = Vec::new();
    for (topic, read) in picked.topics {
        let ((Ok(lag), _) | (Err(_), Some(lag))) = (&read.latest, &read.complete) else {
            return None;
        };
        works.push((topic, work(lag, None)));
    }
    let reads_some = !works.is_empty() && picked.unread.is_empty();
    reads_some.then(|| parallelism(group, &works, None, By::Partitions))
}
