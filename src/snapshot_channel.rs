//! The stream of snapshots: one writer, any number of readers, always the latest.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;

impl Moment {
    /// Reads both clocks. Here and not in the model, whose functions take the time as an argument.
    #[must_use]
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// Publishes snapshots, those of one term of leadership. The poller of that term owns it.
#[derive(Debug)]
pub struct Publisher {
    snapshots: watch::Sender<Arc<LagSnapshot>>,
    term: u64,
}

/// Reads the latest snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotReader(watch::Receiver<Arc<LagSnapshot>>);

/// A stream of snapshots that begins with `first`.
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
    /// For the snapshots of this term, to the same readers. At any time one poller publishes: the one
    /// before has ended by then.
    #[must_use]
    pub fn of_term(&self, term: u64) -> Self {
        Self {
            snapshots: self.snapshots.clone(),
            term,
        }
    }

    /// Makes `snapshot` the latest, numbers it and says of which term it is.
    pub fn publish(&self, mut snapshot: LagSnapshot) {
        snapshot.term = self.term;
        self.snapshots.send_modify(|latest| {
            snapshot.sequence = latest.sequence.wrapping_add(1);
            *latest = Arc::new(snapshot);
        });
    }
}

impl SnapshotReader {
    /// The latest snapshot. It does not change while it is held, nor does holding it hold up anyone.
    #[must_use]
    pub fn latest(&self) -> Arc<LagSnapshot> {
        Arc::clone(&self.0.borrow())
    }

    /// A clone that takes the latest snapshot for seen.
    #[must_use]
    pub fn from_now_on(&self) -> Self {
        let mut clone = self.clone();
        clone.0.mark_unchanged();
        clone
    }

    /// Waits for a snapshot later than the last one that this reader waited for; `false` once the
    /// publisher is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
