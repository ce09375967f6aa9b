//! Answers metric requests as the leader, or through it; and what other replicas forward.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};

use super::{ApiRequest, ExternalMetricsApi};
use crate::authentication::access::Caller;
use crate::model::evaluation::MetricValue;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;
use crate::serve::api_error::ApiFailure;
use crate::serve::external_scaler::forwarded;
use crate::serve::forward::{self, Role};
use crate::serve::history_handover;
use crate::serve::leader_router::{Routed, SnapshotRequest};
use crate::serve::route::Route;
use crate::serve::value_list;
use crate::telemetry::api::ValueServed;

struct MetricRequest<'a> {
    api: &'a ExternalMetricsApi,
    query: &'a MetricQuery<'a>,
    /// `None` if another replica has forwarded it.
    path_at_leader: Option<&'a str>,
}

impl SnapshotRequest for MetricRequest<'_> {
    type Answer = MetricValue;

    async fn answer(
        &self,
        snapshot: &LagSnapshot,
        now: &Moment,
    ) -> Result<MetricValue, ApiFailure> {
        let is_forwarded = self.path_at_leader.is_none();
        let value = self.api.value(self.query, is_forwarded, snapshot, now);
        let value = value.await?;
        ValueServed {
            age: now.since(&value.read),
        }
        .emit();
        Ok(value)
    }

    fn path_at_leader(&self) -> Option<Cow<'_, str>> {
        self.path_at_leader.map(Cow::Borrowed)
    }
}

impl ExternalMetricsApi {
    /// Whether another replica forwarded the request.
    pub(super) async fn is_forwarded(
        &self,
        caller: &Caller,
        request: &ApiRequest<'_>,
    ) -> Result<bool, ApiFailure> {
        let may_be = match &request.route {
            // Each replica sends requests to an upstream itself.
            Route::Metric { metric, .. } => Metric::from_name(metric).is_some(),
            route => route.is_for_replicas(),
        };
        if !may_be || !forward::is_forwarded(&request.parts.headers) {
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

    /// Answers a metric request from this daemon's snapshot or through the leader.
    pub(super) async fn metric(
        &self,
        query: &MetricQuery<'_>,
        request: &ApiRequest<'_>,
        is_forwarded: bool,
    ) -> Result<Response, ApiFailure> {
        let path = request.parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let metric_request = MetricRequest {
            api: self,
            query,
            path_at_leader: (!is_forwarded).then_some(path),
        };
        let routed = self.router.route(&metric_request).await;
        let routed = routed.and_then(|value| value_list::response(query, &value));
        respond(routed, is_forwarded)
    }

    /// Answers another replica's request about a trigger of KEDA.
    pub(super) async fn forwarded_trigger(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<Response, ApiFailure> {
        let triggers = self.triggers.as_ref().ok_or_else(super::no_such_path)?;
        let query = request.parts.uri.query().unwrap_or_default();
        respond(forwarded::answer(triggers, query).await, true)
    }

    /// Answers another replica with a part of the history.
    pub(super) async fn history_part(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<Response, ApiFailure> {
        let query = request.parts.uri.query().unwrap_or_default();
        let routed = history_handover::answer(&self.history, &self.router.leading, query).await;
        respond(routed, true)
    }
}

/// The response. To another replica it says whether the leader answered.
fn respond(routed: Routed<Response>, is_forwarded: bool) -> Result<Response, ApiFailure> {
    let (answered, role) = match routed {
        Routed::Answered(answered) => (answered, Role::Leader),
        Routed::Forwarded(response) => (Ok(response), Role::Follower),
        Routed::Unanswered(why) => (Err(why.into()), Role::Follower),
    };
    match is_forwarded {
        false => answered,
        true => {
            let response = answered.unwrap_or_else(ApiFailure::into_response);
            Ok(forward::mark_role(response, role))
        }
    }
}

#[cfg(test)]
mod tests;
