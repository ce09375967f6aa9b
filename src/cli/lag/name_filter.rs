//! Names and patterns of groups and topics on the command line.

use std::collections::BTreeSet;

use crate::model::units::glob::Glob;

/// Which groups or topics are asked for. Without a name and a pattern it is all of them.
#[derive(Debug, Default)]
pub(super) struct NameFilter {
    /// Those asked for by their full name.
    pub(super) names: BTreeSet<String>,
    patterns: Vec<(String, Glob)>,
}

impl NameFilter {
    /// A text with `*` is a pattern, any other a name.
    pub(super) fn new(texts: &[String]) -> Self {
        let (patterns, names): (Vec<_>, Vec<_>) =
            texts.iter().cloned().partition(|text| text.contains('*'));
        let glob = |text: String| (text.clone(), Glob::new(text));
        Self {
            names: names.into_iter().collect(),
            patterns: patterns.into_iter().map(glob).collect(),
        }
    }

    /// Whether everything is asked for.
    pub(super) fn is_all(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Whether the names have to be listed to know what is asked for.
    pub(super) fn needs_list(&self) -> bool {
        self.names.is_empty() || !self.patterns.is_empty()
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let mut patterns = self.patterns.iter();
        self.is_all() || self.names.contains(name) || patterns.any(|(_, glob)| glob.matches(name))
    }

    /// The patterns that match none of these names.
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
    fn names_alone_need_no_list() {
        assert!(!filter(&["billing"]).needs_list());
        assert!(filter(&[]).needs_list() && filter(&[]).is_all());
        assert!(filter(&[]).matches("anything"));
        assert!(filter(&[]).unmatched(["a"].into_iter()).is_empty());
    }
}
