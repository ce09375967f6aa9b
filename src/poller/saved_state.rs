//! The poller's end of what is remembered over a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::model::lag::history::memory::SavedHistory;

/// How often at most the poller says what it remembers.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// How long the first sweep waits for what was remembered: what comes later counts as well, but until
/// then a forgotten commit looks like none.
const RECALL_WITHIN: Duration = Duration::from_secs(5);

/// Where the poller hears what an earlier process remembered, and says what it does.
#[derive(Debug)]
pub struct HistoryStore {
    /// Resolves to what was remembered; until then nothing is said.
    pub recalled: oneshot::Receiver<SavedHistory>,
    /// Takes what is to be remembered; the latest counts.
    pub keep: watch::Sender<Option<Arc<SavedHistory>>>,
    /// Becomes true when the poller has to end: it says once more what it remembers.
    pub stop: watch::Receiver<bool>,
}

/// What the poller makes of it.
#[derive(Debug)]
pub(super) struct LoadedHistory {
    ends: HistoryStore,
    is_recalled: bool,
    kept: Instant,
}

/// What happened first.
#[derive(Debug)]
pub(super) enum HistoryWriter {
    Stop,
    Recalled(SavedHistory),
}

impl LoadedHistory {
    pub(super) fn new(ends: HistoryStore) -> Self {
        Self {
            ends,
            is_recalled: false,
            kept: Instant::now(),
        }
    }

    /// What the poller is told before its first sweep; `None` where nothing comes in good time.
    pub(super) async fn first(remembered: &mut Option<Self>) -> Option<HistoryWriter> {
        remembered.as_ref()?;
        let told = Self::told(remembered);
        tokio::time::timeout(RECALL_WITHIN, told).await.ok()
    }

    /// Waits until the poller is told something; for ever where nothing is remembered.
    pub(super) async fn told(remembered: &mut Option<Self>) -> HistoryWriter {
        let Some(Self {
            ends, is_recalled, ..
        }) = remembered
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                // Whoever could say so is gone, which is a reason to stop as well.
                _ = ends.stop.wait_for(|stop| *stop) => return HistoryWriter::Stop,
                recalled = &mut ends.recalled, if !*is_recalled => {
                    *is_recalled = true;
                    if let Ok(memory) = recalled {
                        return HistoryWriter::Recalled(memory);
                    }
                }
            }
        }
    }

    pub(super) fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// Whether it is time to say what is remembered.
    pub(super) fn is_due(&self) -> bool {
        self.is_recalled && self.kept.elapsed() >= KEEP_EVERY
    }

    /// Says it. What was remembered before must be known by then, or it would be lost.
    pub(super) fn keep(&mut self, memory: SavedHistory) {
        if self.is_recalled {
            self.kept = Instant::now();
            self.ends.keep.send_replace(Some(Arc::new(memory)));
        }
    }
}
