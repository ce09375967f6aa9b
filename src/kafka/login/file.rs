//! Tokens from a file that another process refreshes, such as a projected service account token.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{FetchedToken, Token, jwt};

/// How often the file is read. Refreshed tokens appear minutes before the old ones expire, but a
/// wrong token may be corrected at any time.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// Assumed lifetime of a token without expiry; the file is read again long before.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// Maximum size of the file, in case the path is a device or a log.
const MAX_FILE_BYTES: u64 = 256 * 1024;

pub(super) async fn fetch(path: &Path) -> Result<FetchedToken, String> {
    let text = read(path).await?;
    let about = |reason: String| format!("{}: {reason}", path.display());
    let claims = jwt::claims(&text);
    let expires = claims
        .expires
        .unwrap_or_else(|| SystemTime::now() + DEFAULT_LIFETIME);
    let subject = claims.subject.unwrap_or_default();
    Ok(FetchedToken {
        token: Token::new(text, expires, subject).map_err(about)?,
        refetch_after: Some(READ_INTERVAL),
    })
}

/// Reads the file, without surrounding whitespace.
pub(super) async fn read(path: &Path) -> Result<String, String> {
    let owned: PathBuf = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(&owned)?
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let path = path.display();
    match read.await {
        Ok(Ok(text)) if text.trim().is_empty() => Err(format!("{path}: the file is empty")),
        Ok(Ok(text)) => Ok(text.trim().to_owned()),
        Ok(Err(error)) => Err(format!("{path}: cannot be read: {error}")),
        Err(_) => Err(format!("{path}: the task that reads it was cancelled")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::login::testing::jwt;

    #[tokio::test]
    async fn a_token_file_yields_a_token_or_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let error = fetch(&file).await.unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
        for (text, reason) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("a b", "invalid token"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = fetch(&file).await.unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        std::fs::write(&file, format!("{}\n", jwt(600, "me"))).unwrap();
        let token = fetch(&file).await.unwrap().token;
        assert_eq!(token.principal, "me");
        assert!(token.remaining(SystemTime::now()) <= Duration::from_secs(600));
        std::fs::write(&file, "opaque").unwrap();
        let fetched = fetch(&file).await.unwrap();
        assert_eq!(fetched.token.value(), "opaque");
        assert_eq!(fetched.refetch_after, Some(READ_INTERVAL));
    }
}
