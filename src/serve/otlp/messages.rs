//! The messages of OpenTelemetry's protocol that an export of metrics needs: `opentelemetry/proto/metrics/v1`,
//! `common/v1`, `resource/v1` and `collector/metrics/v1`, whose field numbers never change.
//!
//! Written by hand: these few messages do not justify a protobuf compiler or the OpenTelemetry SDK in every build.

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct ExportMetricsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::serve) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct ExportMetricsServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::serve) partial_success: Option<ExportMetricsPartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct ExportMetricsPartialSuccess {
    #[prost(int64, tag = "1")]
    pub(in crate::serve) rejected_data_points: i64,
    #[prost(string, tag = "2")]
    pub(in crate::serve) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    pub(in crate::serve) resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::serve) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct OtlpResource {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::serve) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    pub(in crate::serve) scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::serve) metrics: Vec<OtlpMetric>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct InstrumentationScope {
    #[prost(string, tag = "1")]
    pub(in crate::serve) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::serve) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct OtlpMetric {
    #[prost(string, tag = "1")]
    pub(in crate::serve) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::serve) description: String,
    #[prost(string, tag = "3")]
    pub(in crate::serve) unit: String,
    #[prost(oneof = "MetricData", tags = "5, 7, 9")]
    pub(in crate::serve) data: Option<MetricData>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(in crate::serve) enum MetricData {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct Gauge {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::serve) data_points: Vec<NumberDataPoint>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct Sum {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::serve) data_points: Vec<NumberDataPoint>,
    #[prost(enumeration = "Temporality", tag = "2")]
    pub(in crate::serve) aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub(in crate::serve) is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct Histogram {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::serve) data_points: Vec<HistogramDataPoint>,
    #[prost(enumeration = "Temporality", tag = "2")]
    pub(in crate::serve) aggregation_temporality: i32,
}

/// `AggregationTemporality`: the period that the points of a sum or of a histogram cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(in crate::serve) enum Temporality {
    Unspecified = 0,
    /// The increase since the last export.
    Delta = 1,
    /// Everything since `start_time_unix_nano`.
    Cumulative = 2,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct NumberDataPoint {
    #[prost(fixed64, tag = "2")]
    pub(in crate::serve) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(in crate::serve) time_unix_nano: u64,
    #[prost(oneof = "NumberValue", tags = "4, 6")]
    pub(in crate::serve) value: Option<NumberValue>,
    #[prost(message, repeated, tag = "7")]
    pub(in crate::serve) attributes: Vec<KeyValue>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(in crate::serve) enum NumberValue {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct HistogramDataPoint {
    #[prost(fixed64, tag = "2")]
    pub(in crate::serve) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(in crate::serve) time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    pub(in crate::serve) count: u64,
    #[prost(double, optional, tag = "5")]
    pub(in crate::serve) sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    pub(in crate::serve) bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    pub(in crate::serve) explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    pub(in crate::serve) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(in crate::serve) key: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::serve) value: Option<OtlpValue>,
}

/// `AnyValue`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::serve) struct OtlpValue {
    #[prost(oneof = "AttributeValue", tags = "1, 3")]
    pub(in crate::serve) value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(in crate::serve) enum AttributeValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(int64, tag = "3")]
    Int(i64),
}
