//! Kubernetes label selectors, as in HPA metrics and metric requests.
//!
//! Source: `k8s.io/apimachinery/pkg/labels/selector.go`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::label;
use crate::model::units::untrusted_text::Printable;

/// Whether a text is a valid label value; Kubernetes rejects selectors with invalid ones.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let alphanumeric = |end: Option<&u8>| end.is_none_or(u8::is_ascii_alphanumeric);
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(allowed)
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
}

/// Why the HPA controller rejects the selector of a metric. It then sends no request for that metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectedSelector {
    /// A value that no label can have.
    Value { key: String, value: String },
    /// An operator that Kubernetes does not know.
    Operator(String),
}

impl RejectedSelector {
    /// Rejects a value of `key`. Both are kept as they are shown, so that they are short.
    #[must_use]
    pub fn value(key: &str, value: &str) -> Self {
        Self::Value {
            key: Printable::name(key).to_string(),
            value: Printable::name(value).to_string(),
        }
    }

    /// Memory of the selector, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Value { key, value } => key.len().saturating_add(value.len()),
            Self::Operator(operator) => operator.len(),
        }
    }

    /// Rejects an operator.
    #[must_use]
    pub fn operator(operator: &str) -> Self {
        Self::Operator(Printable::name(operator).to_string())
    }
}

/// Operator of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `key=value`, `key==value` or `key in (a,b)`: the label is there, with one of these values.
    In(Vec<String>),
    /// `key!=value` or `key notin (a,b)`: the label is absent or has none of these values.
    NotIn(Vec<String>),
    /// `key`: the label is there.
    Exists,
    /// `!key`: the label is absent.
    DoesNotExist,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Borrowed for the labels of lagwise, which nearly all requirements are about.
    key: Cow<'static, str>,
    operator: Operator,
}

impl Requirement {
    /// Creates a requirement. Values are sorted and deduplicated.
    #[must_use]
    pub fn new(key: &str, operator: Operator) -> Self {
        let sorted = |mut values: Vec<String>| {
            values.sort();
            values.dedup();
            values
        };
        let operator = match operator {
            Operator::In(values) => Operator::In(sorted(values)),
            Operator::NotIn(values) => Operator::NotIn(sorted(values)),
            other => other,
        };
        let known = label::ALL.into_iter().find(|known| *known == key);
        Self {
            key: known.map_or_else(|| Cow::Owned(key.to_owned()), Cow::Borrowed),
            operator,
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let among = |values: &[String], value: &str| values.iter().any(|v| v == value);
        match (&self.operator, value) {
            (Operator::In(values), Some(value)) => among(values, value),
            (Operator::NotIn(values), Some(value)) => !among(values, value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist | Operator::NotIn(_), None) => true,
            (Operator::In(_), None) | (Operator::DoesNotExist, Some(_)) => false,
        }
    }
}

/// A conjunction of requirements in canonical order, so that selectors with the same requirements are equal
/// however they were written. Cloning shares the requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<[Requirement]>);

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut all: Vec<_> = requirements.into_iter().collect();
        all.sort();
        all.dedup();
        Self(all.into())
    }
}

impl Selector {
    /// Parses the `labelSelector` parameter of a request. Empty text selects everything.
    ///
    /// # Errors
    /// The expected text, and its position.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut rest = Cursor { text, at: 0 };
        let mut all = Vec::new();
        rest.skip_spaces();
        while !rest.is_done() {
            all.push(rest.requirement()?);
            rest.skip_spaces();
            if rest.is_done() {
                break;
            }
            if !rest.take(',') {
                return Err(rest.expected("',' or the end"));
            }
            rest.skip_spaces();
            if rest.is_done() {
                return Err(rest.expected("another requirement after ','"));
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Values of `key`, if a requirement lists them.
    #[must_use]
    pub fn values(&self, key: &str) -> Option<&[String]> {
        self.0.iter().find_map(|r| match &r.operator {
            Operator::In(values) if r.key == key => Some(values.as_slice()),
            _ => None,
        })
    }

    /// Keys of the requirements, in order, with repetitions.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| &*requirement.key)
    }

    /// Bytes of its keys and values.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let bytes = |requirement: &Requirement| {
            let values = match &requirement.operator {
                Operator::In(values) | Operator::NotIn(values) => values.as_slice(),
                Operator::Exists | Operator::DoesNotExist => &[],
            };
            let values = values.iter().map(String::len);
            values.fold(requirement.key.len(), usize::saturating_add)
        };
        self.0.iter().map(bytes).fold(0, usize::saturating_add)
    }

    /// Number of its keys and values.
    #[must_use]
    pub fn text_count(&self) -> usize {
        let count = |requirement: &Requirement| match &requirement.operator {
            Operator::In(values) | Operator::NotIn(values) => values.len().saturating_add(1),
            Operator::Exists | Operator::DoesNotExist => 1,
        };
        self.0.iter().map(count).fold(0, usize::saturating_add)
    }

    /// Whether any requirement is about `key`.
    #[must_use]
    pub fn mentions(&self, key: &str) -> bool {
        self.0.iter().any(|r| r.key == key)
    }

    /// Whether labels satisfy every requirement; `label` looks one up by key.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values.concat()),
                Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
                Operator::NotIn(values) if values.len() == 1 => {
                    write!(f, "{key}!={}", values.concat())
                }
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
                Operator::Exists => f.write_str(key),
                Operator::DoesNotExist => write!(f, "!{key}"),
            }?;
        }
        Ok(())
    }
}

/// Syntax error in a label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse the label selector {text:?}: expected {expected} at position {at}")]
pub struct SelectorError {
    text: String,
    expected: &'static str,
    at: usize,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn is_done(&self) -> bool {
        self.rest().is_empty()
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError {
            text: self.text.to_owned(),
            expected,
            at: self.at,
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.text.len());
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.advance(rest.len().saturating_sub(rest.trim_start().len()));
    }

    fn take(&mut self, symbol: char) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.advance(symbol.len_utf8());
        }
        found
    }

    /// Characters up to the next one that has a meaning in the grammar.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| {
                matches!(c, '=' | '!' | '(' | ')' | ',' | '<' | '>') || c.is_whitespace()
            })
            .unwrap_or(rest.len());
        self.advance(end);
        rest.get(..end).unwrap_or("")
    }

    fn key(&mut self) -> Result<&'a str, SelectorError> {
        match self.word() {
            "" => Err(self.expected("a label key")),
            key => Ok(key),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take('!') {
            self.skip_spaces();
            return Ok(Requirement::new(self.key()?, Operator::DoesNotExist));
        }
        let key = self.key()?;
        self.skip_spaces();
        if self.is_done() || self.rest().starts_with(',') {
            return Ok(Requirement::new(key, Operator::Exists));
        }
        if self.take('=') {
            self.take('=');
            let value = self.value()?;
            return Ok(Requirement::new(key, Operator::In(vec![value])));
        }
        if self.take('!') {
            if !self.take('=') {
                return Err(self.expected("'=' after '!'"));
            }
            let value = self.value()?;
            return Ok(Requirement::new(key, Operator::NotIn(vec![value])));
        }
        let before = self.at;
        match self.word() {
            "in" => Ok(Requirement::new(key, Operator::In(self.set()?))),
            "notin" => Ok(Requirement::new(key, Operator::NotIn(self.set()?))),
            _ => {
                self.at = before;
                Err(self.expected("one of = == != in notin"))
            }
        }
    }

    fn label_value(&mut self) -> Result<String, SelectorError> {
        let before = self.at;
        let value = self.word();
        if !is_label_value(value) {
            self.at = before;
            return Err(self.expected(
                "a label value (at most 63 of letters, digits, - _ . with a letter or digit at both ends)",
            ));
        }
        Ok(value.to_owned())
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.skip_spaces();
        let value = self.label_value()?;
        self.skip_spaces();
        if self.is_done() || self.rest().starts_with(',') {
            Ok(value)
        } else {
            Err(self.expected("',' or the end"))
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.skip_spaces();
        if !self.take('(') {
            return Err(self.expected("'('"));
        }
        let mut values = Vec::new();
        loop {
            self.skip_spaces();
            values.push(self.label_value()?);
            self.skip_spaces();
            if self.take(')') {
                return Ok(values);
            }
            if !self.take(',') {
                return Err(self.expected("',' or ')'"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_the_grammar() {
        for (text, canonical) in [
            ("", ""),
            ("group=orders", "group=orders"),
            ("group==orders", "group=orders"),
            (" group = orders , topic != dlq ", "group=orders,topic!=dlq"),
            ("topic in (b, a),group=g", "group=g,topic in (a,b)"),
            ("topic in (a)", "topic=a"),
            ("topic notin (a,b)", "topic notin (a,b)"),
            ("cluster,!hpa", "cluster,!hpa"),
            ("a=,b", "a=,b"),
            ("in in (in)", "in=in"),
            ("group=orders,group=orders", "group=orders"),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().to_string(),
                canonical,
                "{text:?}"
            );
        }
    }

    #[test]
    fn rejects_malformed_input() {
        for text in [
            "=",
            ",",
            "a,",
            "a=b,,c",
            "a in",
            "a in (",
            "a in (b",
            "a in b)",
            "a!b",
            "a b",
            "!",
            "a=b c",
            "a>1",
            "(a)",
            "a=b)",
            "! =a",
            "a=b/c",
            "a=-b",
            "a in (b,c.)",
            "a!=b\0",
        ] {
            assert!(Selector::parse(text).is_err(), "{text:?}");
        }
        for (length, is_fine) in [(63, true), (64, false)] {
            let text = format!("a={}", "b".repeat(length));
            assert_eq!(Selector::parse(&text).is_ok(), is_fine, "{length}");
        }
        assert_eq!(
            Selector::parse("group orders").unwrap_err().to_string(),
            "unable to parse the label selector \"group orders\": expected one of = == != in notin at position 6"
        );
    }

    #[test]
    fn matches_as_kubernetes_does() {
        let labels = |key: &str| match key {
            "group" => Some("orders"),
            "topic" => Some("payments"),
            _ => None,
        };
        for (text, expected) in [
            ("", true),
            ("group=orders", true),
            ("group=other", false),
            ("group in (a,orders)", true),
            ("group notin (a,b)", true),
            ("group!=orders", false),
            ("absent!=x", true),
            ("absent notin (x)", true),
            ("absent=x", false),
            ("group", true),
            ("absent", false),
            ("!absent", true),
            ("!group", false),
            ("group=orders,topic=refunds", false),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().matches(labels),
                expected,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn canonical_text_round_trips(text in "[a-c]{1,2}(=[a-c]{0,2}|!=[a-c]{1}| in \\([a-c](,[a-c])?\\)|)(,!?[a-c]){0,2}") {
            let parsed = Selector::parse(&text).unwrap();
            prop_assert_eq!(Selector::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }
}
