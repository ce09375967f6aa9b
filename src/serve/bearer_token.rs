//! The bearer token that this daemon presents to other servers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::time::Instant;

use crate::authentication::Credential;

/// How long a token read from a file is used before the file is read again, long before its token expires.
const TOKEN_MAX_AGE: Duration = Duration::from_secs(10);

/// The token of a credential, if it has one.
#[derive(Debug)]
pub(super) struct BearerToken {
    credential: Credential,
    last_read: Mutex<Option<(Instant, HeaderValue)>>,
}

impl BearerToken {
    pub(super) fn new(credential: Credential) -> Self {
        Self {
            credential,
            last_read: Mutex::new(None),
        }
    }

    /// The `Authorization` header. A token file is read again every few seconds.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut known = self
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((read, token)) = &*known
            && read.elapsed() < TOKEN_MAX_AGE
        {
            return Some(token.clone());
        }
        let text = match &self.credential {
            Credential::Token(token) => token.clone(),
            Credential::TokenFile(file) => std::fs::read_to_string(file).ok()?,
            Credential::None | Credential::Certificate { .. } => return None,
        };
        let mut token = HeaderValue::try_from(format!("Bearer {}", text.trim())).ok()?;
        token.set_sensitive(true);
        *known = Some((Instant::now(), token.clone()));
        Some(token)
    }
}
