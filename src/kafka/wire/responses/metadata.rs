//! Decodes `Metadata`. Keeps only the wanted parts, whatever a broker sends.

use crate::kafka::codes;
use crate::kafka::wire::cursor::{Malformed, ResponseCursor};

/// The parts of a response that are kept.
#[derive(Clone, Copy)]
pub(in crate::kafka::wire) struct MetadataLimits<'w> {
    /// Whether a topic was requested.
    pub(in crate::kafka::wire) is_wanted: &'w dyn Fn(&str) -> bool,
    /// Number of requested topics.
    pub(in crate::kafka::wire) topics: usize,
    pub(in crate::kafka::wire) brokers: usize,
    /// Partitions of each topic.
    pub(in crate::kafka::wire) partitions: usize,
}

impl MetadataLimits<'_> {
    /// Keeps everything.
    pub(in crate::kafka::wire) const NONE: Self = Self {
        is_wanted: &|_| true,
        topics: usize::MAX,
        brokers: usize::MAX,
        partitions: usize::MAX,
    };
}

/// A `Metadata` response.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct Metadata<'a> {
    /// Error code of the whole response, from version 13 on.
    pub(in crate::kafka::wire) code: i16,
    pub(in crate::kafka::wire) brokers: Vec<BrokerEntry<'a>>,
    /// Brokers beyond the limit.
    pub(in crate::kafka::wire) omitted_brokers: usize,
    /// The requested topics.
    pub(in crate::kafka::wire) topics: Vec<TopicEntry<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct BrokerEntry<'a> {
    pub(in crate::kafka::wire) id: i32,
    pub(in crate::kafka::wire) host: &'a str,
    pub(in crate::kafka::wire) port: i32,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct TopicEntry<'a> {
    pub(in crate::kafka::wire) code: i16,
    /// `None` only for a topic requested by ID.
    pub(in crate::kafka::wire) name: Option<&'a str>,
    pub(in crate::kafka::wire) id: Option<[u8; 16]>,
    /// Empty if there are too many.
    pub(in crate::kafka::wire) partitions: Vec<LeaderEntry>,
    /// Whether it has more partitions than the limit.
    pub(in crate::kafka::wire) is_too_large: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct LeaderEntry {
    pub(in crate::kafka::wire) partition: i32,
    pub(in crate::kafka::wire) leader: i32,
    pub(in crate::kafka::wire) epoch: i32,
}

pub(in crate::kafka::wire) fn metadata<'a>(
    body: &'a [u8],
    version: i16,
    limits: MetadataLimits<'_>,
) -> Result<Metadata<'a>, Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 9);
    if version >= 3 {
        cursor.i32()?;
    }
    let count = cursor.count(9)?;
    let mut brokers = Vec::with_capacity(count.min(limits.brokers));
    for _ in 0..count {
        let broker = BrokerEntry {
            id: cursor.i32()?,
            host: cursor.string()?,
            port: cursor.i32()?,
        };
        if brokers.len() < limits.brokers {
            brokers.push(broker);
        }
        if version >= 1 {
            cursor.skip_string()?;
        }
        cursor.skip_tags()?;
    }
    let omitted_brokers = count.saturating_sub(brokers.len());
    if version >= 2 {
        cursor.skip_string()?;
    }
    if version >= 1 {
        cursor.i32()?;
    }
    let count = cursor.count(4)?;
    // An entry is larger in memory than its minimal encoding, so the list grows as entries arrive.
    let mut topics = Vec::new();
    for _ in 0..count {
        let has_room = topics.len() < limits.topics;
        topics.extend(topic(&mut cursor, version, limits, has_room)?);
    }
    if (8..=10).contains(&version) {
        cursor.i32()?;
    }
    let code = match version {
        13.. => cursor.i16()?,
        _ => codes::NONE,
    };
    cursor.skip_tags()?;
    Ok(Metadata {
        code,
        brokers,
        omitted_brokers,
        topics,
    })
}

/// Reads a topic; `None` if it is not kept.
fn topic<'a>(
    cursor: &mut ResponseCursor<'a>,
    version: i16,
    limits: MetadataLimits<'_>,
    has_room: bool,
) -> Result<Option<TopicEntry<'a>>, Malformed> {
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
    let is_kept = has_room && name.is_none_or(limits.is_wanted);
    let is_too_large = count > limits.partitions;
    let kept = match is_kept && !is_too_large {
        true => count,
        false => 0,
    };
    let mut partitions = Vec::with_capacity(kept);
    for _ in 0..count {
        cursor.i16()?;
        let entry = LeaderEntry {
            partition: cursor.i32()?,
            leader: cursor.i32()?,
            epoch: if version >= 7 { cursor.i32()? } else { -1 },
        };
        if kept > 0 {
            partitions.push(entry);
        }
        cursor.skip_i32s()?;
        cursor.skip_i32s()?;
        if version >= 5 {
            cursor.skip_i32s()?;
        }
        cursor.skip_tags()?;
    }
    if version >= 8 {
        cursor.i32()?;
    }
    cursor.skip_tags()?;
    Ok(is_kept.then_some(TopicEntry {
        code,
        name,
        id,
        partitions,
        is_too_large,
    }))
}
