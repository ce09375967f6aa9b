//! Series of Prometheus as a trace: what lagwise and kafka_exporter export of a group.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use super::{
    MAX_TRACE_PARTITIONS, MAX_TRACE_POSITIONS, SAMPLE_POSITIONS, Trace, TraceError, TraceHeader,
    TracePosition, TraceSample, at_line, too_large,
};
use crate::model::units::short_list::short_list;

/// Which of the two offsets of a position a series has.
type PlaceOf = fn(&mut TracePosition) -> &mut Option<i64>;

const LOG_END: &str = "kafka_topic_partition_current_offset";
const COMMITTED: &str = "kafka_consumergroup_current_offset";
const MEMBERS: &str = "kafka_consumergroup_members";

/// Which group of the series to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeriesSelection<'a> {
    /// The only one if `None`.
    pub group: Option<&'a str>,
    /// The label `cluster`; the only one if `None`.
    pub cluster: Option<&'a str>,
}

/// The query that has all series of a group.
#[must_use]
pub fn series_query(selection: &SeriesSelection<'_>) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let labels = |mut all: Vec<String>| {
        all.extend(
            selection
                .cluster
                .map(|cluster| format!("cluster=\"{}\"", quoted(cluster))),
        );
        all.join(",")
    };
    let group = selection
        .group
        .map(|group| format!("consumergroup=\"{}\"", quoted(group)));
    let of_group = labels(
        [format!("__name__=~\"{COMMITTED}|{MEMBERS}\"")]
            .into_iter()
            .chain(group.clone())
            .collect(),
    );
    let of_topics = labels(vec![format!("__name__=\"{LOG_END}\"")]);
    let committed = labels(group.into_iter().collect());
    format!("{{{of_group}}} or ({{{of_topics}}} and on (topic) {COMMITTED}{{{committed}}})")
}

#[derive(Debug, Deserialize)]
struct RangeResponse {
    status: String,
    error: Option<String>,
    data: Option<RangeData>,
}

#[derive(Debug, Deserialize)]
struct RangeData {
    #[serde(rename = "resultType")]
    result_type: String,
    #[serde(default)]
    result: Vec<RangeSeries>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a series")]
struct RangeSeries {
    metric: SeriesLabels,
    values: Option<Vec<RangePoint>>,
}

/// The labels that count; others are not kept, since a large file may have any number of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "labels")]
struct SeriesLabels {
    #[serde(rename = "__name__")]
    name: String,
    cluster: String,
    consumergroup: String,
    partition: String,
    topic: String,
}

/// A time in seconds, and a value; NaN if that is no number.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(expecting = "a time and a value")]
struct RangePoint(f64, #[serde(deserialize_with = "number_of_text")] f64);

fn number_of_text<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    Ok(text.parse().unwrap_or(f64::NAN))
}

impl RangeSeries {
    fn label(&self, name: &str) -> &str {
        let labels = &self.metric;
        match name {
            "cluster" => &labels.cluster,
            "consumergroup" => &labels.consumergroup,
            "partition" => &labels.partition,
            "topic" => &labels.topic,
            _ => "",
        }
    }

    fn is(&self, name: &str) -> bool {
        self.metric.name == name
    }

    /// The labels, for messages.
    fn name(&self) -> String {
        let known = ["cluster", "consumergroup", "partition", "topic"];
        let labels = known.into_iter().map(|name| (name, self.label(name)));
        let labels = labels.filter(|(_, value)| !value.is_empty());
        let labels: Vec<String> = labels
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        format!("{}{{{}}}", self.metric.name, labels.join(","))
    }

    fn partition(&self) -> Result<usize, TraceError> {
        let number = self.label("partition").parse().ok();
        let number = number.filter(|number| *number < MAX_TRACE_PARTITIONS);
        number.ok_or_else(|| {
            problem(format!(
                "series {}: the label partition has to be a number below {MAX_TRACE_PARTITIONS}",
                self.name()
            ))
        })
    }

    /// Times in milliseconds, and values.
    fn samples(&self) -> impl Iterator<Item = Result<(u64, i64), TraceError>> {
        let points = self.values.iter().flatten();
        points.map(|RangePoint(time, value)| {
            let number = whole(*value);
            let at = whole(time * 1000.0).and_then(|at| u64::try_from(at).ok());
            at.zip(number).ok_or_else(|| {
                problem(format!(
                    "series {}: {value} at {time} is not a count; export the metric itself, without rate() or other \
                     functions",
                    self.name()
                ))
            })
        })
    }
}

fn problem(problem: String) -> TraceError {
    TraceError {
        line: None,
        problem,
    }
}

/// A whole number that is not negative, up to 2^53, beyond which a float has no room for it.
#[allow(clippy::cast_possible_truncation, reason = "bounded on both sides")]
fn whole(number: f64) -> Option<i64> {
    (0.0..=9_007_199_254_740_992.0)
        .contains(&number)
        .then(|| number.round() as i64)
}

/// Reads responses of Prometheus to range queries, one after the other in one text.
///
/// # Errors
/// The error, with the line if the text is no JSON.
pub fn trace_of_series(text: &str, selection: &SeriesSelection<'_>) -> Result<Trace, TraceError> {
    let series = parse(text)?;
    let groups = labels(&series, "consumergroup", |series| series.is(COMMITTED));
    let group = choose(selection.group, &groups, "--group", "group")?;
    let is_of_group = |series: &RangeSeries| series.label("consumergroup") == group;
    let clusters = labels(&series, "cluster", |series| {
        series.is(COMMITTED) && is_of_group(series)
    });
    let cluster = choose(selection.cluster, &clusters, "--cluster", "label cluster")?;
    let is_wanted = |series: &&RangeSeries| series.label("cluster") == cluster;
    let wanted: Vec<&RangeSeries> = series.iter().filter(is_wanted).collect();
    let committed = || {
        wanted
            .iter()
            .filter(|series| series.is(COMMITTED) && is_of_group(series))
    };
    let topics: BTreeSet<&str> = committed().map(|series| series.label("topic")).collect();
    let ends = || {
        let ends = wanted.iter().filter(|series| series.is(LOG_END));
        ends.filter(|series| topics.contains(series.label("topic")))
    };
    // Every sample has all partitions: that the series of one begins later does not mean that it was added.
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for series in ends().chain(committed()) {
        let size = sizes.entry(series.label("topic")).or_default();
        *size = (*size).max(series.partition()? + 1);
    }
    let partitions: usize = sizes.values().sum();
    if partitions > MAX_TRACE_PARTITIONS {
        return Err(problem(format!(
            "{partitions} partitions; at most {MAX_TRACE_PARTITIONS} are read"
        )));
    }
    if let Some(topic) = topics
        .iter()
        .find(|topic| !ends().any(|end| end.label("topic") == **topic))
    {
        return Err(problem(format!(
            "no series {LOG_END} of topic {topic}, which group {group} reads; export them with the query\n  {}",
            series_query(selection)
        )));
    }
    let mut samples: BTreeMap<u64, TraceSample> = BTreeMap::new();
    // Every sample has room for all partitions, however few series have a value at its time.
    let mut weight = 0usize;
    let mut enter = |series: &RangeSeries, place: PlaceOf| {
        let (topic, partition) = (series.label("topic"), series.partition()?);
        for sample in series.samples() {
            let (at, value) = sample?;
            let sample = samples.entry(at).or_default();
            let positions = match sample.topics.get_mut(topic) {
                Some(positions) => positions,
                None => {
                    let size = sizes.get(topic).copied().unwrap_or_default();
                    let of_sample = match sample.topics.is_empty() {
                        true => SAMPLE_POSITIONS,
                        false => 0,
                    };
                    weight = [weight, of_sample, 1, size].iter().sum();
                    if weight > MAX_TRACE_POSITIONS {
                        return Err(problem(too_large()));
                    }
                    let topics = sample.topics.entry(topic.to_owned());
                    topics.or_insert_with(|| vec![(None, None); size])
                }
            };
            if let Some(position) = positions.get_mut(partition) {
                let known = place(position);
                // Several exporters may export the same series. The latest reading counts.
                *known = (*known).max(Some(value));
            }
        }
        Ok(())
    };
    for series in ends() {
        enter(series, |position| &mut position.0)?;
    }
    for series in committed() {
        enter(series, |position| &mut position.1)?;
    }
    for series in wanted
        .iter()
        .filter(|series| series.is(MEMBERS) && is_of_group(series))
    {
        for sample in series.samples() {
            let (at, value) = sample?;
            if let Some(sample) = samples.get_mut(&at) {
                sample.members = sample.members.max(u32::try_from(value).ok());
            }
        }
    }
    let samples = samples
        .into_iter()
        .map(|(at, sample)| TraceSample { at, ..sample });
    Ok(Trace {
        header: TraceHeader::new(&group, &cluster),
        samples: samples.collect(),
        whole_bytes: text.len(),
    })
}

fn parse(text: &str) -> Result<Vec<RangeSeries>, TraceError> {
    let mut series = Vec::new();
    for response in serde_json::Deserializer::from_str(text).into_iter::<RangeResponse>() {
        let response = response.map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line").next().unwrap_or_default();
            at_line(
                error.line(),
                format!(
                    "not a response of Prometheus to a range query: {message} (column {})",
                    error.column()
                ),
            )
        })?;
        let data = response.data.filter(|_| response.status == "success");
        let Some(data) = data else {
            let error = response.error.unwrap_or(response.status);
            return Err(problem(format!("Prometheus answered an error: {error}")));
        };
        if data.result_type != "matrix" {
            return Err(problem(format!(
                "a {} instead of a range of values; ask /api/v1/query_range with start, end and step",
                data.result_type
            )));
        }
        for parsed in data.result {
            let number = series.len() + 1;
            if parsed.metric.name.is_empty() {
                return Err(problem(format!(
                    "series {number} has no name: functions of PromQL remove it; export the metrics themselves"
                )));
            }
            if parsed.values.is_none() {
                return Err(problem(format!("series {number} has no values")));
            }
            series.push(parsed);
        }
    }
    Ok(series)
}

/// Values of a label.
fn labels<'a>(
    series: &'a [RangeSeries],
    label: &str,
    is_meant: impl Fn(&RangeSeries) -> bool,
) -> BTreeSet<&'a str> {
    let meant = series.iter().filter(|series| is_meant(series));
    meant.map(|series| series.label(label)).collect()
}

/// The selected value, or the only one.
fn choose(
    asked: Option<&str>,
    known: &BTreeSet<&str>,
    option: &str,
    what: &str,
) -> Result<String, TraceError> {
    let list = || short_list(known.iter().map(|name| (*name).to_owned()));
    match (asked, known.len()) {
        (_, 0) => Err(problem(format!(
            "no series {COMMITTED}; export them with the query\n  {}",
            series_query(&SeriesSelection::default())
        ))),
        (Some(asked), _) if known.contains(asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(problem(format!(
            "{option} {asked}: there are only series of {what} {}",
            list()
        ))),
        (None, 1) => Ok(known.first().copied().unwrap_or_default().to_owned()),
        (None, _) => Err(problem(format!(
            "series of more than one {what}: {}; choose one with {option}",
            list()
        ))),
    }
}

#[cfg(test)]
mod tests;
