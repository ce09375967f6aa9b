//! Groups of Kafka Streams applications (KIP-1071), from `StreamsGroupDescribe`.

use std::sync::Arc;

use super::decode::{Assigned, Entry, head, names};
use crate::kafka::wire::cursor::{FrameCursor, Malformed};
use crate::kafka::wire::topics::TopicCatalog;
use crate::model::kafka::group::{GroupDescription, GroupKind, Member, Subtopology};
use crate::model::units::newtypes::{Partition, TopicName};

/// The most bytes that partitions of tasks may take, for each byte of the answer.
pub(super) const ROOM: usize = 12;

/// A group; its tasks' partitions take so many bytes at most.
pub(super) fn group<'a>(
    cursor: &mut FrameCursor<'a>,
    topics: &TopicCatalog,
    room: usize,
) -> Result<Entry<'a>, Malformed> {
    let (code, group, state) = head(cursor)?;
    // A structure that may be null begins with -1 where it is.
    let subtopologies = if cursor.i8()? < 0 {
        Vec::new()
    } else {
        cursor.i32()?;
        let mut found = Vec::new();
        for _ in 0..cursor.count(6)? {
            found.push(subtopology(cursor, topics)?);
        }
        cursor.tags()?;
        found
    };
    let mut work = TaskCount {
        subtopologies: &subtopologies,
        room,
    };
    let count = cursor.count(28)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(member(cursor, &mut work)?);
    }
    cursor.i32()?;
    cursor.tags()?;
    let description = GroupDescription {
        kind: GroupKind::Streams,
        state,
        assignor: None,
        members,
        subtopologies,
    };
    Ok(Entry {
        group,
        code,
        description,
    })
}

fn subtopology(
    cursor: &mut FrameCursor<'_>,
    topics: &TopicCatalog,
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
    // What it stores its state in is nobody's work.
    topic_infos(cursor, topics)?;
    for (topic, partitions) in topic_infos(cursor, topics)? {
        // 0 where the number is whatever the topics before it come to.
        let told = u32::try_from(partitions).ok().filter(|told| *told > 0);
        let partitions = told.or_else(|| known(&topic));
        sources.push((topic, partitions));
    }
    cursor.tags()?;
    Ok(Subtopology { id, sources })
}

fn topic_infos(
    cursor: &mut FrameCursor<'_>,
    topics: &TopicCatalog,
) -> Result<Vec<(TopicName, i32)>, Malformed> {
    let mut infos = Vec::new();
    for _ in 0..cursor.count(9)? {
        let topic = topics.name(cursor.string()?);
        infos.push((topic, cursor.i32()?));
        cursor.i16()?;
        skip_pairs(cursor)?;
        cursor.tags()?;
    }
    Ok(infos)
}

fn skip_pairs(cursor: &mut FrameCursor<'_>) -> Result<(), Malformed> {
    for _ in 0..cursor.count(3)? {
        cursor.skip_string()?;
        cursor.skip_string()?;
        cursor.tags()?;
    }
    Ok(())
}

fn member(cursor: &mut FrameCursor<'_>, work: &mut TaskCount<'_>) -> Result<Member, Malformed> {
    let id = cursor.string()?.into();
    cursor.i32()?;
    let instance = cursor.nullable_string()?.map(Arc::from);
    cursor.skip_string()?;
    let (client, host) = (cursor.string()?.into(), cursor.string()?.into());
    cursor.i32()?;
    cursor.skip_string()?;
    if cursor.i8()? >= 0 {
        // Where it answers interactive queries.
        cursor.skip_string()?;
        cursor.i16()?;
        cursor.tags()?;
    }
    skip_pairs(cursor)?;
    for _ in 0..2 {
        for _ in 0..cursor.count(14)? {
            cursor.skip_string()?;
            cursor.i32()?;
            cursor.i64()?;
            cursor.tags()?;
        }
    }
    let assigned = tasks(cursor, work)?;
    // What it is to have next.
    for _ in 0..3 {
        for _ in 0..cursor.count(3)? {
            cursor.skip_string()?;
            cursor.skip_i32s()?;
            cursor.tags()?;
        }
    }
    cursor.tags()?;
    cursor.bool()?;
    cursor.tags()?;
    Ok(Member {
        id,
        instance,
        client,
        host,
        subscribed: None,
        assigned,
    })
}

/// What tasks are parts of.
struct TaskCount<'a> {
    subtopologies: &'a [Subtopology],
    /// The bytes that partitions may take. A task is told by one number and stands for a partition
    /// of every source, so that a short answer could stand for any number of them.
    room: usize,
}

impl TaskCount<'_> {
    /// The sources under which so many tasks of a sub-topology are listed: all, or the first where
    /// all would take too much.
    fn sources(&mut self, id: &str, tasks: usize) -> &[(TopicName, Option<u32>)] {
        let mut all = self.subtopologies.iter();
        let Some(found) = all.find(|subtopology| &*subtopology.id == id) else {
            return &[];
        };
        // An entry of a list that has doubled just now, and a number for each task.
        let each = tasks.saturating_mul(4).saturating_add(128);
        let needed = each.saturating_mul(found.sources.len());
        if needed <= self.room {
            self.room -= needed;
            return &found.sources;
        }
        found.sources.get(..1).unwrap_or_default()
    }
}

/// The partitions of a member's active tasks: a task reads its number's partition of every source
/// that has it.
fn tasks(cursor: &mut FrameCursor<'_>, work: &mut TaskCount<'_>) -> Result<Assigned, Malformed> {
    let mut assigned = Assigned::new();
    for _ in 0..cursor.count(3)? {
        let id = cursor.string()?;
        let partitions = cursor.i32s()?;
        cursor.tags()?;
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
    // Standby and warm-up tasks read nothing but their own state.
    for _ in 0..2 {
        for _ in 0..cursor.count(3)? {
            cursor.skip_string()?;
            cursor.skip_i32s()?;
            cursor.tags()?;
        }
    }
    cursor.tags()?;
    Ok(assigned)
}
