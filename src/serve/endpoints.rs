//! The paths of the listeners, for their routers and the documentation.

/// A path and its response.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The path; words in capitals are placeholders.
    pub path: &'static str,
    /// The response, for the documentation.
    pub answer: &'static str,
}

pub(super) const METRICS: Endpoint = Endpoint {
    path: "/metrics",
    answer: "Metrics in Prometheus's text format. A follower exports none about Kafka.",
};
pub(super) const LIVEZ: Endpoint = Endpoint {
    path: "/livez",
    answer: "200 while the process lives.",
};
pub(super) const READYZ: Endpoint = Endpoint {
    path: "/readyz",
    answer: "200 while the process accepts requests, until it shuts down. After a start, this begins \
             when another replica leads, or when every Kafka cluster was swept once and the HPAs are \
             listed, and after 10 seconds at the latest. A Kafka cluster that does not answer changes nothing.",
};
pub(super) const STATUS: Endpoint = Endpoint {
    path: "/status",
    answer: "All HPAs as JSON, for `lagwise status --daemon`. A follower answers 503.",
};
pub(super) const EXPLAIN: Endpoint = Endpoint {
    path: "/explain",
    answer: "The derivation of a replica count as JSON, for `lagwise explain --daemon`. Ask with \
             `?namespace=NAMESPACE&hpa=NAME` for an HPA, or with `?group=GROUP` for a consumer group. \
             For a group, add `&cluster=NAME` if there are several Kafka clusters; `&topic=TOPIC` \
             limits the topics and may be repeated. A follower answers 503.",
};

/// The metrics listener, `server.metrics.listen`. [`LIVEZ`] and [`READYZ`]: kept for probes configured before
/// `server.probes` existed.
pub const METRICS_PATHS: &[Endpoint] = &[METRICS, LIVEZ, READYZ];

/// The probe listener, `server.probes.listen`.
pub const PROBES: &[Endpoint] = &[LIVEZ, READYZ];

/// The admin listener, `server.admin.listen`.
pub const ADMIN: &[Endpoint] = &[STATUS, EXPLAIN];

/// The external metrics API, `server.external_metrics.listen`.
pub const EXTERNAL_METRICS: &[Endpoint] = &[
    Endpoint {
        path: "/apis/external.metrics.k8s.io/v1beta1/namespaces/NAMESPACE/METRIC?labelSelector=SELECTOR",
        answer: "The value of a metric, as `ExternalMetricValueList`.",
    },
    Endpoint {
        path: "/apis/external.metrics.k8s.io/v1beta1",
        answer: "Discovery: the resources of the version.",
    },
    Endpoint {
        path: "/apis/external.metrics.k8s.io",
        answer: "Discovery: the API group.",
    },
    Endpoint {
        path: "/apis",
        answer: "Discovery: all groups, as a list or as an aggregated discovery document.",
    },
    Endpoint {
        path: "/version",
        answer: "The version of lagwise.",
    },
    Endpoint {
        path: "/livez",
        answer: "As on the probe listener, without authentication.",
    },
    Endpoint {
        path: "/healthz",
        answer: "The same as `/livez`.",
    },
    Endpoint {
        path: "/readyz",
        answer: "As on the probe listener, without authentication.",
    },
    Endpoint {
        path: "/openapi/v2",
        answer: "404: there is no OpenAPI document. `/openapi/v3` is the same.",
    },
];

#[cfg(test)]
mod tests {
    use super::super::route::Route;
    use super::*;

    #[test]
    fn every_documented_path_of_the_api_is_a_route() {
        for endpoint in EXTERNAL_METRICS {
            let path = endpoint.path.split('?').next().unwrap();
            assert_ne!(Route::parse(path), Route::Nothing, "{path}");
        }
    }
}
