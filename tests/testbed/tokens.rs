//! An issuer of OAUTHBEARER tokens for the test run, its public keys for brokers, and the tokens that it signs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

/// Audience that brokers expect in tokens.
pub(crate) const AUDIENCE: &str = "lag";

/// Signs tokens with its own key (ES256).
pub(crate) struct Issuer(KeyPair);

impl Issuer {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Writes the public key as a set of keys that brokers read (RFC 7517).
    pub(crate) fn write_keys(&self, file: &Path) -> Result<()> {
        // An uncompressed point: 4, x, y.
        let point = self.0.der_bytes();
        let (x, y) = point.get(1..).context("no point")?.split_at(32);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({
            "kty": "EC", "crv": "P-256", "kid": "test", "use": "sig", "alg": "ES256",
            "x": encode(x), "y": encode(y),
        });
        std::fs::write(file, json!({ "keys": [key] }).to_string())?;
        Ok(())
    }

    /// A token for a user of the brokers that expires in this number of seconds; a negative number gives an expired
    /// token.
    pub(crate) fn token(&self, user: &str, seconds: i64) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let now = i64::try_from(now.as_secs())?;
        let claims = json!({
            "sub": user, "aud": AUDIENCE, "iss": "https://issuer.test", "scope": "lag",
            "iat": now.min(now + seconds) - 60, "exp": now + seconds,
        });
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "test"});
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = raw(&self.0.sign(signed.as_bytes())?).context("no signature")?;
        Ok(format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}

/// Converts a signature from DER to the form in tokens, the two numbers one after the other.
fn raw(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let digits = number.iter().position(|byte| *byte != 0).unwrap_or(length);
        let number = number.get(digits..)?;
        raw.extend(std::iter::repeat_n(0, 32_usize.checked_sub(number.len())?));
        raw.extend_from_slice(number);
        rest = rest.get(2 + length..)?;
    }
    Some(raw)
}

/// How long a session lasts on listeners that end it.
pub(crate) const SESSION: Duration = Duration::from_secs(4);
