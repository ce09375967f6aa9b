//! The page over snapshots: the same numbers as `explain`, hostile names, headers, and what it costs.

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
async fn hostile_names_are_shown_as_text() {
    let long = "t".repeat(249);
    let rtl = "\u{202e}gnillib";
    let names = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "a&lt;b' onclick='x",
        "esc\u{1b}[2J\r\nbell\u{7}",
        rtl,
        &long,
    ];
    let mut hpas = Vec::new();
    let mut observations = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let of = hpa(&format!("h{place}"), &format!("g{place}"), "orders");
        // Through the annotation, since a label value cannot have such a name.
        hpas.push(annotated(of, &[("consumer-group", name)]));
        let mut read = fixtures::read(Duration::ZERO, name, "orders", &[ok(0, 5)]);
        read.groups[0].description = Ok(Arc::new(described(name)));
        observations.push(read);
    }
    hpas.push(HpaFacts {
        namespace: "<b>team</b>".into(),
        ..hpa("x\"><script>", "g", "orders")
    });
    let (router, _publisher) = served(snapshot(&hpas, observations));
    let mut pages = vec![
        get(&router, "/?q=%3Cscript%3E%22'").await,
        get(&router, "/").await,
    ];
    for (place, name) in names.iter().enumerate() {
        let (code, html) = get(&router, &format!("/hpas/shop/h{place}")).await;
        // A group with a control character cannot be asked for. Of others the member is found, whatever their name.
        let has_owner = !name.contains(char::is_control);
        let shows_owner = html.contains("<small>/10.0.0.1</small>");
        assert_eq!(shows_owner, has_owner, "{name:?}: {html}");
        pages.push((code, html));
    }
    pages.push(get(&router, "/hpas/%3Cb%3Eteam%3C%2Fb%3E/x%22%3E%3Cscript%3E").await);
    pages.push(get(&router, "/hpas/%3Cscript%3E/%E2%80%AE").await);
    for (code, html) in &pages {
        assert!(*code == 200 || *code == 404, "{html}");
        assert!(html.chars().all(|c| c == '\n' || is_safe(c)), "{html:?}");
        // The only script is our own, and no element has a handler or a style of its own.
        assert_eq!(html.matches("<script").count(), 1, "{html}");
        for forbidden in [
            "<img",
            "<b>team",
            " onerror=alert(1)>",
            " onclick='",
            "style=",
        ] {
            assert!(!html.contains(forbidden), "{forbidden}: {html}");
        }
    }
    let shown: String = pages.into_iter().map(|(_, html)| html).collect();
    for expected in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "esc\\u{1b}[2J\\r\\nbell\\u{7}",
        "\\u{202e}gnillib",
        long.as_str(),
    ] {
        assert!(shown.contains(expected), "{expected}");
    }
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
async fn everything_comes_from_here_and_nothing_is_inline() {
    let (router, _publisher) = served(every_state());
    for path in [
        "/",
        "/hpas/shop/capped",
        "/hpas/shop/none",
        "/assets/page.css",
        "/assets/page.js",
        "/assets/live.js",
        "/assets/charts.js",
        "/assets/icon.svg",
    ] {
        let response = response(&router, path).await;
        let headers = response.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!headers.contains_key("set-cookie"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        if path.starts_with("/assets") {
            assert!(
                !text.contains("@import") && !text.contains("url("),
                "{path}"
            );
            continue;
        }
        for (attribute, rest) in [" src=\"", " href=\"", " action=\""]
            .iter()
            .flat_map(|name| text.split(name).skip(1).map(move |rest| (name, rest)))
        {
            assert!(rest.starts_with('/'), "{path}: {attribute}{rest:.60}");
        }
        for inline in ["<style", "style=\"", " onload", "javascript:"] {
            assert!(!text.contains(inline), "{path}: {inline}");
        }
    }
    assert_eq!(get(&router, "/assets/other.js").await.0, 404);
    assert_eq!(get(&router, "/hpas/shop/none").await.0, 404);
    assert_eq!(get(&router, "/api/hpas/shop/none").await.0, 404);
    assert_eq!(get(&router, "/api/hpas/shop/capped?since=now").await.0, 400);
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
async fn a_stream_tells_of_snapshots_and_their_number_is_bounded() {
    let (router, publisher) = served(every_state());
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        let response = response(&router, "/api/stream").await;
        assert_eq!(response.status(), 200);
        open.push(response.into_body());
    }
    assert_eq!(get(&router, "/api/stream").await.0, 503);
    let mut first = open.pop().unwrap();
    let next = async |body: &mut Body| {
        let frame = body.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    let event = next(&mut first).await;
    assert!(event.starts_with("event: snapshot\ndata: {"), "{event}");
    assert!(event.contains("\"sequence\":0"), "{event}");
    publisher.publish(every_state());
    let event = next(&mut first).await;
    assert!(event.contains("\"sequence\":1"), "{event}");
    drop(first);
    assert_eq!(
        response(&router, "/api/stream").await.status(),
        200,
        "its place is free"
    );
    drop(publisher);
    // Without a publisher there is nothing more to tell.
    let mut last = open.pop().unwrap();
    next(&mut last).await;
    while let Some(frame) = last.frame().await {
        frame.unwrap();
    }
}

#[tokio::test]
async fn history_has_points_and_says_since_when() {
    let (router, _publisher) = served(every_state());
    let deadline = Instant::now() + Duration::from_secs(20);
    let history = loop {
        let view = json(&router, "/api/hpas/shop/capped").await;
        let history = view["history"].clone();
        if !history["points"].as_array().unwrap().is_empty() {
            break history;
        }
        assert!(Instant::now() < deadline, "{history}");
        tokio::task::yield_now().await;
    };
    let point = &history["points"][0];
    assert_eq!(point["lag"], 1640);
    assert_eq!(
        (&point["uncapped"], &point["ceiling"]),
        (&164.into(), &2.into())
    );
    assert!(history["known_since"].is_string(), "{history}");
    let later = format!("/api/hpas/shop/capped?since={}", u32::MAX);
    let later = json(&router, &later).await;
    assert_eq!(later["history"]["points"], Value::Array(Vec::new()));
    let (_, html) = get(&router, "/hpas/shop/capped?window=5m").await;
    let chart = between(&html, "id=\"chart-replicas\"", "</figure>");
    assert!(chart.contains("class=\"line ceiling\" d=\"M"), "{chart}");
}

#[tokio::test]
async fn charts_show_the_time_that_the_address_asks_for() {
    let (router, _publisher) = served(every_state());
    let now = seconds_since_1970(SystemTime::now());
    let span_of = |html: &str| {
        let number = |key: &str| {
            between(html, &format!(" {key}=\""), "\"")
                .parse::<u32>()
                .unwrap()
        };
        (number("data-from"), number("data-to"))
    };
    let (from, to) = (now - 7_200, now - 3_600);
    let (_, html) = get(&router, &format!("/hpas/shop/capped?from={from}&to={to}")).await;
    assert_eq!(span_of(&html), (from, to));
    assert!(html.contains("There is no history of this time."), "{html}");
    assert!(
        html.contains("id=\"latest\" href=\"/hpas/shop/capped\""),
        "{html}"
    );
    // Each link to another time shows another time, without a script.
    let links = html.split("href=\"/hpas/shop/capped?from=").skip(1);
    let links: Vec<String> = links
        .map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"))
        .collect();
    assert_eq!(links.len(), 4, "{links:?}");
    let mut shown = BTreeSet::from([(from, to)]);
    for link in &links {
        let (code, html) = get(&router, &format!("/hpas/shop/capped?from={link}")).await;
        assert_eq!(code, 200);
        shown.insert(span_of(&html));
    }
    assert_eq!(
        shown,
        BTreeSet::from([
            (from, to),
            (from - 1_800, to - 1_800),
            (from + 1_800, to + 1_800),
            (from + 900, to - 900),
            (from - 1_800, to + 1_800),
        ])
    );
    let (_, html) = get(&router, "/hpas/shop/capped?window=6h").await;
    let (from, to) = span_of(&html);
    assert_eq!(to - from, 21_600);
    assert!(!html.contains("id=\"latest\""), "{html}");
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

/// Many HPAs, each with a group of its own on 36 partitions.
fn crowd(count: usize) -> LagSnapshot {
    let rows: Vec<_> = (0..36).map(|n| ok(0, n)).collect();
    let names = || (0..count).map(|n| (format!("h{n:04}"), format!("g{n:04}")));
    let hpas: Vec<_> = names()
        .map(|(name, group)| hpa(&name, &group, "orders"))
        .collect();
    let reads = names().map(|(_, group)| fixtures::read(Duration::ZERO, &group, "orders", &rows));
    snapshot(&hpas, reads.collect())
}

#[tokio::test]
async fn many_hpas_are_on_several_pages() {
    let (router, _publisher) = served(crowd(250));
    let names = |html: &str| -> Vec<String> {
        let rows = html.split("data-href=\"/hpas/shop/").skip(1);
        rows.map(|row| row.split('"').next().unwrap().to_owned())
            .collect()
    };
    let mut all = Vec::new();
    let mut address = "/?sort=name".to_owned();
    loop {
        let (code, html) = get(&router, &address).await;
        assert_eq!(code, 200);
        // The counters count all of them.
        assert!(html.contains("<b>250</b> all"), "{html}");
        all.extend(names(&html));
        let Some((before, _)) = html.split_once("\" rel=\"next\"") else {
            assert!(html.contains("201–250 of 250 HPAs"), "{html}");
            break;
        };
        address = before
            .rsplit_once("href=\"")
            .unwrap()
            .1
            .replace("&amp;", "&");
    }
    assert_eq!(all.len(), 250);
    assert!(all.is_sorted(), "{all:?}");
    let (_, last) = get(&router, "/?page=99&sort=name").await;
    assert_eq!(names(&last), all[200..]);
    let (_, few) = get(&router, "/?q=h0001").await;
    assert!(
        names(&few) == ["h0001"] && !few.contains("class=\"pager\""),
        "{few}"
    );
}

/// A page does not grow with the number of HPAs. Prints what an overview of many of them costs beside one of few.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
async fn an_overview_of_a_thousand_hpas() {
    let mut spent = Vec::new();
    for count in [10, 100, 1_000] {
        let (router, _publisher) = served(crowd(count));
        let mut cost = Vec::new();
        for path in ["/", "/hpas/shop/h0007"] {
            let mut best = Duration::MAX;
            let mut bytes = 0;
            for _ in 0..5 {
                let started = Instant::now();
                let (code, html) = get(&router, path).await;
                best = best.min(started.elapsed());
                assert_eq!(code, 200);
                bytes = html.len();
            }
            cost.push((best, bytes));
        }
        spent.push(cost);
    }
    for (place, what) in ["overview", "page of one HPA"].into_iter().enumerate() {
        let [(few, _), (hundred, small), (many, large)] = [0, 1, 2].map(|n| spent[n][place]);
        println!(
            "{what} among 1,000 HPAs with 36 partitions: {many:?}, {:.1} times that among 10 and {:.1} times that among \
             100; {large} bytes",
            many.as_secs_f64() / few.as_secs_f64(),
            many.as_secs_f64() / hundred.as_secs_f64(),
        );
        assert!(
            large < small + small / 5,
            "{what}: {small} bytes, then {large}"
        );
    }
}
