//! The bearer token that this daemon presents to other servers.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::time::Instant;

use crate::authentication::Credential;
use crate::telemetry::bearer_token::{TokenFileUnusable, TokenFileUsable};
use crate::telemetry::failure_log::FailureLog;

/// Time until a file is read again after it had a token, long before the token expires.
const MAX_TOKEN_AGE: Duration = Duration::from_secs(10);

/// Time until a file is read again that had no token, however many requests need it.
const MAX_UNUSABLE_AGE: Duration = Duration::from_secs(1);

/// The token of a credential, if it has one.
#[derive(Debug)]
pub(super) struct BearerToken {
    credential: Credential,
    last_read: Mutex<LastRead>,
}

#[derive(Debug, Default)]
struct LastRead {
    /// When the credential was read.
    at: Option<Instant>,
    token: Option<HeaderValue>,
    failures: FailureLog<String>,
}

impl BearerToken {
    pub(super) fn new(credential: Credential) -> Self {
        Self {
            credential,
            last_read: Mutex::default(),
        }
    }

    /// The `Authorization` header. A token file is read again every few seconds. While it holds no token, the former
    /// one is used.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut last = self.last_read();
        let max_age = match last.failures.failure() {
            Some(_) => MAX_UNUSABLE_AGE,
            None => MAX_TOKEN_AGE,
        };
        if last.at.is_some_and(|at| at.elapsed() < max_age) {
            return last.token.clone();
        }
        last.at = Some(Instant::now());
        match self.read() {
            Ok(token) => {
                last.token = token;
                let failed = last.failures.record_success().is_some();
                if let (true, Some(file)) = (failed, self.file()) {
                    TokenFileUsable { file }.emit();
                }
            }
            Err(reason) => {
                let has_former = last.token.is_some();
                let reason = last.failures.record_failure(reason);
                if let (Some(reason), Some(file)) = (reason, self.file()) {
                    TokenFileUnusable {
                        file,
                        reason,
                        has_former,
                    }
                    .emit();
                }
            }
        }
        last.token.clone()
    }

    /// Why the token file could not be used when it was last read; `None` if it could.
    pub(super) fn problem(&self) -> Option<String> {
        self.last_read().failures.failure().cloned()
    }

    fn last_read(&self) -> MutexGuard<'_, LastRead> {
        self.last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> Option<&Path> {
        match &self.credential {
            Credential::TokenFile(file) => Some(file),
            Credential::None | Credential::Token(_) | Credential::Certificate { .. } => None,
        }
    }

    /// The token; `None` for a credential without one. The error never has a part of the token.
    fn read(&self) -> Result<Option<HeaderValue>, String> {
        let text = match &self.credential {
            Credential::Token(token) => token.clone(),
            Credential::TokenFile(file) => {
                std::fs::read_to_string(file).map_err(|error| error.to_string())?
            }
            Credential::None | Credential::Certificate { .. } => return Ok(None),
        };
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let token = HeaderValue::try_from(format!("Bearer {text}"));
        let mut token = token.map_err(|_| "it has characters that no token has".to_owned())?;
        token.set_sensitive(true);
        Ok(Some(token))
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
        assert!(token.problem().unwrap().contains("No such file"));
        // It is not read again for each request.
        fs::write(&file, "early").unwrap();
        assert_eq!(token.header(), None);
        tokio::time::advance(MAX_UNUSABLE_AGE).await;
        assert_eq!(token.header().unwrap().to_str().unwrap(), "Bearer early");
        for (text, expected, problem) in [
            (Some("first"), "Bearer first", None),
            (Some("second\n"), "Bearer second", None),
            (Some(""), "Bearer second", Some("it is empty")),
            (Some("\n"), "Bearer second", Some("it is empty")),
            (
                Some("two\nlines"),
                "Bearer second",
                Some("it has characters"),
            ),
            (None, "Bearer second", Some("No such file")),
            (Some("third"), "Bearer third", None),
        ] {
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            tokio::time::advance(MAX_TOKEN_AGE).await;
            let header = token.header().unwrap();
            assert_eq!(header.to_str().unwrap(), expected, "{text:?}");
            match (token.problem(), problem) {
                (None, None) => {}
                (Some(found), Some(part)) => assert!(found.contains(part), "{text:?}: {found}"),
                found => panic!("{text:?}: {found:?}"),
            }
        }
    }
}
