//! Spans of time in seconds since 1970, as histories have them, and times in the query of an address.

use crate::model::diagnostics::hpa_history::recorder::seconds_since_1970;

/// A span of time, in seconds since 1970. Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeSpan {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl TimeSpan {
    pub(super) fn contains(self, at: u32) -> bool {
        (self.from..=self.to).contains(&at)
    }

    pub(super) fn seconds(self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    /// The same span with this number of seconds more on both sides.
    pub(super) fn widened(self, seconds: u32) -> Self {
        Self {
            from: self.from.saturating_sub(seconds),
            to: self.to.saturating_add(seconds),
        }
    }
}

/// Parses seconds since 1970, or a time in RFC 3339.
pub(super) fn parse_time(text: &str) -> Option<u32> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    humantime::parse_rfc3339(text).ok().map(seconds_since_1970)
}

/// The first value of a key in a query string; `None` if it is missing or empty.
pub(super) fn query_value(query: &str, key: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let value = pairs.find(|(name, _)| name == key).map(|(_, value)| value);
    let value = value.map(|value| value.trim().to_owned());
    value.filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_times() {
        for (text, expected) in [
            ("1714979289", Some(1_714_979_289)),
            ("2024-05-06T07:08:09Z", Some(1_714_979_289)),
            ("0", Some(0)),
            ("-1", None),
            ("99999999999", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_value_of_a_key_counts() {
        for (query, expected) in [
            ("a=1&b=2&a=3", Some("1")),
            ("b=a", None),
            ("a=", None),
            ("a=%20x%20", Some("x")),
            ("", None),
        ] {
            assert_eq!(query_value(query, "a").as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn a_span_has_both_of_its_ends() {
        let span = TimeSpan { from: 10, to: 20 };
        let inside = [9, 10, 20, 21].map(|at| span.contains(at));
        assert_eq!(inside, [false, true, true, false]);
        assert_eq!(span.widened(15), TimeSpan { from: 0, to: 35 });
        assert_eq!(TimeSpan { from: 5, to: 3 }.seconds(), 0);
    }
}
