//! Errors of the external metrics API: a Kubernetes `Status` object with the matching HTTP status.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::untrusted_text::Printable;

/// An error response. Its message appears in the HPA's conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiFailure {
    code: StatusCode,
    reason: &'static str,
    message: Cow<'static, str>,
}

impl ApiFailure {
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn not_allowed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn not_acceptable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(super) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    pub(super) fn too_many(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    pub(super) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    pub(super) fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(super) fn code(&self) -> StatusCode {
        self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn new(code: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }
}

impl From<NoValueReason> for ApiFailure {
    fn from(refusal: NoValueReason) -> Self {
        let message = refusal.to_string();
        match refusal {
            NoValueReason::UnknownMetric { .. }
            | NoValueReason::UnknownTarget { .. }
            | NoValueReason::UnknownCluster { .. }
            | NoValueReason::TopicMissing { .. }
            | NoValueReason::NothingSelected { .. }
            | NoValueReason::NothingMatches { .. }
            | NoValueReason::NoPartition { .. }
            | NoValueReason::NothingCommitted { .. } => ApiFailure::not_found(message),
            NoValueReason::NoGroup { .. }
            | NoValueReason::SelectorTooLarge(_)
            | NoValueReason::AmbiguousCluster { .. }
            | NoValueReason::NoLagPerReplica { .. }
            | NoValueReason::ConflictingTargets { .. } => ApiFailure::bad_request(message),
            NoValueReason::NamespaceNotWatched { .. } | NoValueReason::Denied(_) => {
                ApiFailure::forbidden(message)
            }
            NoValueReason::HpasUnlisted
            | NoValueReason::NotYetRead(_)
            | NoValueReason::NeverRan { .. }
            | NoValueReason::Unknown { .. }
            | NoValueReason::Stale { .. } => ApiFailure::unavailable(message),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

impl IntoResponse for ApiFailure {
    /// Never sets `Retry-After`: the HPA's client would block one of its few workers for that time.
    fn into_response(self) -> Response {
        // Many messages repeat parts of the request, which may be as long as the target of a request.
        let message = Printable::message(&self.message).to_string();
        let body = StatusBody {
            kind: "Status",
            api_version: "v1",
            metadata: serde_json::Map::new(),
            status: "Failure",
            message: &message,
            reason: self.reason,
            code: self.code.as_u16(),
        };
        let mut response = json(self.code, serde_json::to_vec(&body).unwrap_or_default());
        if self.code == StatusCode::METHOD_NOT_ALLOWED {
            let get = HeaderValue::from_static("GET");
            response.headers_mut().insert(header::ALLOW, get);
        }
        response
    }
}

/// A JSON response that must not be cached.
pub(super) fn json(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::denial_reason::DenialReason;
    use crate::model::targets::tenancy::TenancyError;

    #[tokio::test]
    async fn failure_is_a_kubernetes_status() {
        let response = ApiFailure::not_found("no such thing").into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no such thing", "reason": "NotFound", "code": 404,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn no_value_reasons_map_to_status_codes() {
        let text = String::new;
        for (refusal, code) in [
            (NoValueReason::UnknownMetric { metric: text() }, 404),
            (
                NoValueReason::UnknownTarget {
                    selector: text(),
                    namespace: text(),
                },
                404,
            ),
            (
                NoValueReason::UnknownCluster {
                    cluster: text(),
                    known: text(),
                },
                404,
            ),
            (
                NoValueReason::TopicMissing {
                    topic: "t".into(),
                    cluster: "c".into(),
                },
                404,
            ),
            (
                NoValueReason::NothingCommitted {
                    group: "g".into(),
                    cluster: "c".into(),
                },
                404,
            ),
            (
                NoValueReason::NothingSelected {
                    selector: text(),
                    group: "g".into(),
                },
                404,
            ),
            (NoValueReason::NoGroup { selector: text() }, 400),
            (NoValueReason::AmbiguousCluster { known: text() }, 400),
            (
                NoValueReason::ConflictingTargets {
                    hpas: text(),
                    namespace: text(),
                    selector: text(),
                },
                400,
            ),
            (
                NoValueReason::NamespaceNotWatched { namespace: text() },
                403,
            ),
            (
                NoValueReason::Denied(DenialReason::NotAllowed(TenancyError::Topics {
                    namespace: text(),
                    group: text(),
                })),
                403,
            ),
            (NoValueReason::HpasUnlisted, 503),
            (NoValueReason::NotYetRead(Vec::new()), 503),
            (
                NoValueReason::Unknown {
                    group: "g".into(),
                    cluster: "c".into(),
                    cause: text(),
                },
                503,
            ),
            (
                NoValueReason::Stale {
                    group: "g".into(),
                    cluster: "c".into(),
                    since: text(),
                    cause: text(),
                },
                503,
            ),
        ] {
            let shown = format!("{refusal:?}");
            assert_eq!(ApiFailure::from(refusal).code.as_u16(), code, "{shown}");
        }
    }
}
