//! Writes Prometheus's text format.

use std::fmt::{Display, Write as _};

use crate::telemetry::family::Family;

/// Escaped labels, for several samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(pub(super) String);

impl Labels {
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
        self
    }
}

/// The text so far, and the name of the current family.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String, &'static str);

impl Text {
    /// Begins a family. All of its samples must follow before the next family begins.
    pub(super) fn family(&mut self, family: &Family) {
        let Family {
            name, kind, help, ..
        } = family;
        self.1 = name;
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, labels: &Labels, value: impl Display) {
        let _ = writeln!(self.0, "{}{{{}}} {value}", self.1, labels.0);
    }

    pub(super) fn partition(&mut self, labels: &Labels, partition: usize, value: impl Display) {
        let _ = writeln!(
            self.0,
            "{}{{{},partition=\"{partition}\"}} {value}",
            self.1, labels.0
        );
    }
}
