//! Routes requests: answered by this daemon while it leads, otherwise by the leader.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;

use super::api_error::ApiFailure;
use super::forward::{Forwarder, HANDOVER_WAIT, LeaderUnavailable, ROUTING_TIMEOUT};
use crate::leader_election::Leading;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;

/// A request that is answered from a snapshot.
pub(super) trait SnapshotRequest: Sync {
    type Answer: Send;

    /// The answer from a snapshot of this daemon's own term.
    fn answer(
        &self,
        snapshot: &LagSnapshot,
        now: &Moment,
    ) -> impl Future<Output = Result<Self::Answer, ApiFailure>> + Send;

    /// Path and query of the same request to the leader; `None` if another replica has forwarded it already.
    fn path_at_leader(&self) -> Option<Cow<'_, str>>;
}

/// Who answered.
#[derive(Debug)]
pub(super) enum Routed<A> {
    /// This daemon, as the leader.
    Answered(Result<A, ApiFailure>),
    /// The leader.
    Forwarded(Response),
    /// No leader.
    Unanswered(LeaderUnavailable),
}

impl<A> Routed<A> {
    /// Converts an answer of this daemon with `make`. What the leader answered stays as it is.
    pub(super) fn and_then<B>(self, make: impl FnOnce(A) -> Result<B, ApiFailure>) -> Routed<B> {
        match self {
            Self::Answered(answer) => Routed::Answered(answer.and_then(make)),
            Self::Forwarded(response) => Routed::Forwarded(response),
            Self::Unanswered(why) => Routed::Unanswered(why),
        }
    }
}

/// Finds who answers a request.
#[derive(Clone, Debug)]
pub(super) struct LeaderRouter {
    pub(super) reader: SnapshotReader,
    /// Whether this daemon leads, and who else does.
    pub(super) leading: Leading,
    /// Forwards requests to the leader if that is another daemon; `None` without leader election.
    pub(super) forwarder: Option<Arc<Forwarder>>,
}

impl LeaderRouter {
    /// Answers from this daemon's snapshot or through the leader. During a change of leader it waits for a short time.
    pub(super) async fn route<R: SnapshotRequest>(&self, request: &R) -> Routed<R::Answer> {
        match self.answer_as_leader(request).await {
            Some(answer) => Routed::Answered(answer),
            // Rare and large: boxed to keep the common path small.
            None => Box::pin(self.answer_via_leader(request)).await,
        }
    }

    /// Answers through the leader, or waits for this daemon to become ready to lead.
    async fn answer_via_leader<R: SnapshotRequest>(&self, request: &R) -> Routed<R::Answer> {
        let deadline = tokio::time::Instant::now() + ROUTING_TIMEOUT;
        // Subscribe before the first read, so that no change between the read and the wait is missed.
        let (mut leading, mut reader) = (self.leading.from_now_on(), self.reader.from_now_on());
        loop {
            if let Some(answer) = self.answer_as_leader(request).await {
                return Routed::Answered(answer);
            }
            let why = match self.forward_to_leader(request.path_at_leader()).await {
                Ok(response) => return Routed::Forwarded(response),
                Err(why) => why,
            };
            let now = tokio::time::Instant::now();
            let until = match why {
                LeaderUnavailable::NoLeader | LeaderUnavailable::Starting => deadline,
                LeaderUnavailable::NotLeading | LeaderUnavailable::Unreachable => {
                    deadline.min(now + HANDOVER_WAIT)
                }
                // The leader used up its timeout; it may still lose its Lease, so check again.
                LeaderUnavailable::NoAnswer if now < deadline => continue,
                _ => now,
            };
            let changed = async {
                tokio::select! {
                    () = leading.changed() => {}
                    _ = reader.changed() => {}
                }
            };
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return Routed::Unanswered(why);
            }
        }
    }

    /// Whether this daemon leads at `now` in the same term in which the snapshot was made.
    fn leads_since(&self, snapshot: &LagSnapshot, now: Instant) -> bool {
        self.leading.own.current_term(snapshot.term, now).is_some()
    }

    /// Answers from this daemon's snapshot if it leads; `None` otherwise.
    async fn answer_as_leader<R: SnapshotRequest>(
        &self,
        request: &R,
    ) -> Option<Result<R::Answer, ApiFailure>> {
        let snapshot = self.reader.latest();
        let now = Moment::now();
        if !self.leads_since(&snapshot, now.monotonic) {
            return None;
        }
        let answered = request.answer(&snapshot, &now).await;
        // If the process was suspended, another one may lead now, so check again after evaluating.
        self.leads_since(&snapshot, Instant::now())
            .then_some(answered)
    }

    async fn forward_to_leader(
        &self,
        path: Option<Cow<'_, str>>,
    ) -> Result<Response, LeaderUnavailable> {
        if self.leading.own.term(Instant::now()).is_some() {
            return Err(LeaderUnavailable::Starting);
        }
        let leader = self.leading.others.borrow().clone();
        let (Some(leader), Some(forwarder)) = (leader, &self.forwarder) else {
            return Err(LeaderUnavailable::NoLeader);
        };
        let path = path.ok_or(LeaderUnavailable::NotLeading)?;
        forwarder.forward(&leader, &path).await
    }
}
