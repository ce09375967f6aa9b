//! Converts a reading of a group to the input of the rate policy.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::model::evaluation::GroupEvaluation;
use crate::model::evaluation::group_evaluation::TopicReading;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::policy::reading::GroupPartition;
use crate::model::units::newtypes::{Offset, TopicName};
use crate::model::units::partition_filter::counted_partitions;

/// The numbers of members that the policy may want.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingBounds {
    /// Most members that can have work.
    pub(super) ceiling: u32,
    pub(super) fewest: u32,
    pub(super) most: u32,
    /// `most` without a hold.
    pub(super) all: u32,
    /// Members in each replica.
    pub(super) threads: NonZeroU32,
}

impl ReadingBounds {
    /// A number of members within the bounds, as the policy applies them.
    pub(super) fn clamp(&self, members: u32) -> u32 {
        let most = self.most.clamp(1, self.ceiling.max(1));
        members.clamp(self.fewest.clamp(1, most), most)
    }
}

/// Stands for the owner of a partition without one.
const NO_OWNER: u32 = u32::MAX;

/// Owners of the partitions, as of the last description. Descriptions are cached, so the same one comes with many
/// sweeps.
#[derive(Debug, Default)]
pub(super) struct PartitionOwners {
    described: Option<Arc<GroupDescription>>,
    owners: Vec<u32>,
}

/// What distinguishes the partitions of one reading from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionLayout {
    /// Hash of the topics and of the filter.
    chosen: u64,
    pub(super) count: usize,
    has_one_topic: bool,
}

impl PartitionLayout {
    /// Whether partitions of this layout are the first ones of a later layout, in the same order.
    pub(super) fn is_continued_by(&self, later: &Self) -> bool {
        self == later
            || (self.has_one_topic && self.chosen == later.chosen && self.count <= later.count)
    }
}

/// Whether the owners of a group's partitions are known: its kind has owners, and all its members are described.
pub(super) fn has_owners(group: &GroupSnapshot) -> bool {
    group.description.as_deref().is_some_and(|description| {
        matches!(description.kind, GroupKind::Classic | GroupKind::Consumer)
            && description.omitted_members == 0
    })
}

/// Number of partitions that count for the target, and number of all partitions of the group.
pub(super) fn count_partitions(group: &GroupEvaluation) -> (usize, usize) {
    let measured = group.measure.as_ref().ok();
    let measured = measured.and_then(|measure| usize::try_from(measure.partitions).ok());
    let counted = || sum_partitions(group.topics().map(|topic| topic.read));
    let read = group.group.as_deref().into_iter();
    let all = sum_partitions(read.flat_map(|read| read.counted_topics().map(|(_, topic)| topic)));
    (measured.unwrap_or_else(counted), all)
}

fn sum_partitions<'a>(topics: impl Iterator<Item = &'a GroupTopic>) -> usize {
    topics.map(partition_count).fold(0, usize::saturating_add)
}

/// Partitions of a topic by its last reading, or else by the last complete one.
fn partition_count(topic: &GroupTopic) -> usize {
    let lag = topic.latest.as_deref().ok().or(topic.complete.as_deref());
    lag.map_or(0, |lag| lag.lags.len())
}

/// Whether the group is not rebalancing.
pub(super) fn is_stable(description: &GroupDescription) -> bool {
    description.state == GroupState::Stable
}

/// Fills `partitions` with their readings, in the order of the topics. Partitions whose offsets are unknown in the last
/// reading are unknown. `before` is the layout of the previous reading.
pub(super) fn read_partitions(
    group: &GroupEvaluation,
    description: &Arc<GroupDescription>,
    before: Option<PartitionLayout>,
    owners: &mut PartitionOwners,
    partitions: &mut Vec<GroupPartition>,
) -> PartitionLayout {
    partitions.clear();
    let filter = group.query.settings.partitions.as_ref();
    let mut hasher = DefaultHasher::new();
    filter.hash(&mut hasher);
    let mut topics = 0usize;
    for TopicReading { topic, read, .. } in group.topics() {
        topics = topics.saturating_add(1);
        let latest = read.latest.as_deref().ok();
        topic.as_str().hash(&mut hasher);
        let counted = counted_partitions(filter, partition_count(read));
        partitions.extend(counted.map(|partition| match latest {
            Some(lag) => read_partition(lag, partition),
            None => GroupPartition::default(),
        }));
    }
    let has_one_topic = topics <= 1;
    if !has_one_topic {
        // Partitions added to a topic shift the places of those of the next topic.
        for topic in group.topics() {
            partition_count(topic.read).hash(&mut hasher);
        }
    }
    let layout = PartitionLayout {
        chosen: hasher.finish(),
        count: partitions.len(),
        has_one_topic,
    };
    owners.assign(group, description, (before, layout), partitions);
    layout
}

/// The log end and the position of the group on a partition. Where there is nothing to read, the position is the log
/// end, also behind transaction markers and without a commit.
fn read_partition(lag: &TopicLag, partition: usize) -> GroupPartition {
    let unknown = GroupPartition::default();
    let Some(Ok(rule)) = lag.lags.get(partition) else {
        return unknown;
    };
    let Some(Ok(end)) = lag.offsets.ends.get(partition) else {
        return unknown;
    };
    let end = *end;
    let messages = i64::try_from(rule.messages().0).unwrap_or(i64::MAX);
    let committed = lag.committed.get(partition);
    let committed = committed.and_then(Result::ok).flatten();
    let (end, position) = match (rule, committed) {
        (rule, _) if rule.has_no_work() => (end, end),
        // A read-committed group reads up to the last stable offset only.
        (PartitionLag::Measured(_) | PartitionLag::Stuck { .. }, Some(committed)) => {
            (Offset(committed.0.saturating_add(messages)), committed)
        }
        _ => (end, Offset(end.0.saturating_sub(messages))),
    };
    GroupPartition {
        end: Some(end),
        committed: Some(position),
        age: lag.partition_age(partition),
        owner: None,
    }
}

impl PartitionOwners {
    fn assign(
        &mut self,
        group: &GroupEvaluation,
        description: &Arc<GroupDescription>,
        (before, layout): (Option<PartitionLayout>, PartitionLayout),
        partitions: &mut [GroupPartition],
    ) {
        let is_known = self.described.as_ref();
        let is_known = is_known.is_some_and(|described| Arc::ptr_eq(described, description));
        if !is_known || before != Some(layout) {
            self.find_owners(group, description, layout.count);
        }
        for (partition, owner) in partitions.iter_mut().zip(&self.owners) {
            partition.owner = Some(*owner).filter(|owner| *owner != NO_OWNER);
        }
    }

    fn find_owners(
        &mut self,
        group: &GroupEvaluation,
        description: &Arc<GroupDescription>,
        count: usize,
    ) {
        let filter = group.query.settings.partitions.as_ref();
        let counts = group.topics().map(|topic| partition_count(topic.read));
        let mut next = 0usize;
        // The place of each partition among those of its topic that count. The filter applies to every topic.
        let places: Vec<Option<usize>> = (0..counts.max().unwrap_or(0))
            .map(|partition| {
                let is_counted = filter.is_none_or(|filter| filter.contains(partition));
                let place = next;
                next = next.saturating_add(is_counted.into());
                is_counted.then_some(place)
            })
            .collect();
        let mut bases: HashMap<&TopicName, (usize, usize)> = HashMap::new();
        let mut base = 0usize;
        for TopicReading { topic, read, .. } in group.topics() {
            let partitions = partition_count(read);
            bases.insert(topic, (base, partitions));
            let counted = places.iter().take(partitions).flatten().count();
            base = base.saturating_add(counted);
        }
        self.owners.clear();
        self.owners.resize(count, NO_OWNER);
        for member in &description.members {
            let owner = member_number(&member.id);
            for (topic, assigned) in &member.assigned {
                let Some((base, partitions)) = bases.get(topic) else {
                    continue;
                };
                for partition in assigned {
                    let partition = usize::try_from(*partition).ok();
                    let known = partition.filter(|partition| partition < partitions);
                    let place =
                        known.and_then(|partition| places.get(partition).copied().flatten());
                    if let Some(place) = place
                        && let Some(slot) = self.owners.get_mut(base.saturating_add(place))
                    {
                        *slot = owner;
                    }
                }
            }
        }
        self.described = Some(Arc::clone(description));
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.owners.capacity().saturating_mul(size_of::<u32>())
    }
}

/// A number that identifies a member within its group.
fn member_number(id: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let low = hasher.finish() & u64::from(u32::MAX);
    u32::try_from(low)
        .unwrap_or(0)
        .min(NO_OWNER.saturating_sub(1))
}
