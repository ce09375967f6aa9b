//! `tenancy[]`: which namespaces may name which consumer groups and topics.

use schemars::JsonSchema;
use serde::Serialize;

use super::section::{Field, Section};

/// What patterns of other kinds have, and no name.
const ODD: &[char] = &['?', '[', ']', '{', '}'];

const PATTERN: &str = "a name, or a pattern in which * stands for any characters";

/// What some namespaces may name. Each of the four lists may be left out, and then fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct TenancyGrant {
    /// The namespaces (patterns with `*`).
    pub namespaces: Vec<String>,
    /// The Kafka clusters that they may name (patterns with `*`).
    pub clusters: Vec<String>,
    /// The consumer groups that they may name (patterns with `*`).
    pub groups: Vec<String>,
    /// The topics that they may name (patterns with `*`). Unless every topic fits, a request has to
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
        // A group may be called anything.
        let odd: &[char] = if key == "groups" { &[] } else { ODD };
        let patterns = field.texts(PATTERN, |text| pattern(text, odd));
        if field.list().is_empty() {
            // An empty list fits everything, which is not what an empty list looks like.
            field.refuse(
                "empty",
                "at least one pattern, or no such key for everything",
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

fn pattern(text: &str, odd: &[char]) -> Result<String, String> {
    match text.chars().find(|c| c.is_control() || odd.contains(c)) {
        Some(odd) => Err(format!("{odd:?} has no meaning in a pattern")),
        None => Ok(text.to_owned()),
    }
}
