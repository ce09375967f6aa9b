//! What of a request counts: its method, its query, what it can read, and how large it is.

use std::borrow::Cow;

use axum::http::{HeaderMap, Method, header};

use super::api_error::ApiFailure;

/// The largest body that a request may announce. None is read: there is nothing to say in one.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// The query parameters that mean something here; `limit` and `continue` do not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) label_selector: Cow<'a, str>,
    pub(super) watch: bool,
}

impl<'a> Parameters<'a> {
    /// Reads a query as Kubernetes does: the first of several counts, and a flag that is there is
    /// true unless it says `0` or `false`.
    pub(super) fn of(query: Option<&'a str>) -> Self {
        let (mut label_selector, mut watch) = (None, None);
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "labelSelector" => {
                    label_selector.get_or_insert(value);
                }
                "watch" => {
                    watch.get_or_insert(value != "0" && !value.eq_ignore_ascii_case("false"));
                }
                _ => {}
            }
        }
        Self {
            label_selector: label_selector.unwrap_or_default(),
            watch: watch.unwrap_or(false),
        }
    }
}

pub(super) fn only_get(method: &Method) -> Result<(), ApiFailure> {
    if method == Method::GET {
        Ok(())
    } else {
        Err(ApiFailure::not_allowed("only GET is served here"))
    }
}

/// Refuses a body that is announced to be large. One of unknown length is not read either, and ends
/// the connection.
pub(super) fn small_enough(headers: &HeaderMap) -> Result<(), ApiFailure> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > MAX_BODY_BYTES => {
            Err(ApiFailure::too_large("a request needs no body here"))
        }
        _ => Ok(()),
    }
}

/// Refuses a client that can read no JSON. Protobuf, which clients of Kubernetes name first, is not
/// spoken here, and they name something else after it.
pub(super) fn takes_json(headers: &HeaderMap) -> Result<(), ApiFailure> {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .filter(|range| !range.is_empty())
        .peekable();
    let known = ["application/json", "application/*", "*/*", "*"];
    if ranges.peek().is_none() || ranges.any(|r| known.iter().any(|k| r.eq_ignore_ascii_case(k))) {
        return Ok(());
    }
    Err(ApiFailure::not_acceptable(
        "only application/json is served here",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_as_kubernetes_reads_them() {
        for (query, selector, watch) in [
            (None, "", false),
            (Some(""), "", false),
            (
                Some("labelSelector=group%3Dg%2Ctopic+in+%28a%29"),
                "group=g,topic in (a)",
                false,
            ),
            (Some("labelSelector=a&labelSelector=b"), "a", false),
            (Some("watch=1&labelSelector=a"), "a", true),
            (Some("watch=FALSE"), "", false),
            (Some("watch="), "", true),
            (Some("watch=0&watch=1"), "", false),
            (Some("other=1"), "", false),
        ] {
            let expected = Parameters {
                label_selector: selector.into(),
                watch,
            };
            assert_eq!(Parameters::of(query), expected, "{query:?}");
        }
    }
}
