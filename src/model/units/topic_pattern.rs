//! Regular expressions for topic names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;

use super::newtypes::TopicName;

/// Syntax of a topic pattern, for error messages.
pub const PATTERN: &str = "a regular expression for the topic's whole name, such as orders-.*";

/// Maximum length of a pattern's text.
const MAX_TEXT_BYTES: usize = 1024;

/// Maximum memory of the program that a pattern compiles to. Larger ones are rejected. It also bounds the time of a
/// match: in the worst case one step for each instruction at each character of the name.
const MAX_PROGRAM_BYTES: usize = 32 * 1024;

/// Maximum nesting of groups and repetitions, on which the parser recurses.
const MAX_NESTING: u32 = 50;

/// A regular expression that has to match the whole topic name, as for a consumer that subscribes by
/// pattern. Matching takes time linear in the length of the name.
///
/// Names of topics are ASCII, and so are the classes of a pattern (`\w`, `\d`, `(?i)`): those of Unicode take hundreds
/// of times the memory and time, even before the limits apply.
#[derive(Clone)]
pub struct TopicPattern {
    text: Arc<str>,
    whole: Arc<meta::Regex>,
}

impl TopicPattern {
    /// Compiles a pattern, at a cost that does not depend on who wrote it: its text, its program and what matching
    /// keeps are bounded.
    ///
    /// # Errors
    /// The reason why it is invalid, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("longer than {MAX_TEXT_BYTES} bytes"));
        }
        if sets_unicode_flag(text) {
            return Err("the flag u is not supported: names of topics are ASCII".to_owned());
        }
        let config = meta::Config::new()
            .nfa_size_limit(Some(MAX_PROGRAM_BYTES))
            .which_captures(WhichCaptures::None)
            // These are faster on long texts, and keep up to megabytes for each pattern.
            .hybrid(false)
            .onepass(false)
            .dfa(false);
        let rules = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .nest_limit(MAX_NESTING);
        // Check it by itself first: inside the group below, an unbalanced `)` would close the group.
        syntax::parse_with(text, &rules).map_err(|error| last_line(&error))?;
        let whole = meta::Builder::new()
            .configure(config)
            .syntax(rules)
            .build(&format!("^(?:{text})$"));
        let whole = whole.map_err(|error| match (error.size_limit(), error.syntax_error()) {
            (Some(_), _) => "too complex: repeat less or use a shorter pattern".to_owned(),
            (None, Some(error)) => last_line(error),
            (None, None) => last_line(&error),
        })?;
        Ok(Self {
            text: text.into(),
            whole: Arc::new(whole),
        })
    }

    /// Approximate memory of the compiled pattern, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.whole.memory_usage().saturating_add(self.text.len())
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

/// Whether the pattern switches Unicode on, as in `(?u)` and `(?iu:...)`.
fn sets_unicode_flag(text: &str) -> bool {
    text.split("(?").skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase());
        rest.get(..end.unwrap_or(rest.len()))
            .is_some_and(|flags| flags.contains('u'))
    })
}

/// The last line of a syntax error, which says what is wrong; those before show where.
fn last_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
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
        for bad in ["(", "a)|(b", "*", "[z-a]", "(?P<n", r"\pL"] {
            let error = TopicPattern::parse(bad).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{bad}: {error}");
        }
    }

    #[test]
    fn a_pattern_that_would_cost_much_is_refused() {
        for bad in [
            r"\w{1000}{1000}",
            r"(?u:\pL{24})",
            "[a-z]{1000}",
            "(a|b|c){500}",
            &"(".repeat(400),
            &format!("{}a{}", "(".repeat(60), ")".repeat(60)),
            &r"(?iu:\pL\pL\pL\pL)".repeat(50),
            &"a".repeat(1025),
        ] {
            let started = std::time::Instant::now();
            let error = TopicPattern::parse(bad).unwrap_err();
            assert!(!error.contains('\n'), "{bad}: {error}");
            let took = started.elapsed();
            assert!(
                took < std::time::Duration::from_millis(500),
                "{bad}: {took:?}"
            );
        }
    }

    #[test]
    fn usual_patterns_are_small() {
        let list: Vec<_> = (0..50).map(|i| format!("orders-{i}-eu")).collect();
        for (pattern, bytes) in [
            ("orders-.*", 8_000),
            (r"(?i)[\w.-]+-(eu|us)-\d{1,4}", 16_000),
            (list.join("|").as_str(), 64_000),
        ] {
            let used = TopicPattern::parse(pattern).unwrap().bytes();
            assert!(used <= bytes, "{pattern}: {used}");
        }
    }
}
