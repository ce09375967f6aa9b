//! Streams for triggers of type `external-push`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, unfold};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::StreamPermit;
use super::answers::TriggerAnswers;
use super::messages::{GetMetricSpecResponse, IsActiveResponse};
use crate::model::keda::external_trigger::ExternalTrigger;

/// Minimum time between two evaluations of one stream, so that a burst of changed HPAs does not make every stream
/// evaluate each change.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// Sends whether a trigger is active, now and at every change. Unknown lag changes nothing. The stream ends at
/// shutdown, and when this daemon no longer leads; KEDA then opens another one.
pub(super) struct ActivityStream {
    pub(super) answers: Arc<TriggerAnswers>,
    pub(super) trigger: Arc<ExternalTrigger>,
    pub(super) poll_interval: Duration,
    pub(super) closing: watch::Receiver<bool>,
    /// Activity that was sent last.
    pub(super) last: Option<bool>,
    /// Whether this daemon gave the last answer, as the leader.
    pub(super) was_leader: bool,
    pub(super) _permit: StreamPermit,
}

type Item = Result<IsActiveResponse, Status>;

impl ActivityStream {
    pub(super) fn into_stream(self) -> impl Stream<Item = Item> + Send {
        unfold(Some(self), async |stream: Option<Self>| {
            let mut stream = stream?;
            let mut closing = stream.closing.clone();
            let item = tokio::select! {
                biased;
                () = closed(&mut closing) => None,
                item = stream.next() => item,
            }?;
            // An error ends the stream.
            let rest = item.is_ok().then_some(stream);
            Some((item, rest))
        })
    }

    /// The next change; `None` at the end.
    async fn next(&mut self) -> Option<Item> {
        loop {
            // Before the evaluation, so that no change is missed.
            let mut snapshots = self.answers.router.reader.from_now_on();
            if self.last.is_some() {
                tokio::time::sleep(MIN_PAUSE).await;
                // A follower has no snapshots of its own.
                let changed = tokio::time::timeout(self.poll_interval, snapshots.changed());
                if let Ok(false) = changed.await {
                    return None;
                }
            }
            let answer = self.answers.answer(&self.trigger).await;
            if self.was_leader && !answer.is_leader {
                return None;
            }
            self.was_leader = answer.is_leader;
            match answer.result {
                Ok(answer) => {
                    let result = answer.is_active;
                    if self.last.replace(result) != Some(result) {
                        return Some(Ok(IsActiveResponse { result }));
                    }
                }
                Err(status) if status.code() == Code::Unavailable => {
                    if self.last.is_none() {
                        tokio::time::sleep(MIN_PAUSE).await;
                    }
                }
                Err(status) => return Some(Err(status)),
            }
        }
    }
}

/// Sends the metric of a trigger, which only changes with its metadata, and ends at shutdown.
pub(super) fn spec_stream(
    spec: GetMetricSpecResponse,
    closing: watch::Receiver<bool>,
    permit: StreamPermit,
) -> impl Stream<Item = Result<GetMetricSpecResponse, Status>> + Send {
    let state = (Some(spec), closing, permit);
    unfold(state, async |(spec, mut closing, permit)| match spec {
        Some(spec) => Some((Ok(spec), (None, closing, permit))),
        None => {
            closed(&mut closing).await;
            None
        }
    })
}

/// Waits for the shutdown.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the daemon is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}
