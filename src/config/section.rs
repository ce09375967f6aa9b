//! Reads a mapping key by key. Each key that is read counts as known; each invalid value becomes a problem
//! with its path, its value and what is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::node::{Node, NodeEntry, ScalarValue};
use super::problem::{Problem, Problems, did_you_mean};
use super::secrets::{Environment, holds_reference};

/// A mapping of the file, or the position of one that was left out.
pub(super) struct Section<'a> {
    path: String,
    line: Option<u64>,
    entries: &'a [NodeEntry],
    known: Vec<&'static str>,
    problems: &'a Problems,
}

/// A value of the file, with its position.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    line: u64,
    pub(super) node: &'a Node,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// The whole file; `None`, with a problem, if it is not a mapping.
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Option<Self> {
        let field = Field {
            path: String::new(),
            line: node.line,
            node,
            problems,
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
            line: self.line,
            entries: &[],
            known: Vec::new(),
            problems: self.problems,
        };
        self.get(key)
            .and_then(|field| field.section())
            .unwrap_or(left_out)
    }

    /// Records a problem of `key`, whether it is set or has its default.
    pub(super) fn refuse_key(&self, key: &str, problem: &str, allowed: &str) {
        let written = self.entries.iter().find(|entry| entry.key == key);
        self.problems.add(Problem {
            line: written.map(|entry| entry.line).or(self.line),
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
            let problem = match did_you_mean(&entry.key, self.known.iter().copied()) {
                Some(meant) => format!("unknown key, did you mean {meant}?"),
                None => "unknown key".to_owned(),
            };
            self.field(entry)
                .add(None, problem, Some(self.known.join(", ")));
        }
    }

    fn record_repeated_keys(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(earlier) = self.entries[..index].iter().find(|e| e.key == entry.key) {
                let problem = format!("repeated key, first in line {}", earlier.line);
                self.field(entry)
                    .add(None, problem, Some("each key once".into()));
            }
        }
    }

    fn field(&self, entry: &'a NodeEntry) -> Field<'a> {
        Field {
            path: join(&self.path, &entry.key),
            line: entry.line,
            node: &entry.node,
            problems: self.problems,
        }
    }
}

impl<'a> Field<'a> {
    /// Records that the value is invalid, and shows it.
    pub(super) fn refuse(&self, problem: impl Into<String>, allowed: impl Into<String>) {
        self.add(
            self.node.value.display_text(),
            problem.into(),
            Some(allowed.into()),
        );
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
        let (line, key) = (Some(self.line), self.path.clone());
        self.problems.add(Problem {
            line,
            key,
            value,
            allowed,
            ..Problem::of_file(problem)
        });
    }

    fn refuse_kind(&self, expected: &str, allowed: &str) {
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
            line: (!self.path.is_empty()).then_some(self.line),
            entries,
            known: Vec::new(),
            problems: self.problems,
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
            line: node.line,
            node,
            problems: self.problems,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A list of distinct texts that `check` accepts.
    pub(super) fn texts<T: PartialEq>(
        &self,
        allowed: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut texts = Vec::new();
        for item in self.list() {
            match item.checked(allowed, &check) {
                Some(text) if texts.contains(&text) => {
                    item.refuse("repeated", "each value once");
                }
                Some(text) => texts.push(text),
                None => {}
            }
        }
        texts
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
                self.refuse(problem, format!("{allowed} (in quotes: \"{spelling}\")"));
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

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        if let ScalarValue::Bool(flag, _) = self.node.value {
            return Some(flag);
        }
        self.refuse_kind("true or false", "true, false");
        None
    }

    /// A whole number from `min` to `max`.
    pub(super) fn whole_number(&self, min: u64, max: u64) -> Option<u64> {
        let allowed = match max {
            u64::MAX => format!("a whole number from {min}"),
            _ => format!("a whole number from {min} to {max}"),
        };
        let ScalarValue::Number(whole, _) = &self.node.value else {
            self.refuse_kind("a number", &allowed);
            return None;
        };
        match whole.map(u64::try_from) {
            Some(Ok(number)) if (min..=max).contains(&number) => return Some(number),
            Some(_) => self.refuse("out of range", allowed),
            None => self.refuse("not a whole number", allowed),
        }
        None
    }

    /// A duration from `min` to `max`. Each bound has the name of its origin, such as `" (poll.interval)"`, or
    /// an empty text.
    pub(super) fn duration(
        &self,
        min: (Duration, &str),
        max: (Duration, &str),
    ) -> Option<Duration> {
        let shown = |(bound, origin): (Duration, &str)| {
            format!("{}{origin}", humantime::format_duration(bound))
        };
        let allowed = format!(
            "{} to {}, written as 500ms, 5s or 1m 30s",
            shown(min),
            shown(max)
        );
        if let ScalarValue::Number(_, spelling) = &self.node.value {
            self.refuse(
                "a number without a unit",
                format!("{allowed}, such as {spelling}s"),
            );
            return None;
        }
        let duration = self.checked(&allowed, |text| {
            humantime::parse_duration(text).map_err(|error| format!("not a duration ({error})"))
        })?;
        if duration < min.0 {
            self.refuse("too short", allowed);
        } else if duration > max.0 {
            self.refuse("too long", allowed);
        } else {
            return Some(duration);
        }
        None
    }

    /// An IP address and a port to listen on.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        const ALLOWED: &str = "IP:PORT, such as 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080";
        self.checked(ALLOWED, |text| {
            text.parse()
                .map_err(|_| "not an address to listen on".to_owned())
        })
    }

    /// The path of a file that can be read now.
    pub(super) fn file(&self, allowed: &str, environment: &dyn Environment) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(allowed)?);
        let Err(error) = environment.check_file(&path) else {
            return Some(path);
        };
        let hint = if path.starts_with("~") {
            " (~ is not expanded here)"
        } else {
            ""
        };
        self.refuse(format!("cannot be read: {error}{hint}"), allowed);
        None
    }

    /// One of the named choices.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let allowed = names().collect::<Vec<_>>().join(", ");
        self.checked(&allowed, |text| {
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, choice)| *choice)
                .ok_or_else(|| match did_you_mean(text, names()) {
                    Some(meant) => format!("unknown, did you mean {meant}?"),
                    None => "unknown".to_owned(),
                })
        })
    }
}

/// The path of `key` below `path`. The key is cut at its first unusual character, because what follows may be
/// a secret value, as in `sasl.password=hunter2:`.
fn join(path: &str, key: &str) -> String {
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
