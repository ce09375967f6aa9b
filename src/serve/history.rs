//! Keeps the history of HPAs in memory: one task owns it, records a point at each step, and answers the questions of
//! the endpoints. Nothing is shared and nothing is copied but the answers.

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

/// Questions that wait at most; further ones wait at their endpoint.
const MAX_QUESTIONS: usize = 16;

type Question = Box<dyn FnOnce(&mut HistoryRecorder) + Send>;

/// Handle of the task that has the history. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HpaHistoryHandle(mpsc::Sender<Question>);

impl HpaHistoryHandle {
    /// For a process without a history: every question stays without an answer.
    #[must_use]
    pub fn none() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Runs a query on the history; `None` if the task has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&HistoryRecorder) -> T + Send + 'static,
    ) -> Option<T> {
        self.change(move |recorder| question(recorder)).await
    }

    /// Changes the history; `None` if the task has ended.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut HistoryRecorder) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |recorder| {
            // The endpoint may have timed out.
            let _ = answer.send(change(recorder));
        });
        self.0.send(question).await.ok()?;
        answered.await.ok()
    }
}

/// A history with a point at each `step`, and the task that records it.
pub fn history(
    reader: SnapshotReader,
    leadership: Leadership,
    step: Duration,
) -> (HpaHistoryHandle, impl Future<Output = ()>) {
    let (sender, questions) = mpsc::channel(MAX_QUESTIONS);
    let recorder = HistoryRecorder::new(step);
    let recording = record(reader, leadership, step, recorder, questions);
    (HpaHistoryHandle(sender), recording)
}

async fn record(
    reader: SnapshotReader,
    leadership: Leadership,
    step: Duration,
    mut recorder: HistoryRecorder,
    mut questions: mpsc::Receiver<Question>,
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
                    let Some(recorded) = work_on(recorder, work).await else {
                        return;
                    };
                    recorder = recorded;
                }
            }
            Some(question) = questions.recv() => {
                let Some(asked) = work_on(recorder, question).await else {
                    return;
                };
                recorder = asked;
            }
        }
    }
}

/// Works on the histories on a thread for blocking work: with thousands of HPAs, to record them and also to search
/// them takes longer than a task may keep a thread of the runtime. `None` if the runtime is shutting down.
async fn work_on(
    mut recorder: HistoryRecorder,
    work: impl FnOnce(&mut HistoryRecorder) + Send + 'static,
) -> Option<HistoryRecorder> {
    let worked = do_blocking(move || {
        work(&mut recorder);
        recorder
    });
    worked.await
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
    async fn records_while_it_leads_and_answers_questions() {
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
            let of = key.clone();
            let known = handle.ask(move |recorder| recorder.history(&of).is_some());
            if known.await == Some(true) {
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
        let (begins, begun) = oneshot::channel();
        let (end, ended) = std::sync::mpsc::channel();
        let asked = tokio::spawn(async move {
            let question = move |_: &HistoryRecorder| {
                begins.send(()).unwrap();
                ended.recv_timeout(Duration::from_secs(10)).is_ok()
            };
            handle.ask(question).await
        });
        // This test has one thread. If the question had it, the answer could not be allowed to end.
        begun.await.unwrap();
        end.send(()).unwrap();
        assert_eq!(asked.await.unwrap(), Some(true));
        recording.abort();
    }

    #[tokio::test]
    async fn without_a_history_there_is_no_answer() {
        let handle = HpaHistoryHandle::none();
        assert_eq!(handle.ask(HistoryRecorder::bytes).await, None);
    }
}
