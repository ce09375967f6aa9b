//! Paths of files in messages. A secret may have been written where a path belongs, so only what looks like a path is
//! shown.

use std::fmt;

/// Maximum length of a path that is shown, in characters.
const MAX_PATH_CHARS: usize = 255;

/// Minimum length of a part of a path with letters of both cases and digits that looks like a key or a token.
const MIN_RANDOM_CHARS: usize = 16;

/// Minimum length of a part of a path with hexadecimal digits only that looks like a key.
const MIN_HEX_CHARS: usize = 32;

/// Endings of file names by which a text without a folder at its beginning looks like a path.
const EXTENSIONS: [&str; 15] = [
    "cer", "conf", "config", "crt", "jks", "json", "key", "keytab", "p12", "pem", "pfx", "token",
    "txt", "yaml", "yml",
];

/// Whether a text looks like the path of a file, and like nothing secret.
#[must_use]
pub fn looks_like_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '~' | '@');
    let begins = ["/", "./", "../", "~/"].iter().any(|b| text.starts_with(b));
    let extension = text.rsplit_once('.').map_or("", |(_, extension)| extension);
    (begins || EXTENSIONS.contains(&extension))
        && text.chars().count() <= MAX_PATH_CHARS
        && text.chars().all(is_plain)
        && !text.split(['/', '.', '@']).any(looks_random)
}

fn looks_random(part: &str) -> bool {
    let has = |is: fn(&char) -> bool| part.chars().any(|c| is(&c));
    let is_mixed =
        has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) && has(char::is_ascii_digit);
    let is_hex = part.chars().all(|c| c.is_ascii_hexdigit());
    (part.len() >= MIN_RANDOM_CHARS && is_mixed) || (part.len() >= MIN_HEX_CHARS && is_hex)
}

/// Displays a path if it looks like one, otherwise only that it does not.
#[derive(Clone, Copy, Debug)]
pub struct ShownPath<'a>(pub &'a str);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match looks_like_path(self.0) {
            true => f.write_str(self.0),
            false => f.write_str("(a value that does not look like a path)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown() {
        for path in [
            "/etc/lagwise/kafka/tls.crt",
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "/var/lib/kubelet/pods/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x",
            "~/.kube/config",
            "./ca.pem",
            "../secrets/..data/password",
            "ca.pem",
            "certs/me@EXAMPLE.COM.keytab",
            "/run/user/1000/größe",
        ] {
            assert!(looks_like_path(path), "{path}");
            assert_eq!(ShownPath(path).to_string(), path);
        }
    }

    #[test]
    fn a_possible_secret_is_not_shown() {
        for secret in [
            "hunter2",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJsYWcifQ.c2lnbmF0dXJl",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJsYWcifQ.key",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "/wJalrXUtnFEMI/K7MDENG4bPxRfiCYEXAMPLEKEY",
            "/aGVsbG8+d29ybGQ=",
            "/d41d8cd98f00b204e9800998ecf8427e",
            "-----BEGIN PRIVATE KEY-----",
            "/etc/with a space",
            "/etc/line\nbreak",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "",
        ] {
            let shown = ShownPath(secret).to_string();
            assert_eq!(
                shown, "(a value that does not look like a path)",
                "{secret}"
            );
        }
        assert!(!looks_like_path(&format!("/{}", "x/".repeat(200))));
    }
}
