//! Whether the process is alive, and whether it is ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::leader_election::Leading;
use crate::snapshot_channel::SnapshotReader;
use crate::telemetry::failure_log::RequestFailureLog;
use crate::worker_threads::Heartbeat;

/// How long threads may run no task before the process counts as hung. Long enough for a node that is short of CPU
/// time.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// How long to wait for the first sweep before reporting ready without it. While the API is
/// unavailable, Kubernetes cannot delete any namespace, so Kafka must not decide about readiness.
const READY_AFTER: Duration = Duration::from_secs(10);

/// Alive while each of the separate threads runs tasks. The other threads answer the probe itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    threads: Vec<Heartbeat>,
    /// The threads that hang, by name.
    log: Arc<RequestFailureLog<&'static str>>,
}

/// Threads that run no tasks any more. Kubernetes should start the container again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the threads for {name} have run nothing for {}", humantime::format_duration(Duration::from_secs(silent.as_secs())))]
pub(crate) struct Hung {
    name: &'static str,
    silent: Duration,
}

impl Liveness {
    pub(crate) fn new(threads: Vec<Heartbeat>) -> Self {
        Self {
            threads,
            log: Arc::default(),
        }
    }

    /// Checks at `now` that no threads hang, and logs a change: Kubernetes keeps the response of a failed probe only as
    /// long as the events of the pod.
    ///
    /// # Errors
    /// The first threads that do.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Hung> {
        let silent = |heartbeat: &Heartbeat| Hung {
            name: heartbeat.name,
            silent: heartbeat.age(now),
        };
        let mut threads = self.threads.iter().map(silent);
        let hung = threads.find(|threads| threads.silent >= HUNG_AFTER);
        let is_due = self.log.record(hung.map(|hung| hung.name), now);
        match hung {
            Some(hung) => {
                if is_due {
                    tracing::error!(
                        "/livez answers 503, so that Kubernetes restarts the container: {hung}"
                    );
                }
                Err(hung)
            }
            None => {
                if is_due {
                    tracing::info!("/livez answers 200 again");
                }
                Ok(())
            }
        }
    }
}

/// Ready when every Kafka cluster was swept once, whatever the outcome, and the HPAs are listed; or
/// another replica leads, to which requests are forwarded; or 10 s have passed. Not ready while shutting down.
#[derive(Clone, Debug)]
pub struct Readiness {
    reader: SnapshotReader,
    leading: Leading,
    started: Instant,
    draining: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The process is shutting down.
    #[error("shutting down")]
    Draining,
    /// The process has just started.
    #[error("waiting for the first sweep of every Kafka cluster and the first list of HPAs")]
    Starting,
}

impl Readiness {
    /// Readiness of a process started at `started`; `draining` becomes true before it shuts down.
    #[must_use]
    pub fn new(reader: SnapshotReader, started: Instant, draining: watch::Receiver<bool>) -> Self {
        Self {
            reader,
            leading: Leading::alone(),
            started,
            draining,
        }
    }

    /// Takes leader election into account.
    #[must_use]
    pub fn with_leadership(self, leading: Leading) -> Self {
        Self { leading, ..self }
    }

    /// Checks readiness at `now`.
    ///
    /// # Errors
    /// Why the process is not ready.
    pub fn check(&self, now: Instant) -> Result<(), NotReady> {
        if *self.draining.borrow() {
            return Err(NotReady::Draining);
        }
        let waited = now.saturating_duration_since(self.started);
        let latest = self.reader.latest();
        let leads = self.leading.own.current_term(latest.term, now).is_some();
        let knows = latest.is_swept() && !latest.targets.hpas_unlisted;
        let forwards = self.leading.others.borrow().is_some();
        if waited >= READY_AFTER || (leads && knows) || forwards {
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
    use crate::telemetry::log_buffer::LogBuffer;
    use crate::worker_threads::WorkerThreads;

    #[test]
    fn threads_that_hang_are_logged_once_and_so_is_their_recovery() {
        let begin = Instant::now();
        let beat =
            |seconds| Heartbeat::with_last_beat("answers", begin + Duration::from_secs(seconds));
        let mut liveness = Liveness::new(vec![beat(0)]);
        let log = LogBuffer::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || to.clone());
        let levels = |beats: u64, at: &[u64], liveness: &mut Liveness| {
            let seen = log.text().lines().count();
            liveness.threads = vec![beat(beats)];
            for seconds in at {
                let _ = liveness.check(begin + Duration::from_secs(*seconds));
            }
            let levels = log.text();
            let levels = levels.lines().skip(seen);
            Vec::from_iter(levels.filter_map(|line| {
                let level = ["ERROR", "INFO"]
                    .into_iter()
                    .find(|level| line.contains(level));
                level.filter(|_| line.contains("/livez"))
            }))
        };
        tracing::subscriber::with_default(subscriber.with_ansi(false).finish(), || {
            assert!(levels(0, &[1, 29], &mut liveness).is_empty());
            assert_eq!(levels(0, &[31, 40, 99], &mut liveness), ["ERROR"]);
            assert_eq!(levels(100, &[101, 110], &mut liveness), ["INFO"]);
            assert_eq!(levels(100, &[200], &mut liveness), ["ERROR"]);
        });
    }

    #[tokio::test]
    async fn alive_while_all_threads_run_tasks() {
        let threads = WorkerThreads::start("answers", 1).unwrap();
        let liveness = Liveness::new(vec![threads.heartbeat("answers")]);
        let begin = Instant::now();
        assert_eq!(liveness.check(begin), Ok(()));
        let hung = liveness.check(begin + Duration::from_secs(90)).unwrap_err();
        let message = hung.to_string();
        let begins = "the threads for answers have run nothing for 1m ";
        assert!(message.starts_with(begins), "{message}");
        assert_eq!(Liveness::default().check(begin), Ok(()));
    }

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
        let unlisted = Targets::clone(&swept.targets).with_hpas_unlisted();
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
