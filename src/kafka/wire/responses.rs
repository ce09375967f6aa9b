//! The responses that are read here, decoded into flat columns: names stay slices of the frame, and
//! a structure is a range of its parts. Layouts as in Kafka's message schemas
//! (<https://kafka.apache.org/protocol#protocol_messages>), fields that nobody needs passed over.
//! Bytes beyond a response's end are none of ours: Kafka's own clients take no offence, and some
//! brokers that speak the protocol rely on that.

use std::ops::Range;

use super::cursor::{FrameCursor, Malformed};

/// What a broker can do: an API's key, its lowest and its highest version.
pub(super) type ApiRange = (i16, i16, i16);

/// `ApiVersions`. The error's code comes with the ranges, since code 35 tells them too (KIP-511).
pub(super) fn api_versions(body: &[u8], version: i16) -> Result<(i16, Vec<ApiRange>), Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 3);
    let code = cursor.i16()?;
    let count = cursor.count(6)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        ranges.push((cursor.i16()?, cursor.i16()?, cursor.i16()?));
        cursor.tags()?;
    }
    if version >= 1 {
        cursor.i32()?;
    }
    cursor.tags()?;
    Ok((code, ranges))
}

/// `SaslHandshake`: an error code, and the mechanisms that the broker takes.
pub(super) fn sasl_handshake(body: &[u8]) -> Result<(i16, Vec<&str>), Malformed> {
    let mut cursor = FrameCursor::new(body, false);
    let code = cursor.i16()?;
    let count = cursor.count(2)?;
    let mut mechanisms = Vec::with_capacity(count);
    for _ in 0..count {
        mechanisms.push(cursor.string()?);
    }
    Ok((code, mechanisms))
}

/// `SaslAuthenticate`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authenticated<'a> {
    pub(super) code: i16,
    /// Why the login is refused, in the broker's words.
    pub(super) message: Option<&'a str>,
    pub(super) answer: &'a [u8],
    /// How long the login lasts (KIP-368); 0 for ever.
    pub(super) lifetime_ms: i64,
}

pub(super) fn sasl_authenticate(body: &[u8], version: i16) -> Result<Authenticated<'_>, Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 2);
    let found = Authenticated {
        code: cursor.i16()?,
        message: cursor.nullable_string()?,
        answer: cursor.bytes()?,
        lifetime_ms: if version >= 1 { cursor.i64()? } else { 0 },
    };
    cursor.tags()?;
    Ok(found)
}

/// `Metadata`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata<'a> {
    pub(super) brokers: Vec<BrokerEntry<'a>>,
    pub(super) topics: Vec<TopicEntry<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokerEntry<'a> {
    pub(super) id: i32,
    pub(super) host: &'a str,
    pub(super) port: i32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopicEntry<'a> {
    pub(super) code: i16,
    /// Absent only where a topic was asked for by ID.
    pub(super) name: Option<&'a str>,
    pub(super) id: Option<[u8; 16]>,
    pub(super) partitions: Vec<LeaderEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaderEntry {
    pub(super) partition: i32,
    pub(super) leader: i32,
    pub(super) epoch: i32,
}

pub(super) fn metadata(body: &[u8], version: i16) -> Result<Metadata<'_>, Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 9);
    if version >= 3 {
        cursor.i32()?;
    }
    let count = cursor.count(9)?;
    let mut brokers = Vec::with_capacity(count);
    for _ in 0..count {
        brokers.push(BrokerEntry {
            id: cursor.i32()?,
            host: cursor.string()?,
            port: cursor.i32()?,
        });
        if version >= 1 {
            cursor.skip_string()?;
        }
        cursor.tags()?;
    }
    if version >= 2 {
        cursor.skip_string()?;
    }
    if version >= 1 {
        cursor.i32()?;
    }
    let count = cursor.count(4)?;
    // An entry is larger than the least that it takes in the response, so room is made as they come.
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(topic(&mut cursor, version)?);
    }
    if (8..=10).contains(&version) {
        cursor.i32()?;
    }
    if version >= 13 {
        cursor.i16()?;
    }
    cursor.tags()?;
    Ok(Metadata { brokers, topics })
}

fn topic<'a>(cursor: &mut FrameCursor<'a>, version: i16) -> Result<TopicEntry<'a>, Malformed> {
    let code = cursor.i16()?;
    let name = cursor.nullable_string()?;
    let id = if version >= 10 {
        Some(cursor.uuid()?)
    } else {
        None
    };
    if version >= 1 {
        cursor.bool()?;
    }
    let count = cursor.count(12)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        cursor.i16()?;
        partitions.push(LeaderEntry {
            partition: cursor.i32()?,
            leader: cursor.i32()?,
            epoch: if version >= 7 { cursor.i32()? } else { -1 },
        });
        cursor.skip_i32s()?;
        cursor.skip_i32s()?;
        if version >= 5 {
            cursor.skip_i32s()?;
        }
        cursor.tags()?;
    }
    if version >= 8 {
        cursor.i32()?;
    }
    cursor.tags()?;
    Ok(TopicEntry {
        code,
        name,
        id,
        partitions,
    })
}

/// Where a group's coordinator is, from `FindCoordinator`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CoordinatorEntry<'a> {
    /// The group; absent below version 4, which answers one question only.
    pub(super) group: Option<&'a str>,
    pub(super) code: i16,
    pub(super) host: &'a str,
    pub(super) port: i32,
}

pub(super) fn find_coordinator(
    body: &[u8],
    version: i16,
) -> Result<Vec<CoordinatorEntry<'_>>, Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 3);
    if version >= 1 {
        cursor.i32()?;
    }
    let mut found = Vec::new();
    if version >= 4 {
        for _ in 0..cursor.count(13)? {
            let group = Some(cursor.string()?);
            cursor.i32()?;
            let (host, port) = (cursor.string()?, cursor.i32()?);
            let code = cursor.i16()?;
            cursor.skip_string()?;
            cursor.tags()?;
            found.push(CoordinatorEntry {
                group,
                code,
                host,
                port,
            });
        }
    } else {
        let code = cursor.i16()?;
        if version >= 1 {
            cursor.skip_string()?;
        }
        cursor.i32()?;
        found.push(CoordinatorEntry {
            group: None,
            code,
            host: cursor.string()?,
            port: cursor.i32()?,
        });
    }
    cursor.tags()?;
    Ok(found)
}

/// What a broker says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionEntry {
    pub(super) partition: i32,
    pub(super) code: i16,
    pub(super) offset: i64,
}

/// Offsets by topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets<'a> {
    topics: Vec<(&'a str, Range<usize>)>,
    partitions: Vec<PartitionEntry>,
}

impl<'a> Offsets<'a> {
    pub(super) fn topics(&self) -> impl Iterator<Item = (&'a str, &[PartitionEntry])> {
        self.of(0..self.topics.len())
    }

    fn of(&self, topics: Range<usize>) -> impl Iterator<Item = (&'a str, &[PartitionEntry])> {
        let topics = self.topics.get(topics).unwrap_or_default();
        topics.iter().map(|(name, range)| {
            let partitions = self.partitions.get(range.clone());
            (*name, partitions.unwrap_or_default())
        })
    }
}

/// `OffsetFetch`: many groups' offsets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommittedResponses<'a> {
    /// The group (absent below version 8, which answers for one only), its error code, its topics.
    groups: Vec<(Option<&'a str>, i16, Range<usize>)>,
    offsets: Offsets<'a>,
}

impl<'a> CommittedResponses<'a> {
    /// Each group with its error code and its topics.
    pub(super) fn groups(
        &self,
    ) -> impl Iterator<
        Item = (
            Option<&'a str>,
            i16,
            impl Iterator<Item = (&'a str, &[PartitionEntry])>,
        ),
    > {
        self.groups
            .iter()
            .map(|(name, code, topics)| (*name, *code, self.offsets.of(topics.clone())))
    }
}

pub(super) fn offset_fetch(body: &[u8], version: i16) -> Result<CommittedResponses<'_>, Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 6);
    let mut found = CommittedResponses::default();
    if version >= 3 {
        cursor.i32()?;
    }
    if version >= 8 {
        for _ in 0..cursor.count(5)? {
            let group = cursor.string()?;
            let topics = committed_topics(&mut cursor, version, &mut found.offsets)?;
            let code = cursor.i16()?;
            cursor.tags()?;
            found.groups.push((Some(group), code, topics));
        }
    } else {
        let topics = committed_topics(&mut cursor, version, &mut found.offsets)?;
        let code = if version >= 2 { cursor.i16()? } else { 0 };
        found.groups.push((None, code, topics));
    }
    cursor.tags()?;
    Ok(found)
}

fn committed_topics<'a>(
    cursor: &mut FrameCursor<'a>,
    version: i16,
    into: &mut Offsets<'a>,
) -> Result<Range<usize>, Malformed> {
    let first = into.topics.len();
    for _ in 0..cursor.count(3)? {
        let name = cursor.string()?;
        let start = into.partitions.len();
        let count = cursor.count(15)?;
        into.partitions.reserve(count);
        for _ in 0..count {
            let partition = cursor.i32()?;
            let offset = cursor.i64()?;
            if version >= 5 {
                cursor.i32()?;
            }
            // Whatever the group's consumers left beside the offset.
            cursor.skip_string()?;
            let code = cursor.i16()?;
            cursor.tags()?;
            into.partitions.push(PartitionEntry {
                partition,
                code,
                offset,
            });
        }
        cursor.tags()?;
        into.topics.push((name, start..into.partitions.len()));
    }
    Ok(first..into.topics.len())
}

/// `ListOffsets`, from version 1.
pub(super) fn list_offsets(body: &[u8], version: i16) -> Result<Offsets<'_>, Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 6);
    let mut found = Offsets::default();
    if version >= 2 {
        cursor.i32()?;
    }
    for _ in 0..cursor.count(3)? {
        let name = cursor.string()?;
        let start = found.partitions.len();
        let count = cursor.count(22)?;
        found.partitions.reserve(count);
        for _ in 0..count {
            let (partition, code) = (cursor.i32()?, cursor.i16()?);
            cursor.i64()?;
            let offset = cursor.i64()?;
            if version >= 4 {
                cursor.i32()?;
            }
            cursor.tags()?;
            found.partitions.push(PartitionEntry {
                partition,
                code,
                offset,
            });
        }
        cursor.tags()?;
        found.topics.push((name, start..found.partitions.len()));
    }
    cursor.tags()?;
    Ok(found)
}

/// `ListGroups`: an error code, and the groups that are consumers' by their protocol, or that only
/// commit and so have none; with their type from version 5.
pub(super) fn list_groups(
    body: &[u8],
    version: i16,
) -> Result<(i16, Vec<ListedGroups<'_>>), Malformed> {
    let mut cursor = FrameCursor::new(body, version >= 3);
    if version >= 1 {
        cursor.i32()?;
    }
    let code = cursor.i16()?;
    let mut groups = Vec::new();
    for _ in 0..cursor.count(2)? {
        let (name, protocol) = (cursor.string()?, cursor.string()?);
        if version >= 4 {
            cursor.skip_string()?;
        }
        let kind = if version >= 5 { cursor.string()? } else { "" };
        cursor.tags()?;
        if matches!(protocol, "consumer" | "share" | "streams" | "") {
            groups.push((name, kind));
        }
    }
    cursor.tags()?;
    Ok((code, groups))
}

/// A group's name, and its type in the broker's words.
type ListedGroups<'a> = (&'a str, &'a str);

#[cfg(test)]
mod tests;
