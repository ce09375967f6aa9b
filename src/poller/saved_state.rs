//! The poller's side of the history that survives a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::model::lag::history::memory::SavedHistory;

/// The shortest time between two saves.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// The shortest time between two saves after a policy has decided for another number of replicas: a leader that takes over
/// must not begin with an old one.
const SAVE_CHANGES_EVERY: Duration = Duration::from_secs(10);

/// How long the first sweep waits for the saved history. History that arrives later is used as well, but
/// until then a commit that Kafka has forgotten looks like no commit.
const LOAD_WITHIN: Duration = Duration::from_secs(5);

/// The channels by which the poller loads and saves its history.
#[derive(Debug)]
pub struct HistoryStore {
    /// Resolves to the saved history; nothing is saved before.
    pub loaded: oneshot::Receiver<SavedHistory>,
    /// Takes the history to save; a later one replaces an earlier one.
    pub histories: watch::Sender<Option<Arc<SavedHistory>>>,
    /// Becomes true when the poller has to end; it saves once more before it does.
    pub stop: watch::Receiver<bool>,
}

/// The channels, and what was loaded and saved by them.
#[derive(Debug)]
pub(super) struct HistoryHandle {
    store: HistoryStore,
    is_loaded: bool,
    saved_at: Instant,
}

/// What the poller waits for.
#[derive(Debug)]
pub(super) enum HistoryEvent {
    Stop,
    Loaded(SavedHistory),
}

impl HistoryHandle {
    pub(super) fn new(store: HistoryStore) -> Self {
        Self {
            store,
            is_loaded: false,
            saved_at: Instant::now(),
        }
    }

    /// Waits for the saved history before the first sweep, for a bounded time.
    pub(super) async fn first_event(handle: &mut Option<Self>) -> Option<HistoryEvent> {
        handle.as_ref()?;
        let event = Self::next_event(handle);
        tokio::time::timeout(LOAD_WITHIN, event).await.ok()
    }

    /// Waits for the saved history or for the order to stop; for ever where nothing is saved.
    pub(super) async fn next_event(handle: &mut Option<Self>) -> HistoryEvent {
        let Some(Self {
            store, is_loaded, ..
        }) = handle
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                // An error means that the daemon is gone, which is a reason to stop as well.
                _ = store.stop.wait_for(|stop| *stop) => return HistoryEvent::Stop,
                loaded = &mut store.loaded, if !*is_loaded => {
                    *is_loaded = true;
                    if let Ok(history) = loaded {
                        return HistoryEvent::Loaded(history);
                    }
                }
            }
        }
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Whether it is time to save; sooner if a policy has decided for another number of replicas.
    pub(super) fn is_due(&self, has_changes: bool) -> bool {
        let every = if has_changes {
            SAVE_CHANGES_EVERY
        } else {
            SAVE_EVERY
        };
        self.is_loaded && self.saved_at.elapsed() >= every
    }

    /// Saves the history. Does nothing before the saved history is loaded, which would be lost otherwise.
    pub(super) fn save(&mut self, history: SavedHistory) {
        if self.is_loaded {
            self.saved_at = Instant::now();
            self.store.histories.send_replace(Some(Arc::new(history)));
        }
    }
}
