//! `/api/peaks`: the most replicas that the lag of each HPA was worth, as far back as its history goes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::admin::{AdminEndpointOptions, FOLLOWER, json_response};
use super::hpa_rows::{leading_snapshot, rfc3339};
use crate::model::diagnostics::hpa_history::recorder::HistoryRecorder;

/// The peaks of all HPAs that have one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct HpaPeaks {
    /// Time since which there is a history without a break, in RFC 3339.
    pub(crate) known_since: Option<String>,
    pub(crate) hpas: Vec<HpaPeak>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HpaPeak {
    pub(crate) namespace: String,
    pub(crate) hpa: String,
    /// The most replicas that its lag was worth, without the ceiling.
    pub(crate) uncapped: u32,
}

impl HpaPeaks {
    fn new(recorder: &HistoryRecorder) -> Self {
        let hpas = recorder.hpas().filter_map(|(key, history)| {
            Some(HpaPeak {
                namespace: key.namespace.to_string(),
                hpa: key.name.to_string(),
                uncapped: history.uncapped_peak()?,
            })
        });
        Self {
            known_since: recorder.since().map(rfc3339),
            hpas: hpas.collect(),
        }
    }
}

/// Serves the peaks.
pub(super) async fn list(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    if leading_snapshot(&options).is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, FOLLOWER).into_response();
    }
    // As text, too, where the history is: there may be thousands of HPAs.
    let peaks =
        |recorder: &HistoryRecorder| json_response(StatusCode::OK, &HpaPeaks::new(recorder));
    let response = options.history.query(peaks).await;
    // It ends with the daemon.
    response.unwrap_or_else(|| (StatusCode::SERVICE_UNAVAILABLE, FOLLOWER).into_response())
}
