//! Samples of metrics: their labels and values, and where they go.

use std::fmt::{self, Display, Write as _};
use std::future::Future;

use sha2::{Digest, Sha256};

use crate::model::units::newtypes::{Lag, Offset, Replicas};
use crate::model::units::untrusted_text::{MAX_MESSAGE_CHARS, MAX_NAME_CHARS, write_escaped};
use crate::telemetry::family::Family;

/// Where samples go: Prometheus's text, or messages of OpenTelemetry.
pub(super) trait SampleSink {
    /// Begins a family. All of its samples must follow before the next family begins.
    fn family(&mut self, family: &Family);

    fn sample(&mut self, labels: &Labels, value: impl Into<SampleValue>);

    /// Writes the sample of a partition, whose number is a further label.
    fn partition_sample(
        &mut self,
        labels: &Labels,
        partition: usize,
        value: impl Into<SampleValue>,
    );
}

/// A sink that passes samples on in batches.
pub(super) trait SampleStream: SampleSink + Send {
    /// Passes on the samples if they fill a batch, and waits while the reader is slower than the writer. Call it after
    /// each sample.
    fn flush_if_full(&mut self) -> impl Future<Output = Result<(), ReaderGone>> + Send;

    /// Passes on the samples since the last batch.
    fn flush(&mut self) -> impl Future<Output = Result<(), ReaderGone>> + Send;
}

/// The reader of the samples has ended.
#[derive(Debug)]
pub(in crate::serve) struct ReaderGone;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SampleValue {
    Unsigned(u64),
    Signed(i64),
    /// An infinite one is a limit that does not exist.
    Real(f64),
    /// Three digits after the point are enough.
    Rounded(f64),
    /// An exact number of thousandths.
    Thousandths(u64),
}

impl Display for SampleValue {
    /// Writes the value as Prometheus's text format has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Real(number) if number == f64::INFINITY => f.write_str("+Inf"),
            Self::Real(number) => number.fmt(f),
            Self::Rounded(number) => write!(f, "{number:.3}"),
            Self::Thousandths(number) => write!(f, "{}.{:03}", number / 1000, number % 1000),
        }
    }
}

impl From<u64> for SampleValue {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<u32> for SampleValue {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<usize> for SampleValue {
    fn from(number: usize) -> Self {
        Self::Unsigned(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<bool> for SampleValue {
    fn from(is_so: bool) -> Self {
        Self::Unsigned(is_so.into())
    }
}

impl From<f64> for SampleValue {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<Lag> for SampleValue {
    fn from(lag: Lag) -> Self {
        Self::Unsigned(lag.0)
    }
}

impl From<Replicas> for SampleValue {
    fn from(replicas: Replicas) -> Self {
        Self::Unsigned(replicas.0.into())
    }
}

impl From<Offset> for SampleValue {
    fn from(offset: Offset) -> Self {
        Self::Signed(offset.0)
    }
}

/// Labels for several samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    pairs: Vec<(&'static str, String)>,
    /// The same in Prometheus's text format, made once for the samples of all partitions.
    text: String,
}

impl Labels {
    /// Adds a name.
    pub(super) fn with(self, key: &'static str, value: &str) -> Self {
        self.with_at_most(MAX_NAME_CHARS, key, value)
    }

    /// Adds a text that may quote several names.
    pub(super) fn with_text(self, key: &'static str, value: &str) -> Self {
        self.with_at_most(MAX_MESSAGE_CHARS, key, value)
    }

    /// The keys and values. Control characters are escaped in the values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.pairs.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// The labels in Prometheus's text format, without braces.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a value, of which at most `max` characters are kept: it stands in each of thousands of samples, and tenants
    /// choose groups and selectors of up to 16 KiB. The hash of the whole keeps values of the same beginning apart.
    fn with_at_most(mut self, max: usize, key: &'static str, value: &str) -> Self {
        let mut shown = String::with_capacity(value.len().min(max));
        let mut characters = value.chars();
        for character in characters.by_ref().take(max) {
            // Writing to a String does not fail. A line end has an escape in the text format.
            match character {
                '\n' => shown.push('\n'),
                other => {
                    let _ = write_escaped(&mut shown, other);
                }
            }
        }
        if !characters.as_str().is_empty() {
            let _ = write!(shown, "... ({})", short_hash(value));
        }
        self.push_text(key, &shown);
        self.pairs.push((key, shown));
        self
    }

    fn push_text(&mut self, key: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(key);
        self.text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }
}

fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let bytes = hash.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_and_stay_different() {
        let labels = |value: &str| Labels::default().with("group", value).text;
        for value in ["orders".to_owned(), "ü".repeat(MAX_NAME_CHARS)] {
            assert_eq!(labels(&value), format!("group=\"{value}\""));
        }
        let long = "g".repeat(16_000);
        let (one, other) = (labels(&(long.clone() + "1")), labels(&(long + "2")));
        assert!(one.len() < MAX_NAME_CHARS + 40, "{one}");
        assert_ne!(one, other);
        let selector = format!("group in ({})", ["g"; 300].join(","));
        let text = Labels::default().with_text("selector", &selector).text;
        assert_eq!(text, format!("selector=\"{selector}\""));
        let text = Labels::default()
            .with_text("selector", &selector.repeat(20))
            .text;
        assert!(text.len() < MAX_MESSAGE_CHARS + 40, "{text}");
    }

    #[test]
    fn label_pairs_have_no_escapes_of_the_text_format() {
        let labels = Labels::default().with("a", "x\"\\\n").with("b", "\x1b");
        let pairs: Vec<_> = labels.pairs().collect();
        assert_eq!(pairs, [("a", "x\"\\\n"), ("b", "\\u{1b}")]);
        assert_eq!(labels.text(), "a=\"x\\\"\\\\\\n\",b=\"\\\\u{1b}\"");
    }

    #[test]
    fn values_as_text() {
        let values = [
            (u64::MAX.into(), "18446744073709551615"),
            (Offset(-1).into(), "-1"),
            (true.into(), "1"),
            (0.25.into(), "0.25"),
            (f64::INFINITY.into(), "+Inf"),
            (SampleValue::Rounded(2.0), "2.000"),
            (SampleValue::Thousandths(7_050), "7.050"),
        ];
        for (value, text) in values {
            assert_eq!(SampleValue::to_string(&value), text);
        }
    }
}
