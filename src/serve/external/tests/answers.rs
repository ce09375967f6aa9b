//! Status codes and bodies of every path.

use super::*;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;

#[tokio::test]
async fn metric_value_list_has_one_item() {
    let api = api(fixtures::snapshot());
    let got = lag(&api.router, "cluster=main,group=orders,topic=payments").await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
    let expected = json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{
            "metricName": "kafka_lag",
            "metricLabels": {"cluster": "main", "group": "orders", "topic": "payments"},
            "timestamp": "2024-05-06T07:08:09Z",
            "value": "100",
        }],
    });
    assert_eq!(got.json(), expected);
}

#[tokio::test]
async fn selector_chooses_the_group() {
    let api = api(fixtures::snapshot());
    for (selector, value) in [
        ("cluster=main,group=orders,topic=payments", "100"),
        ("cluster=main,group=idle,topic=payments", "0"),
        ("cluster=main,group in (orders,idle),topic=payments", "100"),
    ] {
        let got = lag(&api.router, selector).await;
        assert_eq!(got.json()["items"][0]["value"], value, "{selector}");
    }
}

#[tokio::test]
async fn paths_have_their_status_codes() {
    let api = api(fixtures::snapshot());
    let openapi = "/openapi/v2".to_owned();
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    for (path, code) in [
        ("/healthz".to_owned(), 200),
        ("/livez".to_owned(), 200),
        ("/readyz".to_owned(), 200),
        ("/version".to_owned(), 200),
        ("/apis".to_owned(), 200),
        ("/apis/external.metrics.k8s.io".to_owned(), 200),
        (BASE.to_owned(), 200),
        (format!("{BASE}/"), 200),
        (good.clone(), 200),
        (format!("{good}&limit=5&continue=x&watch=false"), 200),
        (format!("{good}&watch=0"), 200),
        (format!("{good}&watch=true"), 405),
        (format!("{good}&watch"), 405),
        (openapi, 404),
        ("/openapi/v3".to_owned(), 404),
        ("/".to_owned(), 404),
        ("/metrics".to_owned(), 404),
        (format!("{BASE}/kafka_lag"), 404),
        (format!("{BASE}/namespaces/shop"), 404),
        (format!("{BASE}/namespaces/shop/"), 404),
        (format!("{LAG}/"), 404),
        (format!("{LAG}/more"), 404),
        (format!("/long/prefix{LAG}"), 404),
        (format!("{BASE}/namespaces/shop//kafka_lag"), 404),
        (format!("{BASE}/namespaces/shop/other_metric"), 404),
        (LAG.to_owned(), 400),
        (with_selector(LAG, "topic=payments"), 400),
        (with_selector(LAG, "group orders"), 400),
        (with_selector(LAG, "group=orders,topic=payments"), 400),
        (with_selector(LAG, "cluster=other,group=orders"), 404),
        (with_selector(LAG, "cluster=main,target=none"), 404),
        (
            with_selector(LAG, "cluster=main,group=mute,topic=refunds"),
            503,
        ),
    ] {
        let got = get(&api.router, &path).await;
        assert_eq!(got.code, code, "{path}: {}", got.body);
        assert!(!got.headers.contains_key(header::RETRY_AFTER), "{path}");
        if code != 200 {
            got.message();
        }
    }
}

#[tokio::test]
async fn error_messages_say_what_to_do() {
    let api = api(fixtures::snapshot());
    for (selector, part) in [
        ("topic=payments", "set for example"),
        ("group=orders", "name one with the label cluster"),
        ("group=g,", "unable to parse the label selector"),
        (
            "cluster=main,group=mute,topic=refunds",
            "no response before the deadline of the poll",
        ),
    ] {
        let message = lag(&api.router, selector).await.message();
        assert!(message.contains(part), "{selector}: {message}");
    }
}

#[tokio::test]
async fn error_bodies_quote_little_of_the_request() {
    let api = api(fixtures::snapshot());
    let long = [
        format!("group={}", "g".repeat(60_000)),
        format!("group=g,{}", "x=y,".repeat(6_000)),
        format!("group in ({})", "g,".repeat(14_000)),
    ];
    for selector in long {
        let got = lag(&api.router, &selector).await;
        assert!(got.code >= 400, "{}", got.code);
        let begin: String = selector.chars().take(20).collect();
        assert!(got.body.len() < 2_000, "{begin}: {}", got.body.len());
    }
}

#[tokio::test]
async fn only_get_is_served() {
    let api = api(fixtures::snapshot());
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
        for path in [LAG, BASE, "/apis", "/livez", "/nothing"] {
            let request = Request::builder().method(method).uri(path);
            let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
            assert_eq!(got.code, 405, "{method} {path}");
            assert_eq!(got.headers[header::ALLOW], "GET");
        }
    }
}

#[tokio::test]
async fn answers_json_to_clients_that_prefer_protobuf() {
    let api = api(fixtures::snapshot());
    let path = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    let request = Request::get(path)
        .header(header::ACCEPT, "application/vnd.kubernetes.protobuf, */*")
        .body(Body::empty());
    let got = send(&api.router, request.unwrap()).await;
    assert_eq!(got.code, 200);
    assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn discovery_documents() {
    let api = api(fixtures::snapshot());
    let version = json!({
        "groupVersion": "external.metrics.k8s.io/v1beta1", "version": "v1beta1",
    });
    let group = json!({
        "name": "external.metrics.k8s.io",
        "versions": [version],
        "preferredVersion": version,
    });
    let groups = get(&api.router, "/apis").await.json();
    assert_eq!(
        groups,
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
    );
    let one = get(&api.router, "/apis/external.metrics.k8s.io")
        .await
        .json();
    assert_eq!(
        (&one["kind"], &one["name"]),
        (&json!("APIGroup"), &group["name"])
    );
    assert_eq!(one["preferredVersion"], version);
    let resources = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{
            "name": "externalmetrics",
            "singularName": "",
            "namespaced": true,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }],
    });
    assert_eq!(get(&api.router, BASE).await.json(), resources);
    assert_eq!(
        get(&api.router, &format!("{BASE}/")).await.json(),
        resources
    );
    let git = get(&api.router, "/version").await.json()["gitVersion"].clone();
    assert_eq!(git, "v1.2.3");
}

#[tokio::test]
async fn aggregated_discovery() {
    let api = api(fixtures::snapshot());
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::get("/apis")
        .header(header::ACCEPT, media)
        .body(Body::empty());
    let got = send(&api.router, request.unwrap()).await;
    assert_eq!(got.headers[header::CONTENT_TYPE], media);
    assert_eq!(got.headers[header::VARY], "Accept");
    let body = got.json();
    assert_eq!(body["kind"], "APIGroupDiscoveryList");
    assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2");
    let resources = body["items"][0]["versions"][0]["resources"].as_array();
    assert_eq!(resources.map(Vec::len), Some(1));
    let again = Request::get("/apis")
        .header(header::ACCEPT, media)
        .header(header::IF_NONE_MATCH, &got.headers[header::ETAG])
        .body(Body::empty());
    let again = send(&api.router, again.unwrap()).await;
    assert_eq!((again.code, again.body.as_str()), (304, ""));
}

#[tokio::test]
async fn rejects_clients_that_do_not_accept_json() {
    let api = api(fixtures::snapshot());
    let path = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    for (accept, code) in [
        ("application/json", 200),
        ("application/vnd.kubernetes.protobuf, application/json", 200),
        ("application/vnd.kubernetes.protobuf,*/*", 200),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            200,
        ),
        ("Application/JSON", 200),
        ("application/*;q=0.5", 200),
        ("", 200),
        ("application/vnd.kubernetes.protobuf", 406),
        ("text/html", 406),
        ("application/yaml, text/plain", 406),
    ] {
        for path in [path.as_str(), BASE, "/apis", "/version"] {
            let request = Request::get(path).header(header::ACCEPT, accept);
            let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
            assert_eq!(got.code, code, "{accept} {path}");
            if code == 406 {
                got.message();
            }
        }
    }
}

#[tokio::test]
async fn rejects_large_bodies_and_ignores_small_ones() {
    let api = api(fixtures::snapshot());
    for (length, code) in [
        ("0", 200),
        ("65536", 200),
        ("65537", 413),
        ("99999999999", 413),
    ] {
        let request = Request::get(BASE).header(header::CONTENT_LENGTH, length);
        let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(got.code, code, "{length}");
    }
}

#[tokio::test]
async fn readiness_follows_the_snapshot() {
    let unswept = LagSnapshot {
        clusters: [("main".into(), Arc::new(ClusterSnapshot::default()))].into(),
        ..LagSnapshot::default()
    };
    let api = api(unswept);
    let got = get(&api.router, "/readyz").await;
    assert_eq!(got.code, 503);
    got.message();
    assert_eq!(get(&api.router, "/livez").await.code, 200);
    api.publisher.publish(evaluated(fixtures::snapshot()));
    assert_eq!(get(&api.router, "/readyz").await.code, 200);
}
