//! Regular expressions for topic names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use regex::{Regex, RegexBuilder};

use super::newtypes::TopicName;

/// Syntax of a topic pattern, for error messages.
pub const PATTERN: &str = "a regular expression for the topic's whole name, such as orders-.*";

/// Memory limit of a compiled pattern; larger ones are rejected.
const BYTES_MAX: usize = 1 << 20;

/// A regular expression that has to match the whole topic name, as for a consumer that subscribes by
/// pattern. Matching takes time linear in the length of the name.
#[derive(Clone)]
pub struct TopicPattern {
    text: String,
    whole: Regex,
}

impl TopicPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Compile it by itself first: inside the group below, an unbalanced `)` would close the group.
        let compiled = |text: &str| RegexBuilder::new(text).size_limit(BYTES_MAX).build();
        let whole = compiled(text)
            .and_then(|_| compiled(&format!("^(?:{text})$")))
            .map_err(|error| {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            })?;
        Ok(Self {
            text: text.to_owned(),
            whole,
        })
    }

    /// Whether the topic's name matches.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.whole.is_match(topic.as_str())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// Patterns are equal if their texts are.
impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicPattern {}

impl PartialOrd for TopicPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for TopicPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_the_whole_name() {
        let pattern = TopicPattern::parse("orders|orders-.*").unwrap();
        for (topic, expected) in [
            ("orders", true),
            ("orders-eu", true),
            ("orders2", false),
            ("my-orders", false),
            ("orders\n", false),
        ] {
            assert_eq!(pattern.matches(&topic.into()), expected, "{topic:?}");
        }
    }

    #[test]
    fn invalid_pattern_is_a_one_line_error() {
        for bad in ["(", "a)|(b", "*", "[z-a]", "(?P<n", r"\w{1000}{1000}"] {
            let error = TopicPattern::parse(bad).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{bad}: {error}");
        }
    }
}
