//! Writes Prometheus's text format.

use std::fmt::Write as _;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::sample::{Labels, ReaderGone, SampleSink, SampleStream, SampleValue};
use super::turns::{AddressTurns, WriterTurn};
use crate::telemetry::family::Family;

/// Samples in Prometheus's text format.
#[derive(Debug, Default)]
pub(super) struct TextSamples {
    pub(super) text: String,
    /// Name of the current family.
    family: &'static str,
}

impl SampleSink for TextSamples {
    fn family(&mut self, family: &Family) {
        let Family {
            name, kind, help, ..
        } = family;
        self.family = name;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &Labels, value: impl Into<SampleValue>) {
        let (family, labels, value) = (self.family, labels.text(), value.into());
        let _ = writeln!(self.text, "{family}{{{labels}}} {value}");
    }

    fn partition_sample(
        &mut self,
        labels: &Labels,
        partition: usize,
        value: impl Into<SampleValue>,
    ) {
        let (family, labels, value) = (self.family, labels.text(), value.into());
        let _ = writeln!(
            self.text,
            "{family}{{{labels},partition=\"{partition}\"}} {value}"
        );
    }
}

/// Writes samples and sends them in chunks.
#[derive(Debug)]
pub(super) struct TextWriter {
    chunk: TextSamples,
    chunk_bytes: usize,
    chunks: mpsc::Sender<Bytes>,
    turns: AddressTurns,
    /// Held while it writes, not while the scraper reads.
    turn: Option<WriterTurn>,
}

impl TextWriter {
    /// Creates a writer of chunks, when it is its turn. A chunk is sent once it has `chunk_bytes`, so a sample and the
    /// headers of families may make it longer.
    pub(super) async fn new(
        chunk_bytes: usize,
        chunks: mpsc::Sender<Bytes>,
        turns: AddressTurns,
    ) -> Self {
        Self {
            chunk: TextSamples::default(),
            chunk_bytes,
            chunks,
            turn: turns.next().await,
            turns,
        }
    }
}

impl SampleSink for TextWriter {
    fn family(&mut self, family: &Family) {
        self.chunk.family(family);
    }

    fn sample(&mut self, labels: &Labels, value: impl Into<SampleValue>) {
        self.chunk.sample(labels, value);
    }

    fn partition_sample(
        &mut self,
        labels: &Labels,
        partition: usize,
        value: impl Into<SampleValue>,
    ) {
        self.chunk.partition_sample(labels, partition, value);
    }
}

impl SampleStream for TextWriter {
    async fn flush_if_full(&mut self) -> Result<(), ReaderGone> {
        if self.chunk.text.len() < self.chunk_bytes {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ReaderGone> {
        // With the capacity of the last chunk, the next one seldom has to grow.
        let next = String::with_capacity(self.chunk.text.capacity());
        let chunk = std::mem::replace(&mut self.chunk.text, next);
        if chunk.is_empty() {
            return Ok(());
        }
        self.turn = None;
        let sent = self.chunks.send(chunk.into()).await;
        sent.map_err(|_| ReaderGone)?;
        self.turn = self.turns.next().await;
        Ok(())
    }
}
