//! The page over snapshots: filters, followers, objectives and partitions.

mod documentation;
mod history;
mod many_hpas;
mod states;
mod threads;
mod untrusted_text;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use self::states::{STATES, earlier, every_state};
use super::*;
use crate::leader_election::Leadership;
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::target_policies::TargetPolicies;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::hpa::facts::{HpaFacts, MetricTarget, RunningReplicas};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::Observation;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::newtypes::Moment;
use crate::model::units::quantity::Milli;
use crate::model::units::untrusted_text::is_safe;
use crate::serve::admin::router;
use crate::serve::history::history;
use crate::serve::snapshot_stream::MAX_STREAMS;
use crate::snapshot_channel::{self, Publisher};

fn ok(committed: i64, end: i64) -> PartitionReading {
    (0, Ok(Some(committed)), Ok(end))
}

/// An HPA with a target of 10 messages per replica.
fn hpa(name: &str, group: &str, topic: &str) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    HpaFacts {
        max_replicas: 20,
        replicas: Some(2),
        running: RunningReplicas::Several,
        ..fixtures::hpa(name, &format!("group={group},topic={topic}"), target)
    }
}

fn annotated(hpa: HpaFacts, annotations: &[(&str, &str)]) -> HpaFacts {
    let pairs = annotations.iter();
    HpaFacts {
        annotations: pairs
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .collect(),
        ..hpa
    }
}

fn snapshot(hpas: &[HpaFacts], observations: Vec<Observation>) -> LagSnapshot {
    let mut history = ClusterHistory::default();
    let mut latest = Arc::default();
    for observation in observations {
        latest = history.apply(observation, Scope::Partial);
    }
    let mut cluster = (*latest).clone();
    cluster.sweep = Some(crate::model::lag::cluster_snapshot::Sweep {
        started: Moment::now(),
        finished: Moment::now(),
    });
    let targets = Targets::merge(&["main".into()], &[], hpas, BTreeSet::new());
    LagSnapshot {
        targets: Arc::new(targets),
        clusters: [("main".into(), Arc::new(cluster))].into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default())
}

/// The admin endpoints over a snapshot, with a history.
fn served(snapshot: LagSnapshot) -> (Router, Publisher) {
    served_with_points(snapshot, Duration::from_millis(20))
}

/// The same with a point of the history at each step.
fn served_with_points(snapshot: LagSnapshot, step: Duration) -> (Router, Publisher) {
    let (publisher, reader) = snapshot_channel::channel(snapshot);
    let (handle, recording) = history(reader.clone(), Leadership::alone(), step);
    tokio::spawn(recording);
    let options = AdminEndpointOptions::new(reader, Leadership::alone());
    (router(options.with_history(handle, "lagwise-0")), publisher)
}

async fn response(router: &Router, path: &str) -> Response<Body> {
    let request = Request::get(path).header("host", "localhost");
    let request = request.body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn get(router: &Router, path: &str) -> (u16, String) {
    let response = response(router, path).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

async fn json(router: &Router, path: &str) -> Value {
    let (code, text) = get(router, path).await;
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// What follows `before` in a text, up to `end`.
fn between<'a>(text: &'a str, before: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(end).unwrap().0
}

#[tokio::test]
async fn filters_search_and_order_choose_the_rows() {
    let (router, _publisher) = served(every_state());
    let names = |html: &str| -> Vec<String> {
        let rows = html.split("data-href=\"/hpas/shop/").skip(1);
        rows.map(|row| row.split('"').next().unwrap().to_owned())
            .collect()
    };
    let get = async |path: &str| names(&get(&router, path).await.1);
    assert_eq!(get("/?filter=paused").await, ["paused"]);
    assert_eq!(get("/?filter=asleep").await, ["asleep"]);
    assert_eq!(get("/?filter=late").await, ["late"]);
    assert_eq!(get("/?q=STA").await, ["stale"]);
    assert_eq!(get("/?namespace=other").await, Vec::<String>::new());
    assert_eq!(get("/?namespace=shop").await.len(), STATES);
    let by_name = get("/?sort=name").await;
    assert!(
        by_name.is_sorted() && by_name.len() == STATES,
        "{by_name:?}"
    );
    let by_urgency = get("/").await;
    let unknown = get("/?filter=unknown").await;
    assert_eq!(
        by_urgency[..unknown.len()],
        unknown,
        "unknown ones come first"
    );
    let overview = json(&router, "/api/hpas").await;
    let number = |name: &str, key: &str| {
        let mut rows = overview["hpas"].as_array().unwrap().iter();
        rows.find(|row| row["hpa"] == name).unwrap()[key].as_u64()
    };
    let by_lag = get("/?sort=lag").await;
    let lags = by_lag
        .iter()
        .map(|name| number(name, "lag").unwrap_or(u64::MAX));
    assert!(lags.is_sorted_by(|a, b| a >= b), "{by_lag:?}");
    let by_replicas = get("/?sort=replicas").await;
    let replicas = by_replicas.iter().map(|name| number(name, "replicas"));
    assert!(replicas.is_sorted_by(|a, b| a >= b), "{by_replicas:?}");
    let ceiling = get("/?filter=ceiling&sort=name").await;
    assert_eq!(ceiling[..2], ["capped", "enforced"]);
    assert!(!ceiling.contains(&"empty".to_owned()), "{ceiling:?}");
}

#[tokio::test]
async fn a_follower_shows_no_data() {
    let (_publisher, reader) = snapshot_channel::channel(every_state());
    let follower = Leadership::new(watch::channel(None).1);
    let router = router(AdminEndpointOptions::new(reader, follower));
    for path in [
        "/",
        "/hpas/shop/capped",
        "/api/hpas",
        "/api/hpas/shop/capped",
        "/api/stream",
    ] {
        let (code, text) = get(&router, path).await;
        assert_eq!(code, 503, "{path}: {text}");
        assert!(
            text.contains("does not lead") && !text.contains("orders"),
            "{path}: {text}"
        );
    }
}

#[tokio::test]
async fn the_objective_is_described() {
    let (router, _publisher) = served(every_state());
    let (_, html) = get(&router, "/").await;
    for (name, has_objective) in [("late", true), ("stuck", false)] {
        let row = between(&html, &format!("data-href=\"/hpas/shop/{name}\""), "</tr>");
        let (_, page) = get(&router, &format!("/hpas/shop/{name}")).await;
        let tiles = between(&page, "id=\"now\"", "</section>");
        assert_eq!(row.contains("over SLO 5m"), has_objective, "{row}");
        assert_eq!(tiles.contains("over SLO 5m"), has_objective, "{tiles}");
        assert_eq!(tiles.contains("no SLO is set"), !has_objective, "{tiles}");
        let chart = between(&page, "id=\"chart-behind\"", "</figure>");
        assert_eq!(chart.contains("SLO <b>5m</b>"), has_objective, "{chart}");
    }
    let view = json(&router, "/api/hpas/shop/late").await;
    assert_eq!(
        (&view["hpa"]["slo"], &view["hpa"]["slo_seconds"]),
        (&"missed".into(), &300.into())
    );
    let view = json(&router, "/api/hpas/shop/plain").await;
    assert_eq!(view["hpa"]["slo"], Value::Null);
}

fn described(name: &str, topic: &str) -> GroupDescription {
    GroupDescription {
        members: vec![Member {
            id: "m".into(),
            instance: None,
            client: name.into(),
            host: "/10.0.0.1".into(),
            subscribed: None,
            assigned: vec![(topic.into(), vec![0])],
        }],
        ..GroupDescription::memberless(GroupKind::Consumer, GroupState::Stable)
    }
}

#[tokio::test]
async fn many_partitions_are_a_strip_and_owners_are_named() {
    let rows: Vec<_> = (0..1200)
        .map(|n| ok(0, if n == 7 { 900 } else { 1 }))
        .collect();
    let mut read = fixtures::read(Duration::ZERO, "wide", "orders", &rows);
    read.groups[0].description = Ok(Arc::new(described("client-1", "orders")));
    let narrow = fixtures::read(
        Duration::ZERO,
        "narrow",
        "orders",
        &[ok(0, 90), ok(0, 2), ok(0, 1)],
    );
    let hpas = [
        hpa("wide", "wide", "orders"),
        hpa("narrow", "narrow", "orders"),
    ];
    let (router, _publisher) = served(snapshot(&hpas, vec![read, narrow]));
    let (_, html) = get(&router, "/hpas/shop/wide").await;
    assert!(html.contains("class=\"strip\""), "{html}");
    assert!(html.len() < 100_000, "{}", html.len());
    assert!(
        html.contains("client-1"),
        "the owner of partition 0 is among the worst"
    );
    assert_eq!(html.matches("<tr class=\"hot\">").count(), 1);
    let (_, html) = get(&router, "/hpas/shop/narrow").await;
    assert!(!html.contains("class=\"strip\""), "{html}");
    assert_eq!(html.matches("<tr class=\"hot\">").count(), 1, "{html}");
    assert!(html.contains(">hot</span>"), "not by colour alone");
}
