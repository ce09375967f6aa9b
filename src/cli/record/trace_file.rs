//! Writes a trace file.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::group_source::SourceSample;
use crate::cli::trace_text::read_trace_text;
use crate::simulate::trace::{
    MAX_TRACE_BYTES, MAX_TRACE_POSITIONS, Trace, TraceHeader, TraceSample, trace_line,
};

/// Maximum delay of a daemon's reading behind the last sample, in milliseconds. If it is further behind, the clock is
/// wrong.
const MAX_DELAY_MILLIS: u64 = 300_000;

/// A trace that is being written.
#[derive(Debug)]
pub(super) struct TraceFile {
    file: File,
    name: String,
    bytes: u64,
    /// Size of its samples that counts towards [`MAX_TRACE_POSITIONS`].
    weight: usize,
    /// The last sample.
    last: Option<TraceSample>,
}

/// Result of [`TraceFile::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    Written,
    /// It was written before.
    Known,
    /// There is no room for it.
    Full,
}

impl TraceFile {
    /// Makes a file, or opens one of the same group to continue it. A last line that was cut off is removed.
    ///
    /// # Errors
    /// A file that exists, or is not a trace of this group.
    pub(super) fn open(
        path: &Path,
        append: bool,
        group: &str,
        cluster: &str,
    ) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let header = TraceHeader::new(group, cluster);
        if append && path.exists() {
            return Self::continue_trace(path, name, &header);
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.with_context(|| match path.exists() {
            true => format!("{name}: choose another name, or continue the trace with --append"),
            false => name.clone(),
        })?;
        let mut trace = Self {
            file,
            name,
            bytes: 0,
            weight: 0,
            last: None,
        };
        trace.write(&trace_line(&header)?)?;
        Ok(trace)
    }

    fn continue_trace(path: &Path, name: String, header: &TraceHeader) -> anyhow::Result<Self> {
        let text = read_trace_text(path).with_context(|| name.clone())?;
        let mut trace = Trace::parse(&text).with_context(|| name.clone())?;
        let known = &trace.header;
        ensure!(
            known == header,
            "{name}: a trace of group {} of cluster {}, not of group {} of cluster {}; choose another file",
            known.group,
            known.cluster,
            header.group,
            header.cluster
        );
        let mut file = OpenOptions::new()
            .write(true)
            .open(path)
            .with_context(|| name.clone())?;
        let bytes = u64::try_from(trace.whole_bytes)?;
        file.set_len(bytes).with_context(|| name.clone())?;
        file.seek(SeekFrom::End(0)).with_context(|| name.clone())?;
        let mut continued = Self {
            file,
            name,
            bytes,
            weight: trace.samples.iter().map(TraceSample::weight).sum(),
            last: trace.samples.pop(),
        };
        if !text
            .get(..trace.whole_bytes)
            .is_some_and(|whole| whole.ends_with('\n'))
        {
            continued.write("\n")?;
        }
        Ok(continued)
    }

    /// Writes a sample that was read at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// A full disk, and a clock that is behind the trace.
    pub(super) fn append(&mut self, read: &SourceSample, now: u64) -> anyhow::Result<Appended> {
        let at = now.saturating_sub(read.milliseconds_ago);
        if let Some(last) = &self.last {
            // A daemon answers with the same reading until its next poll. It reports the age in whole seconds, so that
            // the times of the same reading differ by less than one second. Those of two readings may do so too.
            let is_known = read.is_delayed
                && (at <= last.at
                    || (at < last.at.saturating_add(1000) && is_same(&read.sample, last)))
                && last.at.saturating_sub(at) < MAX_DELAY_MILLIS;
            if is_known {
                return Ok(Appended::Known);
            }
            if at <= last.at {
                bail!(
                    "{}: the clock is behind the last sample of the trace; set the clock, or choose another file",
                    self.name
                );
            }
        }
        let sample = TraceSample {
            at,
            ..read.sample.clone()
        };
        let line = trace_line(&sample)?;
        let weight = self.weight.saturating_add(sample.weight());
        // The written trace can be parsed.
        let bytes = self.bytes.saturating_add(u64::try_from(line.len())?);
        if bytes > MAX_TRACE_BYTES || weight > MAX_TRACE_POSITIONS {
            return Ok(Appended::Full);
        }
        self.write(&line)?;
        self.weight = weight;
        self.last = Some(sample);
        Ok(Appended::Written)
    }

    /// Writes a line at once and as a whole, so that an interruption cuts off at most the last one.
    fn write(&mut self, line: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| format!("{}: cannot write", self.name))?;
        self.bytes = self.bytes.saturating_add(u64::try_from(line.len())?);
        Ok(())
    }
}

/// Whether two samples differ at most in their time.
fn is_same(a: &TraceSample, b: &TraceSample) -> bool {
    (a.members, a.stable, &a.topics) == (b.members, b.stable, &b.topics)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(end: i64) -> SourceSample {
        SourceSample {
            sample: TraceSample {
                members: Some(2),
                stable: Some(true),
                topics: BTreeMap::from([("orders".to_owned(), vec![(Some(end), Some(1))])]),
                ..TraceSample::default()
            },
            milliseconds_ago: 0,
            is_delayed: false,
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_recording_continues_after_a_truncated_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let open = |append| TraceFile::open(&path, append, "orders", "main");
        let mut file = open(false).unwrap();
        assert_eq!(file.append(&sample(5), 1000).unwrap(), Appended::Written);
        assert_eq!(file.append(&sample(6), 6000).unwrap(), Appended::Written);
        let text = std::fs::read(&path).unwrap();
        for kept in [text.len(), text.len() - 1, text.len() - 9] {
            std::fs::write(&path, &text[..kept]).unwrap();
            let mut file = open(true).unwrap();
            assert_eq!(file.append(&sample(7), 11_000).unwrap(), Appended::Written);
            let trace = Trace::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let times: Vec<u64> = trace.samples.iter().map(|sample| sample.at).collect();
            let expected: &[u64] = match kept == text.len() - 9 {
                true => &[1000, 11_000],
                false => &[1000, 6000, 11_000],
            };
            assert_eq!(times, expected);
        }
    }

    #[test]
    fn existing_files_are_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        drop(TraceFile::open(&path, true, "orders", "main").unwrap());
        let refusal = |append, group| {
            let error = TraceFile::open(&path, append, group, "main").unwrap_err();
            format!("{error:#}").replace(&path.display().to_string(), "FILE")
        };
        assert!(
            refusal(false, "orders")
                .starts_with("FILE: choose another name, or continue the trace with --append")
        );
        assert_eq!(
            refusal(true, "billing"),
            "FILE: a trace of group orders of cluster main, not of group billing of cluster main; choose another file"
        );
        std::fs::write(&path, "precious").unwrap();
        assert!(refusal(true, "orders").contains("line 1: not the first line of a trace"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn readings_in_close_succession_are_told_apart_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut file = TraceFile::open(&path, false, "orders", "main").unwrap();
        let delayed = |end, members| {
            let mut read = sample(end);
            read.sample.members = Some(members);
            SourceSample {
                is_delayed: true,
                ..read
            }
        };
        for (now, end, members, expected) in [
            (100_000, 5, 2, Appended::Written),
            (100_990, 6, 2, Appended::Written),
            (101_985, 6, 3, Appended::Written),
            (102_980, 6, 3, Appended::Known),
            (102_990, 7, 3, Appended::Written),
            // Times of a trace increase, so the next sample has this reading.
            (102_990, 8, 3, Appended::Known),
            (102_980, 8, 3, Appended::Known),
        ] {
            let appended = file.append(&delayed(end, members), now).unwrap();
            assert_eq!(appended, expected, "{now}");
        }
        drop(file);
        let mut file = TraceFile::open(&path, true, "orders", "main").unwrap();
        let known = file.append(&delayed(7, 3), 103_900).unwrap();
        let new = file.append(&delayed(8, 3), 103_900).unwrap();
        assert_eq!((known, new), (Appended::Known, Appended::Written));
    }

    #[test]
    fn a_reading_is_written_once_and_a_slow_clock_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut file = TraceFile::open(&path, false, "orders", "main").unwrap();
        let delayed = |seconds: u64| SourceSample {
            milliseconds_ago: seconds * 1000,
            is_delayed: true,
            ..sample(5)
        };
        for (now, seconds, expected) in [
            (100_000, 2, Appended::Written),
            (105_000, 7, Appended::Known),
            (110_300, 12, Appended::Known),
            (115_000, 2, Appended::Written),
            (120_000, 0, Appended::Written),
        ] {
            assert_eq!(
                file.append(&delayed(seconds), now).unwrap(),
                expected,
                "{now}"
            );
        }
        let error = file.append(&sample(9), 119_000).unwrap_err().to_string();
        assert!(
            error.contains("the clock is behind the last sample"),
            "{error}"
        );
    }
}
