//! Loads the state when a term begins, and saves it during the term.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::format::{decode, encode};
use super::location::{StateLocation, StorageError};
use crate::blocking_work::do_blocking;
use crate::leader_election::Leadership;
use crate::model::lag::history::memory::SavedHistory;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::{StateSaved, StateUnread, StateUnusable, StateUnwritten};

/// The first and the longest pause before a location that could not be read is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Timeout for one attempt to read or write the state. Without it, a save that hangs would block all later ones.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Loads the saved history for the poller, then saves every history that the poller sends, until the poller ends.
pub async fn run<S: StateLocation>(
    location: S,
    loaded: oneshot::Sender<SavedHistory>,
    mut histories: watch::Receiver<Option<Arc<SavedHistory>>>,
    leadership: Leadership,
) {
    let place = location.description();
    let mut poller = histories.clone();
    let history = tokio::select! {
        history = load(&location, &place) => history,
        // The poller sends no history before it has the loaded one, so there is nothing to save if it ends now.
        () = closed(&mut poller) => return,
    };
    if loaded.send(history).is_err() {
        return;
    }
    let mut failures = FailureLog::<StorageError>::default();
    while histories.changed().await.is_ok() {
        let Some(history) = histories.borrow_and_update().clone() else {
            continue;
        };
        // With thousands of groups and policies this takes too long for a thread of the async runtime.
        let max_bytes = location.max_bytes();
        let encoding = do_blocking(move || encode(&history, max_bytes));
        let (text, dropped) = encoding.await;
        // Save only during this leader's term, and stop waiting when the term ends. A write that is in progress may
        // still complete later.
        let now = Instant::now();
        let term = leadership.term(now);
        let Some(left) = term.and_then(|term| term.time_left(now)) else {
            continue;
        };
        let bytes = text.len();
        match in_time(left.min(TIMEOUT), location.save(text)).await {
            Ok(()) => StateSaved {
                place: &place,
                bytes,
                dropped,
                again: failures.record_success().is_some(),
            }
            .emit(),
            Err(error) => {
                let new_reason = failures.record_failure(error);
                StateUnwritten {
                    place: &place,
                    new_reason,
                }
                .emit();
            }
        }
    }
}

/// Waits for an attempt to read or write the state, up to a timeout.
async fn in_time<T>(
    timeout: Duration,
    attempt: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    let done = tokio::time::timeout(timeout, attempt).await;
    done.unwrap_or_else(|_| Err(StorageError("no response in time".to_owned())))
}

async fn closed(histories: &mut watch::Receiver<Option<Arc<SavedHistory>>>) {
    while histories.changed().await.is_ok() {}
}

/// Loads the history, and retries as long as the location cannot be read. An invalid text is logged and treated as no
/// history.
async fn load<S: StateLocation>(location: &S, place: &str) -> SavedHistory {
    let mut pause = RETRY.0;
    let mut failures = FailureLog::<StorageError>::default();
    loop {
        match in_time(TIMEOUT, location.load()).await {
            Ok(None) => return SavedHistory::default(),
            Ok(Some(text)) => match decode(&text) {
                Ok(history) => return history,
                Err(reason) => {
                    let reason = &reason;
                    StateUnusable { place, reason }.emit();
                    return SavedHistory::default();
                }
            },
            Err(error) => {
                if let Some(reason) = failures.record_failure(error) {
                    StateUnread { place, reason }.emit();
                }
                tokio::time::sleep(pause).await;
                pause = RETRY.1.min(pause.saturating_mul(2));
            }
        }
    }
}
