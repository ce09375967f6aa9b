//! `/status`: the status of every HPA, for `lagwise status --daemon`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::admin::{AdminEndpointOptions, FOLLOWER, json_response, respond_off_runtime};
use crate::model::diagnostics::hpa_figures::add_figures;
use crate::model::diagnostics::hpa_status::{HpaStatus, statuses};
use crate::model::keda::shadow::ShadowRow;
use crate::model::units::newtypes::Moment;

#[derive(Debug, Serialize)]
struct StatusDocument<'a> {
    hpas: Vec<HpaStatus>,
    /// Comparison with KEDA's replicas; empty unless `kubernetes.mode` is `observe`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    shadow: &'a [ShadowRow],
}

/// Serves the status of all HPAs, from the latest snapshot.
pub(super) async fn show(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    if options.leadership.term(Instant::now()).is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, FOLLOWER).into_response();
    }
    let snapshot = options.reader.latest();
    let report = options.shadow.latest();
    respond_off_runtime(move || {
        let now = Moment::now();
        let mut hpas = statuses(snapshot.at(&now), snapshot.all_findings());
        add_figures(&mut hpas, snapshot.at(&now));
        let shadow = report
            .as_ref()
            .map_or(&[][..], |report| report.objects.as_slice());
        json_response(StatusCode::OK, &StatusDocument { hpas, shadow })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;
    use crate::leader_election::Leadership;
    use crate::model::evaluation::ServingPolicy;
    use crate::model::fixtures;
    use crate::model::hpa::facts::{ExternalMetric, HpaFacts};
    use crate::model::hpa::selector::Selector;
    use crate::model::targets::Targets;
    use crate::model::units::metric::LAG_METRIC;
    use crate::snapshot_channel;

    async fn get_status(leadership: Leadership) -> (StatusCode, String) {
        let hpa = HpaFacts {
            namespace: "shop".into(),
            name: "billing".into(),
            max_replicas: 6,
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse("cluster=main,group=orders,topic=payments").unwrap(),
                target: None,
            }],
            ..HpaFacts::default()
        };
        let clusters = ["main".into(), "down".into()];
        let mut snapshot = fixtures::snapshot();
        snapshot.targets = Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()));
        let policy = ServingPolicy {
            max_staleness: Duration::from_secs(3600),
            ..ServingPolicy::default()
        };
        let (_publisher, reader) = snapshot_channel::channel(snapshot.evaluated(&policy));
        let options = AdminEndpointOptions::new(reader, leadership);
        let answer = show(State(Arc::new(options))).await;
        let code = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 65536)
            .await
            .unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn leader_answers_and_follower_returns_503() {
        let (code, body) = get_status(Leadership::alone()).await;
        assert_eq!(code, StatusCode::OK);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let hpas: Vec<HpaStatus> = serde_json::from_value(body["hpas"].clone()).unwrap();
        assert_eq!((&*hpas[0].hpa, hpas[0].lag), ("billing", Some(100)));
        let figures = &hpas[0].figures.as_ref().unwrap()[0].figures;
        assert_eq!(figures.retention_used, Some(0.6));
        let follower = Leadership::new(watch::channel(None).1);
        let expected = (StatusCode::SERVICE_UNAVAILABLE, FOLLOWER.to_owned());
        assert_eq!(get_status(follower).await, expected);
    }
}
