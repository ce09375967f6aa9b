//! Decodes groups of Kafka Streams applications (KIP-1071), from `StreamsGroupDescribe`.

use std::sync::Arc;

use super::decode::{AssignedPartitions, GroupEntry, head, names};
use crate::kafka::wire::cursor::{Malformed, ResponseCursor};
use crate::kafka::wire::topics::ClusterMetadata;
use crate::model::kafka::group::{
    BoundedMembers, GroupDescription, GroupKind, Member, Subtopology,
};
use crate::model::units::newtypes::{Partition, TopicName};

/// Maximum memory of decoded task partitions per byte of the response.
pub(super) const MAX_BYTES_PER_RESPONSE_BYTE: usize = 12;

/// Decodes a group; `room` limits the bytes its tasks' partitions may take.
pub(super) fn group<'a>(
    cursor: &mut ResponseCursor<'a>,
    topics: &ClusterMetadata,
    room: usize,
) -> Result<GroupEntry<'a>, Malformed> {
    let (code, group, state) = head(cursor)?;
    // A null structure is encoded as -1.
    let subtopologies = if cursor.i8()? < 0 {
        Vec::new()
    } else {
        cursor.i32()?;
        let mut found = Vec::new();
        for _ in 0..cursor.count(6)? {
            found.push(subtopology(cursor, topics)?);
        }
        cursor.skip_tags()?;
        found
    };
    let mut work = TaskBudget {
        subtopologies: &subtopologies,
        room,
    };
    let count = cursor.count(28)?;
    let mut members = BoundedMembers::default();
    for _ in 0..count {
        members.push(member(cursor, &mut work)?);
    }
    cursor.i32()?;
    cursor.skip_tags()?;
    let description = GroupDescription {
        kind: GroupKind::Streams,
        state,
        assignor: None,
        members: members.kept,
        omitted_members: members.omitted,
        subtopologies,
    };
    Ok(GroupEntry {
        group,
        code,
        description,
    })
}

fn subtopology(
    cursor: &mut ResponseCursor<'_>,
    topics: &ClusterMetadata,
) -> Result<Subtopology, Malformed> {
    let known = |topic: &TopicName| match topics.partitions(topic) {
        0 => None,
        partitions => u32::try_from(partitions).ok(),
    };
    let id = cursor.string()?.into();
    let mut sources: Vec<_> = names(cursor, topics)?
        .into_iter()
        .map(|topic| (known(&topic), topic))
        .map(|(partitions, topic)| (topic, partitions))
        .collect();
    for _ in 0..cursor.count(1)? {
        cursor.skip_string()?;
    }
    // State changelog topics are not consumed as input.
    topic_infos(cursor, topics)?;
    for (topic, partitions) in topic_infos(cursor, topics)? {
        // 0 means that the number follows from upstream topics.
        let reported = u32::try_from(partitions)
            .ok()
            .filter(|reported| *reported > 0);
        let partitions = reported.or_else(|| known(&topic));
        sources.push((topic, partitions));
    }
    cursor.skip_tags()?;
    Ok(Subtopology { id, sources })
}

fn topic_infos(
    cursor: &mut ResponseCursor<'_>,
    topics: &ClusterMetadata,
) -> Result<Vec<(TopicName, i32)>, Malformed> {
    let mut infos = Vec::new();
    for _ in 0..cursor.count(9)? {
        let topic = topics.intern(cursor.string()?);
        infos.push((topic, cursor.i32()?));
        cursor.i16()?;
        skip_pairs(cursor)?;
        cursor.skip_tags()?;
    }
    Ok(infos)
}

fn skip_pairs(cursor: &mut ResponseCursor<'_>) -> Result<(), Malformed> {
    for _ in 0..cursor.count(3)? {
        cursor.skip_string()?;
        cursor.skip_string()?;
        cursor.skip_tags()?;
    }
    Ok(())
}

fn member(cursor: &mut ResponseCursor<'_>, work: &mut TaskBudget<'_>) -> Result<Member, Malformed> {
    let id = cursor.string()?.into();
    cursor.i32()?;
    let instance = cursor.nullable_string()?.map(Arc::from);
    cursor.skip_string()?;
    let (client, host) = (cursor.string()?.into(), cursor.string()?.into());
    cursor.i32()?;
    cursor.skip_string()?;
    if cursor.i8()? >= 0 {
        // Endpoint for interactive queries.
        cursor.skip_string()?;
        cursor.i16()?;
        cursor.skip_tags()?;
    }
    skip_pairs(cursor)?;
    for _ in 0..2 {
        for _ in 0..cursor.count(14)? {
            cursor.skip_string()?;
            cursor.i32()?;
            cursor.i64()?;
            cursor.skip_tags()?;
        }
    }
    let assigned = tasks(cursor, work)?;
    // Target assignment.
    for _ in 0..3 {
        for _ in 0..cursor.count(3)? {
            cursor.skip_string()?;
            cursor.skip_i32s()?;
            cursor.skip_tags()?;
        }
    }
    cursor.skip_tags()?;
    cursor.bool()?;
    cursor.skip_tags()?;
    Ok(Member {
        id,
        instance,
        client,
        host,
        subscribed: None,
        assigned,
    })
}

/// The subtopologies that tasks belong to, and the memory their partitions may take.
struct TaskBudget<'a> {
    subtopologies: &'a [Subtopology],
    /// Bytes left. A task is encoded as one number but means a partition of every source topic, so without a limit a
    /// short response could expand to any size.
    room: usize,
}

impl TaskBudget<'_> {
    /// The source topics to list for this many tasks of a subtopology: all, or only the first if
    /// all would exceed the limit.
    fn sources(&mut self, id: &str, tasks: usize) -> &[(TopicName, Option<u32>)] {
        let mut all = self.subtopologies.iter();
        let Some(found) = all.find(|subtopology| &*subtopology.id == id) else {
            return &[];
        };
        // A list entry, doubled because a growing vector reserves twice its length, and four bytes
        // per task.
        let each = tasks.saturating_mul(4).saturating_add(128);
        let needed = each.saturating_mul(found.sources.len());
        if needed <= self.room {
            self.room -= needed;
            return &found.sources;
        }
        found.sources.get(..1).unwrap_or_default()
    }
}

/// Decodes the partitions of a member's active tasks. Task N reads partition N of every source
/// topic that has one.
fn tasks(
    cursor: &mut ResponseCursor<'_>,
    work: &mut TaskBudget<'_>,
) -> Result<AssignedPartitions, Malformed> {
    let mut assigned = AssignedPartitions::new();
    for _ in 0..cursor.count(3)? {
        let id = cursor.string()?;
        let partitions = cursor.i32s()?;
        cursor.skip_tags()?;
        for (topic, count) in work.sources(id, partitions.len()) {
            let has = |partition: &Partition| {
                count.is_none_or(|count| u32::try_from(*partition).is_ok_and(|p| p < count))
            };
            let read: Vec<_> = partitions.iter().copied().filter(has).collect();
            if !read.is_empty() {
                assigned.push((topic.clone(), read));
            }
        }
    }
    // Standby and warm-up tasks only read state changelogs.
    for _ in 0..2 {
        for _ in 0..cursor.count(3)? {
            cursor.skip_string()?;
            cursor.skip_i32s()?;
            cursor.skip_tags()?;
        }
    }
    cursor.skip_tags()?;
    Ok(assigned)
}
