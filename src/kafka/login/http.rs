//! HTTP as token endpoints need it: one short exchange, bounded in time and size, and reasons that
//! show no secret.

use std::time::Duration;

use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url, redirect};
use serde_json::Value;

/// Connecting takes no longer than this.
const CONNECT: Duration = Duration::from_secs(3);
/// Nor a whole exchange than this.
pub(super) const EXCHANGE: Duration = Duration::from_secs(8);
/// Answers are small.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What of an endpoint's own words is repeated.
const WORDS_MAX: usize = 200;

/// Whom to trust, and which way to go.
pub(super) enum Trust<'a> {
    /// The system's roots, and these certificates (PEM).
    SystemAnd(Option<&'a [u8]>),
    /// Nobody: plain HTTP to this machine's own metadata server, past every proxy.
    Local,
}

/// A client for one source.
pub(super) fn client(trust: &Trust<'_>) -> Result<Client, String> {
    let builder = Client::builder()
        .connect_timeout(CONNECT)
        .timeout(EXCHANGE)
        // A secret goes where the configuration says and nowhere else.
        .redirect(redirect::Policy::none())
        // Once in a few minutes, so that a kept connection would be a dead one.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")));
    let builder = match trust {
        Trust::Local => builder.tls_certs_only([]).no_proxy(),
        Trust::SystemAnd(None) => builder,
        Trust::SystemAnd(Some(pem)) => {
            let found = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if found.is_empty() {
                return Err("no certificate in PEM form in its CA file".into());
            }
            builder.tls_certs_merge(found)
        }
    };
    builder
        .build()
        .map_err(|error| format!("the HTTP client: {}", chain(&error)))
}

/// An endpoint's answer, whatever its status.
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Sends the request and reads the whole answer.
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
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("its answer is longer than {BODY_BYTES_MAX} bytes"));
        }
    }
    Ok(HttpAnswer {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}

/// A URL without what may be a secret in it.
pub(super) fn redact_url(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "a URL that cannot be read".into();
    };
    // Fails for URLs that have no such parts.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The JSON of a successful answer; else what the endpoint says is wrong (RFC 6749, section 5.2).
pub(super) fn json(answer: &HttpAnswer, secrets: &[&str]) -> Result<Value, String> {
    let parsed = serde_json::from_slice::<Value>(&answer.body).ok();
    if answer.status.is_success() {
        return parsed.ok_or_else(|| "its answer is no JSON".into());
    }
    let text = |key: &str| parsed.as_ref()?.get(key)?.as_str();
    let words: Vec<_> = [text("error"), text("error_description")]
        .into_iter()
        .flatten()
        .map(|words| plain(words, secrets))
        .filter(|words| !words.is_empty())
        .collect();
    let status = answer.status;
    Err(match words.as_slice() {
        [] => format!("it answered {status}"),
        words => format!("it answered {status}: {}", words.join(": ")),
    })
}

/// An endpoint's words without secrets it may echo, without what changes from one time to the next,
/// and of bounded length.
fn plain(words: &str, secrets: &[&str]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        words = words.replace(secret, "[redacted]");
    }
    // Entra's descriptions end in identifiers of the request and the time.
    let end = words.find("Trace ID:").unwrap_or(words.len());
    let words = words.get(..end).unwrap_or_default();
    let spaced: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WORDS_MAX)
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why there was no answer. The URL, which may hold a secret, is left out.
fn describe_error(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    // The library's own sentence names the URL; its causes say more.
    match std::error::Error::source(error) {
        Some(cause) => chain(cause),
        None => "the exchange failed".into(),
    }
}

/// An error with its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    plain(&words, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_and_without_secrets() {
        let long = "x".repeat(1000);
        for (given, plain_words) in [
            ("bad hunter2", "bad [redacted]"),
            ("a\r\n\u{1b}[31m  b", "a [31m b"),
            ("AADSTS7000215: no. Trace ID: 1", "AADSTS7000215: no."),
            (&long, &"x".repeat(WORDS_MAX)),
        ] {
            assert_eq!(plain(given, &["hunter2", ""]), plain_words);
        }
    }

    #[test]
    fn urls_lose_what_may_be_secret() {
        assert_eq!(redact_url("https://a:b@h/p?q=r#s"), "https://h/p");
        assert_eq!(redact_url("no url"), "a URL that cannot be read");
    }
}
