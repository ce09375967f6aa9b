//! Errors and timeouts of requests to the Kubernetes API.

use std::fmt;
use std::io;
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
    /// No response, not in time, or one that cannot be read; with the cause.
    #[error("no usable response from the Kubernetes API server: {0}")]
    NoAnswer(NoAnswerCause),
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
            Error::Service(cause) => ApiError::NoAnswer(NoAnswerCause {
                is_network: is_network_failure(&*cause),
                text: text_with_causes(&*cause),
            }),
            error => ApiError::no_answer(text_with_causes(&error)),
        }
    }
}

impl ApiError {
    /// No usable response, for another cause than the network.
    pub(super) fn no_answer(cause: impl Into<String>) -> Self {
        ApiError::NoAnswer(NoAnswerCause {
            is_network: false,
            text: cause.into(),
        })
    }

    /// No response before the deadline.
    pub(super) fn timed_out() -> Self {
        ApiError::NoAnswer(NoAnswerCause {
            is_network: true,
            text: "no response in time".to_owned(),
        })
    }
}

/// Why there was no response. All failures of the network are equal, so that an outage in which connections are
/// refused, cut and time out is logged once.
#[derive(Clone, Debug, Eq)]
pub struct NoAnswerCause {
    is_network: bool,
    text: String,
}

impl PartialEq for NoAnswerCause {
    fn eq(&self, other: &Self) -> bool {
        match (self.is_network, other.is_network) {
            (true, true) => true,
            (false, false) => self.text == other.text,
            _ => false,
        }
    }
}

/// Whether a request failed because of the connection, and not because of what came over it: rustls reports a wrong
/// certificate as invalid data.
fn is_network_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let is_invalid = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
    !causes.any(|cause| cause.downcast_ref().is_some_and(is_invalid))
}

impl fmt::Display for NoAnswerCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
