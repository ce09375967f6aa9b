//! Selects the topics and partitions of a group that count for a target.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::parallelism::{GroupWork, Parallelism, useful_parallelism};
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::lag::topic_summary::{TopicSummary, TopicWork};
use crate::model::settings::By;
use crate::model::units::newtypes::TopicName;
use crate::model::units::partition_filter::PartitionFilter;
use crate::model::units::topic_pattern::TopicPattern;

/// A topic of a group with its readings.
pub type SelectedTopic<'a> = (&'a TopicName, &'a GroupTopic);

/// Topics that count, as positions among those of their group. Usually one; takes at most one bit for each topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    few: SmallVec<[u32; 4]>,
    /// A bit for each topic of the group, instead of `few`, where these would take more.
    bits: Box<[u64]>,
}

impl Positions {
    /// These positions (in ascending order) among `topics` topics.
    fn new(positions: SmallVec<[u32; 4]>, topics: usize) -> Self {
        let words = topics.div_ceil(64);
        if !positions.spilled() || positions.len() < words.saturating_mul(2) {
            return Self {
                few: positions,
                bits: Box::default(),
            };
        }
        let mut bits = vec![0u64; words];
        for position in positions {
            if let Some(word) = bits.get_mut(position as usize / 64) {
                *word |= 1u64.wrapping_shl(position % 64);
            }
        }
        Self {
            few: SmallVec::new(),
            bits: bits.into(),
        }
    }

    /// The positions in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let few = self.few.iter().map(|position| *position as usize);
        let many = self.bits.iter().enumerate().flat_map(|(index, word)| {
            let first = index.saturating_mul(64);
            let bits = (0..64u32).filter(move |bit| word.wrapping_shr(*bit) & 1 == 1);
            bits.map(move |bit| first.saturating_add(bit as usize))
        });
        few.chain(many)
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }
}

/// The topics of a group that count.
#[derive(Debug, Default)]
pub struct TopicSelection<'a> {
    /// The topics that were read, in the order of names.
    pub topics: Vec<SelectedTopic<'a>>,
    /// Topics to which the group's members subscribe and that were not read yet.
    pub unread: BTreeSet<TopicName>,
}

impl TopicSelection<'_> {
    /// The positions of the topics among those of the group that they were selected from.
    pub(super) fn positions(&self, group: &GroupSnapshot) -> Positions {
        // Both are in the order of names.
        let mut selected = self.topics.iter().peekable();
        let all = (0u32..).zip(group.topics.keys());
        let found = all.filter(|(_, topic)| selected.next_if(|(name, _)| name == topic).is_some());
        let positions = found.map(|(index, _)| index).collect();
        Positions::new(positions, group.topics.len())
    }
}

/// Selects the topics of a group that count: those that are `named`; without names those to which its
/// members subscribe or last subscribed; if that is unknown, those on which it has committed. The pattern
/// filters topics that are not named, and adds those of the cluster that match while there are no members.
/// A topic that the group does not read never counts.
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
        // What requests name must not make the lag unknown for others.
        let has_commits = !reads.is_all && group.counts(topic) && read.may_have_commits();
        let is_expected = exists && pattern.is_some_and(|p| group.would_read(p, topic));
        (is_read || has_commits || is_expected) && matches(topic)
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
pub fn usable<'a>(topic: &'a GroupTopic, filter: Option<&PartitionFilter>) -> Option<&'a TopicLag> {
    let latest = topic.latest.as_deref().ok();
    // The latest reading is never older than the last complete one.
    latest
        .filter(|lag| filter.is_some() && summary(lag, filter).total.is_ok())
        .or(topic.complete.as_deref())
}

/// Sums up the partitions that count.
#[must_use]
pub fn summary(lag: &TopicLag, filter: Option<&PartitionFilter>) -> TopicSummary {
    let Some(filter) = filter else {
        return lag.summary;
    };
    let counted = lag.counted(Some(filter));
    let counted = counted.filter_map(|p| Some((*lag.lags.get(p)?, lag.committed.get(p)?)));
    TopicSummary::new(counted)
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
        works.push((topic, lag.summary.work));
    }
    let reads_some = !works.is_empty() && picked.unread.is_empty();
    reads_some.then(|| parallelism(group, &works, None, By::Partitions))
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_stay_the_same_however_they_are_kept(
            topics in 1..2000usize,
            chosen in btree_set(0..2000u32, 0..2000),
        ) {
            let chosen = chosen.into_iter().filter(|position| (*position as usize) < topics);
            let chosen: SmallVec<[u32; 4]> = chosen.collect();
            let positions = Positions::new(chosen.clone(), topics);
            let expected: Vec<_> = chosen.iter().map(|position| *position as usize).collect();
            prop_assert_eq!(positions.len(), expected.len());
            prop_assert_eq!(positions.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn positions_take_at_most_a_bit_for_each_topic() {
        for (chosen, topics) in [(10_000, 10_000), (9_999, 10_000), (400, 10_000), (5, 10)] {
            let positions = Positions::new((0..chosen).collect(), topics);
            let few = positions.few.len() * size_of::<u32>();
            let bits = positions.bits.len() * 8;
            let most = (topics / 8 + 8).max(16);
            assert!(few + bits <= most, "{chosen} of {topics}: {few} + {bits}");
        }
    }
}
