//! Client for the endpoint `/explain` of a running daemon.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cli::daemon_client::{DaemonArgs, UNEXPECTED_RESPONSE};
use crate::cli::kube_args::KubeArgs;
use crate::model::diagnostics::explain::Explanation;

/// Maximum size of a response.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
}

/// Gets an explanation from the daemon.
pub(in crate::cli) async fn fetch_explanation(
    daemon: &DaemonArgs,
    kube: &KubeArgs,
    query: &[(&str, String)],
    timeout: Duration,
) -> anyhow::Result<Explanation> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let path = format!("/explain?{query}");
    let response = daemon.get(&path, kube, MAX_RESPONSE_BYTES, timeout).await?;
    let (code, origin) = (response.code, &response.origin);
    if code.is_success() {
        return serde_json::from_slice(&response.body).with_context(|| {
            format!("cannot parse the response of {origin}; {UNEXPECTED_RESPONSE}")
        });
    }
    match serde_json::from_slice::<ErrorBody>(&response.body) {
        Ok(body) => bail!("{origin} answered {code}: {}", body.error),
        Err(_) => bail!("{origin} answered {code}; {UNEXPECTED_RESPONSE}"),
    }
}
