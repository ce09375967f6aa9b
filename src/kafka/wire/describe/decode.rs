//! What coordinators say of groups, decoded: `ConsumerGroupDescribe`, `ShareGroupDescribe`,
//! `StreamsGroupDescribe`, `DescribeGroups`, and the bytes that classic consumers leave for one
//! another. Layouts as in Kafka's message schemas.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::streams;
use crate::kafka::codes;
use crate::kafka::wire::cursor::{FrameCursor, Malformed};
use crate::kafka::wire::topics::TopicCatalog;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::units::newtypes::{Partition, TopicName};

/// A group as one answer has it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct Entry<'a> {
    pub(in crate::kafka::wire) group: &'a str,
    /// The error's code. [`codes::GROUP_ID_NOT_FOUND`] also where an old broker says it in other
    /// words.
    pub(in crate::kafka::wire) code: i16,
    pub(in crate::kafka::wire) description: GroupDescription,
}

pub(super) type Assigned = Vec<(TopicName, Vec<Partition>)>;

/// The answer to the request that describes groups of this kind.
pub(in crate::kafka::wire) fn described<'a>(
    kind: GroupKind,
    body: &'a [u8],
    version: i16,
    topics: &TopicCatalog,
) -> Result<Vec<Entry<'a>>, Malformed> {
    let is_classic = kind == GroupKind::Classic;
    let mut cursor = FrameCursor::new(body, !is_classic || version >= 5);
    if !is_classic || version >= 1 {
        cursor.i32()?;
    }
    let count = cursor.count(12)?;
    let mut entries = Vec::with_capacity(count);
    let room = cursor.left().saturating_mul(streams::ROOM);
    for _ in 0..count {
        let entry = match kind {
            GroupKind::Classic => classic(&mut cursor, version, topics)?,
            GroupKind::Consumer | GroupKind::Share => {
                with_assignor(kind, &mut cursor, version, topics)?
            }
            GroupKind::Streams => streams::group(&mut cursor, topics, room / count.max(1))?,
        };
        entries.push(entry);
    }
    cursor.tags()?;
    Ok(entries)
}

fn state(name: &str) -> GroupState {
    match name {
        "Empty" => GroupState::Empty,
        "Stable" => GroupState::Stable,
        "Dead" | "NotReady" => GroupState::NotReady,
        // Preparing, completing, assigning, reconciling; and what nobody knows yet.
        _ => GroupState::Rebalancing,
    }
}

fn named(name: &str) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| name.into())
}

pub(super) fn names(
    cursor: &mut FrameCursor<'_>,
    topics: &TopicCatalog,
) -> Result<BTreeSet<TopicName>, Malformed> {
    let mut names = BTreeSet::new();
    for _ in 0..cursor.count(1)? {
        names.insert(topics.name(cursor.string()?));
    }
    Ok(names)
}

/// Code, group and state, with which every kind but the classic one begins.
pub(super) fn head<'a>(
    cursor: &mut FrameCursor<'a>,
) -> Result<(i16, &'a str, GroupState), Malformed> {
    let code = cursor.i16()?;
    cursor.skip_string()?;
    let head = (code, cursor.string()?, state(cursor.string()?));
    cursor.i32()?;
    cursor.i32()?;
    Ok(head)
}

fn with_assignor<'a>(
    kind: GroupKind,
    cursor: &mut FrameCursor<'a>,
    version: i16,
    topics: &TopicCatalog,
) -> Result<Entry<'a>, Malformed> {
    let (code, group, state) = head(cursor)?;
    let assignor = named(cursor.string()?);
    let count = cursor.count(12)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(member(kind, cursor, version, topics)?);
    }
    cursor.i32()?;
    cursor.tags()?;
    let description = GroupDescription {
        kind,
        state,
        assignor,
        members,
        subtopologies: Vec::new(),
    };
    Ok(Entry {
        group,
        code,
        description,
    })
}

fn member(
    kind: GroupKind,
    cursor: &mut FrameCursor<'_>,
    version: i16,
    topics: &TopicCatalog,
) -> Result<Member, Malformed> {
    let is_consumer = kind == GroupKind::Consumer;
    let id = cursor.string()?.into();
    let instance = if is_consumer {
        cursor.nullable_string()?.map(Arc::from)
    } else {
        None
    };
    cursor.skip_string()?;
    cursor.i32()?;
    let (client, host) = (cursor.string()?.into(), cursor.string()?.into());
    let names = names(cursor, topics)?;
    // What a pattern comes to is the broker's knowledge.
    let pattern = if is_consumer {
        cursor.nullable_string()?
    } else {
        None
    };
    let assigned = assignment(cursor, topics)?;
    if is_consumer {
        assignment(cursor, topics)?;
        if version >= 1 {
            cursor.i8()?;
        }
    }
    cursor.tags()?;
    Ok(Member {
        id,
        instance,
        client,
        host,
        subscribed: pattern.is_none_or(str::is_empty).then_some(names),
        assigned,
    })
}

fn assignment(cursor: &mut FrameCursor<'_>, topics: &TopicCatalog) -> Result<Assigned, Malformed> {
    let mut assigned = Vec::new();
    for _ in 0..cursor.count(19)? {
        cursor.uuid()?;
        let topic = topics.name(cursor.string()?);
        assigned.push((topic, cursor.i32s()?));
        cursor.tags()?;
    }
    cursor.tags()?;
    Ok(assigned)
}

fn classic<'a>(
    cursor: &mut FrameCursor<'a>,
    version: i16,
    topics: &TopicCatalog,
) -> Result<Entry<'a>, Malformed> {
    let code = cursor.i16()?;
    if version >= 6 {
        cursor.skip_string()?;
    }
    let (group, told) = (cursor.string()?, cursor.string()?);
    let protocol = cursor.string()?;
    let is_consumers = protocol == "consumer";
    let assignor = named(cursor.string()?).filter(|_| is_consumers);
    let count = cursor.count(7)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let id = cursor.string()?.into();
        let instance = if version >= 4 {
            cursor.nullable_string()?.map(Arc::from)
        } else {
            None
        };
        let (client, host) = (cursor.string()?.into(), cursor.string()?.into());
        let (subscription, assignment) = (cursor.bytes()?, cursor.bytes()?);
        cursor.tags()?;
        // Clients write these for one another; one that cannot be read says nothing of the group.
        members.push(Member {
            id,
            instance,
            client,
            host,
            subscribed: consumers_subscription(subscription, topics)
                .ok()
                .filter(|_| is_consumers),
            assigned: if is_consumers {
                consumers_assignment(assignment, topics).unwrap_or_default()
            } else {
                Assigned::new()
            },
        });
    }
    if version >= 3 {
        cursor.i32()?;
    }
    cursor.tags()?;
    // Below version 6 a group that is not there is dead.
    let is_absent = code == codes::NONE && told == "Dead";
    let state = match state(told) {
        // The first member brings a protocol, and it stays when all have left.
        GroupState::Empty if protocol.is_empty() => GroupState::Unjoined,
        other => other,
    };
    let description = GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor,
        members,
        subtopologies: Vec::new(),
    };
    Ok(Entry {
        group,
        code: if is_absent {
            codes::GROUP_ID_NOT_FOUND
        } else {
            code
        },
        description,
    })
}

/// What a classic consumer subscribes to; empty bytes, as while a group rebalances, are none.
fn consumers_subscription(
    bytes: &[u8],
    topics: &TopicCatalog,
) -> Result<BTreeSet<TopicName>, Malformed> {
    let mut cursor = FrameCursor::new(bytes, false);
    // Later versions add fields at the end only.
    cursor.i16()?;
    names(&mut cursor, topics)
}

/// What a classic group's leader gave a member.
fn consumers_assignment(bytes: &[u8], topics: &TopicCatalog) -> Result<Assigned, Malformed> {
    let mut cursor = FrameCursor::new(bytes, false);
    cursor.i16()?;
    let mut assigned = Vec::new();
    for _ in 0..cursor.count(6)? {
        let topic = topics.name(cursor.string()?);
        assigned.push((topic, cursor.i32s()?));
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests;
