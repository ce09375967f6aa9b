//! Reading a snapshot makes no new evaluations.

use super::*;
use crate::model::evaluation::Evaluations;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::{LAG_METRIC, Metric};
use crate::model::units::quantity::Milli;
use crate::serve::admin::{self, AdminEndpointOptions};
use crate::serve::metrics::{self, MetricsOptions};
use crate::serve::shadow::ShadowReader;

const OF_HPA: &str = "cluster=main,group=orders,topic=payments";
const AD_HOC: &str = "cluster=main,group=idle,topic=payments";

/// A snapshot with an HPA, and an earlier query that belongs to no HPA.
fn snapshot() -> LagSnapshot {
    let mut snapshot = fixtures::snapshot();
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(OF_HPA).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(10))),
        }],
        ..HpaFacts::default()
    };
    let clusters = snapshot.targets.clusters.clone();
    snapshot.targets = Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()));
    let selector = Selector::parse(AD_HOC).unwrap();
    let query = MetricQuery {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let queries = [query.to_ad_hoc(Metric::Lag)];
    let none = Arc::new(Evaluations::new(POLICY));
    snapshot.evaluations = none.next(&snapshot.clusters, &snapshot.targets, queries.iter());
    snapshot
}

#[tokio::test]
async fn requests_scrapes_and_status_reuse_evaluations() {
    let evaluated = snapshot();
    let evaluations = Arc::clone(&evaluated.evaluations);
    assert_eq!(evaluations.metrics_evaluated(), 2);
    let (mut api, reader) = api_over(evaluated, RequestAuth::None, 8, Tenancy::default());
    let leadership = crate::leader_election::Leadership::alone();
    let admin = admin::router(AdminEndpointOptions::new(
        reader.clone(),
        leadership.clone(),
    ));
    let admin = admin.merge(metrics::router(MetricsOptions {
        shadow: ShadowReader::none(),
        reader,
        leadership,
        auth: RequestAuth::None,
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2".to_owned(),
        },
    }));
    for _ in 0..3 {
        for selector in [OF_HPA, AD_HOC] {
            let got = lag(&api.router, selector).await;
            assert_eq!(got.code, 200, "{}", got.body);
        }
        for path in [
            "/metrics",
            "/status",
            "/explain?namespace=shop&hpa=orders",
            "/",
            "/api/hpas",
            "/hpas/shop/orders",
        ] {
            let got = get(&admin, path).await;
            assert_eq!(got.code, 200, "{}", got.body);
            assert!(got.body.contains("orders"), "{}", got.body);
        }
    }
    assert_eq!(evaluations.metrics_evaluated(), 2);
    // Only the ad hoc query is reported to the poller.
    let kept: Vec<_> = std::iter::from_fn(|| api.queries.try_recv().ok()).collect();
    assert_eq!(kept.len(), 3);
    // A new query is evaluated for its first request.
    let got = lag(&api.router, "cluster=main,group=orders").await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(evaluations.metrics_evaluated(), 3);
}
