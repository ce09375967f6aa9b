//! The channel of snapshots: one publisher, any number of readers, each of which sees the latest snapshot.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

impl Moment {
    /// Reads both clocks. Defined outside of the model, which must not read a clock.
    #[must_use]
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// Publishes the snapshots of one term of leadership. Owned by the poller of that term.
#[derive(Debug)]
pub struct Publisher {
    snapshots: watch::Sender<Arc<LagSnapshot>>,
    term: u64,
}

/// Reads the latest snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotReader(watch::Receiver<Arc<LagSnapshot>>);

/// Creates a channel whose first snapshot is `first`.
#[must_use]
pub fn channel(first: LagSnapshot) -> (Publisher, SnapshotReader) {
    let (sender, receiver) = watch::channel(Arc::new(first));
    let publisher = Publisher {
        snapshots: sender,
        term: 0,
    };
    (publisher, SnapshotReader(receiver))
}

impl Publisher {
    /// A publisher for another term, to the same readers. Only one poller may publish at a time, so the poller of
    /// the former term must have ended.
    #[must_use]
    pub fn of_term(&self, term: u64) -> Self {
        Self {
            snapshots: self.snapshots.clone(),
            term,
        }
    }

    /// Makes `snapshot` the latest, with the next sequence number and the term of this publisher. Returns the
    /// previous one for the caller to free: freeing a large one takes long, and readers would wait for that here.
    pub fn publish(&self, mut snapshot: LagSnapshot) -> Arc<LagSnapshot> {
        snapshot.term = self.term;
        let mut snapshot = Arc::new(snapshot);
        self.snapshots.send_modify(|latest| {
            // No reader has it yet, so `make_mut` copies nothing.
            Arc::make_mut(&mut snapshot).sequence = latest.sequence.wrapping_add(1);
            std::mem::swap(latest, &mut snapshot);
        });
        snapshot
    }
}

impl SnapshotReader {
    /// The latest snapshot. It is immutable, so holding it does not block the writer.
    #[must_use]
    pub fn latest(&self) -> Arc<LagSnapshot> {
        Arc::clone(&self.0.borrow())
    }

    /// A clone whose first [`changed`](Self::changed) waits for a snapshot that is newer than the latest.
    #[must_use]
    pub fn from_now_on(&self) -> Self {
        let mut clone = self.clone();
        clone.0.mark_unchanged();
        clone
    }

    /// Waits for a snapshot that was published after the last call; `false` once the publisher is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
