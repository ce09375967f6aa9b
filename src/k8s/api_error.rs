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
    /// No response, or not in time.
    #[error("the Kubernetes API server does not respond")]
    NoAnswer,
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
            _ => ApiError::NoAnswer,
        }
    }
}

/// Sends a request with a timeout.
pub(super) async fn in_time<T>(
    timeout: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let answer = tokio::time::timeout(timeout, request).await;
    Ok(answer.map_err(|_| ApiError::NoAnswer)??)
}
