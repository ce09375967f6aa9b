//! Client for `/explain` of a running daemon.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::model::diagnostics::explain::Explanation;

/// Maximum size of a response.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
}

/// Gets an explanation from the daemon at `url`.
pub(super) async fn fetch(
    url: &str,
    query: &[(&str, String)],
    within: Duration,
) -> anyhow::Result<Explanation> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let address = format!("{}/explain?{query}", url.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(within).build()?;
    let response = client.get(&address).send().await;
    let mut response = response.with_context(|| format!("the daemon at {url} does not answer"))?;
    let code = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > RESPONSE_BYTES_MAX {
            bail!(
                "the response of {url} is longer than {RESPONSE_BYTES_MAX} bytes; check that it is the URL of lagwise's admin endpoints"
            );
        }
    }
    if code.is_success() {
        return serde_json::from_slice(&body).with_context(|| {
            format!(
                "cannot parse the response of {url}; check that it is the URL of lagwise's admin endpoints, and that the daemon has the version of this command"
            )
        });
    }
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => bail!("the daemon at {url}: {}", body.error),
        Err(_) => bail!(
            "{url} answered {code}; check that it is the URL of lagwise's admin endpoints, and that the daemon has the version of this command"
        ),
    }
}
