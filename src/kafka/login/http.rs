//! HTTP client for token endpoints: one short exchange, bounded in time and size, with errors that
//! show no secrets.

use std::time::Duration;

use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url, redirect};
use serde_json::Value;

/// Timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout for a whole exchange.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(8);
/// Maximum size of a response.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Maximum length of an endpoint's message that is repeated in errors, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// Which certificates to trust, and how to reach the endpoint.
pub(super) enum Trust<'a> {
    /// The system's roots plus these certificates (PEM).
    SystemAnd(Option<&'a [u8]>),
    /// None: plain HTTP to this machine's metadata server, bypassing any proxy.
    Local,
}

/// Builds a client for one source.
pub(super) fn client(trust: &Trust<'_>) -> Result<Client, String> {
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXCHANGE_TIMEOUT)
        // Never send a secret to another place than configured.
        .redirect(redirect::Policy::none())
        // Requests are minutes apart, so a pooled connection would be dead.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")));
    let builder = match trust {
        Trust::Local => builder.tls_certs_only([]).no_proxy(),
        Trust::SystemAnd(None) => builder,
        Trust::SystemAnd(Some(pem)) => {
            let found = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if found.is_empty() {
                return Err("the CA file contains no PEM certificate".into());
            }
            builder.tls_certs_merge(found)
        }
    };
    builder
        .build()
        .map_err(|error| format!("cannot create an HTTP client: {}", error_chain(&error)))
}

/// A response with any status.
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Sends the request and reads the whole response.
pub(super) async fn send(request: RequestBuilder) -> Result<HttpAnswer, String> {
    let mut response = request
        .send()
        .await
        .map_err(|error| describe_error(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| describe_error(&error))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY_BYTES {
            return Err(format!(
                "the response is longer than {MAX_BODY_BYTES} bytes"
            ));
        }
    }
    Ok(HttpAnswer {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}

/// A URL without user info, query and fragment, which may be secret.
pub(super) fn redact_url(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "an invalid URL".into();
    };
    // Fails only for URLs without these parts.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The JSON of a successful response; otherwise an error with the endpoint's explanation (RFC 6749,
/// section 5.2). `secrets` are removed from it.
pub(super) fn json(answer: &HttpAnswer, secrets: &[&str]) -> Result<Value, String> {
    let parsed = serde_json::from_slice::<Value>(&answer.body).ok();
    if answer.status.is_success() {
        return parsed.ok_or_else(|| "the response is not JSON".into());
    }
    let text = |key: &str| parsed.as_ref()?.get(key)?.as_str();
    let words: Vec<_> = [text("error"), text("error_description")]
        .into_iter()
        .flatten()
        .map(|words| sanitize(words, secrets))
        .filter(|words| !words.is_empty())
        .collect();
    let status = answer.status;
    Err(match words.as_slice() {
        [] => format!("HTTP status {status}"),
        words => format!("HTTP status {status}: {}", words.join(": ")),
    })
}

/// An endpoint's message without secrets, without parts that change every time, and of bounded
/// length.
fn sanitize(words: &str, secrets: &[&str]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        words = words.replace(secret, "[redacted]");
    }
    // Entra's descriptions end with a request ID and a timestamp.
    let end = words.find("Trace ID:").unwrap_or(words.len());
    let words = words.get(..end).unwrap_or_default();
    let spaced: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS)
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Describes a failed exchange without its URL, which may hold a secret.
fn describe_error(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    // The outermost error names the URL; its causes say more.
    match std::error::Error::source(error) {
        Some(cause) => error_chain(cause),
        None => "the request failed".into(),
    }
}

/// An error and its causes, without repetitions.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    sanitize(&words, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_are_short_and_without_secrets() {
        let long = "x".repeat(1000);
        for (given, plain_words) in [
            ("bad hunter2", "bad [redacted]"),
            ("a\r\n\u{1b}[31m  b", "a [31m b"),
            ("AADSTS7000215: no. Trace ID: 1", "AADSTS7000215: no."),
            (&long, &"x".repeat(MAX_MESSAGE_CHARS)),
        ] {
            assert_eq!(sanitize(given, &["hunter2", ""]), plain_words);
        }
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(redact_url("https://a:b@h/p?q=r#s"), "https://h/p");
        assert_eq!(redact_url("no url"), "an invalid URL");
    }
}
