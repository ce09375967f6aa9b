//! Whether the process lives and may be sent requests.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::leader_election::Leading;
use crate::snapshot_channel::SnapshotReader;

/// How long to wait for the first sweep before being ready without it. While the API is not
/// available no namespace of the Kubernetes cluster can be deleted, so Kafka must not decide it.
const READY_AFTER: Duration = Duration::from_secs(10);

/// Readiness: every Kafka cluster has been asked once, whatever came of it, and the HPAs are known, or
/// another daemon leads, which is asked; or 10 s have passed; and the process is not about to end.
#[derive(Clone, Debug)]
pub struct Readiness {
    reader: SnapshotReader,
    leading: Leading,
    started: Instant,
    draining: watch::Receiver<bool>,
}

/// Why the process is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It was asked to end.
    #[error("shutting down")]
    Draining,
    /// It has just started.
    #[error("the first sweep of a Kafka cluster or the first listing of HPAs is under way")]
    Starting,
}

impl Readiness {
    /// Readiness of a process that was started at `started` and ends soon once `draining` is true.
    #[must_use]
    pub fn new(reader: SnapshotReader, started: Instant, draining: watch::Receiver<bool>) -> Self {
        Self {
            reader,
            leading: Leading::alone(),
            started,
            draining,
        }
    }

    /// The same, of a process that leads only at times.
    #[must_use]
    pub fn led(self, leading: Leading) -> Self {
        Self { leading, ..self }
    }

    /// Whether requests may be sent.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: Instant) -> Result<(), NotReady> {
        if *self.draining.borrow() {
            return Err(NotReady::Draining);
        }
        let waited = now.saturating_duration_since(self.started);
        let latest = self.reader.latest();
        let leads = self.leading.own.holds(latest.term, now).is_some();
        let knows = latest.is_swept() && !latest.targets.hpas_unlisted;
        let asks = self.leading.others.borrow().is_some();
        if waited >= READY_AFTER || (leads && knows) || asks {
            Ok(())
        } else {
            Err(NotReady::Starting)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::fixtures;
    use crate::model::snapshot::LagSnapshot;
    use crate::model::targets::Targets;
    use crate::snapshot_channel;

    #[test]
    fn ready_once_swept_or_after_ten_seconds_until_draining() {
        let started = Instant::now();
        let unswept = LagSnapshot {
            clusters: [("main".into(), Default::default())].into(),
            ..LagSnapshot::default()
        };
        let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
        let (drain, draining) = watch::channel(false);
        let readiness = Readiness::new(reader, started, draining);
        let after = |seconds| readiness.check(started + Duration::from_secs(seconds));
        assert_eq!(after(0), Err(NotReady::Starting));
        publisher.publish(unswept);
        assert_eq!(after(9), Err(NotReady::Starting));
        assert_eq!(after(10), Ok(()));
        let mut swept = fixtures::snapshot();
        let unlisted = Targets {
            hpas_unlisted: true,
            ..Targets::clone(&swept.targets)
        };
        let listed = std::mem::replace(&mut swept.targets, Arc::new(unlisted));
        publisher.publish(swept.clone());
        assert_eq!(after(9), Err(NotReady::Starting));
        swept.targets = listed;
        publisher.publish(swept);
        assert_eq!(after(0), Ok(()));
        drain.send_replace(true);
        assert_eq!(after(0), Err(NotReady::Draining));
        assert_eq!(after(20), Err(NotReady::Draining));
    }
}
