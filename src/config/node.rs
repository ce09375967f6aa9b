//! The YAML file as written: each value with its place, numbers with their spelling, and repeated keys, so
//! that the readers can report problems precisely.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use super::problem::{ConfigError, Problem};

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: u64,
    /// From 1.
    pub(super) column: u64,
}

/// A value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: ScalarValue,
}

#[derive(Debug)]
pub(super) enum ScalarValue {
    Null,
    /// The value, and its spelling such as `True`.
    Bool(bool, String),
    /// The value of a whole number, and the spelling such as `0x10` or `1.50`.
    Number(Option<i128>, String),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<NodeEntry>),
}

#[derive(Debug)]
pub(super) struct NodeEntry {
    pub(super) key: String,
    /// The place of the key.
    pub(super) place: Place,
    pub(super) node: Node,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

impl Node {
    /// Reads one YAML document. An empty one is null.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        // A snippet would show neighbouring lines, and with them perhaps a password.
        let options = serde_saphyr::options! {
            with_snippet: false,
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            strict_booleans: true,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
            reject_unsupported_tags: true,
            // The parser limits the number of comments if it emits them.
            emit_comments: false,
            // Reading recurses; the deepest key of the configuration is at level four.
            budget: serde_saphyr::budget! { max_depth: 32 },
        };
        serde_saphyr::from_str_with_options::<Spanned<Parsed>>(text, options)
            .map(|parsed| Self::from_parsed(parsed, text))
            .map_err(|error| syntax_error(&error, text).into())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, ScalarValue::Null)
    }

    fn from_parsed(parsed: Spanned<Parsed>, text: &str) -> Self {
        let span = parsed.defined.span();
        let spelling = || {
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let length = usize::try_from(span.byte_len()?).ok()?;
            text.get(start..start.checked_add(length)?)
        };
        let spelled = |value: &dyn fmt::Display| {
            spelling().map_or_else(|| value.to_string(), |spelling| spelling.trim().to_owned())
        };
        let value = match parsed.value {
            Parsed::Null => ScalarValue::Null,
            Parsed::Bool(flag) => ScalarValue::Bool(flag, spelled(&flag)),
            Parsed::Whole(number) => ScalarValue::Number(Some(number), spelled(&number)),
            Parsed::Float(number) => ScalarValue::Number(None, spelled(&number)),
            Parsed::Text(written) => ScalarValue::Text(written),
            Parsed::List(items) => ScalarValue::List(
                items
                    .into_iter()
                    .map(|item| Self::from_parsed(item, text))
                    .collect(),
            ),
            Parsed::Mapping(entries) => ScalarValue::Mapping(
                entries
                    .into_iter()
                    .map(|(key, value)| NodeEntry {
                        place: Place::from(key.referenced),
                        key: key.value,
                        node: Self::from_parsed(value, text),
                    })
                    .collect(),
            ),
        };
        Self {
            place: Place::from(parsed.referenced),
            value,
        }
    }
}

impl ScalarValue {
    /// Kind of the value with its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(..) => "true or false",
            Self::Number(..) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }

    /// The value for a message, short and on one line; `None` for lists, mappings and texts of several lines,
    /// which may be a private key in the place of a path.
    pub(super) fn display_text(&self) -> Option<String> {
        const MAX_CHARS: usize = 60;
        match self {
            Self::Bool(_, spelling) | Self::Number(_, spelling) => Some(spelling.clone()),
            Self::Text(text) if text.contains('\n') || text.starts_with("-----BEGIN") => None,
            Self::Text(text) if text.chars().count() > MAX_CHARS => Some(format!(
                "{:?}...",
                text.chars().take(MAX_CHARS).collect::<String>()
            )),
            Self::Text(text) => Some(format!("{text:?}")),
            Self::Null | Self::List(_) | Self::Mapping(_) => None,
        }
    }
}

fn syntax_error(error: &serde_saphyr::Error, text: &str) -> Problem {
    let rendered = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let message = match (rendered.rsplit_once(" at line "), error.location()) {
        (Some((message, _)), Some(_)) => message,
        _ => rendered.as_str(),
    };
    let line = error.location().and_then(|at| at.line().checked_sub(1));
    let line = line.and_then(|index| text.lines().nth(usize::try_from(index).ok()?));
    let is_indented_by_tab = line.is_some_and(|line| {
        let indentation = line.len() - line.trim_start().len();
        line[..indentation].contains('\t')
    });
    // A message about a tag may quote it. A password that starts with ! and has no quotes is parsed as a tag.
    let message = if is_indented_by_tab || message.ends_with("found a tab") {
        "indent by spaces, not by a tab".to_owned()
    } else if message.contains("tag") {
        "a value that starts with ! must be in quotes".to_owned()
    } else if message.starts_with("unexpected character") {
        format!("{message}; a value that starts with it must be in quotes")
    } else {
        message.to_owned()
    };
    Problem {
        line: error.location().map(|at| at.line()),
        column: error.location().map(|at| at.column()),
        ..Problem::of_file(format!("invalid YAML: {message}"))
    }
}

/// A value as the YAML library parses it, before numbers get their spelling back.
enum Parsed {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Mapping(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Parsed, E> {
        Ok(Parsed::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Parsed, E> {
        Ok(Parsed::Whole(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Parsed, E> {
        Ok(Parsed::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        Ok(Parsed::Mapping(mapping))
    }
}
