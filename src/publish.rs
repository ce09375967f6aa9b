//! The stream of snapshots: one writer, any number of readers, always the latest.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::model::snapshot::LagSnapshot;
use crate::model::types::Moment;

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

/// Publishes snapshots. There is one, owned by the poller.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Arc<LagSnapshot>>);

/// Reads the latest snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader(watch::Receiver<Arc<LagSnapshot>>);

/// A stream of snapshots that begins with `first`.
#[must_use]
pub fn channel(first: LagSnapshot) -> (Publisher, Reader) {
    let (sender, receiver) = watch::channel(Arc::new(first));
    (Publisher(sender), Reader(receiver))
}

impl Publisher {
    /// Makes `snapshot` the latest and numbers it.
    pub fn publish(&self, mut snapshot: LagSnapshot) {
        self.0.send_modify(|latest| {
            snapshot.sequence = latest.sequence.wrapping_add(1);
            *latest = Arc::new(snapshot);
        });
    }
}

impl Reader {
    /// The latest snapshot. It does not change while it is held, nor does holding it hold up anyone.
    #[must_use]
    pub fn latest(&self) -> Arc<LagSnapshot> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for a snapshot later than the last one that this reader waited for; `false` once the
    /// publisher is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
