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
    answer: "200 while the process runs; 503 if the threads for the external metrics API or for TLS handshakes have \
             run nothing for 30 seconds, so that Kubernetes starts the container again.",
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
pub(super) const SHADOW: Endpoint = Endpoint {
    path: "/shadow",
    answer: "The replicas by KEDA and those by lagwise for each ScaledObject, as JSON, for `lagwise shadow report`. 404 \
             unless `kubernetes.mode` is `observe`.",
};
pub(super) const EXPLAIN: Endpoint = Endpoint {
    path: "/explain",
    answer: "The derivation of a replica count as JSON, for `lagwise explain --daemon`. Ask with \
             `?namespace=NAMESPACE&hpa=NAME` for an HPA, or with `?group=GROUP` for a consumer group. \
             For a group, add `&cluster=NAME` if there are several Kafka clusters; `&topic=TOPIC` \
             limits the topics and may be repeated. A follower answers 503.",
};

pub(super) const PAGE: Endpoint = Endpoint {
    path: "/",
    answer: "The page: all HPAs and Kafka clusters, as HTML. `?filter=attention` (or `ceiling`, `asleep`, `unknown`, \
             `late`, `paused`), `&namespace=NAMESPACE`, `&q=TEXT` and `&sort=name` (or `lag`, `behind`, `replicas`) \
             choose and sort the HPAs, of which `&page=2` shows those from 101 to 200. `lagwise page` opens it. A \
             follower answers 503.",
};
pub(super) const PAGE_HPA: Endpoint = Endpoint {
    path: "/hpas/NAMESPACE/NAME",
    answer: "The page of one HPA. `?window=15m` (or `5m`, `1h`, `6h`, `24h`) chooses the time that its charts cover, \
             until now; `?from=TIME&to=TIME` one that stays, in seconds since 1970 or in RFC 3339.",
};
pub(super) const API_HPAS: Endpoint = Endpoint {
    path: "/api/hpas",
    answer: "What the page shows, as JSON: `clusters`, and in `hpas` the rows of `/status` with `urgency`, `because`, \
             `what_would_change` and `slo` (`met`, `missed`, `unknown`, or `null` without an SLO). \
             `known_since` is the time since which there is a history without a break, `step_seconds` the time between \
             its points, and `without_history` the number of HPAs that have none because there are too many. What is \
             unknown is `null`.",
};
pub(super) const API_HPA: Endpoint = Endpoint {
    path: "/api/hpas/NAMESPACE/NAME?since=TIME&until=TIME",
    answer: "One HPA as JSON: its row of `/api/hpas` in `hpa`, the answer of `/explain` in `explanation`, and in \
             `history` the `points` and `markers` (what happened) since and until TIME, which is in seconds since 1970 \
             or in RFC 3339. Points of more than 6 hours ago are merged. The `rule` of a point is `of_another_version` if \
             another version of lagwise led then, and this one does not know the rule.",
};
pub(super) const API_PEAKS: Endpoint = Endpoint {
    path: "/api/peaks",
    answer: "For each HPA as JSON, in `hpas`, the most replicas that its lag was worth without the ceiling (`uncapped`), as \
             far back as the history goes: a day at most. `known_since` is as in `/api/hpas`.",
};
pub(super) const API_STREAM: Endpoint = Endpoint {
    path: "/api/stream",
    answer: "Server-sent events: a `snapshot` with the number and the time of each new snapshot, at most one per second. \
             At most 16 streams at a time; further ones get 503.",
};

/// The metrics listener, `server.metrics.listen`. [`LIVEZ`] and [`READYZ`]: kept for probes configured before
/// `server.probes` existed.
pub const METRICS_PATHS: &[Endpoint] = &[METRICS, LIVEZ, READYZ];

/// The probe listener, `server.probes.listen`.
pub const PROBES: &[Endpoint] = &[LIVEZ, READYZ];

/// The admin listener, `server.admin.listen`.
pub const ADMIN: &[Endpoint] = &[
    PAGE, PAGE_HPA, API_HPAS, API_HPA, API_PEAKS, API_STREAM, STATUS, EXPLAIN, SHADOW,
];

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
        answer: "200, without authentication.",
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
