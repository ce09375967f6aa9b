//! `/api/hpas` and `/api/hpas/NAMESPACE/NAME`: what the page shows, as JSON.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::admin::{AdminEndpointOptions, FOLLOWER, json_response};
use super::explain_endpoint::PARTITIONS_MAX;
use super::hpa_rows::{HpaOverview, HpaRow, leading_snapshot, rfc3339};
use crate::model::diagnostics::explain::{Explanation, Subject, derive};
use crate::model::diagnostics::hpa_history::HistoryPoint;
use crate::model::diagnostics::hpa_history::recorder::{HistoryRecorder, seconds_since_1970};
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
    /// Since when it is known without a break, in RFC 3339.
    pub(super) known_since: Option<String>,
    /// Seconds between the latest points.
    pub(super) step_seconds: Option<u32>,
    pub(super) points: Vec<HistoryPoint>,
    pub(super) markers: Vec<MarkerRow>,
}

impl HistoryView {
    /// Of the points and markers at this time, in seconds since 1970, and later.
    pub(super) fn new(recorder: &HistoryRecorder, hpa: &HpaKey, from: u32) -> Self {
        let history = recorder.history(hpa);
        let points = history.into_iter().flat_map(|history| history.points());
        let markers = history.into_iter().flat_map(|history| history.markers());
        let markers = markers.filter(|marker| marker.at >= from);
        Self {
            known_since: recorder.since().map(rfc3339),
            step_seconds: Some(recorder.step()),
            points: points.filter(|point| point.at >= from).collect(),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoView {
    /// This process does not lead.
    Follower,
    /// There is no such HPA with a metric of lagwise.
    NoHpa,
}

impl HpaView {
    /// Reads all about an HPA, with its history since `from`.
    pub(super) async fn read(
        options: &AdminEndpointOptions,
        hpa: &HpaKey,
        from: u32,
    ) -> Result<Self, NoView> {
        let asked = hpa.clone();
        let history = options
            .history
            .ask(move |recorder| HistoryView::new(recorder, &asked, from))
            .await;
        let snapshot = leading_snapshot(options).ok_or(NoView::Follower)?;
        let now = Moment::now();
        let overview = HpaOverview::read_at(options, Arc::clone(&snapshot), now).await;
        let overview = overview.ok_or(NoView::Follower)?;
        let row = overview.hpas.into_iter().find(|row| row.key() == *hpa);
        let row = row.ok_or(NoView::NoHpa)?;
        let subject = Subject::Hpa(hpa.clone());
        let explanation = derive(&subject, snapshot.at(&now), snapshot.all_findings());
        Ok(Self {
            at: overview.at,
            sequence: overview.sequence,
            leader: overview.leader,
            hpa: row,
            explanation: explanation.ok_or(NoView::NoHpa)?.bounded(PARTITIONS_MAX),
            history: history.unwrap_or_default(),
            snapshot,
        })
    }
}

/// Serves all HPAs.
pub(super) async fn list(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    match HpaOverview::read(&options).await {
        Some(overview) => json_response(StatusCode::OK, &overview),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, FOLLOWER),
    }
}

/// Serves one HPA.
pub(super) async fn show(
    State(options): State<Arc<AdminEndpointOptions>>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let from = match parse_since(query.as_deref().unwrap_or_default()) {
        Ok(from) => from,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, problem),
    };
    match HpaView::read(&options, &HpaKey::new(namespace, name), from).await {
        Ok(view) => json_response(StatusCode::OK, &view),
        Err(NoView::Follower) => failure(StatusCode::SERVICE_UNAVAILABLE, FOLLOWER),
        Err(NoView::NoHpa) => failure(
            StatusCode::NOT_FOUND,
            "there is no such HPA, or it uses no metric of lagwise",
        ),
    }
}

/// Parses `since`, in seconds since 1970 or in RFC 3339.
fn parse_since(query: &str) -> Result<u32, &'static str> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, since)) = pairs.find(|(key, value)| key == "since" && !value.is_empty()) else {
        return Ok(0);
    };
    if let Ok(seconds) = since.parse() {
        return Ok(seconds);
    }
    humantime::parse_rfc3339(&since)
        .map(seconds_since_1970)
        .map_err(|_| "since: expected seconds since 1970, or a time such as 2026-12-01T08:00:00Z")
}

fn failure(code: StatusCode, problem: &str) -> Response {
    json_response(code, &json!({"error": problem.trim_end()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_since() {
        assert_eq!(parse_since(""), Ok(0));
        assert_eq!(parse_since("since="), Ok(0));
        assert_eq!(parse_since("since=1714979289"), Ok(1_714_979_289));
        assert_eq!(
            parse_since("a=b&since=2024-05-06T07:08:09Z"),
            Ok(1_714_979_289)
        );
        for wrong in ["since=-1", "since=yesterday", "since=99999999999"] {
            assert!(
                parse_since(wrong).unwrap_err().starts_with("since: "),
                "{wrong}"
            );
        }
    }
}
