//! Errors and timeouts of requests to the Kubernetes API.

use std::time::Duration;

use kube::Error;

/// Why a request failed. The text stays the same while the cause does, so that it is logged once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Another writer changed the object since it was read, or this process no longer leads. Decide again from a new
    /// read.
    #[error("the object was changed in the meantime")]
    Changed,
    /// The object does not exist.
    #[error("{0}")]
    Gone(String),
    /// The API server refuses the request.
    #[error("{0}")]
    Refused(String),
    /// A right is missing (the text names the verb and the resource), or an admission policy or a quota forbids the
    /// request.
    #[error("{0}")]
    Forbidden(String),
    /// No response, or not in time; with the cause.
    #[error("the Kubernetes API server does not respond: {0}")]
    NoAnswer(String),
    /// The Kubernetes cluster does not have this kind.
    #[error("the cluster has no kind {kind} in {api_version}")]
    NoKind {
        /// The API group and version.
        api_version: String,
        kind: String,
    },
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) if status.code == 409 => ApiError::Changed,
            Error::Api(status) if status.code == 404 && !status.message.is_empty() => {
                ApiError::Gone(status.message.clone())
            }
            Error::Api(status) if status.code == 403 && !status.message.is_empty() => {
                ApiError::Forbidden(status.message.clone())
            }
            Error::Api(status) if status.message.is_empty() => ApiError::Refused(format!(
                "the API server responded with status {}",
                status.code
            )),
            Error::Api(status) => ApiError::Refused(status.message.clone()),
            // Without kube's "ServiceError: ".
            Error::Service(cause) => ApiError::NoAnswer(text_with_causes(&*cause)),
            error => ApiError::NoAnswer(text_with_causes(&error)),
        }
    }
}

impl ApiError {
    /// No response before the deadline. The text has no duration, since deadlines differ and the text must not.
    pub(super) fn timed_out() -> Self {
        ApiError::NoAnswer("no response in time".to_owned())
    }
}

/// The text of an error with every cause, since the outermost error of a failed connection does not say what failed.
/// Many errors contain the text of their cause, which is not repeated.
pub(super) fn text_with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// Sends a request with a timeout.
pub(super) async fn in_time<T>(
    timeout: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let answer = tokio::time::timeout(timeout, request).await;
    Ok(answer.map_err(|_| ApiError::timed_out())??)
}
