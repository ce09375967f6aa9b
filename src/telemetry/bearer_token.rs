//! Events of the bearer token that this daemon presents to other servers.

use std::path::Path;

/// The file with the token cannot be used.
#[derive(Debug)]
pub struct TokenFileUnusable<'a> {
    pub file: &'a Path,
    pub reason: &'a str,
    /// Whether there is a former token, which is still used.
    pub has_former: bool,
}

impl TokenFileUnusable<'_> {
    pub fn emit(&self) {
        let consequence = match self.has_former {
            true => "continuing with the former token",
            false => "there is no token",
        };
        tracing::warn!(
            file = %self.file.display(),
            reason = self.reason,
            "cannot use the file with a bearer token: {consequence}"
        );
    }
}

/// The file can be used again.
#[derive(Debug)]
pub struct TokenFileUsable<'a> {
    pub file: &'a Path,
}

impl TokenFileUsable<'_> {
    pub fn emit(&self) {
        tracing::info!(
            file = %self.file.display(),
            "the file with a bearer token can be used again"
        );
    }
}
