//! Whoever reads a snapshot evaluates nothing anew.

use super::*;
use crate::model::evaluation::Evaluations;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::{LAG_METRIC, Metric};
use crate::model::units::quantity::Milli;
use crate::serve::admin::{self, HttpOptions};

const OF_HPA: &str = "cluster=main,group=orders,topic=payments";
const AD_HOC: &str = "cluster=main,group=idle,topic=payments";

/// A snapshot with an HPA, and a query that was asked before and that no HPA asks.
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
    let asked = [query.to_ad_hoc(Metric::Lag)];
    let none = Arc::new(Evaluations::new(RULES));
    snapshot.evaluations = none.next(&snapshot.clusters, &snapshot.targets, asked.iter());
    snapshot
}

#[tokio::test]
async fn requests_scrapes_and_status_evaluate_nothing_anew() {
    let evaluated = snapshot();
    let evaluations = Arc::clone(&evaluated.evaluations);
    assert_eq!(evaluations.made(), 2);
    let (mut rig, reader) = rig_over(evaluated, RequestAuth::None, 8, Tenancy::default());
    let admin = admin::router(HttpOptions {
        readiness: Readiness::new(reader.clone(), Instant::now(), watch::channel(false).1),
        reader,
        leadership: crate::leader_election::Leadership::alone(),
        build: BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2".to_owned(),
        },
    });
    for _ in 0..3 {
        for selector in [OF_HPA, AD_HOC] {
            let got = lag(&rig.router, selector).await;
            assert_eq!(got.code, 200, "{}", got.body);
        }
        for path in ["/metrics", "/status", "/explain?namespace=shop&hpa=orders"] {
            let got = get(&admin, path).await;
            assert_eq!(got.code, 200, "{}", got.body);
            assert!(got.body.contains("orders"), "{}", got.body);
        }
    }
    assert_eq!(evaluations.made(), 2);
    // The query of no HPA is kept, and nobody else's is.
    let kept: Vec<_> = std::iter::from_fn(|| rig.queries.try_recv().ok()).collect();
    assert_eq!(kept.len(), 3);
    // What was never asked is evaluated for whoever asks it first.
    let got = lag(&rig.router, "cluster=main,group=orders").await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(evaluations.made(), 3);
}
