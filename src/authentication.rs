//! The port through which `serve` asks the Kubernetes cluster who somebody is and what they may
//! do, and by what this daemon is known to it. `k8s` answers it.

pub mod access;

use std::fmt::{self, Debug};
use std::path::PathBuf;

use futures::future::BoxFuture;

use crate::authentication::access::{Action, Caller};

/// Whom to ask about callers.
pub trait Authenticator: Debug + Send + Sync + 'static {
    /// Whose token this is; `None` where it is nobody's.
    fn who(&self, token: String) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>>;

    /// Whether the caller may do this.
    fn may(&self, caller: Caller, action: Action) -> BoxFuture<'static, Result<bool, ReviewError>>;

    /// The user name by which the cluster knows this daemon itself.
    fn own_name(&self) -> BoxFuture<'static, Result<String, ReviewError>>;
}

/// By what the Kubernetes cluster knows this daemon: it shows it to other daemons of the installation.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing that can be shown.
    #[default]
    None,
    /// A bearer token.
    Token(String),
    /// A file with a bearer token that is replaced before it ends.
    TokenFile(PathBuf),
    /// A client certificate, followed by its issuers, and its key, both in PEM.
    Certificate {
        /// The certificates.
        chain_pem: String,
        /// The key.
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

/// Why it could not be found out. `Display` is constant text: it reaches the HPA's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// lagwise itself may not ask.
    #[error(
        "the Kubernetes API server does not let lagwise ask about access: bind the ClusterRole \
         system:auth-delegator to its service account"
    )]
    NoRight,
    /// The API server refused with this HTTP status code.
    #[error("the Kubernetes API server answers a question about access with status {0}")]
    Refused(u16),
    /// The API server did not answer, or not in time.
    #[error("the Kubernetes API server does not answer a question about access")]
    NoAnswer,
    /// Too many questions wait already.
    #[error("too many questions about access wait for the Kubernetes API server")]
    Busy,
}

impl ReviewError {
    /// What kind it is, for labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoRight => "no_right",
            Self::Refused(_) => "refused",
            Self::NoAnswer => "no_answer",
            Self::Busy => "busy",
        }
    }
}
