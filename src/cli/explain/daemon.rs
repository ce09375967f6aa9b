//! What a running daemon tells over its HTTP side.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::model::diagnostics::explain::Explanation;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct Refused {
    error: String,
}

/// Asks the daemon at `url` for what it knows.
pub(super) async fn ask(
    url: &str,
    query: &[(&str, String)],
    within: Duration,
) -> anyhow::Result<Explanation> {
    let asked = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let address = format!("{}/explain?{asked}", url.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(within).build()?;
    let answer = client.get(&address).send().await;
    let mut answer = answer.with_context(|| format!("the daemon at {url} does not answer"))?;
    let code = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            bail!("the daemon at {url} answers too much: is it lagwise's HTTP side?");
        }
    }
    if code.is_success() {
        return serde_json::from_slice(&body).with_context(|| {
            format!("the answer of {url} is not lagwise's: is it its HTTP side?")
        });
    }
    match serde_json::from_slice::<Refused>(&body) {
        Ok(refused) => bail!("the daemon at {url}: {}", refused.error),
        Err(_) => bail!(
            "the daemon at {url} answers {code}: is it lagwise's HTTP side, and as new as this?"
        ),
    }
}
