//! Decodes responses without copying: names are slices of the frame, and the partitions of all topics are in one list, of
//! which each topic has a range. The layouts are those of Kafka's message schemas
//! (<https://kafka.apache.org/protocol#protocol_messages>). Fields that lagwise does not need are skipped, and so are
//! trailing bytes, as in Kafka's own clients.

mod metadata;
mod topic_changes;

use std::ops::Range;

use super::cursor::{Malformed, ResponseCursor};

pub(super) use self::metadata::{MetadataLimits, TopicEntry, metadata};
pub(super) use self::topic_changes::{TopicResult, create_partitions, topic_config};

/// API key, lowest and highest version that a broker supports.
pub(super) type ApiRange = (i16, i16, i16);

/// Decodes `ApiVersions`: error code, and ranges also with error 35, UNSUPPORTED_VERSION (KIP-511).
pub(super) fn api_versions(body: &[u8], version: i16) -> Result<(i16, Vec<ApiRange>), Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 3);
    let code = cursor.i16()?;
    let count = cursor.count(6)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        ranges.push((cursor.i16()?, cursor.i16()?, cursor.i16()?));
        cursor.skip_tags()?;
    }
    if version >= 1 {
        cursor.i32()?;
    }
    cursor.skip_tags()?;
    Ok((code, ranges))
}

/// Decodes `SaslHandshake`: error code and the mechanisms that the broker supports.
pub(super) fn sasl_handshake(body: &[u8]) -> Result<(i16, Vec<&str>), Malformed> {
    let mut cursor = ResponseCursor::new(body, false);
    let code = cursor.i16()?;
    let count = cursor.count(2)?;
    let mut mechanisms = Vec::with_capacity(count);
    for _ in 0..count {
        mechanisms.push(cursor.string()?);
    }
    Ok((code, mechanisms))
}

/// A `SaslAuthenticate` response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SaslResult<'a> {
    pub(super) code: i16,
    /// The broker's explanation of a refused login.
    pub(super) message: Option<&'a str>,
    pub(super) answer: &'a [u8],
    /// Lifetime of the login in milliseconds (KIP-368); 0 if unlimited.
    pub(super) lifetime_ms: i64,
}

pub(super) fn sasl_authenticate(body: &[u8], version: i16) -> Result<SaslResult<'_>, Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 2);
    let found = SaslResult {
        code: cursor.i16()?,
        message: cursor.nullable_string()?,
        answer: cursor.bytes()?,
        lifetime_ms: if version >= 1 { cursor.i64()? } else { 0 },
    };
    cursor.skip_tags()?;
    Ok(found)
}

/// A coordinator in a `FindCoordinator` response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CoordinatorEntry<'a> {
    /// The group; `None` below version 4, which answers for one group only.
    pub(super) group: Option<&'a str>,
    pub(super) code: i16,
    pub(super) host: &'a str,
    pub(super) port: i32,
}

pub(super) fn find_coordinator(
    body: &[u8],
    version: i16,
) -> Result<Vec<CoordinatorEntry<'_>>, Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 3);
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
            cursor.skip_tags()?;
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
    cursor.skip_tags()?;
    Ok(found)
}

/// A committed offset or error for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionEntry {
    pub(super) partition: i32,
    pub(super) code: i16,
    pub(super) offset: i64,
}

/// An offset or error for one partition of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListedOffset {
    pub(super) partition: i32,
    pub(super) code: i16,
    pub(super) offset: i64,
    /// Timestamp of the record at the offset, in milliseconds since 1970; -1 if unknown.
    pub(super) timestamp: i64,
}

/// Committed offsets by topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TopicOffsetRows<'a> {
    topics: Vec<(&'a str, Range<usize>)>,
    partitions: Vec<PartitionEntry>,
}

impl<'a> TopicOffsetRows<'a> {
    pub(super) fn topics(&self) -> impl Iterator<Item = (&'a str, &[PartitionEntry])> {
        self.topics.iter().map(|(name, range)| {
            let partitions = self.partitions.get(range.clone());
            (*name, partitions.unwrap_or_default())
        })
    }

    fn clear(&mut self) {
        self.topics.clear();
        self.partitions.clear();
    }
}

/// Minimum size of a partition in an `OffsetFetch` response: its number, the offset, the length of the metadata, and the
/// error code.
const MIN_COMMITTED_BYTES: usize = 4 + 8 + 2 + 2;

/// Minimum size of a partition in a `ListOffsets` response: its number, the error code, the timestamp and the offset.
const MIN_LISTED_BYTES: usize = 4 + 2 + 8 + 8;

/// Decodes `OffsetFetch`. Calls back for each group with its name (`None` below version 8, which answers for one group
/// only), error code and offsets, and fails if a later part is malformed.
pub(super) fn offset_fetch<'a>(
    body: &'a [u8],
    version: i16,
    mut on_group: impl FnMut(Option<&'a str>, i16, &TopicOffsetRows<'a>),
) -> Result<(), Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 6);
    // All groups share one buffer: the rows of all of them would take as much memory as the response.
    let mut rows = TopicOffsetRows::default();
    if version >= 3 {
        cursor.i32()?;
    }
    if version >= 8 {
        for _ in 0..cursor.count(5)? {
            let group = cursor.string()?;
            rows.clear();
            read_committed(&mut cursor, version, &mut rows)?;
            let code = cursor.i16()?;
            cursor.skip_tags()?;
            on_group(Some(group), code, &rows);
        }
    } else {
        read_committed(&mut cursor, version, &mut rows)?;
        let code = if version >= 2 { cursor.i16()? } else { 0 };
        on_group(None, code, &rows);
    }
    cursor.skip_tags()
}

fn read_committed<'a>(
    cursor: &mut ResponseCursor<'a>,
    version: i16,
    into: &mut TopicOffsetRows<'a>,
) -> Result<(), Malformed> {
    for _ in 0..cursor.count(3)? {
        let name = cursor.string()?;
        let start = into.partitions.len();
        let count = cursor.count(MIN_COMMITTED_BYTES)?;
        for _ in 0..count {
            let partition = cursor.i32()?;
            let offset = cursor.i64()?;
            if version >= 5 {
                cursor.i32()?;
            }
            // Metadata that the consumer committed with the offset.
            cursor.skip_string()?;
            let code = cursor.i16()?;
            cursor.skip_tags()?;
            into.partitions.push(PartitionEntry {
                partition,
                code,
                offset,
            });
        }
        cursor.skip_tags()?;
        // An empty topic holds no offsets, and its entry takes more memory than its encoding.
        if count > 0 {
            into.topics.push((name, start..into.partitions.len()));
        }
    }
    Ok(())
}

/// Decodes `ListOffsets`, from version 1. Calls back for each topic with its name and its partitions, and fails if a
/// later part is malformed.
pub(super) fn list_offsets<'a>(
    body: &'a [u8],
    version: i16,
    mut on_topic: impl FnMut(&'a str, &[ListedOffset]),
) -> Result<(), Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 6);
    // All topics share one buffer: the partitions of all of them would take as much memory as the response.
    let mut partitions = Vec::new();
    if version >= 2 {
        cursor.i32()?;
    }
    for _ in 0..cursor.count(3)? {
        let name = cursor.string()?;
        partitions.clear();
        for _ in 0..cursor.count(MIN_LISTED_BYTES)? {
            let (partition, code) = (cursor.i32()?, cursor.i16()?);
            let timestamp = cursor.i64()?;
            let offset = cursor.i64()?;
            if version >= 4 {
                cursor.i32()?;
            }
            cursor.skip_tags()?;
            partitions.push(ListedOffset {
                partition,
                code,
                offset,
                timestamp,
            });
        }
        cursor.skip_tags()?;
        on_topic(name, &partitions);
    }
    cursor.skip_tags()
}

/// Decodes `ListGroups`: error code, and the groups that consume (protocol type consumer, share or
/// streams) or only commit (no protocol type). The group type is known from version 5.
pub(super) fn list_groups(
    body: &[u8],
    version: i16,
) -> Result<(i16, Vec<ListedGroup<'_>>), Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 3);
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
        cursor.skip_tags()?;
        if matches!(protocol, "consumer" | "share" | "streams" | "") {
            groups.push((name, kind));
        }
    }
    cursor.skip_tags()?;
    Ok((code, groups))
}

/// Group name, and group type in the broker's spelling.
type ListedGroup<'a> = (&'a str, &'a str);

#[cfg(test)]
mod tests;
