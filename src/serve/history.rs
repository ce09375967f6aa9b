//! Keeps the history of HPAs in memory. One task owns it, records a point at each step, and runs the queries of the
//! endpoints on it, so that no lock is needed and only the results are copied.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::blocking_work::do_blocking;
use crate::leader_election::Leadership;
use crate::model::diagnostics::hpa_history::recorder::HistoryRecorder;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;

/// Time between two points of the history.
pub const HISTORY_STEP: Duration = Duration::from_secs(15);

/// Maximum number of queued queries. The endpoints of further ones wait until there is room.
const MAX_QUEUED: usize = 16;

/// A query or change that the task runs on the history.
type HistoryJob = Box<dyn FnOnce(&mut HistoryRecorder) + Send>;

/// Handle of the task that owns the history. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HpaHistoryHandle(mpsc::Sender<HistoryJob>);

impl HpaHistoryHandle {
    /// A handle for a process without a history: every query returns `None`.
    #[must_use]
    pub fn none() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Runs a query on the history; `None` if the task has ended.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&HistoryRecorder) -> T + Send + 'static,
    ) -> Option<T> {
        self.change(move |recorder| query(recorder)).await
    }

    /// Changes the history; `None` if the task has ended.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut HistoryRecorder) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = oneshot::channel();
        let job: HistoryJob = Box::new(move |recorder| {
            // The endpoint may have timed out.
            let _ = sender.send(change(recorder));
        });
        self.0.send(job).await.ok()?;
        result.await.ok()
    }
}

/// Creates a history with a point at each `step`: its handle, and the task that records it.
pub fn history(
    reader: SnapshotReader,
    leadership: Leadership,
    step: Duration,
) -> (HpaHistoryHandle, impl Future<Output = ()>) {
    let (sender, jobs) = mpsc::channel(MAX_QUEUED);
    let recorder = HistoryRecorder::new(step);
    let recording = record(reader, leadership, step, recorder, jobs);
    (HpaHistoryHandle(sender), recording)
}

async fn record(
    reader: SnapshotReader,
    leadership: Leadership,
    step: Duration,
    mut recorder: HistoryRecorder,
    mut jobs: mpsc::Receiver<HistoryJob>,
) {
    let mut ticks = tokio::time::interval(step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let snapshot = reader.latest();
                let leads = leadership.current_term(snapshot.term, Instant::now()).is_some();
                if !leads {
                    recorder.pause();
                } else if snapshot.is_swept() && !snapshot.targets.hpas_unlisted {
                    let work = move |recorder: &mut HistoryRecorder| {
                        let now = Moment::now();
                        recorder.record(snapshot.at(&now), snapshot.all_findings(), snapshot.term);
                    };
                    recorder = run_blocking(recorder, work).await;
                }
            }
            Some(job) = jobs.recv() => recorder = run_blocking(recorder, job).await,
        }
    }
}

/// Runs `work` on a thread for blocking tasks and returns the recorder: with thousands of HPAs, both recording and
/// searching take longer than a task may block a thread of the runtime.
async fn run_blocking(
    mut recorder: HistoryRecorder,
    work: impl FnOnce(&mut HistoryRecorder) + Send + 'static,
) -> HistoryRecorder {
    do_blocking(move || {
        work(&mut recorder);
        recorder
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures;
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::lag::assembly::Scope;
    use crate::model::units::hpa_key::HpaKey;
    use crate::model::units::quantity::Milli;
    use crate::snapshot_channel;

    #[tokio::test]
    async fn records_while_it_leads_and_runs_queries() {
        let target = MetricTarget::AverageValue(Milli::from_units(10));
        let hpa = fixtures::hpa("billing", "group=g,topic=orders", target);
        let row = (0, Ok(Some(1)), Ok(8));
        let read = fixtures::read(Duration::ZERO, "g", "orders", &[row]);
        let snapshot = fixtures::evaluated(&[hpa], [read], Scope::Whole);
        let (_publisher, reader) = snapshot_channel::channel(snapshot);
        let step = Duration::from_millis(1);
        let (handle, recording) = history(reader, Leadership::alone(), step);
        let recording = tokio::spawn(recording);
        let key = HpaKey::new("shop", "billing");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let hpa = key.clone();
            let is_recorded = handle.query(move |recorder| recorder.history(&hpa).is_some());
            if is_recorded.await == Some(true) {
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "nothing was recorded"
            );
            tokio::task::yield_now().await;
        }
        recording.abort();
    }

    #[tokio::test]
    async fn a_slow_request_blocks_no_thread_of_the_runtime() {
        let (_publisher, reader) = snapshot_channel::channel(fixtures::snapshot());
        let (handle, recording) = history(reader, Leadership::alone(), HISTORY_STEP);
        let recording = tokio::spawn(recording);
        let (start, started) = oneshot::channel();
        let (finish, may_finish) = std::sync::mpsc::channel();
        let query = tokio::spawn(async move {
            let slow = move |_: &HistoryRecorder| {
                start.send(()).unwrap();
                may_finish.recv_timeout(Duration::from_secs(10)).is_ok()
            };
            handle.query(slow).await
        });
        // This test's runtime has one thread. If the query blocked it, the next lines would not run before its timeout.
        started.await.unwrap();
        finish.send(()).unwrap();
        assert_eq!(query.await.unwrap(), Some(true));
        recording.abort();
    }

    #[tokio::test]
    async fn a_query_without_a_history_returns_none() {
        let handle = HpaHistoryHandle::none();
        assert_eq!(handle.query(HistoryRecorder::bytes).await, None);
    }
}
