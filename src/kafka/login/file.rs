//! Tokens from a file that something else keeps fresh, such as a projected service account token.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Fetched, Token, jwt};

/// How often the file is read. What renews it does so minutes before the old token expires, but a
/// token that was wrong is put right at any time.
const EVERY: Duration = Duration::from_secs(5);

/// How long a token is taken for valid that does not say; the file is read again long before.
const UNSAID: Duration = Duration::from_secs(3600);

/// Tokens are small; a device or a log in their place must not fill the memory.
const BYTES_MAX: u64 = 256 * 1024;

pub(super) async fn fetch(path: &Path) -> Result<Fetched, String> {
    let text = read(path).await?;
    let about = |reason: String| format!("{}: {reason}", path.display());
    let claims = jwt::claims(&text);
    let expires = claims.expires.unwrap_or_else(|| SystemTime::now() + UNSAID);
    let subject = claims.subject.unwrap_or_default();
    Ok(Fetched {
        token: Token::new(text, expires, subject).map_err(about)?,
        again: Some(EVERY),
    })
}

/// The text of the file, without the space around it.
pub(super) async fn read(path: &Path) -> Result<String, String> {
    let owned: PathBuf = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(&owned)?
            .take(BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let path = path.display();
    match read.await {
        Ok(Ok(text)) if text.trim().is_empty() => Err(format!("{path}: the file is empty")),
        Ok(Ok(text)) => Ok(text.trim().to_owned()),
        Ok(Err(error)) => Err(format!("{path}: cannot be read: {error}")),
        Err(_) => Err(format!("{path}: reading it ended")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::login::testing::jwt;

    #[tokio::test]
    async fn a_file_is_a_token_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let told = fetch(&file).await.unwrap_err();
        assert!(told.contains("cannot be read"), "{told}");
        for (text, reason) in [("", "is empty"), ("\n", "is empty"), ("a b", "no token")] {
            std::fs::write(&file, text).unwrap();
            let told = fetch(&file).await.unwrap_err();
            assert!(told.contains(reason), "{told}");
        }
        std::fs::write(&file, format!("{}\n", jwt(600, "me"))).unwrap();
        let token = fetch(&file).await.unwrap().token;
        assert_eq!(token.principal, "me");
        assert!(token.left(SystemTime::now()) <= Duration::from_secs(600));
        std::fs::write(&file, "opaque").unwrap();
        let fetched = fetch(&file).await.unwrap();
        assert_eq!(fetched.token.value(), "opaque");
        assert_eq!(fetched.again, Some(EVERY));
    }
}
