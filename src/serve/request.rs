//! Checks and parses requests: method, query, accepted media types, body size.

use std::borrow::Cow;

use axum::http::{HeaderMap, Method, header};

use super::api_error::ApiFailure;

/// Maximum announced body size. Bodies are never read.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// The supported query parameters; `limit` and `continue` are ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) label_selector: Cow<'a, str>,
    pub(super) watch: bool,
}

impl<'a> Parameters<'a> {
    /// Parses a query as Kubernetes does: the first of several values counts, and a flag is true
    /// unless it is `0` or `false`.
    pub(super) fn parse(query: Option<&'a str>) -> Self {
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

pub(super) fn require_get(method: &Method) -> Result<(), ApiFailure> {
    if method == Method::GET {
        Ok(())
    } else {
        Err(ApiFailure::not_allowed("only GET is supported"))
    }
}

/// Rejects a large announced body. A body of unknown length is not read either, and ends the
/// connection.
pub(super) fn check_body_size(headers: &HeaderMap) -> Result<(), ApiFailure> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > MAX_BODY_BYTES => Err(ApiFailure::too_large(
            "the request body is too large; requests need no body",
        )),
        _ => Ok(()),
    }
}

/// Rejects a client that does not accept JSON. Kubernetes clients list protobuf first, which is not
/// supported, and JSON after it.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), ApiFailure> {
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
        "only application/json is supported",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_parameters_as_kubernetes_does() {
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
            assert_eq!(Parameters::parse(query), expected, "{query:?}");
        }
    }
}
