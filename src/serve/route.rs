//! Parses request paths.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::http::Method;
use percent_encoding::percent_decode_str;

use crate::authentication::access::{Action, Object};
use crate::model::units::metric::Metric;

/// The API group. The HPA controller's client hard-codes it and the version.
pub(super) const GROUP: &str = "external.metrics.k8s.io";

pub(super) const VERSION: &str = "v1beta1";

/// Group and version, as in discovery documents.
pub(super) static GROUP_VERSION: LazyLock<String> = LazyLock::new(|| format!("{GROUP}/{VERSION}"));

/// Path to which followers forward calls of KEDA's external scaler.
pub(super) const TRIGGER_PATH: &str = "/external-scaler/trigger";

/// Path from which other replicas fetch the history of HPAs.
pub(super) const HISTORY_PATH: &str = "/history";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// Liveness.
    Live,
    /// Readiness.
    Ready,
    /// OpenAPI documents, which are not served.
    OpenApi,
    /// Version of the build.
    Version,
    /// API groups.
    GroupList,
    /// The document of the API group.
    Group,
    /// The resources of the group.
    ResourceList,
    /// The value of a metric.
    Metric {
        /// Namespace of the HPA.
        namespace: Cow<'a, str>,
        metric: Cow<'a, str>,
    },
    /// A request of another replica about a trigger of KEDA.
    Trigger,
    /// A request of another replica for the history of HPAs.
    History,
    /// An unknown path.
    Nothing,
}

impl<'a> Route<'a> {
    /// Parses a percent-encoded path.
    pub(super) fn parse(path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix("/apis") {
            return Self::under_apis(rest);
        }
        match path.strip_suffix('/').unwrap_or(path) {
            "/livez" | "/healthz" => Route::Live,
            "/readyz" => Route::Ready,
            "/version" => Route::Version,
            TRIGGER_PATH => Route::Trigger,
            HISTORY_PATH => Route::History,
            "/openapi" => Route::OpenApi,
            _ if path.starts_with("/openapi/") => Route::OpenApi,
            _ => Route::Nothing,
        }
    }

    fn under_apis(rest: &'a str) -> Self {
        let below = |rest: &'a str, name| {
            let rest: &'a str = rest.strip_prefix('/')?.strip_prefix(name)?;
            Some(rest)
        };
        if is_end(rest) {
            return Route::GroupList;
        }
        let Some(rest) = below(rest, GROUP) else {
            return Route::Nothing;
        };
        if is_end(rest) {
            return Route::Group;
        }
        let Some(rest) = below(rest, VERSION) else {
            return Route::Nothing;
        };
        if is_end(rest) {
            return Route::ResourceList;
        }
        let named = rest.strip_prefix("/namespaces/").and_then(|named| {
            named
                .split_once('/')
                .filter(|(namespace, metric)| !namespace.is_empty() && is_segment(metric))
        });
        let decoded = |segment: &'a str| percent_decode_str(segment).decode_utf8().ok();
        match named.map(|(namespace, metric)| (decoded(namespace), decoded(metric))) {
            Some((Some(namespace), Some(metric))) => Route::Metric { namespace, metric },
            _ => Route::Nothing,
        }
    }

    /// Request kind, for metric labels.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Route::Live | Route::Ready => "health",
            Route::OpenApi => "openapi",
            Route::Version => "version",
            Route::GroupList | Route::Group | Route::ResourceList => "discovery",
            Route::Metric { .. } => "metric",
            Route::Trigger => "trigger",
            Route::History => "history",
            Route::Nothing => "unknown",
        }
    }

    /// Whether the path is for other replicas only; all other callers get 404.
    pub(super) fn is_for_replicas(&self) -> bool {
        matches!(self, Route::Trigger | Route::History)
    }

    /// Metric name, for metric labels; unknown ones are "other".
    pub(super) fn metric_label(&self) -> &'static str {
        match self {
            Route::Metric { metric, .. } => Metric::from_name(metric).map_or("other", Metric::name),
            _ => "",
        }
    }

    /// The Kubernetes RBAC verb of the request.
    pub(super) fn verb(&self, method: &Method, watch: bool) -> &'static str {
        let is_metric = matches!(self, Route::Metric { .. });
        match (method.as_str(), is_metric) {
            ("GET" | "HEAD", true) if watch => "watch",
            ("GET" | "HEAD", true) => "list",
            ("POST", true) => "create",
            ("PUT", true) => "update",
            ("DELETE", true) => "deletecollection",
            ("GET", false) => "get",
            ("HEAD", false) => "head",
            ("POST", false) => "post",
            ("PUT", false) => "put",
            ("DELETE", false) => "delete",
            ("PATCH", _) => "patch",
            ("OPTIONS", _) => "options",
            _ => "other",
        }
    }

    /// The action to authorize: a metric is a resource, everything else a non-resource path.
    pub(super) fn action(&self, verb: &'static str, path: &str) -> Action {
        let object = match self {
            Route::Metric { namespace, metric } => Object::Resource {
                group: GROUP,
                version: VERSION,
                resource: metric.clone().into_owned(),
                namespace: namespace.clone().into_owned(),
            },
            _ => Object::Path(path.to_owned()),
        };
        Action { verb, object }
    }
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest == "/"
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_paths() {
        let metric = |namespace: &'static str, metric: &'static str| Route::Metric {
            namespace: namespace.into(),
            metric: metric.into(),
        };
        let base = "/apis/external.metrics.k8s.io/v1beta1";
        for (path, expected) in [
            ("/livez", Route::Live),
            ("/healthz/", Route::Live),
            ("/readyz", Route::Ready),
            ("/version", Route::Version),
            (TRIGGER_PATH, Route::Trigger),
            (HISTORY_PATH, Route::History),
            ("/openapi/v2", Route::OpenApi),
            ("/openapi/v3", Route::OpenApi),
            ("/openapi/v3/apis/external.metrics.k8s.io", Route::OpenApi),
            ("/apis", Route::GroupList),
            ("/apis/", Route::GroupList),
            ("/apis/external.metrics.k8s.io", Route::Group),
            ("/apis/external.metrics.k8s.io/", Route::Group),
            (base, Route::ResourceList),
            (
                "/apis/external.metrics.k8s.io/v1beta1/",
                Route::ResourceList,
            ),
            (
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag",
                metric("shop", "kafka_lag"),
            ),
            (
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/a%2Fb%20c",
                metric("shop", "a/b c"),
            ),
            ("", Route::Nothing),
            ("/", Route::Nothing),
            ("//livez", Route::Nothing),
            ("/livez//", Route::Nothing),
            ("/metrics", Route::Nothing),
            ("/apis//", Route::Nothing),
            ("/apisx", Route::Nothing),
            ("/apis/apps/v1", Route::Nothing),
            ("/apis/external.metrics.k8s.iox", Route::Nothing),
            ("/apis/external.metrics.k8s.io/v1", Route::Nothing),
            ("/apis/external.metrics.k8s.io//v1beta1", Route::Nothing),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
        for rest in [
            "/kafka_lag",
            "/namespaces",
            "/namespaces/",
            "/namespaces/shop",
            "/namespaces/shop/",
            "/namespaces//kafka_lag",
            "/namespaces/shop//kafka_lag",
            "/namespaces/shop/kafka_lag/",
            "/namespaces/shop/kafka_lag/more",
            "/watch/namespaces/shop/kafka_lag",
            "/namespaces/shop/%ff",
            "x/namespaces/shop/kafka_lag",
        ] {
            assert_eq!(
                Route::parse(&format!("{base}{rest}")),
                Route::Nothing,
                "{rest}"
            );
        }
    }

    #[test]
    fn maps_methods_to_rbac_verbs() {
        let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/kafka_lag";
        let metric = Route::parse(path);
        for (method, watch, verb) in [
            (Method::GET, false, "list"),
            (Method::GET, true, "watch"),
            (Method::HEAD, false, "list"),
            (Method::POST, true, "create"),
            (Method::PUT, false, "update"),
            (Method::PATCH, false, "patch"),
            (Method::DELETE, false, "deletecollection"),
            (Method::OPTIONS, false, "options"),
            (Method::TRACE, false, "other"),
        ] {
            assert_eq!(metric.verb(&method, watch), verb, "{method}");
        }
        let action = metric.action("list", path);
        let shown = action.to_string();
        assert_eq!(
            shown,
            "list \"kafka_lag\" of API group external.metrics.k8s.io in namespace \"shop\""
        );
        assert_eq!(metric.metric_label(), "kafka_lag");
        assert_eq!(Route::parse("/apis").verb(&Method::GET, true), "get");
        let action = Route::parse("/apis").action("get", "/apis");
        assert_eq!(action.object, Object::Path("/apis".to_owned()));
        assert_eq!(action.to_string(), "get path \"/apis\"");
        let other = Route::parse("/apis/external.metrics.k8s.io/v1beta1/namespaces/a/b");
        assert_eq!(
            (other.metric_label(), Route::Live.metric_label()),
            ("other", "")
        );
    }

    proptest! {
        #[test]
        fn never_panics(path in "\\PC{0,60}") {
            let _ = Route::parse(&path).label();
        }
    }
}
