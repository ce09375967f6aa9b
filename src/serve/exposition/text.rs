//! Writes Prometheus's text format.

use std::fmt::{Display, Write as _};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::turns::{AddressTurns, WriterTurn};
use crate::model::units::untrusted_text::{MESSAGE_MAX, NAME_MAX, is_safe};
use crate::telemetry::family::Family;

/// Escaped labels, for several samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(pub(super) String);

impl Labels {
    /// Adds a name.
    pub(super) fn with(self, key: &str, value: &str) -> Self {
        self.with_at_most(NAME_MAX, key, value)
    }

    /// Adds a text that may quote several names.
    pub(super) fn with_text(self, key: &str, value: &str) -> Self {
        self.with_at_most(MESSAGE_MAX, key, value)
    }

    /// Adds a value, of which at most `max` characters are kept: it stands in each of thousands of samples, and tenants
    /// choose groups and selectors of up to 16 KiB. The hash of the whole keeps values of the same beginning apart.
    fn with_at_most(mut self, max: usize, key: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push_str("=\"");
        let mut characters = value.chars();
        for character in characters.by_ref().take(max) {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other if is_safe(other) => self.0.push(other),
                // This format requires the backslash of the escape to be escaped as well.
                other => {
                    let _ = write!(self.0, "\\{}", other.escape_default());
                }
            }
        }
        if !characters.as_str().is_empty() {
            let _ = write!(self.0, "... ({})", short_hash(value));
        }
        self.0.push('"');
        self
    }
}

fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let bytes = hash.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The scraper closed the connection.
#[derive(Debug)]
pub(super) struct ScraperGone;

/// Writes samples and sends them in chunks.
#[derive(Debug)]
pub(super) struct TextWriter {
    chunk: String,
    chunk_bytes: usize,
    chunks: mpsc::Sender<Bytes>,
    turns: AddressTurns,
    /// Held while it writes, not while the scraper reads.
    turn: Option<WriterTurn>,
    /// Name of the current family.
    family: &'static str,
}

impl TextWriter {
    /// Waits for its turn. A writer of chunks of `chunk_bytes`, which one sample and the headers of families may
    /// exceed.
    pub(super) async fn new(
        chunk_bytes: usize,
        chunks: mpsc::Sender<Bytes>,
        turns: AddressTurns,
    ) -> Self {
        Self {
            chunk: String::new(),
            chunk_bytes,
            chunks,
            turn: turns.next().await,
            turns,
            family: "",
        }
    }

    /// Begins a family. All of its samples must follow before the next family begins.
    pub(super) fn family(&mut self, family: &Family) {
        let Family {
            name, kind, help, ..
        } = family;
        self.family = name;
        // Writing to a String does not fail.
        let _ = writeln!(self.chunk, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, labels: &Labels, value: impl Display) {
        let _ = writeln!(self.chunk, "{}{{{}}} {value}", self.family, labels.0);
    }

    pub(super) fn partition_sample(
        &mut self,
        labels: &Labels,
        partition: usize,
        value: impl Display,
    ) {
        let _ = writeln!(
            self.chunk,
            "{}{{{},partition=\"{partition}\"}} {value}",
            self.family, labels.0
        );
    }

    /// Sends the chunk if it is full, and waits while the scraper is slower than this writer. To be called
    /// after each sample.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), ScraperGone> {
        if self.chunk.len() < self.chunk_bytes {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends what has been written since the last chunk.
    pub(super) async fn flush(&mut self) -> Result<(), ScraperGone> {
        // As long as this one, which allocates once for each of the chunks to come.
        let next = String::with_capacity(self.chunk.capacity());
        let chunk = std::mem::replace(&mut self.chunk, next);
        if chunk.is_empty() {
            return Ok(());
        }
        self.turn = None;
        let sent = self.chunks.send(chunk.into()).await;
        sent.map_err(|_| ScraperGone)?;
        self.turn = self.turns.next().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_and_stay_different() {
        let labels = |value: &str| Labels::default().with("group", value).0;
        for value in ["orders".to_owned(), "ü".repeat(NAME_MAX)] {
            assert_eq!(labels(&value), format!("group=\"{value}\""));
        }
        let long = "g".repeat(16_000);
        let (one, other) = (labels(&(long.clone() + "1")), labels(&(long + "2")));
        assert!(one.len() < NAME_MAX + 40, "{one}");
        assert_ne!(one, other);
        let selector = format!("group in ({})", ["g"; 300].join(","));
        let text = Labels::default().with_text("selector", &selector).0;
        assert_eq!(text, format!("selector=\"{selector}\""));
        let text = Labels::default()
            .with_text("selector", &selector.repeat(20))
            .0;
        assert!(text.len() < MESSAGE_MAX + 40, "{text}");
    }
}
