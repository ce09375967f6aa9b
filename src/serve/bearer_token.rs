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

    /// The `Authorization` header. A token file is read again every few seconds. While it holds no token, the former one
    /// is used.
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
        match self.read() {
            Some(token) => {
                *known = Some((Instant::now(), token.clone()));
                Some(token)
            }
            None => known.as_ref().map(|(_, token)| token.clone()),
        }
    }

    fn read(&self) -> Option<HeaderValue> {
        let text = match &self.credential {
            Credential::Token(token) => token.clone(),
            Credential::TokenFile(file) => std::fs::read_to_string(file).ok()?,
            Credential::None | Credential::Certificate { .. } => return None,
        };
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let mut token = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        token.set_sensitive(true);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_without_a_token_leaves_the_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let token = BearerToken::new(Credential::TokenFile(file.clone()));
        assert_eq!(token.header(), None);
        for (text, expected) in [
            (Some("first"), "Bearer first"),
            (Some("second\n"), "Bearer second"),
            (Some(""), "Bearer second"),
            (Some("\n"), "Bearer second"),
            (Some("two\nlines"), "Bearer second"),
            (None, "Bearer second"),
            (Some("third"), "Bearer third"),
        ] {
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            tokio::time::advance(TOKEN_MAX_AGE).await;
            let header = token.header().unwrap();
            assert_eq!(header.to_str().unwrap(), expected, "{text:?}");
        }
    }
}
