//! Traces: the recorded history of a consumer group, as a text file of one JSON document per line.
//!
//! The first line is a [`TraceHeader`]. Every other line is a [`TraceSample`], complete in itself, so that a file whose
//! recording was interrupted can be read up to its last whole line, and continued.

mod bounded;
pub mod series;

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use self::bounded::bounded_topics;

use crate::model::policy::reading::GroupReading;
use crate::model::units::newtypes::Offset;

/// Version of the format.
pub const TRACE_VERSION: u32 = 1;

/// Maximum size of a file that is written or read, so that a recording that is forgotten does not fill a disk, and a
/// wrong file does not fill the memory.
pub const MAX_TRACE_BYTES: u64 = 128 * 1024 * 1024;

/// Maximum number of partitions of one sample.
pub const MAX_TRACE_PARTITIONS: usize = 10_000;

/// Maximum number of positions of a trace, which bounds the memory that it takes: each takes 32 bytes. A sample counts
/// as [`SAMPLE_POSITIONS`] more.
pub const MAX_TRACE_POSITIONS: usize = 8_000_000;

/// Size of a sample itself, in positions.
const SAMPLE_POSITIONS: usize = 20;

/// Topic of a recorded simulation.
const SIMULATED_TOPIC: &str = "simulated";

/// The first line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHeader {
    /// [`TRACE_VERSION`].
    pub lagwise_trace: u32,
    pub group: String,
    /// Name of the Kafka cluster.
    pub cluster: String,
}

impl TraceHeader {
    #[must_use]
    pub fn new(group: &str, cluster: &str) -> Self {
        Self {
            lagwise_trace: TRACE_VERSION,
            group: group.to_owned(),
            cluster: cluster.to_owned(),
        }
    }
}

/// Log end and committed offset of a partition; `None` where unknown or, for the committed offset, if there is none.
pub type TracePosition = (Option<i64>, Option<i64>);

/// A group at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSample {
    /// Milliseconds since 1970, or since the beginning of a simulation.
    pub at: u64,
    /// Members of the group; `None` if unknown.
    pub members: Option<u32>,
    /// Whether the group was not rebalancing; `None` if unknown.
    pub stable: Option<bool>,
    /// The partitions of each topic, by number. A topic that could not be read is absent.
    #[serde(deserialize_with = "bounded_topics")]
    pub topics: BTreeMap<String, Vec<TracePosition>>,
}

impl TraceSample {
    /// A reading of a simulated group.
    #[must_use]
    pub fn of_simulation(reading: &GroupReading<'_>) -> Self {
        let positions = reading.partitions.iter().map(|partition| {
            let offset = |offset: Option<Offset>| Some(offset?.0);
            (offset(partition.end), offset(partition.committed))
        });
        Self {
            at: u64::try_from(reading.at.as_millis()).unwrap_or(u64::MAX),
            members: Some(reading.members),
            stable: Some(reading.is_stable),
            topics: BTreeMap::from([(SIMULATED_TOPIC.to_owned(), positions.collect())]),
        }
    }

    /// Size that counts towards [`MAX_TRACE_POSITIONS`].
    #[must_use]
    pub fn weight(&self) -> usize {
        let partitions: usize = self.topics.values().map(Vec::len).sum();
        let topics = self.topics.len();
        [partitions, topics, SAMPLE_POSITIONS].iter().sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub header: TraceHeader,
    /// In the order of time.
    pub samples: Vec<TraceSample>,
    /// Length in bytes of the header and the whole samples. Bytes after it are a line that was cut off.
    pub whole_bytes: usize,
}

/// An error in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// Line of the file, from 1; `None` if it is not about one line.
    pub line: Option<usize>,
    pub problem: String,
}

impl Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for TraceError {}

/// An error about a line.
fn at_line(line: usize, problem: impl Into<String>) -> TraceError {
    TraceError {
        line: Some(line),
        problem: problem.into(),
    }
}

/// A line of a trace, with its end.
///
/// # Errors
/// Never for headers and samples.
pub fn trace_line(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

impl Trace {
    /// Reads a trace. A last line without an end that is not complete is left out.
    ///
    /// # Errors
    /// The error, with the line.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut header: Option<TraceHeader> = None;
        let mut samples: Vec<TraceSample> = Vec::new();
        let mut whole_bytes = 0;
        let mut weight = 0usize;
        for (line, number) in text.split_inclusive('\n').zip(1..) {
            let is_cut = !line.ends_with('\n');
            let content = line.trim();
            if content.is_empty() {
                whole_bytes += line.len();
                continue;
            }
            match &header {
                None => header = Some(parse_header(content, number)?),
                Some(_) => match parse_sample(content, number, samples.last()) {
                    Ok(sample) => {
                        weight = weight.saturating_add(sample.weight());
                        if weight > MAX_TRACE_POSITIONS {
                            return Err(at_line(number, too_large()));
                        }
                        samples.push(sample);
                    }
                    Err(_) if is_cut => break,
                    Err(error) => return Err(error),
                },
            }
            whole_bytes += line.len();
        }
        let Some(header) = header else {
            return Err(TraceError {
                line: None,
                problem: "the file is empty; lagwise record writes traces".to_owned(),
            });
        };
        Ok(Self {
            header,
            samples,
            whole_bytes,
        })
    }
}

/// The error of a trace that would take too much memory.
fn too_large() -> String {
    format!(
        "the trace up to here has more than {MAX_TRACE_POSITIONS} offsets of partitions, counting {SAMPLE_POSITIONS} for \
         each sample; split the file"
    )
}

fn parse_header(content: &str, line: usize) -> Result<TraceHeader, TraceError> {
    let header: TraceHeader = serde_json::from_str(content).map_err(|error| {
        at_line(
            line,
            format!(
                "not the first line of a trace ({}); lagwise record writes traces, and --from-prometheus reads series \
                 of Prometheus",
                json_problem(&error)
            ),
        )
    })?;
    if header.lagwise_trace != TRACE_VERSION {
        return Err(at_line(
            line,
            format!(
                "a trace of version {}, and this lagwise reads version {TRACE_VERSION}; use the lagwise that recorded it",
                header.lagwise_trace
            ),
        ));
    }
    Ok(header)
}

fn parse_sample(
    content: &str,
    line: usize,
    before: Option<&TraceSample>,
) -> Result<TraceSample, TraceError> {
    let sample: TraceSample = serde_json::from_str(content)
        .map_err(|error| at_line(line, format!("not a sample ({})", json_problem(&error))))?;
    if let Some(before) = before
        && sample.at <= before.at
    {
        return Err(at_line(
            line,
            format!(
                "its time {} is not after {}, that of the sample before; sort the lines by \"at\"",
                sample.at, before.at
            ),
        ));
    }
    for (topic, positions) in &sample.topics {
        let offsets = positions
            .iter()
            .flat_map(|(end, committed)| [*end, *committed]);
        if let Some(negative) = offsets.flatten().find(|offset| *offset < 0) {
            return Err(at_line(
                line,
                format!(
                    "topic {topic} has the offset {negative}; offsets begin at 0, and null means unknown"
                ),
            ));
        }
    }
    Ok(sample)
}

/// The text of an error without its line, which is that of a document of one line.
fn json_problem(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

#[cfg(test)]
mod tests;
