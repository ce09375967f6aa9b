//! Filter for groups and topics that are given on the command line.

use std::collections::BTreeSet;

use crate::model::units::glob::Glob;

/// Selects groups or topics by names and patterns. An empty filter selects all.
#[derive(Debug, Default)]
pub(in crate::cli) struct NameFilter {
    /// Full names.
    pub(super) names: BTreeSet<String>,
    patterns: Vec<(String, Glob)>,
}

impl NameFilter {
    /// A filter for these texts. A text with `*` is a pattern, any other a full name.
    pub(in crate::cli) fn new(texts: &[String]) -> Self {
        let (patterns, names): (Vec<_>, Vec<_>) =
            texts.iter().cloned().partition(|text| text.contains('*'));
        let glob = |text: String| (text.clone(), Glob::new(text));
        Self {
            names: names.into_iter().collect(),
            patterns: patterns.into_iter().map(glob).collect(),
        }
    }

    /// Whether the filter is empty, so that it selects all.
    pub(super) fn is_all(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Whether the names in the cluster must be listed to know which ones the filter selects.
    pub(super) fn needs_list(&self) -> bool {
        self.names.is_empty() || !self.patterns.is_empty()
    }

    pub(in crate::cli) fn matches(&self, name: &str) -> bool {
        let mut patterns = self.patterns.iter();
        self.is_all() || self.names.contains(name) || patterns.any(|(_, glob)| glob.matches(name))
    }

    /// The patterns that match none of `names`.
    pub(super) fn unmatched<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<&str> {
        let patterns = self.patterns.iter();
        let unmatched = patterns.filter(|(_, glob)| !names.clone().any(|name| glob.matches(name)));
        unmatched.map(|(text, _)| text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(texts: &[&str]) -> NameFilter {
        NameFilter::new(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_text_with_a_star_is_a_pattern() {
        let filter = filter(&["billing", "orders-*", "*-eu"]);
        for (name, expected) in [
            ("billing", true),
            ("billing2", false),
            ("orders-", true),
            ("orders-us", true),
            ("mail-eu", true),
            ("mail", false),
        ] {
            assert_eq!(filter.matches(name), expected, "{name}");
        }
        assert!(filter.needs_list() && !filter.is_all());
        assert_eq!(filter.unmatched(["orders-us"].into_iter()), ["*-eu"]);
    }

    #[test]
    fn names_without_patterns_need_no_list() {
        assert!(!filter(&["billing"]).needs_list());
        assert!(filter(&[]).needs_list() && filter(&[]).is_all());
        assert!(filter(&[]).matches("anything"));
        assert!(filter(&[]).unmatched(["a"].into_iter()).is_empty());
    }
}
