//! The rule of a point of the history, which another version of lagwise may have recorded.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::evaluation::ValueRule;

/// The rule by which a value was computed, as recorded in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedRule {
    Known(ValueRule),
    /// A rule that only another version knows: there was a value, but this version cannot say how it was computed.
    Foreign,
}

impl RecordedRule {
    /// Name of every rule that this version does not know.
    const FOREIGN: &str = "of_another_version";

    /// The name of the rule in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Known(rule) => rule.label(),
            Self::Foreign => Self::FOREIGN,
        }
    }
}

impl From<ValueRule> for RecordedRule {
    fn from(rule: ValueRule) -> Self {
        Self::Known(rule)
    }
}

impl Serialize for RecordedRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// Accepts any text. Names that this version does not know are not kept, so that a peer cannot fill the memory.
impl<'de> Deserialize<'de> for RecordedRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(RuleName)
    }
}

struct RuleName;

impl Visitor<'_> for RuleName {
    type Value = RecordedRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a rule")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<RecordedRule, E> {
        let known: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Ok(ValueRule::deserialize(known).map_or(RecordedRule::Foreign, RecordedRule::Known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_rules_stay_rules_without_a_name() {
        for (json, expected, written) in [
            (
                "\"clamped\"",
                RecordedRule::Known(ValueRule::Clamped),
                "\"clamped\"",
            ),
            (
                "\"by_the_moon\"",
                RecordedRule::Foreign,
                "\"of_another_version\"",
            ),
            (
                "\"of_another_version\"",
                RecordedRule::Foreign,
                "\"of_another_version\"",
            ),
            ("\"\"", RecordedRule::Foreign, "\"of_another_version\""),
        ] {
            let read: RecordedRule = serde_json::from_str(json).unwrap();
            assert_eq!(read, expected, "{json}");
            assert_eq!(serde_json::to_string(&read).unwrap(), written, "{json}");
        }
        serde_json::from_str::<RecordedRule>("7").unwrap_err();
    }

    #[test]
    fn labels_are_the_names_that_are_read() {
        for rule in [
            ValueRule::AsMeasured,
            ValueRule::NeverRan,
            ValueRule::Fallback,
            ValueRule::Held,
        ] {
            let json = serde_json::to_string(&RecordedRule::from(rule)).unwrap();
            assert_eq!(serde_json::to_string(&rule).unwrap(), json);
        }
    }

    #[test]
    fn takes_no_more_memory_than_a_known_rule() {
        assert_eq!(size_of::<Option<RecordedRule>>(), size_of::<ValueRule>());
    }
}
