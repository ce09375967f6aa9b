//! Token logins (OAUTHBEARER) for both clients: where tokens come from, and the currently valid
//! one.
//!
//! Each source is a file of this folder and implements one exchange: one request that returns a token or an error.
//! [`TokenCache`] repeats it before the token expires and shares the token among all connections of a cluster. Errors,
//! log lines and `Debug` output never contain a token or a secret.

#[cfg(feature = "aws-msk-iam")]
mod aws;
mod azure;
mod file;
mod gcp;
mod http;
mod jwt;
mod oidc;
mod settings;
#[cfg(test)]
mod testing;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

pub use self::azure::describe_unset_variables as describe_unset_azure_variables;
pub use self::oidc::Oidc;
pub(super) use self::settings::PROPERTIES;
pub use self::settings::{TokenSettings, TokenSource};
pub use self::tokens::{TokenCache, TokenError};

/// A token and its SASL extensions.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    value: String,
    /// When the token expires.
    pub expires: SystemTime,
    /// The principal it names. For logs only: brokers read it from the token itself.
    pub principal: String,
    /// SASL extensions, such as Confluent Cloud's `logicalCluster`.
    pub extensions: BTreeMap<String, String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("principal", &self.principal)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// Checks that the text is a valid token for a login (RFC 6750, section 2.1).
    fn new(value: String, expires: SystemTime, principal: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        if value.is_empty() {
            return Err("returned an empty token".into());
        }
        if !value.chars().all(allowed) {
            return Err(
                "returned an invalid token: it contains characters that are not allowed in a token"
                    .into(),
            );
        }
        // librdkafka takes C strings.
        let principal = principal.replace('\0', "");
        Ok(Self {
            value,
            expires,
            principal: if principal.is_empty() {
                "unnamed".into()
            } else {
                principal
            },
            extensions: BTreeMap::new(),
        })
    }

    /// The token itself: for the broker only, never for logs.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Remaining validity at `now`; zero if expired.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.expires.duration_since(now).unwrap_or_default()
    }
}

/// Result of one exchange.
#[derive(Debug)]
struct FetchedToken {
    token: Token,
    /// When to fetch again, if the source sets an interval.
    refetch_after: Option<Duration>,
}

impl From<Token> for FetchedToken {
    fn from(token: Token) -> Self {
        Self {
            token,
            refetch_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new("aaa.bbb-_~+/=".into(), SystemTime::now(), "me".into()).unwrap();
        let shown = format!("{token:?}");
        assert!(shown.contains("me") && !shown.contains("aaa"), "{shown}");
        for bad in ["", "a b", "a\u{1}auth=x", "a\n", "ä"] {
            let refused = Token::new(bad.into(), SystemTime::now(), String::new());
            assert!(refused.is_err(), "{bad:?}");
        }
    }
}
