//! Authentication, authorization and tenancy.

use super::*;

/// A cluster that allows these users a verb on an object (`NAMESPACE/METRIC` or a path). A user's token is the
/// user's name.
fn cluster(allowed: &[(&str, &'static str, &str)]) -> (Arc<FakeAuthenticator>, RequestAuth) {
    let reviewer = Arc::new(FakeAuthenticator::default());
    for (who, verb, object) in allowed {
        reviewer.token(who, who);
        reviewer.allow(who, verb, object);
    }
    // Without a sender, the trusted certificates stay unknown.
    let (_, trust) = watch::channel(None);
    let auth = RequestAuth::Kubernetes {
        trust,
        reviewer: reviewer.clone(),
    };
    (reviewer, auth)
}

async fn get_as(router: &Router, token: &str, method: &str, path: &str) -> TestResponse {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    send(router, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn unauthenticated_callers_see_only_health_and_404() {
    let (_, auth) = cluster(&[]);
    let api = api_with(fixtures::snapshot(), auth, 8);
    for (path, anonymous, unknown) in [
        ("/livez", 200, 200),
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/openapi/v2", 404, 404),
        ("/openapi/v3", 404, 404),
        ("/version", 403, 401),
        ("/apis", 403, 401),
        (BASE, 403, 401),
        (LAG, 403, 401),
        ("/nothing", 404, 404),
    ] {
        assert_eq!(get(&api.router, path).await.code, anonymous, "{path}");
        let got = get_as(&api.router, "nobody's", "GET", path).await;
        assert_eq!(got.code, unknown, "{path}");
    }
    let got = get(&api.router, LAG).await;
    assert_eq!(got.json()["reason"], "Forbidden");
    let message = got.message();
    for part in [
        "user \"system:anonymous\" may not list",
        "kafka_lag",
        "shop",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let got = get_as(&api.router, "nobody's", "GET", LAG).await;
    assert_eq!(got.json()["reason"], "Unauthorized");
    assert!(!got.body.contains("nobody"), "{}", got.body);
    let request = Request::delete(LAG).body(Body::empty()).unwrap();
    assert_eq!(send(&api.router, request).await.code, 403);
}

#[tokio::test]
async fn authorizes_by_verb_metric_and_namespace() {
    let (_, auth) = cluster(&[
        ("hpa", "list", "shop/kafka_lag"),
        ("admin", "list", "shop/kafka_lag"),
        ("admin", "watch", "shop/kafka_lag"),
        ("admin", "create", "shop/kafka_lag"),
        ("admin", "get", "/version"),
    ]);
    let api = api_with(fixtures::snapshot(), auth, 8);
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    let other = good.replace("/shop/", "/hr/");
    let unknown = good.replace("kafka_lag", "other_metric");
    let watch = format!("{good}&watch=true");
    for (who, method, path, code) in [
        ("hpa", "GET", good.as_str(), 200),
        ("hpa", "GET", &other, 403),
        ("hpa", "GET", &unknown, 404),
        ("nobody", "GET", &unknown, 404),
        ("hpa", "GET", &watch, 403),
        ("hpa", "POST", &good, 403),
        ("hpa", "GET", "/version", 403),
        ("admin", "GET", &good, 200),
        ("admin", "GET", &watch, 405),
        ("admin", "POST", &good, 405),
        ("admin", "DELETE", &good, 403),
        ("admin", "GET", "/version", 200),
        ("admin", "POST", "/version", 403),
        ("nobody", "GET", "/nothing", 404),
    ] {
        let got = get_as(&api.router, who, method, path).await;
        assert_eq!(got.code, code, "{who} {method} {path}: {}", got.body);
        assert!(!got.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
}

#[tokio::test]
async fn no_review_is_made_for_a_path_that_does_not_exist() {
    let (reviewer, auth) = cluster(&[]);
    let api = api_with(fixtures::snapshot(), auth, 8);
    for n in 0..100 {
        for path in [
            format!("/{n}"),
            LAG.replace("kafka_lag", &format!("metric-{n}")),
        ] {
            assert_eq!(get(&api.router, &path).await.code, 404, "{path}");
            let token = format!("token-{n}");
            assert_eq!(get_as(&api.router, &token, "GET", &path).await.code, 404);
        }
    }
    assert_eq!(reviewer.call_count(), 0);
    // Of namespaces that may exist, only so often.
    let mut refused = 0;
    for n in 0..500 {
        let path = LAG.replace("/shop/", &format!("/namespace-{n}/"));
        match get(&api.router, &path).await.code {
            403 => {}
            429 => refused += 1,
            code => panic!("{code}"),
        }
    }
    let asked = reviewer.call_count();
    assert!(
        (40..100).contains(&asked) && refused + asked == 500,
        "{asked}"
    );
}

#[tokio::test]
async fn failed_review_returns_503_with_the_reason() {
    let (reviewer, auth) = cluster(&[("hpa", "list", "shop/kafka_lag")]);
    let api = api_with(fixtures::snapshot(), auth, 8);
    let good = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    reviewer.fail(Some(crate::authentication::ReviewError::NoRight));
    for got in [
        get_as(&api.router, "hpa", "GET", &good).await,
        get(&api.router, &good).await,
    ] {
        assert_eq!(got.code, 503, "{}", got.body);
        assert!(
            got.message()
                .contains("bind the ClusterRole system:auth-delegator")
        );
    }
    reviewer.fail(None);
    let got = get_as(&api.router, "hpa", "GET", &good).await;
    assert_eq!(got.code, 200, "{}", got.body);
}

#[tokio::test]
async fn tenancy_limits_groups_and_topics_per_namespace() {
    let list = |patterns: &[&str]| patterns.iter().copied().map(Glob::new).collect();
    let tenancy = Tenancy(vec![Grant {
        namespaces: list(&["shop*"]),
        groups: list(&["orders", "new"]),
        topics: list(&["pay*"]),
        ..Grant::default()
    }]);
    let mut api = api_for(fixtures::snapshot(), RequestAuth::None, 8, tenancy);
    let other = LAG.replace("/shop/", "/hr/");
    for (path, selector, code) in [
        (LAG, "cluster=main,group=orders,topic=payments", 200),
        (LAG, "cluster=main,group=orders", 403),
        (LAG, "cluster=main,group=idle,topic=payments", 403),
        (
            LAG,
            "cluster=main,group in (orders,idle),topic=payments",
            403,
        ),
        (LAG, "cluster=main,group=orders,topic=refunds", 403),
        (&other, "cluster=main,group=orders,topic=payments", 403),
        (LAG, "cluster=main,group=secret,topic=payments", 403),
    ] {
        let got = get(&api.router, &with_selector(path, selector)).await;
        assert_eq!(got.code, code, "{path} {selector}: {}", got.body);
        if code == 403 {
            assert!(got.message().contains("tenancy"), "{}", got.body);
        }
    }
    // A rejected group is not read either.
    assert!(api.watch_keys.try_recv().is_err());
}
