//! `/api/stream`: announces newer snapshots by server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::admin::{AdminEndpointOptions, FOLLOWER};
use super::hpa_rows::{leading_snapshot, rfc3339};
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;

/// Maximum number of open streams. The listener allows more connections than that, for other requests.
pub(super) const MAX_STREAMS: usize = 16;

/// Shortest time between two events of a stream.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time between two messages of a stream: proxies close connections on which nothing is sent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

const FULL: &str = "too many streams are open; close another browser tab, or read /api/hpas\n";

/// One stream.
struct SnapshotStream {
    options: Arc<AdminEndpointOptions>,
    reader: SnapshotReader,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

/// Serves a stream of events until this process stops leading.
pub(super) async fn serve(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    if leading_snapshot(&options).is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, FOLLOWER).into_response();
    }
    let Ok(place) = Arc::clone(&options.streams).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "30")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, FULL).into_response();
    };
    let start = SnapshotStream {
        reader: options.reader.from_now_on(),
        options,
        is_first: true,
        _place: place,
    };
    let events = stream::unfold(start, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    Sse::new(events).into_response()
}

impl SnapshotStream {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        if !std::mem::take(&mut self.is_first) {
            tokio::time::sleep(EVENT_INTERVAL).await;
            match tokio::time::timeout(KEEPALIVE_INTERVAL, self.reader.changed()).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => return Some(Event::default().comment("")),
            }
        }
        let snapshot = leading_snapshot(&self.options)?;
        let at = rfc3339(Moment::now().wall);
        let data = serde_json::json!({"sequence": snapshot.sequence, "at": at});
        Some(Event::default().event("snapshot").data(data.to_string()))
    }
}
