//! A point as a row of values: without the names of its fields it has a third of the size.

use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::diagnostics::hpa_history::HistoryPoint;

/// A point whose values are written in the order of the fields. Another version may write more or fewer: missing values
/// are unknown, and additional ones are ignored. So new fields are added at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PointRow(pub(super) HistoryPoint);

impl Serialize for PointRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let point = &self.0;
        let row = (
            point.at,
            point.replicas,
            point.desired,
            point.uncapped,
            point.ceiling,
            point.max_replicas,
            point.lag,
            point.lag_seconds,
            point.produced_per_second,
            point.consumed_per_second,
            point.rule,
        );
        row.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PointRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = PointRow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the values of a point")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<PointRow, A::Error> {
        let at = row.next_element()?;
        let point = HistoryPoint {
            at: at.ok_or_else(|| A::Error::invalid_length(0, &self))?,
            replicas: next(&mut row)?,
            desired: next(&mut row)?,
            uncapped: next(&mut row)?,
            ceiling: next(&mut row)?,
            max_replicas: next(&mut row)?,
            lag: next(&mut row)?,
            lag_seconds: next(&mut row)?,
            produced_per_second: next(&mut row)?,
            consumed_per_second: next(&mut row)?,
            rule: next(&mut row)?,
        };
        while row.next_element::<IgnoredAny>()?.is_some() {}
        Ok(PointRow(point))
    }
}

/// The next value of a row; `None` if it is unknown or missing.
fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(row: &mut A) -> Result<Option<T>, A::Error> {
    Ok(row.next_element::<Option<T>>()?.flatten())
}
