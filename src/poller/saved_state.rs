//! Loads and saves the poller's history, which survives a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::model::lag::history::memory::SavedHistory;
use crate::model::units::token_bucket::{RateLimit, TokenBucket};

/// The shortest time between two saves.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// How often changed decisions of policies are saved at once: the next leader must not begin with an outdated number,
/// which would undo a step down. A save writes everything, so decisions beyond this rate are saved together.
const SAVES_OF_DECISIONS: RateLimit = RateLimit {
    interval: Duration::from_secs(10),
    burst: 6,
};

/// How long the first sweep waits for the saved history. History that arrives later is used as well, but
/// until then a commit that Kafka has forgotten looks like no commit.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

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

/// The channels, and the state that was loaded and saved by them.
#[derive(Debug)]
pub(super) struct HistoryHandle {
    store: HistoryStore,
    is_loaded: bool,
    saved_at: Instant,
    decisions: TokenBucket,
}

/// Events that the poller waits for.
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
            decisions: TokenBucket::full(SAVES_OF_DECISIONS),
        }
    }

    /// Waits for the saved history before the first sweep, for a bounded time.
    pub(super) async fn first_event(handle: &mut Option<Self>) -> Option<HistoryEvent> {
        handle.as_ref()?;
        let event = Self::next_event(handle);
        tokio::time::timeout(LOAD_TIMEOUT, event).await.ok()
    }

    /// Waits for the saved history or for the signal to stop. Never returns if no history is stored.
    pub(super) async fn next_event(handle: &mut Option<Self>) -> HistoryEvent {
        let Some(Self {
            store, is_loaded, ..
        }) = handle
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                // An error means that the daemon has ended, so stop.
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

    /// Whether to save now: at intervals, and at once if a policy has changed its number of replicas.
    pub(super) fn is_due(&mut self, has_decisions: bool) -> bool {
        if !self.is_loaded {
            return false;
        }
        let now = Instant::now();
        now.duration_since(self.saved_at) >= SAVE_INTERVAL
            || has_decisions && self.decisions.take(1, now)
    }

    /// Saves the history. Does nothing until the saved history is loaded, because that would be overwritten.
    pub(super) fn save(&mut self, history: SavedHistory) {
        if self.is_loaded {
            self.saved_at = Instant::now();
            self.store.histories.send_replace(Some(Arc::new(history)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(is_loaded: bool, saved_ago: Duration) -> HistoryHandle {
        let (_, loaded) = oneshot::channel();
        let (_, stop) = watch::channel(false);
        let (histories, _) = watch::channel(None);
        let store = HistoryStore {
            loaded,
            histories,
            stop,
        };
        HistoryHandle {
            is_loaded,
            saved_at: Instant::now().checked_sub(saved_ago).unwrap(),
            ..HistoryHandle::new(store)
        }
    }

    #[test]
    fn decisions_are_saved_at_once_and_all_else_at_intervals() {
        for (is_loaded, saved_ago, has_decisions, expected) in [
            (true, 0, true, true),
            (true, 0, false, false),
            (true, 30, false, false),
            (true, 61, false, true),
            // Otherwise the earlier state would be lost.
            (false, 0, true, false),
            (false, 61, true, false),
        ] {
            let mut handle = handle(is_loaded, Duration::from_secs(saved_ago));
            let found = handle.is_due(has_decisions);
            assert_eq!(found, expected, "{is_loaded} {saved_ago} {has_decisions}");
        }
    }

    #[test]
    fn many_decisions_wait_for_one_another() {
        let mut handle = handle(true, Duration::ZERO);
        let saves = (0..100).filter(|_| handle.is_due(true)).count();
        assert_eq!(saves, 6);
    }
}
