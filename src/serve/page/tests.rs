//! The page over snapshots: the same numbers as `explain`, hostile names, headers, and what it costs.

mod history;
mod many_hpas;
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

/// An HPA that asks for 10 messages per replica.
fn hpa(name: &str, group: &str, topic: &str) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    HpaFacts {
        max_replicas: 20,
        replicas: Some(2),
        running: RunningReplicas::Several,
        ..fixtures::hpa(name, &format!("group={group},topic={topic}"), target)
    }
}

/// The same with a selector that no other HPA has, so that its settings may differ from theirs.
fn own(name: &str, group: &str) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let selector = format!("group={group},topic={group},hpa={name}");
    HpaFacts {
        metrics: fixtures::hpa(name, &selector, target).metrics,
        ..hpa(name, group, group)
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

/// The same observation, as it was made earlier than now.
fn earlier(mut observation: Observation, seconds: u64) -> Observation {
    let (now, before) = (Moment::now(), Duration::from_secs(seconds));
    let at = Moment {
        monotonic: now.monotonic.checked_sub(before).unwrap(),
        wall: now.wall - before,
    };
    (observation.started, observation.finished) = (at, at);
    observation
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

/// HPAs in every state that an HPA can be in.
fn every_state() -> LagSnapshot {
    let read = |group: &str, rows: &[PartitionReading]| {
        // Not when the first test began, which may be long ago.
        earlier(fixtures::read(Duration::ZERO, group, group, rows), 0)
    };
    let mut missing = read("typo", &[ok(0, 7)]);
    missing.topics = [("typo".into(), Err(Fault::TopicMissing))].into();
    let mut stale = earlier(read("stale", &[ok(0, 7)]), 120);
    stale.groups[0].description = Err(Fault::NoAnswer);
    let stuck = |seconds: u64, moved: i64| {
        let rows = [ok(5, 40), ok(moved, 100 + moved)];
        earlier(read("stuck", &rows), 1_000 - seconds)
    };
    let mut stuck_readings: Vec<_> = (0..=99)
        .map(|n| stuck(n * 10, i64::try_from(n).unwrap()))
        .collect();
    let mut observations = vec![
        read("plain", &[ok(0, 15), ok(0, 9)]),
        read("empty", &[ok(9, 9), ok(9, 9)]),
        read("capped", &[ok(0, 400), ok(0, 1_240)]),
        read("paused", &[ok(0, 15), ok(0, 9)]),
        read(
            "partial",
            &[ok(0, 5), (0, Ok(Some(1)), Err(Fault::LeaderUnknown))],
        ),
        read("never", &[(0, Ok(None), Ok(100)), (0, Ok(None), Ok(100))]),
        stale,
        earlier(read("fallback", &[ok(0, 7)]), 900),
        earlier(
            fixtures::failed(Duration::ZERO, "fallback", "fallback", Fault::NoAnswer),
            600,
        ),
        fixtures::failed(Duration::ZERO, "denied", "denied", Fault::GroupDenied),
        missing,
    ];
    observations.append(&mut stuck_readings);
    observations.push(read("held", &[ok(0, 15), ok(0, 9)]));
    observations.push(read(
        "even",
        &[ok(0, 35), ok(5, 5), ok(5, 5), ok(5, 5), ok(5, 5), ok(5, 5)],
    ));
    let asleep = annotated(
        hpa("asleep", "empty", "empty"),
        &[("zeroed-since", "2026-11-30T20:00:00Z")],
    );
    let hpas = [
        hpa("plain", "plain", "plain"),
        hpa("empty", "empty", "empty"),
        hpa("capped", "capped", "capped"),
        annotated(hpa("enforced", "capped", "capped"), &[("cap", "enforce")]),
        annotated(hpa("paused", "paused", "paused"), &[("paused", "true")]),
        hpa("partial", "partial", "partial"),
        hpa("never", "never", "never"),
        hpa("stale", "stale", "stale"),
        hpa("stuck", "stuck", "stuck"),
        hpa("denied", "denied", "denied"),
        annotated(
            hpa("fallback", "fallback", "fallback"),
            &[("fallback-replicas", "3"), ("fallback-after", "2m")],
        ),
        hpa("typo", "typo", "typo"),
        annotated(hpa("setting", "plain", "plain"), &[("stuck-afer", "2m")]),
        HpaFacts {
            replicas: Some(0),
            running: RunningReplicas::None,
            ..asleep
        },
        annotated(own("held", "held"), &[("hold", "up")]),
        annotated(own("even", "even"), &[("even", "true")]),
        HpaFacts {
            max_replicas: 1,
            ..own("most", "plain")
        },
        annotated(own("late", "stuck"), &[("slo", "5m")]),
        own("unread", "unread"),
        HpaFacts {
            metrics: [own("two", "plain"), own("two", "typo")]
                .map(|mut hpa| hpa.metrics.remove(0))
                .to_vec(),
            ..own("two", "plain")
        },
    ];
    // The hold keeps the replicas that were wanted before the lag rose.
    let before = snapshot(&hpas, vec![read("held", &[ok(0, 5), ok(0, 0)])]);
    let mut policies = TargetPolicies::default();
    let mut observe = |snapshot: &LagSnapshot| {
        policies.observe_sweep(&"main".into(), &snapshot.evaluations, &Moment::now())
    };
    observe(&before);
    let latest = snapshot(&hpas, observations);
    LagSnapshot {
        evaluations: observe(&latest),
        ..latest
    }
}

/// How many HPAs [`every_state`] has.
const STATES: usize = 20;

/// The admin endpoints over a snapshot, with a history.
fn served(snapshot: LagSnapshot) -> (Router, Publisher) {
    let (publisher, reader) = snapshot_channel::channel(snapshot);
    let step = Duration::from_millis(20);
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
async fn numbers_are_those_of_explain_and_status_in_every_state() {
    let (router, _publisher) = served(every_state());
    let overview = json(&router, "/api/hpas").await;
    let statuses = json(&router, "/status").await;
    let (_, html) = get(&router, "/").await;
    let rows = overview["hpas"].as_array().unwrap();
    assert_eq!(rows.len(), STATES);
    let mut urgencies = BTreeSet::new();
    for (row, status) in rows.iter().zip(statuses["hpas"].as_array().unwrap()) {
        let name = row["hpa"].as_str().unwrap();
        for (key, value) in status.as_object().unwrap() {
            // They age between the two requests.
            if !key.ends_with("millis") {
                assert_eq!(&row[key], value, "{name}: {key}");
            }
        }
        urgencies.insert(row["urgency"].as_str().unwrap().to_owned());
        let explained = json(&router, &format!("/explain?namespace=shop&hpa={name}")).await;
        let one = json(&router, &format!("/api/hpas/shop/{name}")).await;
        for key in ["verdict", "ceiling", "cap", "findings", "not_knowable"] {
            assert_eq!(one["explanation"][key], explained[key], "{name}: {key}");
        }
        let (code, page) = get(&router, &format!("/hpas/shop/{name}")).await;
        assert_eq!(code, 200, "{name}: {page}");
        let metric = &explained["metrics"][0];
        let shown = |title: &str| between(&page, &format!("<dt>{title}</dt><dd>"), "</dd>");
        let number = |value: &Value| match value.as_u64() {
            Some(value) => format::count(value),
            None => format::UNKNOWN.to_owned(),
        };
        assert_eq!(shown("lag"), number(&metric["lag"]), "{name}");
        assert_eq!(
            shown("replica ceiling"),
            number(&metric["ceiling"]),
            "{name}"
        );
        assert!(
            shown("desired").starts_with(&number(&metric["desired_replicas"])),
            "{name}"
        );
        assert!(
            shown("worth").starts_with(&number(&metric["uncapped_replicas"])),
            "{name}"
        );
        let value = metric["value"].as_str().unwrap_or(format::UNKNOWN);
        assert_eq!(shown("value served"), value, "{name}");
        // The row of the overview has them too.
        let cell = between(&html, &format!("data-href=\"/hpas/shop/{name}\""), "</tr>");
        let lag = between(cell, "</svg><b>", "</b>");
        assert_eq!(lag, number(&row["lag"]), "{name}: {cell}");
        let wanted = between(cell, " now, <b>", "</b>");
        assert_eq!(wanted, number(&row["desired"]), "{name}: {cell}");
        assert!(
            cell.contains(&format!("{} replicas now", number(&row["replicas"]))),
            "{cell}"
        );
    }
    for urgency in ["asleep", "at_ceiling", "calm", "warning", "unknown"] {
        assert!(urgencies.contains(urgency), "{urgency} of {urgencies:?}");
    }
}

#[tokio::test]
async fn states_are_told_apart() {
    let (router, _publisher) = served(every_state());
    let overview = json(&router, "/api/hpas").await;
    let lines = overview["hpas"].as_array().unwrap().iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        format!(
            "{}: {}\n  {}\n  {}\n",
            text("hpa"),
            text("urgency"),
            text("because"),
            text("what_would_change")
        )
    });
    let text: String = lines.collect();
    // The time since when a reading is stale.
    let time = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").unwrap();
    let text = time.replace_all(&text, "TIME");
    insta::assert_snapshot!("states", text);
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
async fn the_objective_is_told_in_words() {
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

fn described(name: &str) -> GroupDescription {
    GroupDescription {
        members: vec![Member {
            id: "m".into(),
            instance: None,
            client: name.into(),
            host: "/10.0.0.1".into(),
            subscribed: None,
            assigned: vec![("orders".into(), vec![0])],
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
    read.groups[0].description = Ok(Arc::new(described("client-1")));
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
