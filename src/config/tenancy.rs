//! `tenancy[]`: which namespaces may use which consumer groups and topics.

use schemars::JsonSchema;
use serde::Serialize;

use super::section::{Field, Section};

/// Characters that occur in no valid name, and are wildcards in other kinds of patterns.
const FOREIGN_WILDCARDS: &[char] = &['?', '[', ']', '{', '}'];

const PATTERN: &str = "a name, or a pattern in which * matches any characters";

/// What some namespaces may use. A list that is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct TenancyGrant {
    /// The namespaces (patterns with `*`).
    pub namespaces: Vec<String>,
    /// The Kafka clusters that they may use (patterns with `*`).
    pub clusters: Vec<String>,
    /// The consumer groups that they may use (patterns with `*`).
    pub groups: Vec<String>,
    /// The topics that they may use (patterns with `*`). If this does not match every topic, a request must
    /// name its topics.
    pub topics: Vec<String>,
}

/// Reads all grants.
pub(super) fn read_all(root: &mut Section<'_>) -> Vec<TenancyGrant> {
    root.get("tenancy")
        .map(|field| field.list())
        .unwrap_or_default()
        .iter()
        .filter_map(Field::section)
        .map(read)
        .collect()
}

fn read(mut section: Section<'_>) -> TenancyGrant {
    let mut patterns = |key| {
        let field = section.get(key)?;
        // The name of a group may have any characters.
        let invalid: &[char] = if key == "groups" {
            &[]
        } else {
            FOREIGN_WILDCARDS
        };
        let patterns = field.texts(PATTERN, |text| pattern(text, invalid));
        if field.list().is_empty() {
            // It would match everything, although it looks as if it matched nothing.
            field.refuse(
                "empty",
                "at least one pattern; leave the key out to match everything",
            );
        }
        Some(patterns)
    };
    let grant = TenancyGrant {
        namespaces: patterns("namespaces").unwrap_or_default(),
        clusters: patterns("clusters").unwrap_or_default(),
        groups: patterns("groups").unwrap_or_default(),
        topics: patterns("topics").unwrap_or_default(),
    };
    section.finish();
    grant
}

fn pattern(text: &str, invalid: &[char]) -> Result<String, String> {
    match text.chars().find(|c| c.is_control() || invalid.contains(c)) {
        Some(found) => Err(format!("{found:?} is not allowed in a pattern")),
        None => Ok(text.to_owned()),
    }
}
