//! `/api/hpas` and `/api/hpas/NAMESPACE/NAME`: the data of the page as JSON.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::admin::{
    AdminEndpointOptions, FOLLOWER, json_response, off_runtime, respond_off_runtime,
};
use super::explain_endpoint::MAX_PARTITIONS;
use super::hpa_rows::{HpaOverview, HpaRow, leading_snapshot, rfc3339};
use super::time_span::{TimeSpan, parse_time, query_value};
use crate::model::diagnostics::explain::{Explanation, Subject, derive};
use crate::model::diagnostics::hpa_history::HistoryPoint;
use crate::model::diagnostics::hpa_history::recorder::HistoryRecorder;
use crate::model::diagnostics::hpa_status::hpa_status;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;

/// Something that happened to an HPA.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MarkerRow {
    /// Seconds since 1970.
    pub(crate) at: u32,
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    /// Whether it needs the attention of a person.
    pub(crate) is_problem: bool,
}

/// The history of one HPA.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct HistoryView {
    /// Time since which it is known without a break, in RFC 3339.
    pub(super) known_since: Option<String>,
    /// Time of the first point that is kept, in seconds since 1970.
    #[serde(skip)]
    pub(super) first: Option<u32>,
    /// Seconds between the latest points.
    pub(super) step_seconds: Option<u32>,
    pub(super) points: Vec<HistoryPoint>,
    pub(super) markers: Vec<MarkerRow>,
}

impl HistoryView {
    /// The points and markers of an HPA in this span of time.
    pub(super) fn new(recorder: &HistoryRecorder, hpa: &HpaKey, span: TimeSpan) -> Self {
        let history = recorder.history(hpa);
        let points = history.into_iter().flat_map(|history| history.points());
        let markers = history.into_iter().flat_map(|history| history.markers());
        let markers = markers.filter(|marker| span.contains(marker.at));
        let first = history.and_then(|history| history.points().next());
        Self {
            known_since: recorder.since().map(rfc3339),
            first: first.map(|point| point.at),
            step_seconds: Some(recorder.step()),
            points: points.filter(|point| span.contains(point.at)).collect(),
            markers: markers
                .map(|marker| MarkerRow {
                    at: marker.at,
                    kind: marker.kind.label(),
                    text: marker.kind.to_string(),
                    is_problem: marker.kind.is_problem(),
                })
                .collect(),
        }
    }
}

/// Everything about one HPA.
#[derive(Debug, Serialize)]
pub(super) struct HpaView {
    pub(super) at: String,
    pub(super) sequence: u64,
    pub(super) leader: String,
    /// Its row of `/api/hpas`.
    pub(super) hpa: HpaRow,
    /// What `/explain` answers.
    pub(super) explanation: Explanation,
    pub(super) history: HistoryView,
    /// The snapshot behind all of it, for the page.
    #[serde(skip)]
    pub(super) snapshot: Arc<LagSnapshot>,
}

/// Why there is nothing to show of an HPA.
#[derive(Debug)]
pub(super) enum NoView {
    /// This process does not lead.
    Follower,
    /// There is no such HPA with a metric of lagwise.
    NoHpa,
    /// The work failed; the response says so.
    Failed(Box<Response>),
}

impl HpaView {
    /// Reads all about an HPA, with its history of this time.
    pub(super) async fn read(
        options: &AdminEndpointOptions,
        hpa: &HpaKey,
        span: TimeSpan,
    ) -> Result<Self, NoView> {
        let key = hpa.clone();
        let read = move |recorder: &HistoryRecorder| HistoryView::new(recorder, &key, span);
        let history = options.history.query(read).await.unwrap_or_default();
        let snapshot = leading_snapshot(options).ok_or(NoView::Follower)?;
        let (leader, hpa) = (options.instance.to_string(), hpa.clone());
        let made = off_runtime(move || Self::new(snapshot, leader, &hpa, history)).await;
        made.map_err(NoView::Failed)?.ok_or(NoView::NoHpa)
    }

    /// Derives the view from a snapshot; `None` if the snapshot has no such HPA.
    fn new(
        snapshot: Arc<LagSnapshot>,
        leader: String,
        hpa: &HpaKey,
        history: HistoryView,
    ) -> Option<Self> {
        let now = Moment::now();
        let status = hpa_status(hpa, snapshot.at(&now), snapshot.all_findings());
        let subject = Subject::Hpa(hpa.clone());
        let explanation = derive(&subject, snapshot.at(&now), snapshot.all_findings());
        let (status, explanation) = status.zip(explanation)?;
        Some(Self {
            at: rfc3339(now.wall),
            sequence: snapshot.sequence,
            leader,
            hpa: HpaRow::new(status),
            explanation: explanation.bounded(MAX_PARTITIONS),
            history,
            snapshot,
        })
    }
}

/// Serves all HPAs.
pub(super) async fn list(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    match HpaOverview::read(&options).await {
        Ok(Some(overview)) => {
            respond_off_runtime(move || json_response(StatusCode::OK, &overview)).await
        }
        Ok(None) => failure(StatusCode::SERVICE_UNAVAILABLE, FOLLOWER),
        Err(response) => *response,
    }
}

/// Serves one HPA.
pub(super) async fn show(
    State(options): State<Arc<AdminEndpointOptions>>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let span = match parse_span(query.as_deref().unwrap_or_default()) {
        Ok(span) => span,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, &problem),
    };
    match HpaView::read(&options, &HpaKey::new(namespace, name), span).await {
        Ok(view) => respond_off_runtime(move || json_response(StatusCode::OK, &view)).await,
        Err(NoView::Failed(response)) => *response,
        Err(NoView::Follower) => failure(StatusCode::SERVICE_UNAVAILABLE, FOLLOWER),
        Err(NoView::NoHpa) => failure(
            StatusCode::NOT_FOUND,
            "there is no such HPA, or it uses no metric of lagwise",
        ),
    }
}

/// Parses `since` and `until`, each in seconds since 1970 or in RFC 3339.
fn parse_span(query: &str) -> Result<TimeSpan, String> {
    let time = |key: &str, default: u32| match query_value(query, key) {
        None => Ok(default),
        Some(text) => parse_time(&text).ok_or_else(|| {
            format!("{key}: expected seconds since 1970, or a time such as 2026-12-01T08:00:00Z")
        }),
    };
    Ok(TimeSpan {
        from: time("since", 0)?,
        to: time("until", u32::MAX)?,
    })
}

fn failure(code: StatusCode, problem: &str) -> Response {
    json_response(code, &json!({"error": problem.trim_end()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_since_and_until() {
        let span = |from, to| Ok(TimeSpan { from, to });
        for (query, expected) in [
            ("", span(0, u32::MAX)),
            ("since=", span(0, u32::MAX)),
            ("since=1714979289", span(1_714_979_289, u32::MAX)),
            (
                "a=b&since=2024-05-06T07:08:09Z&until=1714979300",
                span(1_714_979_289, 1_714_979_300),
            ),
        ] {
            assert_eq!(parse_span(query), expected, "{query}");
        }
        for (wrong, key) in [
            ("since=-1", "since: "),
            ("since=yesterday", "since: "),
            ("since=99999999999", "since: "),
            ("since=1&until=later", "until: "),
        ] {
            assert!(parse_span(wrong).unwrap_err().starts_with(key), "{wrong}");
        }
    }
}
