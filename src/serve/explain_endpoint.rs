//! `/explain`: the derivation of a replica count as JSON, for `lagwise explain --daemon`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::parse;
use serde_json::json;

use super::admin::{AdminEndpointOptions, json_response, respond_off_runtime};
use crate::model::diagnostics::explain::{Subject, derive};
use crate::model::targets::{Targets, WatchKey};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment, TopicName};

/// Maximum partitions in one response; of larger topics those with the most lag are kept.
pub(super) const MAX_PARTITIONS: usize = 5_000;

/// Explains `namespace` and `hpa`, or `group` with optional `cluster` and `topic`.
pub(super) async fn answer(
    State(options): State<Arc<AdminEndpointOptions>>,
    RawQuery(query): RawQuery,
) -> Response {
    let snapshot = options.reader.latest();
    let leads = options
        .leadership
        .current_term(snapshot.term, Instant::now());
    if leads.is_none() {
        return failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "this daemon does not lead, so it does not read Kafka; ask the holder of the Lease",
        );
    }
    let subject = match subject(query.as_deref().unwrap_or_default(), &snapshot.targets) {
        Ok(subject) => subject,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, problem),
    };
    let report = options.shadow.latest();
    respond_off_runtime(move || {
        let now = Moment::now();
        match derive(&subject, snapshot.at(&now), snapshot.all_findings()) {
            Some(mut explanation) => {
                if let (Subject::Hpa(hpa), Some(report)) = (&subject, report) {
                    let row = report.of_hpa(&hpa.namespace, &hpa.name);
                    explanation.shadow = row.cloned().map(Box::new);
                }
                json_response(StatusCode::OK, &explanation.bounded(MAX_PARTITIONS))
            }
            None => failure(
                StatusCode::NOT_FOUND,
                "there is no such HPA, or it uses no metric of lagwise",
            ),
        }
    })
    .await
}

fn failure(code: StatusCode, problem: &str) -> Response {
    json_response(code, &json!({"error": problem}))
}

/// Parses the query string.
fn subject(query: &str, targets: &Targets) -> Result<Subject, &'static str> {
    let value_of = |key: &str| {
        let mut pairs = parse(query.as_bytes());
        let value = pairs.find(|(k, _)| k == key).map(|(_, value)| value);
        value.filter(|value| !value.is_empty())
    };
    match (value_of("namespace"), value_of("hpa"), value_of("group")) {
        (Some(namespace), Some(name), None) => Ok(Subject::Hpa(HpaKey::new(&*namespace, &*name))),
        (None, None, Some(group)) => {
            let cluster = match (value_of("cluster"), targets.clusters.as_slice()) {
                (Some(name), known) => {
                    let name = ClusterName::from(&*name);
                    if !known.contains(&name) {
                        return Err("the Kafka cluster is not configured");
                    }
                    name
                }
                (None, [only]) => only.clone(),
                (None, _) => {
                    return Err("several Kafka clusters are configured; add &cluster=NAME");
                }
            };
            let topics: BTreeSet<_> = parse(query.as_bytes())
                .filter(|(key, _)| key == "topic")
                .map(|(_, topic)| TopicName::from(&*topic))
                .collect();
            Ok(Subject::Group(WatchKey {
                cluster,
                group: GroupId::from(&*group),
                topics,
            }))
        }
        _ => Err("use ?namespace=NAMESPACE&hpa=NAME for an HPA, or ?group=GROUP for a group"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;
    use crate::leader_election::Leadership;
    use crate::model::diagnostics::explain::Explanation;
    use crate::model::evaluation::ServingPolicy;
    use crate::model::fixtures;
    use crate::model::snapshot::LagSnapshot;
    use crate::model::targets::TargetOptions;
    use crate::serve::admin::router;
    use crate::snapshot_channel;

    #[test]
    fn parses_the_query() {
        let targets = |clusters: &[&str]| {
            let clusters = clusters.iter().map(|name| ClusterName::from(*name));
            Targets::new(&Vec::from_iter(clusters), TargetOptions::default(), None)
        };
        let one = targets(&["main"]);
        let hpa = Subject::Hpa(HpaKey::new("shop", "orders"));
        assert_eq!(subject("namespace=shop&hpa=orders", &one), Ok(hpa));
        let group = |topics: &[&str]| {
            Subject::Group(WatchKey {
                cluster: "main".into(),
                group: "a&b c".into(),
                topics: topics.iter().map(|topic| TopicName::from(*topic)).collect(),
            })
        };
        assert_eq!(subject("group=a%26b+c", &one), Ok(group(&[])));
        let both = subject("group=a%26b+c&topic=x&topic=y&cluster=main", &one);
        assert_eq!(both, Ok(group(&["x", "y"])));
        for (query, clusters, problem) in [
            ("", &["main"][..], "use ?namespace"),
            ("hpa=orders", &["main"], "use ?namespace"),
            ("namespace=shop&hpa=", &["main"], "use ?namespace"),
            (
                "namespace=shop&hpa=orders&group=g",
                &["main"],
                "use ?namespace",
            ),
            ("group=g&cluster=other", &["main"], "the Kafka cluster"),
            ("group=g", &["main", "other"], "several Kafka clusters"),
        ] {
            let found = subject(query, &targets(clusters)).unwrap_err();
            assert!(found.starts_with(problem), "{query}: {found}");
        }
    }

    /// Status code and body of a GET of `/explain`.
    async fn get(leadership: Leadership, query: &str) -> (StatusCode, String) {
        let targets = Targets::new(&["main".into()], TargetOptions::default(), None);
        let snapshot = LagSnapshot {
            targets: Arc::new(targets),
            ..fixtures::snapshot()
        };
        let policy = ServingPolicy {
            max_staleness: Duration::from_secs(60),
            ..ServingPolicy::default()
        };
        let (_publisher, reader) = snapshot_channel::channel(snapshot.evaluated(&policy));
        let options = AdminEndpointOptions::new(reader, leadership);
        let request = Request::get(format!("/explain{query}")).header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        let answer = router(options).oneshot(request).await.unwrap();
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn leader_answers_and_follower_returns_503() {
        let leads = Leadership::alone;
        let follows = Leadership::new(watch::channel(None).1);
        let (code, text) = get(leads(), "?group=partial&topic=refunds").await;
        assert_eq!(code, StatusCode::OK, "{text}");
        let explanation: Explanation = serde_json::from_str(&text).unwrap();
        assert_eq!(explanation.of, "group partial on cluster main");
        for (leadership, query, code, problem) in [
            (leads(), "", StatusCode::BAD_REQUEST, "use ?namespace"),
            (
                leads(),
                "?namespace=a&hpa=b",
                StatusCode::NOT_FOUND,
                "there is no such HPA",
            ),
            (
                follows,
                "?group=orders",
                StatusCode::SERVICE_UNAVAILABLE,
                "this daemon does not lead",
            ),
        ] {
            let (found, text) = get(leadership, query).await;
            assert_eq!(found, code, "{query}: {text}");
            assert!(
                text.starts_with(&format!("{{\"error\":\"{problem}")),
                "{text}"
            );
        }
    }
}
