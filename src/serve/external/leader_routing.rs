//! Routes metric requests: answered by this daemon while it leads, otherwise by the leader.

use std::time::Instant;

use axum::response::{IntoResponse, Response};

use super::{ApiRequest, ExternalMetricsApi};
use crate::authentication::access::Caller;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::newtypes::Moment;
use crate::serve::api_error::ApiFailure;
use crate::serve::forward::{self, HANDOVER_WAIT, LeaderUnavailable, ROUTING_TIMEOUT, Role};
use crate::serve::route::Route;
use crate::serve::value_list;
use crate::telemetry::api::ValueServed;

impl ExternalMetricsApi {
    /// Whether another replica forwarded the request.
    pub(super) async fn is_forwarded(
        &self,
        caller: &Caller,
        request: &ApiRequest<'_>,
    ) -> Result<bool, ApiFailure> {
        let is_metric = matches!(request.route, Route::Metric { .. });
        if !is_metric || !forward::is_forwarded(&request.parts.headers) {
            return Ok(false);
        }
        // If this cannot be checked, the request must fail instead of being forwarded: two replicas
        // could forward it to each other forever.
        let is_peer = self.admission.is_peer(caller).await;
        is_peer.map_err(|error| {
            ApiFailure::unavailable(format!(
                "cannot check whether the request comes from another lagwise replica: {error}"
            ))
        })
    }

    /// Answers a metric request from this daemon's snapshot or through the leader. During a change
    /// of leader it waits for a short time.
    pub(super) async fn metric(
        &self,
        query: &MetricQuery<'_>,
        request: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, ApiFailure> {
        match self.answer_as_leader(query, is_forwarded).await {
            Some(answer) => answer,
            // Rare and large: boxed to keep the common path small.
            None => Box::pin(self.answer_via_leader(query, request, is_forwarded)).await,
        }
    }

    /// Answers through the leader, or waits for this daemon to become ready to lead.
    async fn answer_via_leader(
        &self,
        query: &MetricQuery<'_>,
        request: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, ApiFailure> {
        let deadline = tokio::time::Instant::now() + ROUTING_TIMEOUT;
        // Subscribe before the first look, so that no change between look and wait is missed.
        let (mut leading, mut reader) = (self.leading.from_now_on(), self.reader.from_now_on());
        loop {
            if let Some(answer) = self.answer_as_leader(query, is_forwarded).await {
                return answer;
            }
            let why = match self.ask_leader(request, is_forwarded).await {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            let now = tokio::time::Instant::now();
            let until = match why {
                LeaderUnavailable::NoLeader | LeaderUnavailable::Starting => deadline,
                LeaderUnavailable::NotLeading | LeaderUnavailable::Unreachable => {
                    deadline.min(now + HANDOVER_WAIT)
                }
                // The leader used up its timeout; it may still lose its Lease, so look again.
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
                    true => Ok(forward::mark_role(failure.into_response(), Role::Follower)),
                    false => Err(failure),
                };
            }
        }
    }

    /// Whether this daemon leads at `now` in the same term in which the snapshot was made.
    fn leads_since(&self, snapshot: &LagSnapshot, now: Instant) -> bool {
        self.leading.own.current_term(snapshot.term, now).is_some()
    }

    /// Answers from this daemon's snapshot if it leads; `None` otherwise. For a forwarded request
    /// the response is marked.
    async fn answer_as_leader(
        &self,
        query: &MetricQuery<'_>,
        is_forwarded: bool,
    ) -> Option<Result<Response, ApiFailure>> {
        let snapshot = self.reader.latest();
        let now = Moment::now();
        if !self.leads_since(&snapshot, now.monotonic) {
            return None;
        }
        let value = self.value(query, &snapshot, &now).await;
        let answered = value.and_then(|answer| {
            ValueServed {
                age: now.since(&answer.read),
            }
            .emit();
            value_list::response(query, &answer)
        });
        // If the process was suspended meanwhile, another one may lead by now: check again after
        // evaluating.
        if !self.leads_since(&snapshot, Instant::now()) {
            return None;
        }
        Some(match answered {
            _ if !is_forwarded => answered,
            Ok(response) => Ok(forward::mark_role(response, Role::Leader)),
            Err(failure) => Ok(forward::mark_role(failure.into_response(), Role::Leader)),
        })
    }

    async fn ask_leader(
        &self,
        request: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, LeaderUnavailable> {
        if self.leading.own.term(Instant::now()).is_some() {
            return Err(LeaderUnavailable::Starting);
        }
        let leader = self.leading.others.borrow().clone();
        let (Some(leader), Some(forwarder)) = (leader, &self.forwarder) else {
            return Err(LeaderUnavailable::NoLeader);
        };
        if is_forwarded {
            return Err(LeaderUnavailable::NotLeading);
        }
        let path = request.parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        forwarder.forward(&leader, path).await
    }
}

#[cfg(test)]
mod tests;
