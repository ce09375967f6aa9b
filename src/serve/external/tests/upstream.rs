//! Requests for metrics that are not lagwise's, with a scripted upstream.

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;

use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::findings::{FindingCode, ReportedFindings};
use crate::serve::tls::ServerTls;
use crate::serve::upstream::{UpstreamIdentity, UpstreamOptions, UpstreamTrust};

const NAMESPACE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop";

const TOKEN: &str = "token-for-the-upstream";

/// An answer with headers that must not reach the caller, and a body that no JSON library would write like this.
const HEADERS: &str = "Retry-After: 7\r\nSet-Cookie: a=b\r\nWWW-Authenticate: Bearer\r\nAuthorization: Bearer x\r\n\
     X-Remote-User: admin\r\nX-Lagwise-Forwarded: by the leader\r\nContent-Type: application/json; charset=odd\r\n";
const BODY: &str = "{ \"kind\" :\t\"ExternalMetricValueList\",\n\"items\":[ ] , \"é\": 1e0 }\n";

/// A server of external metrics that answers by the name of the metric.
struct ScriptedUpstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    options: UpstreamOptions,
    _files: tempfile::TempDir,
}

impl ScriptedUpstream {
    async fn start() -> Self {
        let tls = ServerTls::self_signed(&["127.0.0.1".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let files = tempfile::tempdir().unwrap();
        let (ca, token) = (files.path().join("ca.crt"), files.path().join("token"));
        fs::write(&ca, tls.ca_pem().unwrap()).unwrap();
        fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mut config = (*tls.config().get_inner()).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&seen), address));
            }
        });
        Self {
            address,
            requests,
            options: UpstreamOptions {
                url: format!("https://{address}"),
                trust: UpstreamTrust::CaFile(ca),
                identity: UpstreamIdentity {
                    token_file: Some(token),
                    certificate: None,
                },
            },
            _files: files,
        }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    fn upstream(&self) -> Upstream {
        Upstream::new(self.options.clone()).unwrap()
    }

    fn api(&self, auth: RequestAuth) -> TestApi {
        let snapshot = evaluated(fixtures::snapshot());
        let upstream = Some(self.upstream());
        api_beside(upstream, snapshot, auth, 8, Tenancy::default()).0
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    seen: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(head);
    let metric = path.rsplit('/').next().unwrap();
    let metric = metric.split('?').next().unwrap();
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{HEADERS}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let text = match metric {
        "v1beta1" => {
            let resource = |name: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"]});
            let names = ["externalmetrics", "s0-queue", "kafka_lag", "a/b"];
            let list =
                json!({"kind": "APIResourceList", "resources": names.map(resource)}).to_string();
            answer("200 OK", &list)
        }
        "busy" => answer("429 Too Many Requests", BODY),
        "broken" => answer("500 Internal Server Error", BODY),
        "missing" => answer("404 Not Found", BODY),
        "unauthorized" => answer("401 Unauthorized", BODY),
        "forbidden" => answer("403 Forbidden", BODY),
        "moved" => answer(
            &format!("302 Found\r\nLocation: https://{address}{path}"),
            BODY,
        ),
        "slow" => return std::future::pending().await,
        "half" => {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{";
            let _ = stream.write_all(text.as_bytes()).await;
            return std::future::pending().await;
        }
        "cut" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned(),
        "garbage" => "\u{15}\u{3}\u{1}\0\u{2}not HTTP\r\n\r\n".to_owned(),
        "endless" => {
            // Never ends its headers.
            while stream.write_all(b"X-More: more\r\n").await.is_ok() {}
            return;
        }
        "large" => {
            let length = LARGE_CHUNKS * large_chunk().len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = large_chunk();
            for _ in 0..LARGE_CHUNKS {
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            return;
        }
        _ => answer("200 OK", BODY),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// 50 MB.
const LARGE_CHUNKS: usize = 200;

fn large_chunk() -> Vec<u8> {
    (0..=250).cycle().take(250_000).collect()
}

#[tokio::test]
async fn passes_on_every_metric_that_is_not_its_own() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    for (metric, query, asked) in [
        ("s0-queue", "", "s0-queue"),
        ("s0-kafka-orders", "", "s0-kafka-orders"),
        (
            "s1-rabbitmq-queueName",
            "?labelSelector=scaledobject.keda.sh%2Fname%3Dorders",
            "s1-rabbitmq-queueName",
        ),
        ("kafka-lag", "", "kafka-lag"),
        ("kafka_lagx", "", "kafka_lagx"),
        ("KAFKA_LAG", "", "KAFKA_LAG"),
        ("kafka_lag.", "", "kafka_lag."),
        (
            "kafka_consumergroup_lag",
            "?labelSelector=consumergroup+in+%28a%2Cb%29",
            "kafka_consumergroup_lag",
        ),
        (
            "datadogmetric@shop:orders-lag",
            "",
            "datadogmetric@shop:orders-lag",
        ),
        (
            "nginx.net.request_per_s",
            "?labelSelector=app%3Dfront",
            "nginx.net.request_per_s",
        ),
        ("a%20b", "", "a%20b"),
        ("a%3Fb", "", "a%3Fb"),
        ("a%23b", "", "a%23b"),
        ("%C3%A9t%C3%A9", "", "%C3%A9t%C3%A9"),
        ("..a", "", "..a"),
        ("a%25b", "", "a%25b"),
        ("%6Bafka%2Dlag", "", "kafka-lag"),
        ("x", "?limit=500&resourceVersion=0", "x"),
        ("x", "?labelSelector=", "x"),
        ("x", "?labelSelector=not%20a%20selector%21%21", "x"),
        (
            "sqs_messages",
            "?labelSelector=queue%3Dorders&labelSelector=b",
            "sqs_messages",
        ),
    ] {
        let path = format!("{NAMESPACE}/{metric}{query}");
        let request = Request::get(&path)
            .header("authorization", "Bearer of-the-caller")
            .header("x-remote-user", "admin")
            .header("impersonate-user", "admin")
            .header("cookie", "a=b");
        let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!((got.code, got.body.as_str()), (200, BODY), "{path}");
        let names: BTreeSet<_> = got.headers.keys().map(header::HeaderName::as_str).collect();
        assert_eq!(names, ["cache-control", "content-type"].into(), "{path}");
        let kind = "application/json; charset=odd";
        assert_eq!(got.headers[header::CONTENT_TYPE], kind, "{path}");
        let requests = upstream.requests();
        let [request] = &requests[..] else {
            panic!("{path}: {requests:?}");
        };
        let expected = format!("GET {NAMESPACE}/{asked}{query} HTTP/1.1\r\n");
        assert!(request.starts_with(&expected), "{path}: {request}");
        let request = request.to_lowercase();
        let authorization = format!("authorization: bearer {TOKEN}\r\n");
        assert!(request.contains(&authorization), "{request}");
        for name in [
            "x-remote-user",
            "impersonate-user",
            "cookie",
            "of-the-caller",
        ] {
            assert!(!request.contains(name), "{path}: {request}");
        }
    }
    // Its own stay here, and neither does a name reach the upstream that changes the path.
    for (path, code) in [
        (
            with_selector(LAG, "cluster=main,group=orders,topic=payments"),
            200,
        ),
        (
            with_selector(
                &LAG.replace("kafka_lag", "%6Bafka_lag"),
                "cluster=main,group=orders,topic=payments",
            ),
            200,
        ),
        (format!("{NAMESPACE}/kafka_desired_replicas"), 400),
        (format!("{NAMESPACE}/.."), 404),
        (format!("{NAMESPACE}/%2e%2E"), 404),
        (format!("{NAMESPACE}/."), 404),
        (
            format!("{NAMESPACE}/..%2F..%2Fnamespaces%2Fhr%2Fs0-queue"),
            404,
        ),
        (format!("{NAMESPACE}/a%2Fb"), 404),
        (format!("{NAMESPACE}/a%5Cb"), 404),
        (format!("{NAMESPACE}/a%0D%0Ab"), 404),
        (format!("{NAMESPACE}/{}", "a".repeat(254)), 404),
        (format!("{BASE}/namespaces/%2e%2e/s0-queue"), 404),
        (format!("{BASE}/namespaces/a%2Fb/s0-queue"), 404),
        (format!("{BASE}/namespaces/Shop/s0-queue"), 404),
        (format!("{NAMESPACE}/s0-queue?watch=true"), 405),
    ] {
        let got = get(&api.router, &path).await;
        assert_eq!(got.code, code, "{path}: {}", got.body);
    }
    assert_eq!(upstream.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn failures_of_the_upstream_are_answers_without_retry_after() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    for (metric, code, message) in [
        ("busy", 429, None),
        ("broken", 500, None),
        ("missing", 404, None),
        (
            "unauthorized",
            503,
            Some("does not let lagwise read this metric"),
        ),
        ("forbidden", 503, Some("grant the identity")),
        ("moved", 503, Some("redirects")),
        ("garbage", 503, Some("cannot connect to the upstream")),
        ("endless", 503, Some("cannot connect to the upstream")),
        ("slow", 503, Some("does not answer")),
    ] {
        let path = format!("{NAMESPACE}/{metric}");
        let asked = get(&api.router, &path);
        let own = with_selector(LAG, "cluster=main,group=orders,topic=payments");
        let began = std::time::Instant::now();
        let (got, own) = tokio::join!(asked, get(&api.router, &own));
        assert_eq!(got.code, code, "{metric}: {}", got.body);
        // The deadline is 2 s; the rest is for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(5), "{metric}");
        assert!(!got.headers.contains_key(header::RETRY_AFTER), "{metric}");
        match message {
            Some(message) => assert!(got.message().contains(message), "{}", got.body),
            None => assert_eq!(got.body, BODY, "{metric}"),
        }
        assert_eq!(own.code, 200, "beside {metric}: {}", own.body);
        assert_eq!(upstream.requests().len(), 1, "{metric}");
    }
    for metric in ["half", "cut"] {
        let path = format!("{NAMESPACE}/{metric}");
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await;
        assert!(body.is_err(), "{metric}");
    }
    // No server listens there any more.
    let mut options = upstream.options.clone();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    options.url = format!("https://{}", closed.local_addr().unwrap());
    drop(closed);
    let dead = Some(Upstream::new(options).unwrap());
    let snapshot = evaluated(fixtures::snapshot());
    let (api, _) = api_beside(dead, snapshot, RequestAuth::None, 8, Tenancy::default());
    let got = get(&api.router, &format!("{NAMESPACE}/s0-queue")).await;
    assert_eq!(got.code, 503);
    let message = got.message();
    assert!(
        message.contains("cannot connect to the upstream"),
        "{message}"
    );
    let got = get(&api.router, BASE).await;
    assert_eq!(got.json()["resources"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_configured_upstream_is_trusted() {
    let (one, other) = (
        ScriptedUpstream::start().await,
        ScriptedUpstream::start().await,
    );
    let mut options = one.options.clone();
    options.url = format!("https://{}", other.address);
    let ask = async |options: UpstreamOptions| {
        let upstream = Some(Upstream::new(options).unwrap());
        let snapshot = evaluated(fixtures::snapshot());
        let (api, _) = api_beside(upstream, snapshot, RequestAuth::None, 8, Tenancy::default());
        get(&api.router, &format!("{NAMESPACE}/s0-queue"))
            .await
            .code
    };
    assert_eq!(ask(options.clone()).await, 503);
    assert_eq!(other.requests(), Vec::<String>::new());
    options.trust = UpstreamTrust::Any;
    assert_eq!(ask(options).await, 200);
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_former_ones() {
    let upstream = ScriptedUpstream::start().await;
    let own = upstream.upstream();
    let findings = own.findings();
    let snapshot = evaluated(fixtures::snapshot());
    let (api, _) = api_beside(
        Some(own),
        snapshot,
        RequestAuth::None,
        8,
        Tenancy::default(),
    );
    let folder = upstream._files.path();
    let ca = fs::read_to_string(folder.join("ca.crt")).unwrap();
    let other = ServerTls::self_signed(&["127.0.0.1".to_owned()]).unwrap();
    let other = other.ca_pem().unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, text, code, problems) in [
        ("ca.crt", Some(""), 200, 1),
        ("ca.crt", Some("no certificate"), 200, 1),
        ("ca.crt", Some(broken), 200, 1),
        ("ca.crt", None, 200, 1),
        ("token", Some(""), 200, 2),
        ("token", None, 200, 2),
        // What can be used counts.
        ("ca.crt", Some(&*other), 503, 1),
        ("ca.crt", None, 503, 2),
        ("ca.crt", Some(&*ca), 200, 1),
        ("token", Some(TOKEN), 200, 0),
    ] {
        let path = folder.join(file);
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        // Longer than files are used before they are read again.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
        let got = get(&api.router, &format!("{NAMESPACE}/s0-queue")).await;
        assert_eq!(got.code, code, "{file} {text:?}: {}", got.body);
        let found = found(&findings);
        assert_eq!(found.len(), problems, "{file} {text:?}: {found:?}");
        for request in upstream.requests() {
            assert!(request.contains(TOKEN), "{file} {text:?}: {request}");
        }
    }
}

/// Findings of an upstream about its files.
fn found(findings: &watch::Receiver<ReportedFindings>) -> Vec<String> {
    let findings = findings.borrow();
    let shown = findings.iter().map(|finding| {
        assert_eq!(finding.code, FindingCode::UpstreamFileUnusable);
        finding.to_string()
    });
    shown.collect()
}

#[tokio::test]
async fn without_a_token_no_request_is_made_and_a_finding_has_the_reason() {
    let scripted = ScriptedUpstream::start().await;
    let token = scripted._files.path().join("token");
    for (text, problem) in [(None, "No such file"), (Some("\n"), "it is empty")] {
        match text {
            Some(text) => fs::write(&token, text).unwrap(),
            None => fs::remove_file(&token).unwrap(),
        }
        let upstream = scripted.upstream();
        let findings = upstream.findings();
        // From the start, before anything is asked.
        let shown = found(&findings).join("\n");
        assert!(
            shown.starts_with("server.external_metrics.upstream.token_file: cannot use ")
                && shown.contains(problem),
            "{shown}"
        );
        let snapshot = evaluated(fixtures::snapshot());
        let (api, _) = api_beside(
            Some(upstream),
            snapshot,
            RequestAuth::None,
            8,
            Tenancy::default(),
        );
        let path = format!("{NAMESPACE}/s0-queue");
        let got = get(&api.router, &path).await;
        assert!(
            got.code == 503 && got.body.contains("has no token for the upstream"),
            "{}",
            got.body
        );
        assert_eq!(scripted.requests(), Vec::<String>::new());
        fs::write(&token, TOKEN).unwrap();
        // It is read again after a second.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        assert_eq!(get(&api.router, &path).await.code, 200);
        assert_eq!(found(&findings), [""; 0]);
        assert_eq!(scripted.requests().len(), 1);
    }
}

#[tokio::test]
async fn large_bodies_are_streamed_and_their_number_is_bounded() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    let large = async || {
        let request = Request::get(format!("{NAMESPACE}/large"));
        let request = request.body(Body::empty()).unwrap();
        api.router.clone().oneshot(request).await.unwrap()
    };
    let mut body = large().await.into_body();
    let (mut digest, mut length) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        length += data.len();
        digest.update(&data);
    }
    let mut expected = Sha256::new();
    let chunk = large_chunk();
    for _ in 0..LARGE_CHUNKS {
        expected.update(&chunk);
    }
    assert_eq!(length, 50_000_000);
    assert_eq!(digest.finalize(), expected.finalize());
    drop(body);
    // Responses that the client does not read count until they are dropped.
    let mut unread = Vec::new();
    let busy = loop {
        let response = large().await;
        if response.status() != 200 {
            break response;
        }
        unread.push(response);
    };
    // Half of them, for one namespace.
    assert_eq!((busy.status().as_u16(), unread.len()), (503, 8));
    let own = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    assert_eq!(get(&api.router, &own).await.code, 200);
    let other = format!("{}/s0-queue", NAMESPACE.replace("shop", "other"));
    assert_eq!(get(&api.router, &other).await.code, 200);
    drop(unread);
    assert_eq!(large().await.status(), 200);
}

#[tokio::test]
async fn authorizes_before_it_passes_on() {
    let upstream = ScriptedUpstream::start().await;
    let reviewer = Arc::new(FakeAuthenticator::default());
    for user in ["hpa", "peer"] {
        reviewer.token(user, user);
    }
    reviewer.allow("hpa", "list", "shop/s0-queue");
    reviewer.token("own", crate::serve::auth::testing::OWN_NAME);
    let (_, trust) = watch::channel(None);
    let api = upstream.api(RequestAuth::Kubernetes {
        trust,
        reviewer: reviewer.clone(),
    });
    for (token, method, path, code, passed) in [
        ("hpa", "GET", "s0-queue", 200, 1),
        ("hpa", "GET", "other", 403, 0),
        ("peer", "GET", "s0-queue", 403, 0),
        // Another replica has no more rights here.
        ("own", "GET", "s0-queue", 403, 0),
        ("nobody's", "GET", "s0-queue", 401, 0),
        ("hpa", "POST", "s0-queue", 403, 0),
        ("hpa", "GET", "..", 404, 0),
    ] {
        let request = Request::builder().method(method);
        let request = request.uri(format!("{NAMESPACE}/{path}"));
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.header(crate::serve::forward::FORWARDED, "1");
        let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(got.code, code, "{token} {method} {path}: {}", got.body);
        assert_eq!(upstream.requests().len(), passed, "{token} {path}");
    }
    let path = format!("{}/s0-queue", NAMESPACE.replace("shop", "hr"));
    let got = get(&api.router, &path).await;
    assert_eq!(got.code, 403, "{}", got.body);
    assert_eq!(upstream.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn lagwise_as_its_own_upstream_does_not_loop() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    assert_eq!(get(&api.router, &format!("{NAMESPACE}/x")).await.code, 200);
    let sent = upstream.requests().remove(0);
    let mark = sent
        .lines()
        .find_map(|line| line.strip_prefix("x-lagwise-passed-on: "))
        .unwrap();
    let request = Request::get(format!("{NAMESPACE}/x")).header("x-lagwise-passed-on", mark);
    let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(got.code, 503);
    assert!(got.message().contains("is lagwise itself"), "{}", got.body);
    assert_eq!(upstream.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn discovery_lists_both() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    let names = |list: &Value, key: &str| {
        let list = list.as_array().unwrap().iter();
        list.map(|item| item[key].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let got = get(&api.router, BASE).await.json();
    let both = ["externalmetrics", "s0-queue"];
    assert_eq!(names(&got["resources"], "name"), both);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::get("/apis").header("accept", accept);
    let got = send(&api.router, request.body(Body::empty()).unwrap()).await;
    let resources = &got.json()["items"][0]["versions"][0]["resources"];
    assert_eq!(names(resources, "resource"), both);
    // The list is kept for a while.
    assert_eq!(upstream.requests().len(), 1);
}

/// The 99th percentile of the time that requests for an own metric take.
async fn own_p99(router: &Router) -> Duration {
    let own = with_selector(LAG, "cluster=main,group=orders,topic=payments");
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = std::time::Instant::now();
        let got = get(router, &own).await;
        took.push(began.elapsed());
        assert_eq!(got.code, 200, "{}", got.body);
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[allow(clippy::print_stdout, reason = "the figures are for whoever runs it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_metrics_do_not_wait_for_the_upstream() {
    let upstream = ScriptedUpstream::start().await;
    let api = upstream.api(RequestAuth::None);
    // No server listens there.
    let mut options = upstream.options.clone();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    options.url = format!("https://{}", closed.local_addr().unwrap());
    drop(closed);
    let dead = Some(Upstream::new(options).unwrap());
    let snapshot = evaluated(fixtures::snapshot());
    let (dead, _) = api_beside(dead, snapshot, RequestAuth::None, 8, Tenancy::default());
    let before = own_p99(&api.router).await;
    for metric in [
        "slow", "half", "endless", "garbage", "busy", "moved", "large", "dead",
    ] {
        let api = if metric == "dead" { &dead } else { &api };
        let asking = (0..8).map(|_| {
            let router = api.router.clone();
            tokio::spawn(async move {
                loop {
                    let request = Request::get(format!("{NAMESPACE}/{metric}"));
                    let request = request.body(Body::empty()).unwrap();
                    let response = router.clone().oneshot(request).await.unwrap();
                    let mut body = response.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                    tokio::task::yield_now().await;
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        while metric != "dead" && upstream.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        let during = own_p99(&api.router).await;
        println!("p99 of own metrics: {before:?} before, {during:?} beside {metric}");
        // Far below the 2 s for which the upstream may hang, on a busy machine too.
        let most = before * 4 + Duration::from_millis(250);
        assert!(during < most, "{metric}: {during:?}, {before:?} before");
        for task in asking {
            task.abort();
        }
    }
}
