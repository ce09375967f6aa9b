//! Metric values in the format of the HPA: an `ExternalMetricValueList` of one item.
//!
//! This is the most frequent response, so it is written from borrowed data into one buffer.

use axum::http::StatusCode;
use axum::response::Response;
use humantime::Rfc3339Timestamp;
use serde::{Serialize, Serializer};

use super::api_error::{ApiFailure, json};
use super::route::GROUP_VERSION;
use crate::model::evaluation::MetricValue;
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::quantity::Milli;

/// Initial buffer size, enough for names of usual length.
const USUAL_BYTES: usize = 512;

/// Selector labels that are returned, sorted.
const LABELS: [&str; 5] = [
    label::CLUSTER,
    label::GROUP,
    label::HPA,
    label::TARGET,
    label::TOPIC,
];

/// The response to a metric query.
///
/// # Errors
/// Serialization fails.
pub(super) fn response(
    query: &MetricQuery<'_>,
    answer: &MetricValue,
) -> Result<Response, ApiFailure> {
    let list = ExternalMetricValueList {
        kind: "ExternalMetricValueList",
        api_version: &GROUP_VERSION,
        metadata: ListMeta {},
        items: [ExternalMetricValue {
            metric_name: query.metric,
            metric_labels: PinnedLabels(query.selector),
            timestamp: humantime::format_rfc3339_seconds(answer.read.wall),
            value: answer.value,
        }],
    };
    let mut body = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut body, &list)
        .map_err(|error| ApiFailure::internal(error.to_string()))?;
    Ok(json(StatusCode::OK, body))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValueList<'a> {
    kind: &'static str,
    api_version: &'a str,
    metadata: ListMeta,
    items: [ExternalMetricValue<'a>; 1],
}

#[derive(Serialize)]
struct ListMeta {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue<'a> {
    metric_name: &'a str,
    metric_labels: PinnedLabels<'a>,
    #[serde(serialize_with = "serialize_timestamp")]
    timestamp: Rfc3339Timestamp,
    value: Milli,
}

/// The labels that a selector restricts to a single value.
struct PinnedLabels<'a>(&'a Selector);

impl Serialize for PinnedLabels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pinned = |key: &'static str| match self.0.values(key) {
            Some([value]) => Some((key, value.as_str())),
            _ => None,
        };
        serializer.collect_map(LABELS.into_iter().filter_map(pinned))
    }
}

fn serialize_timestamp<S: Serializer>(
    value: &Rfc3339Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted() {
        assert!(LABELS.is_sorted(), "{LABELS:?}");
    }

    #[test]
    fn returns_only_labels_pinned_to_one_value() {
        let selector = "topic=t,group in (a,b),cluster in (c),hpa!=x,colour=red";
        let selector = Selector::parse(selector).unwrap();
        let labels = serde_json::to_string(&PinnedLabels(&selector)).unwrap();
        assert_eq!(labels, r#"{"cluster":"c","topic":"t"}"#);
    }
}
