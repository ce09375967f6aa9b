//! Writes samples as metrics of OpenTelemetry.

use prometheus::proto::{Metric as ProcessSample, MetricFamily, MetricType};
use tokio::sync::mpsc;

use super::sample::{Labels, ReaderGone, SampleSink, SampleStream, SampleValue};
use super::{shadow, write};
use crate::model::keda::shadow::ShadowReport;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;
use crate::serve::BuildInfo;
use crate::serve::otlp::messages::{
    AttributeValue, Gauge, Histogram, HistogramDataPoint, KeyValue, MetricData, NumberDataPoint,
    NumberValue, OtlpMetric, OtlpValue, Sum, Temporality,
};
use crate::telemetry::family::{COUNTER, Family};

/// Maximum number of data points in a batch: about half a megabyte when encoded, far below what collectors take.
const MAX_BATCH_POINTS: usize = 2000;

/// Names of OpenTelemetry's Kafka metrics for families of `/metrics`, with their units. Other families keep their name.
const NAMES: &[(&str, &str, &str)] = &[
    (
        "kafka_consumergroup_lag",
        "kafka.consumer_group.lag",
        "{message}",
    ),
    (
        "kafka_consumergroup_lag_sum",
        "kafka.consumer_group.lag_sum",
        "{message}",
    ),
    (
        "kafka_consumergroup_current_offset",
        "kafka.consumer_group.offset",
        "{offset}",
    ),
    (
        "kafka_consumergroup_current_offset_sum",
        "kafka.consumer_group.offset_sum",
        "{offset}",
    ),
    (
        "kafka_consumergroup_members",
        "kafka.consumer_group.members",
        "{member}",
    ),
    (
        "kafka_topic_partitions",
        "kafka.topic.partitions",
        "{partition}",
    ),
    (
        "kafka_topic_partition_current_offset",
        "kafka.partition.current_offset",
        "{offset}",
    ),
    (
        "kafka_topic_partition_oldest_offset",
        "kafka.partition.oldest_offset",
        "{offset}",
    ),
];

/// Label of Prometheus that is the attribute `group`.
const GROUP_LABEL: &str = "consumergroup";

/// OpenTelemetry's name of a family of `/metrics`.
pub(crate) fn open_telemetry_name(family: &str) -> &str {
    renamed(family).map_or(family, |(name, _)| name)
}

fn renamed(family: &str) -> Option<(&'static str, &'static str)> {
    let row = NAMES.iter().find(|(known, ..)| *known == family);
    row.map(|(_, name, unit)| (*name, *unit))
}

/// Times of the data points of an export, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct PointTimes {
    /// Start of the counters of the process.
    pub(in crate::serve) process_start: u64,
    /// Time since which the counters of the snapshot count.
    pub(in crate::serve) term_start: u64,
    pub(in crate::serve) now: u64,
}

/// Inputs of an export besides the snapshot.
pub(in crate::serve) struct ProcessFigures {
    pub(in crate::serve) build: BuildInfo,
    /// Metrics of the process.
    pub(in crate::serve) families: Vec<MetricFamily>,
    /// The comparison of KEDA's replicas with lagwise's.
    pub(in crate::serve) shadow: Option<std::sync::Arc<ShadowReport>>,
}

/// Sends everything that `/metrics` has, in batches.
///
/// # Errors
/// The receiver of the batches has ended.
pub(in crate::serve) async fn write_batches(
    batches: mpsc::Sender<Vec<OtlpMetric>>,
    times: PointTimes,
    snapshot: &LagSnapshot,
    now: &Moment,
    process: ProcessFigures,
) -> Result<(), ReaderGone> {
    write_batches_of(MAX_BATCH_POINTS, batches, times, snapshot, now, process).await
}

async fn write_batches_of(
    batch_points: usize,
    batches: mpsc::Sender<Vec<OtlpMetric>>,
    times: PointTimes,
    snapshot: &LagSnapshot,
    now: &Moment,
    process: ProcessFigures,
) -> Result<(), ReaderGone> {
    let mut samples = OtlpSamples {
        batch_points,
        start: times.term_start,
        now: times.now,
        family: None,
        batch: Vec::new(),
        points: 0,
        full: Vec::new(),
        batches,
    };
    write(&mut samples, snapshot, now, &process.build).await?;
    samples.start = times.process_start;
    if let Some(report) = &process.shadow {
        shadow::write(&mut samples, report);
    }
    for family in &process.families {
        samples.process_family(family);
    }
    samples.flush().await
}

/// Writes samples as data points, and sends them in batches.
struct OtlpSamples {
    /// Maximum number of data points in a batch.
    batch_points: usize,
    /// Time since which counters count.
    start: u64,
    now: u64,
    /// The current family, if the batch has no metric of it yet.
    family: Option<OtlpMetric>,
    batch: Vec<OtlpMetric>,
    /// Data points in the batch.
    points: usize,
    /// Batches that are full and not sent yet: more than one only where the writer does not flush after each sample.
    full: Vec<Vec<OtlpMetric>>,
    batches: mpsc::Sender<Vec<OtlpMetric>>,
}

impl OtlpSamples {
    /// Adds a metric of the process.
    fn process_family(&mut self, family: &MetricFamily) {
        self.family = None;
        let mut rest = family.get_metric();
        while !rest.is_empty() {
            self.end_batch_if_full();
            let room = self.batch_points.saturating_sub(self.points).max(1);
            let (samples, others) = rest.split_at(room.min(rest.len()));
            rest = others;
            if let Some(metric) = process_metric(family, samples, self.start, self.now) {
                self.points = self.points.saturating_add(samples.len());
                self.batch.push(metric);
            }
        }
    }

    fn end_batch_if_full(&mut self) {
        if self.points >= self.batch_points {
            self.end_batch();
        }
    }

    fn end_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.points = 0;
        let Some(last) = batch.last() else {
            return;
        };
        // A family that continues needs a metric in the next batch, too.
        if self.family.is_none() {
            self.family = Some(without_points(last));
        }
        self.full.push(batch);
    }

    fn add(&mut self, attributes: Vec<KeyValue>, value: SampleValue) {
        let Some(value) = number(value) else {
            return;
        };
        self.end_batch_if_full();
        if let Some(begun) = self.family.take() {
            self.batch.push(begun);
        }
        let data = self
            .batch
            .last_mut()
            .and_then(|metric| metric.data.as_mut());
        let points = match data {
            Some(MetricData::Gauge(gauge)) => &mut gauge.data_points,
            Some(MetricData::Sum(sum)) => &mut sum.data_points,
            Some(MetricData::Histogram(_)) | None => return,
        };
        points.push(NumberDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(value),
        });
        self.points = self.points.saturating_add(1);
    }
}

impl SampleSink for OtlpSamples {
    fn family(&mut self, family: &Family) {
        let is_counter = family.kind == COUNTER;
        self.family = Some(empty_metric(family.name, family.help, is_counter));
    }

    fn sample(&mut self, labels: &Labels, value: impl Into<SampleValue>) {
        self.add(attributes(labels.pairs()), value.into());
    }

    fn partition_sample(
        &mut self,
        labels: &Labels,
        partition: usize,
        value: impl Into<SampleValue>,
    ) {
        let mut attributes = attributes(labels.pairs());
        let partition = AttributeValue::Int(i64::try_from(partition).unwrap_or(i64::MAX));
        attributes.push(key_value("partition", partition));
        self.add(attributes, value.into());
    }
}

impl SampleStream for OtlpSamples {
    async fn flush_if_full(&mut self) -> Result<(), ReaderGone> {
        if self.points < self.batch_points {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ReaderGone> {
        self.end_batch();
        for batch in std::mem::take(&mut self.full) {
            self.batches.send(batch).await.map_err(|_| ReaderGone)?;
        }
        Ok(())
    }
}

fn without_points(metric: &OtlpMetric) -> OtlpMetric {
    let is_counter = matches!(metric.data, Some(MetricData::Sum(_)));
    OtlpMetric {
        data: Some(empty_data(is_counter)),
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
    }
}

fn empty_metric(family: &str, help: &str, is_counter: bool) -> OtlpMetric {
    let (name, unit) = renamed(family).unwrap_or((family, ""));
    OtlpMetric {
        name: name.to_owned(),
        description: help.to_owned(),
        unit: unit.to_owned(),
        data: Some(empty_data(is_counter)),
    }
}

fn empty_data(is_counter: bool) -> MetricData {
    match is_counter {
        true => MetricData::Sum(Sum {
            data_points: Vec::new(),
            aggregation_temporality: Temporality::Cumulative.into(),
            is_monotonic: true,
        }),
        false => MetricData::Gauge(Gauge::default()),
    }
}

/// A number of a data point; `None` for the limit that does not exist, since few receivers take an infinite number.
#[allow(clippy::cast_precision_loss)] // A value is far smaller than 2^53 thousandths, or its last digits do not matter.
fn number(value: SampleValue) -> Option<NumberValue> {
    let number = match value {
        SampleValue::Unsigned(number) => {
            NumberValue::Int(i64::try_from(number).unwrap_or(i64::MAX))
        }
        SampleValue::Signed(number) => NumberValue::Int(number),
        SampleValue::Real(number) | SampleValue::Rounded(number) => NumberValue::Double(number),
        SampleValue::Thousandths(number) => NumberValue::Double(number as f64 / 1000.0),
    };
    match number {
        NumberValue::Double(double) if !double.is_finite() => None,
        finite => Some(finite),
    }
}

fn attributes<'k, 'v>(labels: impl Iterator<Item = (&'k str, &'v str)>) -> Vec<KeyValue> {
    let attributes = labels.map(|(key, value)| {
        let key = if key == GROUP_LABEL { "group" } else { key };
        key_value(key, AttributeValue::String(value.to_owned()))
    });
    attributes.collect()
}

/// An attribute.
pub(in crate::serve) fn key_value(key: &str, value: AttributeValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(OtlpValue { value: Some(value) }),
    }
}

/// These samples of a metric of the process; `None` for a kind that the process does not have.
fn process_metric(
    family: &MetricFamily,
    samples: &[ProcessSample],
    start: u64,
    now: u64,
) -> Option<OtlpMetric> {
    let kind = family.get_field_type();
    let is_counter = kind == MetricType::COUNTER;
    let mut metric = empty_metric(family.name(), family.help(), is_counter);
    let numbers = |value: fn(&ProcessSample) -> f64| {
        let points = samples.iter().map(|sample| NumberDataPoint {
            attributes: process_attributes(sample),
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(NumberValue::Double(value(sample))),
        });
        points.collect()
    };
    match (&mut metric.data, kind) {
        (Some(MetricData::Sum(sum)), _) => {
            sum.data_points = numbers(|sample| sample.get_counter().get_value());
        }
        (Some(MetricData::Gauge(gauge)), MetricType::GAUGE) => {
            gauge.data_points = numbers(|sample| sample.get_gauge().get_value());
        }
        (data, MetricType::HISTOGRAM) => {
            let points = samples
                .iter()
                .map(|sample| histogram_point(sample, start, now));
            *data = Some(MetricData::Histogram(Histogram {
                data_points: points.collect(),
                aggregation_temporality: Temporality::Cumulative.into(),
            }));
        }
        _ => return None,
    }
    Some(metric)
}

fn process_attributes(sample: &ProcessSample) -> Vec<KeyValue> {
    let labels = sample.get_label().iter();
    attributes(labels.map(|label| (label.name(), label.value())))
}

/// A histogram. Prometheus's buckets include the smaller ones, OpenTelemetry's do not, and have one beyond the last
/// bound.
fn histogram_point(sample: &ProcessSample, start: u64, now: u64) -> HistogramDataPoint {
    let histogram = sample.get_histogram();
    let count = histogram.get_sample_count();
    let buckets = histogram.get_bucket().iter();
    let finite: Vec<_> = buckets
        .filter(|bucket| bucket.upper_bound().is_finite())
        .collect();
    let mut below = 0;
    let up_to = finite.iter().map(|bucket| bucket.cumulative_count());
    let counts = up_to.chain([count]).map(|cumulative| {
        let own = cumulative.saturating_sub(below);
        below = cumulative;
        own
    });
    HistogramDataPoint {
        attributes: process_attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts.collect(),
        explicit_bounds: finite.iter().map(|bucket| bucket.upper_bound()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use prometheus::{
        Histogram as Observed, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    };

    use super::super::families;
    use super::*;
    use crate::model::evaluation::ServingPolicy;
    use crate::model::fixtures;
    use crate::model::keda::shadow::ShadowRow;

    const TIMES: PointTimes = PointTimes {
        process_start: 1,
        term_start: 3,
        now: 4,
    };

    /// Metrics of a process: a counter and a histogram, each with eleven samples.
    fn process_families() -> Vec<MetricFamily> {
        let registry = Registry::new();
        let options = Opts::new("lagwise_test_events_total", "events");
        let events = IntCounterVec::new(options, &["kind"]).unwrap();
        let options = HistogramOpts::new("lagwise_test_took_seconds", "how long");
        let took = HistogramVec::new(options, &["kind"]).unwrap();
        registry.register(Box::new(events.clone())).unwrap();
        registry.register(Box::new(took.clone())).unwrap();
        for kind in 0..11 {
            events.with_label_values(&[kind.to_string()]).inc();
            took.with_label_values(&[kind.to_string()]).observe(1.0);
        }
        registry.gather()
    }

    /// A report about eleven objects of KEDA.
    fn shadow_report() -> ShadowReport {
        let row = |number: u32| ShadowRow {
            kind: "ScaledObject".to_owned(),
            namespace: "shop".to_owned(),
            name: format!("billing-{number}"),
            ..ShadowRow::default()
        };
        ShadowReport {
            objects: (0..11).map(row).collect(),
            ..ShadowReport::default()
        }
    }

    /// The batches of the fixture's snapshot, and of the other inputs.
    async fn batches_of(batch_points: usize) -> Vec<Vec<OtlpMetric>> {
        let snapshot = fixtures::snapshot().evaluated(&ServingPolicy::default());
        let now = fixtures::at(Duration::from_secs(7));
        let (batches, mut received) = mpsc::channel(1);
        let process = ProcessFigures {
            build: BuildInfo {
                version: "1.2.3".to_owned(),
                librdkafka: "2.12.1".to_owned(),
            },
            families: process_families(),
            shadow: Some(Arc::new(shadow_report())),
        };
        let writing = write_batches_of(batch_points, batches, TIMES, &snapshot, &now, process);
        let receiving = async {
            let mut all = Vec::new();
            while let Some(batch) = received.recv().await {
                all.push(batch);
            }
            all
        };
        let (result, all) = tokio::join!(writing, receiving);
        result.unwrap();
        all
    }

    fn points(metric: &OtlpMetric) -> &[NumberDataPoint] {
        match metric.data.as_ref().unwrap() {
            MetricData::Gauge(gauge) => &gauge.data_points,
            MetricData::Sum(sum) => &sum.data_points,
            MetricData::Histogram(_) => &[],
        }
    }

    fn text(attributes: &[KeyValue]) -> Vec<String> {
        let text = |attribute: &KeyValue| {
            let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
            match value {
                AttributeValue::String(text) => format!("{}={text}", attribute.key),
                AttributeValue::Int(number) => format!("{}={number}", attribute.key),
            }
        };
        attributes.iter().map(text).collect()
    }

    #[tokio::test]
    async fn kafka_has_the_names_of_open_telemetry() {
        let all = batches_of(MAX_BATCH_POINTS).await.concat();
        let found: BTreeSet<&str> = all.iter().map(|metric| metric.name.as_str()).collect();
        // The fixture's groups are not described.
        let missing: Vec<_> = NAMES
            .iter()
            .filter(|(_, name, _)| !found.contains(name))
            .collect();
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert_eq!(missing[0].1, "kafka.consumer_group.members");
        assert!(found.iter().all(|name| !name.starts_with("kafka_")));
        let lag = all
            .iter()
            .find(|metric| metric.name == "kafka.consumer_group.lag")
            .unwrap();
        let of_orders: Vec<_> = points(lag)
            .iter()
            .map(|point| text(&point.attributes).join(" "))
            .filter(|text| text.contains("group=orders"))
            .collect();
        assert_eq!(
            of_orders[0],
            "cluster=main group=orders topic=payments partition=0"
        );
        let is_histogram =
            |metric: &OtlpMetric| matches!(metric.data, Some(MetricData::Histogram(_)));
        let mut numbers = all.iter().filter(|metric| !is_histogram(metric));
        assert!(numbers.all(|metric| !points(metric).is_empty()));
        assert!(all.iter().flat_map(points).all(|point| {
            let is_finite = !matches!(point.value, Some(NumberValue::Double(v)) if !v.is_finite());
            point.time_unix_nano == TIMES.now && is_finite
        }));
    }

    #[tokio::test]
    async fn counters_of_the_process_and_of_the_term_have_their_own_starts() {
        for metric in batches_of(MAX_BATCH_POINTS).await.concat() {
            let is_of_process = metric.name.starts_with("lagwise_shadow_")
                || metric.name == "lagwise_test_events_total";
            let start = match is_of_process {
                true => TIMES.process_start,
                false => TIMES.term_start,
            };
            let mut points = points(&metric).iter();
            let has_start = points.all(|point| point.start_time_unix_nano == start);
            assert!(has_start, "{metric:?}");
            // Histograms are of the process.
            if let Some(MetricData::Histogram(histogram)) = &metric.data {
                let mut points = histogram.data_points.iter();
                let has_start = points.all(|p| p.start_time_unix_nano == TIMES.process_start);
                assert!(has_start && !histogram.data_points.is_empty(), "{metric:?}");
            }
        }
    }

    #[tokio::test]
    async fn batches_are_bounded_and_add_up() {
        let of_metric = |metric: &OtlpMetric| match &metric.data {
            Some(MetricData::Histogram(histogram)) => histogram.data_points.len(),
            _ => points(metric).len(),
        };
        let count = |batch: &Vec<OtlpMetric>| batch.iter().map(of_metric).sum();
        let whole: usize = batches_of(MAX_BATCH_POINTS).await.iter().map(count).sum();
        for most in [1, 3, 10] {
            let batches = batches_of(most).await;
            let counts: Vec<usize> = batches.iter().map(count).collect();
            assert!(counts.iter().all(|count| *count <= most), "{counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), whole);
            let metrics = batches.iter().flatten();
            let all_named = metrics.clone().all(|metric| !metric.name.is_empty());
            assert!(all_named && metrics.count() > 10);
        }
    }

    #[test]
    fn every_renamed_family_exists() {
        for (family, ..) in NAMES {
            assert!(families::ALL.iter().any(|known| known.name == *family));
        }
    }

    #[test]
    fn buckets_are_not_cumulative() {
        let registry = Registry::new();
        let options = HistogramOpts::new("took_seconds", "how long").buckets(vec![1.0, 2.0]);
        let observed = Observed::with_opts(options).unwrap();
        registry.register(Box::new(observed.clone())).unwrap();
        for seconds in [0.5, 1.5, 1.6, 9.0] {
            observed.observe(seconds);
        }
        let family = &registry.gather()[0];
        let metric = process_metric(family, family.get_metric(), 1, 2).unwrap();
        let Some(MetricData::Histogram(histogram)) = metric.data else {
            panic!("{metric:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts, [1, 2, 1]);
        assert_eq!(point.explicit_bounds, [1.0, 2.0]);
        assert_eq!((point.count, point.sum), (4, Some(12.6)));
    }
}
