//! Errors of the API as gRPC statuses.

use axum::http::StatusCode;
use tonic::{Code, Status};

use crate::model::units::untrusted_text::Printable;
use crate::serve::api_error::ApiFailure;

/// The status for an error of the API.
pub(super) fn from_failure(failure: &ApiFailure) -> Status {
    from_response(failure.code(), failure.message())
}

/// The status for an error of the API with this HTTP status and message.
pub(super) fn from_response(code: StatusCode, message: &str) -> Status {
    let code = match code {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, Printable::message(message).to_string())
}

/// The name of a code, for metric labels.
pub(super) fn label(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission_denied",
        Code::NotFound => "not_found",
        Code::ResourceExhausted | Code::OutOfRange => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "unimplemented",
        Code::DeadlineExceeded => "deadline_exceeded",
        _ => "other",
    }
}
