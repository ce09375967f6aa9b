//! Reads a mapping key by key. Each key that is read counts as known; each invalid value becomes a problem
//! with its path, its value and what is allowed.

use super::foreign_keys;
use super::node::{Node, NodeEntry, Place, ScalarValue};
use super::problem::{Problem, Problems, did_you_mean};
use super::secrets::holds_reference;

/// A mapping of the file, or the position of one that was left out.
pub(super) struct Section<'a> {
    path: String,
    place: Option<Place>,
    entries: &'a [NodeEntry],
    known: Vec<&'static str>,
    problems: &'a Problems,
    /// Whether its values may be secrets, which no problem shows.
    is_secret: bool,
}

/// A value of the file, with its position.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    place: Place,
    pub(super) node: &'a Node,
    problems: &'a Problems,
    /// Whether it may be a secret, which no problem shows.
    is_secret: bool,
}

impl<'a> Section<'a> {
    /// The whole file; `None`, with a problem, if it is not a mapping.
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Option<Self> {
        let field = Field {
            path: String::new(),
            place: node.place,
            node,
            problems,
            is_secret: false,
        };
        field.section()
    }

    /// The value of `key`; `None` if the key is left out or has no value.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Field<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.node.is_null()).then(|| self.field(entry))
    }

    /// The value of the former name of a key. It is accepted, but messages do not list it.
    pub(super) fn former(&mut self, key: &'static str) -> Option<Field<'a>> {
        let is_written = self.entries.iter().any(|entry| entry.key == key);
        is_written.then(|| self.get(key)).flatten()
    }

    /// Like [`get`](Self::get), but leaving it out is a problem.
    pub(super) fn required(&mut self, key: &'static str, allowed: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.refuse_key(key, "missing", allowed);
        }
        field
    }

    /// The mapping at `key`; an empty one if it is left out or, with a problem, not a mapping.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let left_out = Section {
            path: join(&self.path, key),
            place: self.place,
            entries: &[],
            known: Vec::new(),
            problems: self.problems,
            is_secret: self.is_secret,
        };
        self.get(key)
            .and_then(|field| field.section())
            .unwrap_or(left_out)
    }

    /// Records a problem of `key`, whether it is set or has its default.
    pub(super) fn refuse_key(&self, key: &str, problem: &str, allowed: &str) {
        let written = self.entries.iter().find(|entry| entry.key == key);
        let place = written.map(|entry| entry.place).or(self.place);
        self.problems.add(Problem {
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            key: join(&self.path, key),
            allowed: Some(allowed.into()),
            ..Problem::of_file(problem)
        });
    }

    /// All entries, for a mapping with arbitrary keys. Of repeated keys, the first.
    pub(super) fn free_entries(self) -> Vec<(&'a str, Field<'a>)> {
        self.record_repeated_keys();
        let first = |index: usize, key: &str| !self.entries[..index].iter().any(|e| e.key == key);
        self.entries
            .iter()
            .enumerate()
            .filter(|(index, entry)| first(*index, &entry.key))
            .map(|(_, entry)| (entry.key.as_str(), self.field(entry)))
            .collect()
    }

    /// Records unknown and repeated keys. Must be the last call on a section.
    pub(super) fn finish(mut self) {
        self.record_repeated_keys();
        self.known.sort_unstable();
        for entry in self
            .entries
            .iter()
            .filter(|e| !self.known.contains(&e.key.as_str()))
        {
            self.field(entry).add(
                None,
                self.unknown_key(&entry.key),
                Some(self.known.join(", ")),
            );
        }
    }

    /// Says that a key is unknown, and which one was meant.
    fn unknown_key(&self, key: &str) -> String {
        if let Some(meaning) = foreign_keys::meaning(&self.path, key) {
            format!("unknown, {meaning}")
        } else if let Some(meant) = did_you_mean(key, self.known.iter().copied()) {
            format!("unknown key, did you mean {meant}?")
        } else if let Some(place) = foreign_keys::right_place(&self.path, key) {
            format!("unknown key here, did you mean {place}?")
        } else {
            "unknown key".to_owned()
        }
    }

    fn record_repeated_keys(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(earlier) = self.entries[..index].iter().find(|e| e.key == entry.key) {
                let problem = format!("repeated key, first in line {}", earlier.place.line);
                self.field(entry)
                    .add(None, problem, Some("each key once".into()));
            }
        }
    }

    fn field(&self, entry: &'a NodeEntry) -> Field<'a> {
        Field {
            path: join(&self.path, &entry.key),
            place: entry.place,
            node: &entry.node,
            problems: self.problems,
            is_secret: self.is_secret,
        }
    }
}

impl<'a> Field<'a> {
    /// The same value as a possible secret: no problem of it or of a value below it shows the value.
    pub(super) fn into_secret(self) -> Self {
        Self {
            is_secret: true,
            ..self
        }
    }

    /// Records that the value is invalid, and shows it unless it may be a secret.
    pub(super) fn refuse(&self, problem: impl Into<String>, allowed: impl Into<String>) {
        let shown = match self.is_secret {
            true => None,
            false => self.node.value.display_text(),
        };
        self.add(shown, problem.into(), Some(allowed.into()));
    }

    /// Like [`refuse`](Self::refuse), without showing the value.
    pub(super) fn refuse_unseen(&self, problem: impl Into<String>, allowed: impl Into<String>) {
        self.add(None, problem.into(), Some(allowed.into()));
    }

    /// Like [`refuse`](Self::refuse), showing only `value`.
    pub(super) fn refuse_showing(&self, value: Option<String>, problem: String, allowed: String) {
        self.add(value, problem, Some(allowed));
    }

    fn add(&self, value: Option<String>, problem: String, allowed: Option<String>) {
        self.problems.add(Problem {
            line: Some(self.place.line),
            column: Some(self.place.column),
            key: self.path.clone(),
            value,
            allowed,
            ..Problem::of_file(problem)
        });
    }

    pub(super) fn refuse_kind(&self, expected: &str, allowed: &str) {
        let problem = format!("{}, not {expected}", self.node.value.kind());
        self.refuse(problem, allowed);
    }

    fn refuse_container(&self, expected: &str, allowed: &str) {
        // A text at the root or under a cluster may be a misplaced secret, so do not show it.
        if self.path.is_empty() || self.path.starts_with("clusters") {
            let problem = format!("{}, not {expected}", self.node.value.kind());
            self.refuse_unseen(problem, allowed);
        } else {
            self.refuse_kind(expected, allowed);
        }
    }

    /// The value as a mapping.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let ScalarValue::Mapping(entries) = &self.node.value else {
            self.refuse_container("a mapping", "key: value pairs");
            return None;
        };
        Some(Section {
            path: self.path.clone(),
            place: Some(self.place),
            entries,
            known: Vec::new(),
            problems: self.problems,
            is_secret: self.is_secret,
        })
    }

    /// The items of the value; none, with a problem, if it is not a list.
    pub(super) fn list(&self) -> Vec<Field<'a>> {
        let ScalarValue::List(items) = &self.node.value else {
            self.refuse_container(
                "a list",
                "a list: [a, b], or a line that begins with - for each item",
            );
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a Node)| Field {
            path: format!("{}[{index}]", self.path),
            place: node.place,
            node,
            problems: self.problems,
            is_secret: self.is_secret,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The value as a text that is not empty.
    pub(super) fn text(&self, allowed: &str) -> Option<&'a str> {
        match &self.node.value {
            ScalarValue::Text(text) if holds_reference(text) => {
                self.refuse(
                    "a reference is not supported here",
                    format!(
                        "{allowed} (${{env:..}} and ${{file:..}} work in clusters[].properties)"
                    ),
                );
                None
            }
            ScalarValue::Text(text) if text.trim().is_empty() => {
                self.refuse("empty", allowed);
                None
            }
            ScalarValue::Text(text) => Some(text),
            ScalarValue::Bool(_, spelling) | ScalarValue::Number(_, spelling) => {
                let problem = format!("{}, not a text", self.node.value.kind());
                match self.is_secret {
                    true => self.refuse(problem, format!("{allowed} (in quotes)")),
                    false => {
                        self.refuse(problem, format!("{allowed} (in quotes: \"{spelling}\")"));
                    }
                }
                None
            }
            _ => {
                self.refuse_kind("a text", allowed);
                None
            }
        }
    }

    /// A text that `check` accepts; the error of `check` becomes the problem.
    pub(super) fn checked<T>(
        &self,
        allowed: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        check(self.text(allowed)?)
            .map_err(|problem| self.refuse(problem, allowed))
            .ok()
    }

    /// A URL that `check` accepts. One with a user, a query or a fragment is refused and not shown, because these may
    /// be a password or a key; `elsewhere` says where that goes.
    pub(super) fn checked_url<T>(
        &self,
        allowed: &str,
        elsewhere: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.clone().into_secret().text(allowed)?;
        let secrets = [
            ('@', "has a user"),
            ('?', "has a query"),
            ('#', "has a fragment"),
        ];
        match secrets.into_iter().find(|(sign, _)| text.contains(*sign)) {
            Some((_, problem)) => {
                self.refuse_unseen(problem, format!("{allowed}{elsewhere}"));
                None
            }
            None => self.checked(allowed, check),
        }
    }
}

/// The path of `key` below `path`. The key is cut at its first unusual character, because what follows may be
/// a secret value, as in `sasl.password=hunter2:`.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let key = match key.find(|c| !plain(c)) {
        Some(odd) => format!("{}...", &key[..odd]),
        None => key.to_owned(),
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
