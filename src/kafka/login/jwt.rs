//! Reads claims of JSON Web Tokens without verifying them; brokers do that.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims used here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) expires: Option<SystemTime>,
    pub(super) subject: Option<String>,
}

/// Reads the claims; empty for an opaque token.
pub(super) fn claims(token: &str) -> Claims {
    let read = || -> Option<Value> {
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(claims.trim_end_matches('='))
            .ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let Some(claims) = read() else {
        return Claims::default();
    };
    let seconds = claims
        .get("exp")
        .and_then(|exp| exp.as_u64().or_else(|| whole(exp.as_f64()?)));
    Claims {
        expires: seconds.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s))),
        subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
    }
}

/// Seconds given as a fraction.
fn whole(seconds: f64) -> Option<u64> {
    let seconds = Duration::try_from_secs_f64(seconds).ok()?;
    Some(seconds.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn claims_are_optional() {
        let at = |s| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        let subject = Some("me".to_owned());
        for (text, expires, subject) in [
            (token(r#"{"exp": 12, "sub": "me"}"#), at(12), subject),
            (token(r#"{"exp": 12.7}"#), at(12), None),
            (token(r#"{"exp": -1}"#), None, None),
            (token(r#"{"exp": 1e300}"#), None, None),
            (token(r#"{"exp": "12"}"#), None, None),
            (token("no json"), None, None),
            ("opaque".into(), None, None),
            ("a.%%%.c".into(), None, None),
            ("..".into(), None, None),
        ] {
            assert_eq!(claims(&text), Claims { expires, subject }, "{text}");
        }
    }
}
