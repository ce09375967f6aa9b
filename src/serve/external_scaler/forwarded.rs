//! What a follower asks the leader about a trigger: a `GET` of the API, as for metrics.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;

use super::answers::TriggerAnswers;
use crate::model::keda::external_trigger::ExternalTrigger;
use crate::serve::api_error::{ApiFailure, json};
use crate::serve::leader_router::Routed;
use crate::serve::route::TRIGGER_PATH;

const NAMESPACE: &str = "namespace";
const NAME: &str = "name";

/// Before the keys of metadata.
const METADATA: &str = "metadata.";

/// Path and query that ask for the answer about a trigger.
pub(super) fn path(trigger: &ExternalTrigger) -> String {
    let mut query = Serializer::new(format!("{TRIGGER_PATH}?"));
    query
        .append_pair(NAMESPACE, &trigger.hpa.namespace)
        .append_pair(NAME, &trigger.scaled_object);
    for (key, value) in trigger.metadata() {
        query.append_pair(&format!("{METADATA}{key}"), value);
    }
    query.finish()
}

/// Answers such a query.
pub(in crate::serve) async fn answer(answers: &TriggerAnswers, query: &str) -> Routed<Response> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let value = |name: &str| {
        let found = pairs.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value).unwrap_or_default()
    };
    let metadata = pairs.iter();
    let metadata =
        metadata.filter_map(|(key, value)| Some((key.strip_prefix(METADATA)?, &**value)));
    let trigger = match ExternalTrigger::parse(value(NAMESPACE), value(NAME), metadata) {
        Ok(trigger) => Arc::new(trigger),
        Err(error) => return Routed::Answered(Err(ApiFailure::bad_request(error.to_string()))),
    };
    answers.route(&trigger, true).await.and_then(|answer| {
        let body = serde_json::to_vec(&answer);
        let body = body.map_err(|error| ApiFailure::internal(error.to_string()))?;
        Ok(json(StatusCode::OK, body))
    })
}
