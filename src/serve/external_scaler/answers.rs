//! Answers requests about triggers, from the snapshot of the leader.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tonic::Status;

use super::{forwarded, status};
use crate::leader_election::Leading;
use crate::model::keda::external_answer::{ExternalAnswer, NoAnswer};
use crate::model::keda::external_trigger::ExternalTrigger;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::Moment;
use crate::serve::api_error::ApiFailure;
use crate::serve::first_read::WaitingPermits;
use crate::serve::forward::Forwarder;
use crate::serve::leader_router::{LeaderRouter, Routed, SnapshotRequest};
use crate::snapshot_channel::SnapshotReader;

/// How long a request about a new trigger waits until the poller has added the trigger and read its group.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of requests that wait for that; one namespace may have half of them.
const MAX_WAITING: usize = 512;

/// Maximum size of the leader's response.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Answers KEDA's requests about triggers, or forwards them to the leader.
#[derive(Debug)]
pub struct TriggerAnswers {
    pub(super) router: LeaderRouter,
    /// Receives the requested triggers while this daemon leads.
    requested: mpsc::Sender<Arc<ExternalTrigger>>,
    waiting: WaitingPermits,
}

/// The answer to a request about a trigger.
#[derive(Debug)]
pub(super) struct TriggerAnswer {
    pub(super) result: Result<ExternalAnswer, Status>,
    /// Whether this daemon answered as the leader, instead of forwarding the request.
    pub(super) is_leader: bool,
}

impl TriggerAnswers {
    /// Answers from the snapshots of `reader` while this daemon leads. Sending to `requested` never blocks.
    #[must_use]
    pub fn new(
        reader: SnapshotReader,
        leading: Leading,
        forwarder: Option<Arc<Forwarder>>,
        requested: mpsc::Sender<Arc<ExternalTrigger>>,
    ) -> Self {
        Self {
            router: LeaderRouter {
                reader,
                leading,
                forwarder,
            },
            requested,
            waiting: WaitingPermits::new(MAX_WAITING),
        }
    }

    /// Answers a request of KEDA about a trigger, from this daemon's snapshot or by the leader.
    pub(super) async fn answer(&self, trigger: &Arc<ExternalTrigger>) -> TriggerAnswer {
        match self.route(trigger, false).await {
            Routed::Answered(answer) => TriggerAnswer {
                result: answer.map_err(|failure| status::from_failure(&failure)),
                is_leader: true,
            },
            Routed::Forwarded(response) => TriggerAnswer {
                result: read_response(response).await,
                is_leader: false,
            },
            Routed::Unanswered(why) => TriggerAnswer {
                result: Err(Status::unavailable(why.to_string())),
                is_leader: false,
            },
        }
    }

    /// Routes a request about a trigger, which another replica may have forwarded.
    pub(super) async fn route(
        &self,
        trigger: &Arc<ExternalTrigger>,
        is_forwarded: bool,
    ) -> Routed<ExternalAnswer> {
        let request = TriggerRequest {
            answers: self,
            trigger,
            is_forwarded,
        };
        self.router.route(&request).await
    }

    /// Waits until the trigger is added and its group is read.
    async fn first_read(
        &self,
        trigger: &Arc<ExternalTrigger>,
        is_forwarded: bool,
    ) -> Result<ExternalAnswer, ApiFailure> {
        let namespace = &trigger.hpa.namespace;
        let permit = self.waiting.try_acquire(namespace, is_forwarded);
        let _permit = permit.ok_or_else(too_many_new)?;
        let deadline = tokio::time::Instant::now() + FIRST_READ_TIMEOUT;
        let mut reader = self.router.reader.clone();
        loop {
            // The latest snapshot may be newer than the one of the request.
            let latest = reader.latest();
            let why = match trigger.answer(latest.at(&Moment::now())) {
                Ok(answer) => return Ok(answer),
                Err(why) if is_pending(&why) => why,
                Err(why) => return Err(why.into()),
            };
            let Ok(true) = timeout_at(deadline, reader.changed()).await else {
                return Err(why.into());
            };
        }
    }
}

/// Whether the answer only waits for the group to be read.
fn is_pending(why: &NoAnswer) -> bool {
    matches!(
        why,
        NoAnswer::NotYetAdded | NoAnswer::NoValue(NoValueReason::NotYetRead(_))
    )
}

fn too_many_new() -> ApiFailure {
    ApiFailure::unavailable(
        "too many new triggers at once; lagwise reads this one when KEDA asks for it again",
    )
}

struct TriggerRequest<'a> {
    answers: &'a TriggerAnswers,
    trigger: &'a Arc<ExternalTrigger>,
    is_forwarded: bool,
}

impl SnapshotRequest for TriggerRequest<'_> {
    type Answer = ExternalAnswer;

    async fn answer(
        &self,
        snapshot: &LagSnapshot,
        now: &Moment,
    ) -> Result<ExternalAnswer, ApiFailure> {
        let answered = self.trigger.answer(snapshot.at(now));
        let requested = &self.answers.requested;
        // Known triggers leave half of the channel to new ones. A known trigger that is not sent now is sent with its
        // next request, long before it expires.
        let has_room = matches!(answered, Err(NoAnswer::NotYetAdded))
            || requested.capacity() > requested.max_capacity() / 2;
        let is_sent = has_room && requested.try_send(Arc::clone(self.trigger)).is_ok();
        match answered {
            Err(NoAnswer::NotYetAdded) if !is_sent => Err(too_many_new()),
            // Boxed, because this future is large and rarely needed.
            Err(why) if is_pending(&why) => {
                let read = self.answers.first_read(self.trigger, self.is_forwarded);
                Box::pin(read).await
            }
            answered => answered.map_err(Into::into),
        }
    }

    fn path_at_leader(&self) -> Option<Cow<'_, str>> {
        (!self.is_forwarded).then(|| forwarded::path(self.trigger).into())
    }
}

impl From<NoAnswer> for ApiFailure {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::NotYetAdded => ApiFailure::unavailable(why.to_string()),
            NoAnswer::OtherHpa { .. } => ApiFailure::bad_request(why.to_string()),
            NoAnswer::NoValue(reason) => reason.into(),
        }
    }
}

/// Parses the leader's response.
async fn read_response(response: Response) -> Result<ExternalAnswer, Status> {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }
    let code = response.status();
    let malformed = || Status::unavailable("malformed response from the lagwise leader");
    let body = to_bytes(response.into_body(), MAX_RESPONSE_BYTES).await;
    let body = body.map_err(|_| malformed())?;
    if code == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|_| malformed());
    }
    let failure: Failure = serde_json::from_slice(&body).map_err(|_| malformed())?;
    Err(status::from_response(code, &failure.message))
}
