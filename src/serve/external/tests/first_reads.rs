//! First reads of groups that were not watched before.

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::units::quantity::Milli;

fn watch_key(group: &str, topics: &[&str]) -> WatchKey {
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
    let read = history.apply(read, Scope::Partial);
    let mut main = (*next.clusters["main"]).clone();
    let read = read.groups.iter();
    main.groups
        .extend(read.map(|(id, group)| (id.clone(), Arc::clone(group))));
    next.clusters.insert("main".into(), Arc::new(main));
    next
}

#[tokio::test]
async fn request_for_new_group_waits_for_its_first_read() {
    let snapshot = fixtures::snapshot();
    let mut api = api(snapshot.clone());
    let router = api.router.clone();
    let request =
        tokio::spawn(async move { lag(&router, "cluster=main,group=new,topic=payments").await });
    assert_eq!(
        api.watch_keys.recv().await.unwrap(),
        watch_key("new", &["payments"])
    );
    // A snapshot without the group does not end the wait.
    api.publisher.publish(evaluated(snapshot.clone()));
    tokio::task::yield_now().await;
    api.publisher.publish(evaluated(and_read(&snapshot, "new")));
    let got = request.await.unwrap();
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.json()["items"][0]["value"], "7");
}

#[tokio::test(start_paused = true)]
async fn first_read_times_out() {
    let mut api = api(fixtures::snapshot());
    let began = tokio::time::Instant::now();
    let got = lag(&api.router, "cluster=main,group=new").await;
    assert_eq!(began.elapsed(), FIRST_READ_TIMEOUT);
    assert_eq!(got.code, 503);
    assert!(got.message().contains("the first read of group \"new\""));
    assert_eq!(api.watch_keys.try_recv().unwrap(), watch_key("new", &[]));
}

#[tokio::test(start_paused = true)]
async fn error_names_the_cluster_that_does_not_answer() {
    let api = api(fixtures::snapshot());
    let got = lag(&api.router, "cluster=down,group=new").await;
    assert_eq!(got.code, 503);
    let message = got.message();
    assert!(
        message.contains("group \"new\" on Kafka cluster \"down\""),
        "{message}"
    );
    assert!(message.contains("SASL authentication failed"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn rejects_at_once_when_the_queue_is_full() {
    let api = api_with(fixtures::snapshot(), RequestAuth::None, 1);
    let began = tokio::time::Instant::now();
    let got = lag(&api.router, "cluster=main,group in (a,b)").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(got.code, 503);
    assert!(
        got.message()
            .contains("too many requests for new consumer groups")
    );
}

#[tokio::test(start_paused = true)]
async fn limits_new_groups_per_namespace() {
    let mut api = api_with(fixtures::snapshot(), RequestAuth::None, 256);
    let requests = (0..40).map(|n| {
        let (router, selector) = (api.router.clone(), format!("cluster=main,group=g{n}"));
        async move { lag(&router, &selector).await }
    });
    let got = futures::future::join_all(requests).await;
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
    while api.watch_keys.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, 32);
    // Other namespaces and groups that are watched are not limited.
    let other = LAG.replace("/shop/", "/hr/");
    let got = get(
        &api.router,
        &with_selector(&other, "cluster=main,group=new"),
    )
    .await;
    assert_eq!(got.code, 503, "{}", got.body);
    let got = lag(&api.router, "cluster=main,group=orders,topic=payments").await;
    assert_eq!(got.code, 200, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn does_not_limit_groups_that_are_watched() {
    let mut snapshot = fixtures::snapshot();
    let targets = snapshot
        .targets
        .with_ad_hoc([watch_key("slow", &[])].into(), None);
    snapshot.targets = Arc::new(targets);
    let api = api_with(snapshot, RequestAuth::None, 256);
    for _ in 0..40 {
        assert_eq!(lag(&api.router, "cluster=main,group=slow").await.code, 503);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_requests_cause_no_read() {
    let mut snapshot = fixtures::snapshot();
    let targets = snapshot
        .targets
        .with_ad_hoc([watch_key("slow", &[])].into(), None);
    snapshot.targets = Arc::new(targets);
    let mut api = api_with(snapshot, RequestAuth::None, 2 * MAX_WAITING);
    let requests = (0..=MAX_WAITING / 2).map(|_| {
        let router = api.router.clone();
        async move { lag(&router, "cluster=main,group=slow").await }
    });
    let got = futures::future::join_all(requests).await;
    let refused = got
        .iter()
        .filter(|got| got.message().contains("too many requests are waiting"));
    assert_eq!(refused.count(), 1);
    assert_eq!(
        got.iter().filter(|got| got.code == 503).count(),
        MAX_WAITING / 2
    );
    let mut read = 0;
    while api.watch_keys.try_recv().is_ok() {
        read += 1;
    }
    assert_eq!(read, MAX_WAITING / 2);
}

/// Sends `requests` of `shop` about a group that is never read, then some others. Of the first, half of `max` may wait;
/// none of the others may be refused.
async fn request_beside_many(headers: HeaderMap, requests: usize, max: usize) {
    let mut snapshot = fixtures::snapshot();
    let targets = snapshot
        .targets
        .with_ad_hoc([watch_key("slow", &[])].into(), None);
    snapshot.targets = Arc::new(targets);
    let api = api_with(snapshot, RequestAuth::None, 4 * MAX_WAITING);
    let ask = async |namespace: &str, group: &str| {
        let path = LAG.replace("/shop/", &format!("/{namespace}/"));
        let path = with_selector(&path, &format!("cluster=main,group={group}"));
        let mut request = Request::get(path);
        request.headers_mut().unwrap().extend(headers.clone());
        send(&api.router, request.body(Body::empty()).unwrap()).await
    };
    let many = futures::future::join_all((0..requests).map(|_| ask("shop", "slow")));
    let others = async {
        // After all of the others have been sent.
        tokio::time::sleep(Duration::from_millis(1)).await;
        futures::future::join_all([
            ask("hr", "slow"),
            ask("hr", "new"),
            ask("shop", "orders,topic=payments"),
        ])
        .await
    };
    let (many, others) = futures::join!(many, others);
    let refused = many
        .iter()
        .filter(|got| got.code == 429 && got.message().contains("too many requests are waiting"));
    assert_eq!(refused.count(), requests - max / 2);
    let codes: Vec<_> = others.iter().map(|got| got.code).collect();
    assert_eq!(codes, [503, 503, 200]);
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_namespace_leave_waits_to_others() {
    request_beside_many(HeaderMap::new(), MAX_WAITING, MAX_WAITING).await;
}

#[tokio::test(start_paused = true)]
async fn forwarded_requests_leave_most_of_a_connection_to_others() {
    let forwarded = [(forward::FORWARDED, "1".parse().unwrap())];
    let requests = usize::try_from(MAX_API_STREAMS).unwrap();
    request_beside_many(
        forwarded.into_iter().collect(),
        requests,
        MAX_FORWARDED_WAITING,
    )
    .await;
    // About metrics and about triggers.
    assert!(2 * MAX_FORWARDED_WAITING < requests);
}

#[tokio::test(start_paused = true)]
async fn requests_for_known_groups_leave_the_queue_to_new_ones() {
    for known in [1, 4] {
        let mut snapshot = fixtures::snapshot();
        let groups: Vec<_> = (0..known).map(|n| format!("slow{n}")).collect();
        let watch_keys = groups.iter().map(|group| watch_key(group, &[]));
        let targets = snapshot.targets.with_ad_hoc(watch_keys.collect(), None);
        snapshot.targets = Arc::new(targets);
        let mut api = api_with(snapshot, RequestAuth::None, 8);
        let slow = format!("cluster=main,group in ({})", groups.join(","));
        let many = futures::future::join_all((0..20).map(|_| lag(&api.router, &slow)));
        let other = async {
            // After all of the others have been sent.
            tokio::time::sleep(Duration::from_millis(1)).await;
            lag(&api.router, "cluster=main,group=new").await
        };
        let (_, other) = futures::join!(many, other);
        let message = other.message();
        assert!(
            message.contains("the first read of group \"new\""),
            "{message}"
        );
        let mut sent = std::iter::from_fn(|| api.watch_keys.try_recv().ok());
        assert!(sent.any(|sent| sent == watch_key("new", &[])));
    }
}

#[tokio::test]
async fn rejects_selector_with_too_many_groups() {
    let mut api = api(fixtures::snapshot());
    let groups: Vec<_> = (0..33).map(|n| format!("g{n}")).collect();
    let selector = format!("cluster=main,group in ({})", groups.join(","));
    let got = lag(&api.router, &selector).await;
    assert_eq!(got.code, 400);
    assert!(got.message().contains("names 33 consumer groups"));
    assert!(api.watch_keys.try_recv().is_err());
}

#[tokio::test]
async fn requests_renew_the_watch_of_their_groups() {
    let mut snapshot = fixtures::snapshot();
    let known = watch_key("orders", &["payments"]);
    let targets = snapshot.targets.with_ad_hoc([known.clone()].into(), None);
    snapshot.targets = Arc::new(targets);
    let mut api = api(snapshot);
    let selector = "cluster=main,group=orders,topic=payments";
    for _ in 0..9 {
        assert_eq!(lag(&api.router, selector).await.code, 200);
    }
    assert_eq!(api.watch_keys.try_recv().unwrap(), known);
    // Half of the queue stays free for groups that are new.
    assert_eq!(api.watch_keys.len(), 3);
    assert_eq!(
        lag(&api.router, "cluster=main,group=idle,topic=payments")
            .await
            .code,
        200
    );
    while let Ok(sent) = api.watch_keys.try_recv() {
        assert_eq!(sent, known);
    }
}

#[tokio::test(start_paused = true)]
async fn groups_of_hpas_are_not_requested_again() {
    let mut snapshot = fixtures::snapshot();
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: "kafka_lag".to_owned(),
            selector: Selector::parse("cluster=main,group=soon").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::ONE)),
        }],
        ..HpaFacts::default()
    };
    let clusters = snapshot.targets.clusters.clone();
    snapshot.targets = Arc::new(Targets::merge(&clusters, &[], &[hpa], BTreeSet::new()));
    let mut api = api(snapshot);
    assert_eq!(lag(&api.router, "cluster=main,group=soon").await.code, 503);
    assert!(api.watch_keys.try_recv().is_err());
}

/// The race: while a request for a group of its own namespace waits, an HPA gives its selector a group that
/// the namespace may not use, and that has been read.
#[tokio::test]
async fn checks_tenancy_of_the_snapshot_that_answers() {
    for (allowed, code) in [("new", 403), ("*", 200)] {
        let tenancy = Tenancy(vec![Grant {
            namespaces: vec![Glob::new("shop")],
            groups: vec![Glob::new(allowed)],
            ..Grant::default()
        }]);
        let snapshot = fixtures::snapshot();
        let mut api = api_for(snapshot.clone(), RequestAuth::None, 8, tenancy);
        let selector = "cluster=main,group=new,topic=payments";
        let router = api.router.clone();
        let request = tokio::spawn(async move { lag(&router, selector).await });
        api.watch_keys.recv().await.unwrap();
        let hpa = HpaFacts {
            namespace: "shop".into(),
            name: "thief".into(),
            metrics: vec![ExternalMetric {
                name: "kafka_lag".into(),
                selector: Selector::parse(selector).unwrap(),
                target: Some(MetricTarget::AverageValue(Milli::from_units(1))),
            }],
            annotations: [("lagwise.dev/consumer-group".to_owned(), "orders".to_owned())].into(),
            ..HpaFacts::default()
        };
        let mut next = snapshot.clone();
        next.targets = Arc::new(Targets::merge(
            &snapshot.targets.clusters,
            &[],
            &[hpa],
            BTreeSet::new(),
        ));
        api.publisher.publish(evaluated(next));
        let got = request.await.unwrap();
        assert_eq!(got.code, code, "{allowed}: {}", got.body);
    }
}
