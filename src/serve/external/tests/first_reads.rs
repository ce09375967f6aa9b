//! Groups that nobody asked for before.

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};

fn interest(group: &str, topics: &[&str]) -> WatchKey {
    WatchKey {
        cluster: "main".into(),
        group: group.into(),
        topics: topics.iter().map(|t| (*t).into()).collect(),
    }
}

/// Adds a group's first reading to a snapshot.
fn and_read(snapshot: &LagSnapshot, group: &str) -> LagSnapshot {
    let mut next = snapshot.clone();
    let mut history = ClusterHistory::default();
    let rows = [(0, Ok(Some(1)), Ok(8))];
    let read = fixtures::read(Duration::ZERO, group, "payments", &rows);
    let read = history.apply(read, Scope::Some);
    let mut main = (*next.clusters["main"]).clone();
    main.groups.extend(read.groups.clone());
    next.clusters.insert("main".into(), Arc::new(main));
    next
}

#[tokio::test]
async fn a_new_group_is_read_while_the_request_waits() {
    let snapshot = fixtures::snapshot();
    let mut rig = rig(snapshot.clone());
    let router = rig.router.clone();
    let request =
        tokio::spawn(async move { lag(&router, "cluster=main,group=new,topic=payments").await });
    assert_eq!(
        rig.interests.recv().await.unwrap(),
        interest("new", &["payments"])
    );
    // Something else changes first.
    rig.publisher.publish(evaluated(snapshot.clone()));
    tokio::task::yield_now().await;
    rig.publisher.publish(evaluated(and_read(&snapshot, "new")));
    let got = request.await.unwrap();
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.json()["items"][0]["value"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_first_read_that_does_not_come_is_refused_in_time() {
    let mut rig = rig(fixtures::snapshot());
    let began = tokio::time::Instant::now();
    let got = lag(&rig.router, "cluster=main,group=new").await;
    assert_eq!(began.elapsed(), FIRST_READ_WITHIN);
    assert_eq!(got.code, 503);
    assert!(got.message().contains("the first read of group \"new\""));
    assert_eq!(rig.interests.try_recv().unwrap(), interest("new", &[]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_the_cause() {
    let rig = rig(fixtures::snapshot());
    let got = lag(&rig.router, "cluster=down,group=new").await;
    assert_eq!(got.code, 503);
    let message = got.message();
    assert!(
        message.contains("group \"new\" on Kafka cluster \"down\""),
        "{message}"
    );
    assert!(message.contains("SASL authentication failed"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_refused_at_once() {
    let rig = rig_with(fixtures::snapshot(), RequestAuth::None, 1);
    let began = tokio::time::Instant::now();
    let got = lag(&rig.router, "cluster=main,group in (a,b)").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(got.code, 503);
    assert!(
        got.message()
            .contains("too many requests for new consumer groups")
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_asks_for_many_new_groups_is_slowed_down() {
    let mut rig = rig_with(fixtures::snapshot(), RequestAuth::None, 256);
    let asked = (0..40).map(|n| {
        let (router, selector) = (rig.router.clone(), format!("cluster=main,group=g{n}"));
        async move { lag(&router, &selector).await }
    });
    let got = futures::future::join_all(asked).await;
    let count = |code| got.iter().filter(|got| got.code == code).count();
    assert_eq!((count(503), count(429)), (32, 8));
    for got in got.iter().filter(|got| got.code == 429) {
        assert!(
            got.message()
                .contains("new consumer groups from namespace \"shop\"")
        );
        assert!(!got.headers.contains_key(header::RETRY_AFTER));
    }
    let mut read = 0;
    while rig.interests.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, 32);
    // Others go on, and what is already known costs nothing.
    let other = LAG.replace("/shop/", "/hr/");
    let got = get(
        &rig.router,
        &with_selector(&other, "cluster=main,group=new"),
    )
    .await;
    assert_eq!(got.code, 503, "{}", got.body);
    let got = lag(&rig.router, "cluster=main,group=orders,topic=payments").await;
    assert_eq!(got.code, 200, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_is_already_asked_for_may_be_asked_for_again() {
    let mut snapshot = fixtures::snapshot();
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(interest("slow", &[]));
    snapshot.targets = Arc::new(targets);
    let rig = rig_with(snapshot, RequestAuth::None, 256);
    for _ in 0..40 {
        assert_eq!(lag(&rig.router, "cluster=main,group=slow").await.code, 503);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_has_nothing_read() {
    let mut snapshot = fixtures::snapshot();
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(interest("slow", &[]));
    snapshot.targets = Arc::new(targets);
    let mut rig = rig_with(snapshot, RequestAuth::None, 2 * MAX_WAITING);
    let asked = (0..=MAX_WAITING).map(|_| {
        let router = rig.router.clone();
        async move { lag(&router, "cluster=main,group=slow").await }
    });
    let got = futures::future::join_all(asked).await;
    let refused = got
        .iter()
        .filter(|got| got.message().contains("too many requests are waiting"));
    assert_eq!(refused.count(), 1);
    assert_eq!(
        got.iter().filter(|got| got.code == 503).count(),
        MAX_WAITING
    );
    let mut read = 0;
    while rig.interests.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, MAX_WAITING);
}

#[tokio::test]
async fn too_many_groups_in_one_selector_are_refused() {
    let mut rig = rig(fixtures::snapshot());
    let groups: Vec<_> = (0..33).map(|n| format!("g{n}")).collect();
    let selector = format!("cluster=main,group in ({})", groups.join(","));
    let got = lag(&rig.router, &selector).await;
    assert_eq!(got.code, 400);
    assert!(got.message().contains("names 33 consumer groups"));
    assert!(rig.interests.try_recv().is_err());
}

#[tokio::test]
async fn what_requests_ask_for_stays_watched() {
    let mut snapshot = fixtures::snapshot();
    let known = interest("orders", &["payments"]);
    let mut targets = (*snapshot.targets).clone();
    targets.interests.insert(known.clone());
    snapshot.targets = Arc::new(targets);
    let mut rig = rig(snapshot);
    let selector = "cluster=main,group=orders,topic=payments";
    for _ in 0..9 {
        assert_eq!(lag(&rig.router, selector).await.code, 200);
    }
    assert_eq!(rig.interests.try_recv().unwrap(), known);
    // Half of the queue stays free for groups that are new.
    assert_eq!(rig.interests.len(), 3);
    assert_eq!(
        lag(&rig.router, "cluster=main,group=idle,topic=payments")
            .await
            .code,
        200
    );
    while let Ok(sent) = rig.interests.try_recv() {
        assert_eq!(sent, known);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_hpa_asks_for_is_not_asked_for_again() {
    let mut snapshot = fixtures::snapshot();
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: "kafka_lag".to_owned(),
            selector: Selector::parse("cluster=main,group=soon").unwrap(),
            target: Some(MetricTarget::AverageValue(
                crate::model::units::quantity::Milli::ONE,
            )),
        }],
        ..HpaFacts::default()
    };
    let clusters = snapshot.targets.clusters.clone();
    snapshot.targets = Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()));
    let mut rig = rig(snapshot);
    assert_eq!(lag(&rig.router, "cluster=main,group=soon").await.code, 503);
    assert!(rig.interests.try_recv().is_err());
}
