//! Routes a request for a metric to the leader: this daemon, or another one that it forwards to.

use std::time::Instant;

use axum::response::{IntoResponse, Response};

use super::{ApiRequest, ExternalMetricsApi};
use crate::authentication::access::Caller;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::newtypes::Moment;
use crate::serve::api_error::ApiFailure;
use crate::serve::forward::{self, HANDED_OVER_WITHIN, LED_WITHIN, LeaderUnavailable, Role};
use crate::serve::route::Route;
use crate::serve::value_list;
use crate::telemetry::api::ValueServed;

impl ExternalMetricsApi {
    /// Whether another daemon of this installation has forwarded the request.
    pub(super) async fn is_forwarded(
        &self,
        caller: &Caller,
        asked: &ApiRequest<'_>,
    ) -> Result<bool, ApiFailure> {
        let is_metric = matches!(asked.route, Route::Metric { .. });
        if !is_metric || !forward::is_forwarded(&asked.parts.headers) {
            return Ok(false);
        }
        // Without an answer the request is refused: two daemons might forward it to each other for ever.
        let is_peer = self.access.is_peer(caller).await;
        is_peer.map_err(|error| {
            ApiFailure::unavailable(format!(
                "whether another lagwise daemon asks cannot be checked: {error}"
            ))
        })
    }

    /// Answers a request for a metric, from this daemon's snapshot or the leader's. While the leadership
    /// changes hands it waits, for a bounded time.
    pub(super) async fn metric(
        &self,
        question: &MetricQuery<'_>,
        asked: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, ApiFailure> {
        match self.own(question, is_forwarded).await {
            Some(answer) => answer,
            // Rare and large: boxed, so that the futures of the other requests stay small.
            None => Box::pin(self.led(question, asked, is_forwarded)).await,
        }
    }

    /// As [`metric`](Self::metric), where this daemon does not lead or has just begun to.
    async fn led(
        &self,
        question: &MetricQuery<'_>,
        asked: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, ApiFailure> {
        let deadline = tokio::time::Instant::now() + LED_WITHIN;
        // Subscribe before looking again, so that no change is missed.
        let (mut leading, mut reader) = (self.leading.from_now_on(), self.reader.from_now_on());
        loop {
            if let Some(answer) = self.own(question, is_forwarded).await {
                return answer;
            }
            let why = match self.ask_leader(asked, is_forwarded).await {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            let now = tokio::time::Instant::now();
            let until = match why {
                LeaderUnavailable::NoLeader | LeaderUnavailable::Beginning => deadline,
                LeaderUnavailable::NotLeading | LeaderUnavailable::Unreachable => {
                    deadline.min(now + HANDED_OVER_WITHIN)
                }
                // The leader has used up its timeout; look again at once, for there may be a new one.
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
                let failure = ApiFailure::from(why);
                return match is_forwarded {
                    true => Ok(forward::mark(failure.into_response(), Role::Other)),
                    false => Err(failure),
                };
            }
        }
    }

    /// Whether this daemon leads at `now`, in the term in which the snapshot was made.
    fn decides(&self, snapshot: &LagSnapshot, now: Instant) -> bool {
        self.leading.own.holds(snapshot.term, now).is_some()
    }

    /// The answer of this daemon, marked where the request was forwarded to it; `None` where it does not
    /// lead.
    async fn own(
        &self,
        question: &MetricQuery<'_>,
        is_forwarded: bool,
    ) -> Option<Result<Response, ApiFailure>> {
        let snapshot = self.reader.latest();
        let now = Moment::now();
        if !self.decides(&snapshot, now.monotonic) {
            return None;
        }
        let value = self.value(question, &snapshot, &now).await;
        let answered = value.and_then(|answer| {
            ValueServed {
                age: now.since(&answer.read),
            }
            .emit();
            value_list::response(question, &answer)
        });
        // Another daemon may have become the leader while this process was paused.
        if !self.decides(&snapshot, Instant::now()) {
            return None;
        }
        Some(match answered {
            _ if !is_forwarded => answered,
            Ok(response) => Ok(forward::mark(response, Role::Leader)),
            Err(failure) => Ok(forward::mark(failure.into_response(), Role::Leader)),
        })
    }

    async fn ask_leader(
        &self,
        asked: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, LeaderUnavailable> {
        if self.leading.own.term(Instant::now()).is_some() {
            return Err(LeaderUnavailable::Beginning);
        }
        let leader = self.leading.others.borrow().clone();
        let (Some(leader), Some(forwarder)) = (leader, &self.forwarder) else {
            return Err(LeaderUnavailable::NoLeader);
        };
        if is_forwarded {
            return Err(LeaderUnavailable::NotLeading);
        }
        let path = asked.parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        forwarder.ask(&leader, path).await
    }
}

#[cfg(test)]
mod tests;
