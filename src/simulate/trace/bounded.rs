//! Reads the topics of a sample, with a limit on the memory that they take while they are read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{MAX_TRACE_PARTITIONS, TracePosition};

type Topics = BTreeMap<String, Vec<TracePosition>>;

/// Topics with at most [`MAX_TRACE_PARTITIONS`] partitions in all, and as many topics.
pub(super) fn bounded_topics<'de, D: Deserializer<'de>>(from: D) -> Result<Topics, D::Error> {
    from.deserialize_map(TopicsVisitor)
}

struct TopicsVisitor;

impl<'de> Visitor<'de> for TopicsVisitor {
    type Value = Topics;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of topics")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Topics, A::Error> {
        let mut topics = Topics::new();
        let mut left = MAX_TRACE_PARTITIONS;
        while let Some(topic) = map.next_key::<String>()? {
            if topics.len() >= MAX_TRACE_PARTITIONS {
                return Err(too_many("topics"));
            }
            let positions = map.next_value_seed(PositionsSeed { left: &mut left })?;
            topics.insert(topic, positions);
        }
        Ok(topics)
    }
}

/// The positions of one topic.
struct PositionsSeed<'a> {
    /// How many more may follow in this sample.
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for PositionsSeed<'_> {
    type Value = Vec<TracePosition>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PositionsSeed<'_> {
    type Value = Vec<TracePosition>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of offsets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut positions = Vec::new();
        while let Some(position) = list.next_element()? {
            let left = self.left.checked_sub(1);
            *self.left = left.ok_or_else(|| too_many("partitions"))?;
            positions.push(position);
        }
        Ok(positions)
    }
}

fn too_many<E: Error>(what: &str) -> E {
    E::custom(format!(
        "more than {MAX_TRACE_PARTITIONS} {what}, which is the most that are read,"
    ))
}
