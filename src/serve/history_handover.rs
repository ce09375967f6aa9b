//! Hands the history of HPAs from the leader to the replicas that may lead next. These fetch it from the leader at
//! intervals, over the connection for forwarded requests. The leader authenticates them as it does for those.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use tokio::time::MissedTickBehavior;

use super::api_error::{ApiFailure, json};
use super::forward::{Forwarder, LeaderUnavailable};
use super::history::HpaHistoryHandle;
use super::leader_router::Routed;
use super::route::HISTORY_PATH;
use super::time_span::query_value;
use crate::leader_election::{Leader, Leading};
use crate::model::diagnostics::hpa_history::recorder::{
    HandedHpa, HistoryPart, seconds_since_1970,
};
use crate::model::units::hpa_key::HpaKey;

/// Time between two fetches. A new leader lacks at most this much of the history.
const INTERVAL: Duration = Duration::from_secs(30);

/// Time until the next attempt while no leader is known.
const UNKNOWN_LEADER: Duration = Duration::from_secs(2);

/// Overlap of two fetches, in seconds: the last points may have been merged with others since.
const OVERLAP: u32 = 60;

/// Maximum time by which the leader's clock may be ahead of this one.
const MAX_CLOCK_DIFFERENCE_SECONDS: u32 = 60;

/// Maximum number of parts of one handover.
const MAX_PARTS: usize = 10_000;

const NAMESPACE: &str = "namespace";
const NAME: &str = "name";
const SINCE: &str = "since";

/// Path and query for the part after this HPA, of the history since `since`.
fn path(after: Option<&HpaKey>, since: u32) -> String {
    let mut query = Serializer::new(format!("{HISTORY_PATH}?"));
    query.append_pair(SINCE, &since.to_string());
    if let Some(hpa) = after {
        query.append_pair(NAMESPACE, &hpa.namespace);
        query.append_pair(NAME, &hpa.name);
    }
    query.finish()
}

/// Answers such a query, as the leader.
pub(super) async fn answer(
    history: &HpaHistoryHandle,
    leading: &Leading,
    query: &str,
) -> Routed<Response> {
    if leading.own.term(Instant::now()).is_none() {
        return Routed::Unanswered(LeaderUnavailable::NotLeading);
    }
    let value = |key| query_value(query, key);
    let after = value(NAMESPACE).zip(value(NAME));
    let after = after.map(|(namespace, name)| HpaKey::new(namespace, name));
    let since = value(SINCE).and_then(|since| since.parse().ok());
    let body = history.query(move |recorder| {
        let part = recorder.part(after.as_ref(), since.unwrap_or(0));
        // Before its first point of this term, the leader may have less history than the requesting replica, which
        // would then drop the rest.
        part.since.is_some().then(|| serde_json::to_vec(&part))
    });
    let Some(body) = body.await.flatten() else {
        return Routed::Unanswered(LeaderUnavailable::Starting);
    };
    let body = body.map_err(|error| ApiFailure::internal(error.to_string()));
    Routed::Answered(body.map(|body| json(StatusCode::OK, body)))
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
enum HandoverError {
    #[error(transparent)]
    Leader(#[from] LeaderUnavailable),
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("the leader answered with status {0}")]
    Status(StatusCode),
    #[error("there are too many parts, or the history is not kept any more")]
    Unfinished,
}

/// Takes the history over from the leader at intervals, while that is another replica. Never ends.
pub async fn follow(history: HpaHistoryHandle, leading: Leading, forwarder: Arc<Forwarder>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since = 0;
    loop {
        ticks.tick().await;
        if leading.own.term(Instant::now()).is_some() {
            continue;
        }
        let Some(leader) = leading.others.borrow().clone() else {
            ticks.reset_after(UNKNOWN_LEADER);
            continue;
        };
        match take_over(&history, &leading, &leader, &forwarder, since).await {
            Ok(latest) => since = latest.saturating_sub(OVERLAP),
            // The leader may be of an earlier version, and a change of leader takes a moment.
            Err(error) => tracing::debug!(%error, "the history was not handed over"),
        }
    }
}

/// Fetches and adds the history since `since`. Returns the time of the latest point.
async fn take_over(
    history: &HpaHistoryHandle,
    leading: &Leading,
    leader: &Leader,
    forwarder: &Forwarder,
    since: u32,
) -> Result<u32, HandoverError> {
    let mut latest = since;
    let mut hpas = BTreeSet::new();
    let mut after = None;
    for _ in 0..MAX_PARTS {
        let (code, body) = forwarder
            .fetch(leader, &path(after.as_ref(), since))
            .await?;
        if code != StatusCode::OK {
            return Err(HandoverError::Status(code));
        }
        let mut part: HistoryPart = serde_json::from_slice(&body)?;
        // This replica may have become the leader, which records by itself.
        if leading.own.term(Instant::now()).is_some() {
            return Err(HandoverError::Unfinished);
        }
        let now = seconds_since_1970(SystemTime::now());
        part.drop_later_than(now.saturating_add(MAX_CLOCK_DIFFERENCE_SECONDS));
        latest = part
            .hpas
            .iter()
            .filter_map(HandedHpa::latest)
            .fold(latest, u32::max);
        hpas.extend(part.hpas.iter().map(HandedHpa::key));
        let (is_last, recorded_since) = (part.is_last, part.since);
        // Without progress, the same part would be fetched forever.
        let Some(last) = part
            .hpas
            .last()
            .map(HandedHpa::key)
            .filter(|last| after.as_ref() < Some(last))
        else {
            return match is_last {
                true => finish(history, hpas, recorded_since, latest).await,
                false => Err(HandoverError::Unfinished),
            };
        };
        let added = history
            .change(move |recorder| recorder.add_part(&part))
            .await;
        added.ok_or(HandoverError::Unfinished)?;
        if is_last {
            return finish(history, hpas, recorded_since, latest).await;
        }
        after = Some(last);
    }
    Err(HandoverError::Unfinished)
}

async fn finish(
    history: &HpaHistoryHandle,
    hpas: BTreeSet<HpaKey>,
    since: Option<u32>,
    latest: u32,
) -> Result<u32, HandoverError> {
    let now = SystemTime::now();
    let finished = history
        .change(move |recorder| recorder.finish_handover(&hpas, since, now))
        .await;
    finished.map(|()| latest).ok_or(HandoverError::Unfinished)
}
