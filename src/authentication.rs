//! Interface by which `serve` has the Kubernetes cluster authenticate and authorize callers. Implemented by
//! `k8s::reviews`.

pub mod access;

use std::fmt::{self, Debug};
use std::path::PathBuf;

use futures::future::BoxFuture;

use crate::authentication::access::{Action, Caller};

/// Token and access reviews.
pub trait Authenticator: Debug + Send + Sync + 'static {
    /// Reviews a bearer token; `None` if the cluster rejects it.
    fn authenticate(
        &self,
        token: String,
    ) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>>;

    /// Whether the caller may perform the action.
    fn authorize(
        &self,
        caller: Caller,
        action: Action,
    ) -> BoxFuture<'static, Result<bool, ReviewError>>;

    /// This daemon's own user name in the cluster.
    fn self_subject(&self) -> BoxFuture<'static, Result<String, ReviewError>>;
}

/// This daemon's credential for the Kubernetes API, which it also presents to other replicas.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credential {
    /// None that can be presented to other replicas.
    #[default]
    None,
    Token(String),
    /// A file with a bearer token that is replaced before it expires.
    TokenFile(PathBuf),
    /// A client certificate chain and its key, both in PEM format.
    Certificate {
        chain_pem: String,
        key_pem: String,
    },
}

impl Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::TokenFile(_) => "TokenFile",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// Why a review failed. `Display` is constant text, because it appears in the HPA's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// lagwise lacks the permission to create reviews.
    #[error(
        "lagwise is not allowed to create token and access reviews: bind the ClusterRole \
         system:auth-delegator to its service account"
    )]
    NoRight,
    /// The API server answered with this HTTP status.
    #[error("the Kubernetes API server answered an access review with status {0}")]
    Refused(u16),
    /// The API server did not answer in time.
    #[error("the Kubernetes API server does not answer access reviews")]
    NoAnswer,
    /// Too many reviews are in progress.
    #[error("too many access reviews are waiting for the Kubernetes API server")]
    Busy,
    /// Callers without valid credentials need too many reviews.
    #[error("too many requests without valid credentials")]
    RateLimited,
    /// A caller with valid credentials needs too many reviews.
    #[error(
        "the caller sends too many different requests: each needs an access review by the Kubernetes API server"
    )]
    CallerRateLimited,
}

impl ReviewError {
    /// Kind of failure, for metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoRight => "no_right",
            Self::Refused(_) => "refused",
            Self::NoAnswer => "no_answer",
            Self::Busy => "busy",
            Self::RateLimited | Self::CallerRateLimited => "rate_limited",
        }
    }

    /// Whether there was no review because the caller sends too many requests.
    #[must_use]
    pub fn is_rate_limit(self) -> bool {
        matches!(self, Self::RateLimited | Self::CallerRateLimited)
    }
}
