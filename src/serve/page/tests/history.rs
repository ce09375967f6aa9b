//! History, the charts of it, and the stream of new values.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn a_stream_announces_snapshots_and_their_number_is_bounded() {
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
    // Without a publisher there are no more snapshots.
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
    assert!(
        html.contains("No history is recorded for this period."),
        "{html}"
    );
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

/// While nobody looks, the page costs nothing but a point of the history at each step: new snapshots wake no task.
#[tokio::test]
async fn new_snapshots_wake_no_task_while_nobody_looks() {
    const SNAPSHOTS: usize = 500;
    let latest = every_state();
    let (publisher, reader) = snapshot_channel::channel(latest.clone());
    let step = Duration::from_secs(3600);
    let (handle, recording) = history(reader.clone(), Leadership::alone(), step);
    let polls = Arc::new(AtomicUsize::new(0));
    let (counted, mut recording) = (Arc::clone(&polls), Box::pin(recording));
    tokio::spawn(poll_fn(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        recording.as_mut().poll(context)
    }));
    let options = AdminEndpointOptions::new(reader, Leadership::alone());
    let router = router(options.with_history(handle, "lagwise-0"));
    // Somebody has looked, and left.
    assert_eq!(get(&router, "/hpas/shop/capped").await.0, 200);
    let mut stream = response(&router, "/api/stream").await.into_body();
    assert!(stream.frame().await.is_some());
    drop(stream);
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..SNAPSHOTS {
        publisher.publish(latest.clone());
        tokio::task::yield_now().await;
    }
    // The end of the last query may be among them.
    let woken = polls.load(Ordering::Relaxed) - before;
    assert!(woken < 5, "{woken} times by {SNAPSHOTS} snapshots");
    let tasks = tokio::runtime::Handle::current().metrics();
    assert_eq!(tasks.num_alive_tasks(), 1, "besides the recording");
}
