//! API discovery documents for clients and the API aggregator.
//!
//! They list one placeholder resource instead of lagwise's metrics: old clients fail on an empty list, and thousands of
//! entries would slow down every `kubectl` in the cluster. The list of an upstream is added.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api_error::json as json_response;
use super::route::{GROUP, GROUP_VERSION, VERSION};

/// The only resource listed.
const PLACEHOLDER: &str = "externalmetrics";
const KIND: &str = "ExternalMetricValueList";

static GROUP_LIST: LazyLock<String> = LazyLock::new(|| {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}).to_string()
});
static GROUP_DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut document = group();
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    document.to_string()
});
/// A resource of the API group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiResource {
    pub(super) name: String,
    #[serde(default)]
    pub(super) singular_name: String,
    #[serde(default = "is_namespaced")]
    pub(super) namespaced: bool,
    #[serde(default = "kind")]
    pub(super) kind: String,
    #[serde(default = "verbs")]
    pub(super) verbs: Vec<String>,
}

fn is_namespaced() -> bool {
    true
}

fn kind() -> String {
    KIND.to_owned()
}

fn verbs() -> Vec<String> {
    vec!["get".to_owned()]
}

impl ApiResource {
    fn placeholder() -> Self {
        Self {
            name: PLACEHOLDER.to_owned(),
            singular_name: String::new(),
            namespaced: is_namespaced(),
            kind: kind(),
            verbs: verbs(),
        }
    }

    /// The resource in aggregated discovery.
    fn aggregated(&self) -> Value {
        json!({
            "resource": self.name,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": self.kind},
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": self.singular_name,
            "verbs": self.verbs,
        })
    }
}

/// The documents that list resources.
#[derive(Debug)]
pub(super) struct DiscoveryDocuments {
    resource_list: Bytes,
    aggregated: [AggregatedDiscovery; 2],
}

/// `/apis/GROUP`.
pub(super) fn group_document() -> Response {
    json_response(StatusCode::OK, GROUP_DOCUMENT.as_str())
}

impl DiscoveryDocuments {
    /// Creates documents with the placeholder and the resources of another server.
    pub(super) fn new(others: &[ApiResource]) -> Self {
        let mut resources = vec![ApiResource::placeholder()];
        for other in others {
            if !resources.iter().any(|known| known.name == other.name) {
                resources.push(other.clone());
            }
        }
        let list = json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": *GROUP_VERSION,
            "resources": resources,
        });
        Self {
            resource_list: list.to_string().into(),
            aggregated: FORMATS.map(|format| AggregatedDiscovery::new(format, &resources)),
        }
    }

    /// `/apis/GROUP/VERSION`.
    pub(super) fn resource_list(&self) -> Response {
        json_response(StatusCode::OK, self.resource_list.clone())
    }

    /// `/apis`, in the format that the request prefers.
    pub(super) fn group_list(&self, headers: &HeaderMap) -> Response {
        let document = self.preferred(headers);
        let mut response = match document {
            None => json_response(StatusCode::OK, GROUP_LIST.as_str()),
            Some(document) => document.response(headers),
        };
        let vary = HeaderValue::from_static("Accept");
        response.headers_mut().insert(header::VARY, vary);
        response
    }

    /// The aggregated document, if the request prefers one to the plain list. As in client-go,
    /// preference is the order of media ranges; weights are ignored.
    fn preferred(&self, headers: &HeaderMap) -> Option<&AggregatedDiscovery> {
        for range in values(headers, &header::ACCEPT) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut group, mut version, mut kind) = (None, None, None);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("g", value)) => group = Some(value),
                    Some(("v", value)) => version = Some(value),
                    Some(("as", value)) => kind = Some(value),
                    _ => {}
                }
            }
            match (media, group, kind) {
                (
                    "application/json",
                    Some("apidiscovery.k8s.io"),
                    Some("APIGroupDiscoveryList"),
                ) => {
                    let known = self.aggregated.iter().find(|d| Some(d.format) == version);
                    if known.is_some() {
                        return known;
                    }
                }
                ("application/json" | "application/*" | "*/*", None, None) => return None,
                _ => {}
            }
        }
        None
    }
}

/// `/version`.
pub(super) fn version(version: &str) -> Response {
    let mut parts = version.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (major, minor) = (next(), next());
    let document = json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{version}"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    json_response(StatusCode::OK, document.to_string())
}

fn group() -> Value {
    let version = json!({"groupVersion": *GROUP_VERSION, "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// Versions of the format of aggregated discovery.
const FORMATS: [&str; 2] = ["v2", "v2beta1"];

/// Aggregated discovery in one version of its format.
#[derive(Debug)]
struct AggregatedDiscovery {
    format: &'static str,
    body: Bytes,
    content_type: HeaderValue,
    etag: HeaderValue,
}

impl AggregatedDiscovery {
    fn new(format: &'static str, resources: &[ApiResource]) -> Self {
        let listed = resources.iter().map(ApiResource::aggregated);
        let body = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{format}"),
            "metadata": {},
            "items": [{
                "metadata": {"name": GROUP},
                "versions": [{
                    "version": VERSION,
                    "freshness": "Current",
                    "resources": listed.collect::<Vec<_>>(),
                }],
            }],
        })
        .to_string();
        // This hasher's keys are fixed, so all replicas of one build return the same tag.
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let header = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            format,
            content_type: header(format!(
                "application/json;g=apidiscovery.k8s.io;v={format};as=APIGroupDiscoveryList"
            )),
            etag: header(format!("\"{:016X}\"", hasher.finish())),
            body: body.into(),
        }
    }

    fn response(&self, headers: &HeaderMap) -> Response {
        let known = values(headers, &header::IF_NONE_MATCH)
            .any(|tag| tag == "*" || tag.as_bytes() == self.etag.as_bytes());
        let mut response = if known {
            let mut response = json_response(StatusCode::NOT_MODIFIED, "");
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        } else {
            let mut response = json_response(StatusCode::OK, self.body.clone());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, self.content_type.clone());
            response
        };
        // Clients may cache it if they revalidate.
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        headers.insert(header::ETAG, self.etag.clone());
        response
    }
}

fn values<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    const BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

    fn accept(text: &str) -> HeaderMap {
        [(header::ACCEPT, text.parse().unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn prefers_the_first_supported_format() {
        let documents = DiscoveryDocuments::new(&[]);
        for (text, expected) in [
            (V2.to_owned(), Some("v2")),
            (format!("{V2}, {BETA}, application/json"), Some("v2")),
            (format!("{BETA},application/json"), Some("v2beta1")),
            (V2.replace(";v=v2;", ";v=v3;") + "," + BETA, Some("v2beta1")),
            (format!("application/json,{V2}"), None),
            (V2.replace("json", "vnd.kubernetes.protobuf") + ",*/*", None),
            (
                V2.replace("json", "vnd.kubernetes.protobuf") + "," + V2,
                Some("v2"),
            ),
            (format!("{V2};profile=nopeer"), Some("v2")),
            ("application/vnd.kubernetes.protobuf".to_owned(), None),
            (String::new(), None),
        ] {
            let found = documents.preferred(&accept(&text)).map(|d| d.format);
            assert_eq!(found, expected, "{text}");
        }
        assert!(documents.preferred(&HeaderMap::new()).is_none());
    }

    #[test]
    fn matching_etag_returns_304() {
        let documents = DiscoveryDocuments::new(&[]);
        let mut headers = accept(V2);
        let first = documents.group_list(&headers);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], V2);
        let tag = first.headers()[header::ETAG].clone();
        headers.insert(header::IF_NONE_MATCH, tag.clone());
        let second = documents.group_list(&headers);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(second.headers()[header::ETAG], tag);
        headers.insert(header::IF_NONE_MATCH, "\"other\"".parse().unwrap());
        assert_eq!(documents.group_list(&headers).status(), StatusCode::OK);
    }
}
