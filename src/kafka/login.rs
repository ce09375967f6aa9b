//! Logins by token (OAUTHBEARER), for both clients: where tokens come from, and the one that is valid
//! now.
//!
//! Each source is a file of this folder and knows one exchange: ask once, give a token or say why
//! not. [`Tokens`] repeats it before the token expires, and shares the outcome among all connections
//! of a cluster. Neither a token nor a secret is in any reason, log line or `Debug`.

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

pub use self::oidc::Oidc;
pub(super) use self::settings::PROPERTIES;
pub use self::settings::{TokenSettings, TokenSource};
pub use self::tokens::{NoToken, Tokens};

/// A token, with what goes beside it in a login.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    value: String,
    /// When brokers stop taking it.
    pub expires: SystemTime,
    /// Whom it names; for logs, brokers read it from the token themselves.
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
    /// Checks that the text is one that a login can carry (RFC 6750, section 2.1).
    fn new(value: String, expires: SystemTime, principal: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        if value.is_empty() {
            return Err("it gave an empty token".into());
        }
        if !value.chars().all(allowed) {
            return Err("what it gave is no token: it holds characters that no token may".into());
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

    /// The token itself: for the broker only, never for a log.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// How long it is valid from `now`; zero where it is not any more.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        self.expires.duration_since(now).unwrap_or_default()
    }
}

/// What one exchange gave.
#[derive(Debug)]
struct Fetched {
    token: Token,
    /// When to ask again, where the source has a rhythm of its own.
    again: Option<Duration>,
}

impl From<Token> for Fetched {
    fn from(token: Token) -> Self {
        Self { token, again: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_to_nobody() {
        let token = Token::new("aaa.bbb-_~+/=".into(), SystemTime::now(), "me".into()).unwrap();
        let shown = format!("{token:?}");
        assert!(shown.contains("me") && !shown.contains("aaa"), "{shown}");
        for bad in ["", "a b", "a\u{1}auth=x", "a\n", "ä"] {
            let refused = Token::new(bad.into(), SystemTime::now(), String::new());
            assert!(refused.is_err(), "{bad:?}");
        }
    }
}
