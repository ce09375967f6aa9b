//! Decodes group descriptions: `ConsumerGroupDescribe`, `ShareGroupDescribe`,
//! `StreamsGroupDescribe`, `DescribeGroups`, and the subscription and assignment that classic
//! consumers exchange through the broker. Layouts as in Kafka's message schemas.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::streams;
use crate::kafka::codes;
use crate::kafka::wire::cursor::{Malformed, ResponseCursor};
use crate::kafka::wire::topics::ClusterMetadata;
use crate::model::kafka::group::{BoundedMembers, GroupDescription, GroupKind, GroupState, Member};
use crate::model::units::newtypes::{Partition, TopicName};

/// A group in a response.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct GroupEntry<'a> {
    pub(in crate::kafka::wire) group: &'a str,
    /// Error code; [`codes::GROUP_ID_NOT_FOUND`] also where old brokers report a missing group as
    /// `Dead`.
    pub(in crate::kafka::wire) code: i16,
    pub(in crate::kafka::wire) description: GroupDescription,
}

pub(super) type AssignedPartitions = Vec<(TopicName, Vec<Partition>)>;

/// Decodes the response to the request that describes groups of this kind.
pub(in crate::kafka::wire) fn decode_groups<'a>(
    kind: GroupKind,
    body: &'a [u8],
    version: i16,
    topics: &ClusterMetadata,
) -> Result<Vec<GroupEntry<'a>>, Malformed> {
    let is_classic = kind == GroupKind::Classic;
    let mut cursor = ResponseCursor::new(body, !is_classic || version >= 5);
    if !is_classic || version >= 1 {
        cursor.i32()?;
    }
    let count = cursor.count(12)?;
    // An entry is larger in memory than its minimal encoding, so the list grows as entries arrive.
    let mut entries = Vec::new();
    let room = cursor
        .remaining()
        .saturating_mul(streams::MAX_BYTES_PER_RESPONSE_BYTE);
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
    cursor.skip_tags()?;
    Ok(entries)
}

fn state(name: &str) -> GroupState {
    match name {
        "Empty" => GroupState::Empty,
        "Stable" => GroupState::Stable,
        "Dead" | "NotReady" => GroupState::NotReady,
        // Preparing, completing, assigning, reconciling, and any state added later.
        _ => GroupState::Rebalancing,
    }
}

fn named(name: &str) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| name.into())
}

pub(super) fn names(
    cursor: &mut ResponseCursor<'_>,
    topics: &ClusterMetadata,
) -> Result<BTreeSet<TopicName>, Malformed> {
    let mut names = BTreeSet::new();
    for _ in 0..cursor.count(1)? {
        names.insert(topics.intern(cursor.string()?));
    }
    Ok(names)
}

/// Reads error code, group and state, the common head of all but classic groups.
pub(super) fn head<'a>(
    cursor: &mut ResponseCursor<'a>,
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
    cursor: &mut ResponseCursor<'a>,
    version: i16,
    topics: &ClusterMetadata,
) -> Result<GroupEntry<'a>, Malformed> {
    let (code, group, state) = head(cursor)?;
    let assignor = named(cursor.string()?);
    let count = cursor.count(12)?;
    let mut members = BoundedMembers::default();
    for _ in 0..count {
        members.push(member(kind, cursor, version, topics)?);
    }
    cursor.i32()?;
    cursor.skip_tags()?;
    let description = GroupDescription {
        kind,
        state,
        assignor,
        members: members.kept,
        omitted_members: members.omitted,
        subtopologies: Vec::new(),
    };
    Ok(GroupEntry {
        group,
        code,
        description,
    })
}

fn member(
    kind: GroupKind,
    cursor: &mut ResponseCursor<'_>,
    version: i16,
    topics: &ClusterMetadata,
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
    // Only the broker knows which topics a regular expression matches.
    let pattern = if is_consumer {
        cursor.nullable_string()?
    } else {
        None
    };
    let mut assigned = assignment(cursor, topics)?;
    if is_consumer {
        // During a rebalance members may have no partitions, and only the target assignment shows what they read.
        let mut known: HashSet<TopicName> = assigned.iter().map(|(t, _)| t.clone()).collect();
        for (topic, _) in assignment(cursor, topics)? {
            if known.insert(topic.clone()) {
                assigned.push((topic, Vec::new()));
            }
        }
        if version >= 1 {
            cursor.i8()?;
        }
    }
    cursor.skip_tags()?;
    Ok(Member {
        id,
        instance,
        client,
        host,
        subscribed: pattern.is_none_or(str::is_empty).then_some(names),
        assigned,
    })
}

fn assignment(
    cursor: &mut ResponseCursor<'_>,
    topics: &ClusterMetadata,
) -> Result<AssignedPartitions, Malformed> {
    let mut assigned = Vec::new();
    for _ in 0..cursor.count(19)? {
        cursor.uuid()?;
        let topic = topics.intern(cursor.string()?);
        assigned.push((topic, cursor.i32s()?));
        cursor.skip_tags()?;
    }
    cursor.skip_tags()?;
    Ok(assigned)
}

fn classic<'a>(
    cursor: &mut ResponseCursor<'a>,
    version: i16,
    topics: &ClusterMetadata,
) -> Result<GroupEntry<'a>, Malformed> {
    let code = cursor.i16()?;
    if version >= 6 {
        cursor.skip_string()?;
    }
    let (group, state_name) = (cursor.string()?, cursor.string()?);
    let protocol = cursor.string()?;
    let is_consumers = protocol == "consumer";
    let assignor = named(cursor.string()?).filter(|_| is_consumers);
    let count = cursor.count(7)?;
    let mut members = BoundedMembers::with_capacity(count);
    for _ in 0..count {
        let id = cursor.string()?.into();
        let instance = if version >= 4 {
            cursor.nullable_string()?.map(Arc::from)
        } else {
            None
        };
        let (client, host) = (cursor.string()?.into(), cursor.string()?.into());
        let (subscription, assignment) = (cursor.bytes()?, cursor.bytes()?);
        cursor.skip_tags()?;
        // Brokers do not validate these client-written bytes; an unreadable one says nothing about
        // the group.
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
                AssignedPartitions::new()
            },
        });
    }
    if version >= 3 {
        cursor.i32()?;
    }
    cursor.skip_tags()?;
    // Below version 6 a missing group is reported as dead.
    let is_absent = code == codes::NONE && state_name == "Dead";
    let state = match state(state_name) {
        // The first member sets the protocol, and the group keeps it when all members have left. Without a
        // protocol, no member ever joined.
        GroupState::Empty if protocol.is_empty() => GroupState::Unjoined,
        other => other,
    };
    let description = GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor,
        members: members.kept,
        omitted_members: members.omitted,
        subtopologies: Vec::new(),
    };
    Ok(GroupEntry {
        group,
        code: if is_absent {
            codes::GROUP_ID_NOT_FOUND
        } else {
            code
        },
        description,
    })
}

/// Decodes a classic consumer's subscription. Empty bytes, as during a rebalance, are malformed.
fn consumers_subscription(
    bytes: &[u8],
    topics: &ClusterMetadata,
) -> Result<BTreeSet<TopicName>, Malformed> {
    let mut cursor = ResponseCursor::new(bytes, false);
    // Later versions only append fields.
    cursor.i16()?;
    names(&mut cursor, topics)
}

/// Decodes the assignment that a classic group's leader gave a member.
fn consumers_assignment(
    bytes: &[u8],
    topics: &ClusterMetadata,
) -> Result<AssignedPartitions, Malformed> {
    let mut cursor = ResponseCursor::new(bytes, false);
    cursor.i16()?;
    let mut assigned = Vec::new();
    for _ in 0..cursor.count(6)? {
        let topic = topics.intern(cursor.string()?);
        assigned.push((topic, cursor.i32s()?));
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests;
