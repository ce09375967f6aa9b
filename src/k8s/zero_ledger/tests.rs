//! The ledger against an API server that checks resource versions as the real one does.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::k8s::write_guard::testing::refusal;
use crate::model::decisions::zero_ledger::testing;
use crate::model::hpa::facts::HpaFacts;

#[derive(Default)]
struct FakeConfigMap {
    object: Value,
    version: u64,
    writes: usize,
    refuses: bool,
}

type SharedConfigMap = Arc<Mutex<FakeConfigMap>>;

impl FakeConfigMap {
    fn answer(&mut self, method: &str, body: &Value) -> (StatusCode, Value) {
        let version = &body["metadata"]["resourceVersion"];
        let is_there = !self.object.is_null();
        match method {
            _ if self.refuses => return refusal(StatusCode::FORBIDDEN, "configmaps is forbidden"),
            "POST" if is_there => return refusal(StatusCode::CONFLICT, "it exists"),
            "POST" => self.put(body.clone()),
            _ if !is_there => return refusal(StatusCode::NOT_FOUND, "not found"),
            "GET" => return (StatusCode::OK, self.object.clone()),
            "DELETE" => {
                let expected = &body["preconditions"]["resourceVersion"];
                assert_eq!(*expected, self.object["metadata"]["resourceVersion"]);
                self.object = Value::Null;
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
                return (StatusCode::OK, status);
            }
            _ if *version != self.object["metadata"]["resourceVersion"] => {
                return refusal(StatusCode::CONFLICT, "it was changed");
            }
            _ => {
                let mut object = self.object.clone();
                let data = object["data"].as_object_mut().unwrap();
                data.extend(body["data"].as_object().unwrap().clone());
                data.retain(|_, text| !text.is_null());
                self.put(object);
            }
        }
        self.writes += 1;
        (StatusCode::OK, self.object.clone())
    }

    fn put(&mut self, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.object = object;
    }

    fn keys(&self) -> Vec<&str> {
        let data = self.object["data"].as_object();
        data.into_iter().flatten().map(|(uid, _)| &**uid).collect()
    }
}

fn config_map(shared: &SharedConfigMap) -> LedgerConfigMap {
    let served = Arc::clone(shared);
    let serve = move |request: Request<Body>| {
        let shared = Arc::clone(&served);
        async move {
            let method = request.method().to_string();
            let body = request.into_body().collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, body) = shared.lock().unwrap().answer(&method, &body);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = code;
            Ok::<_, Infallible>(response)
        }
    };
    let client = Client::new(tower::service_fn(serve), "lagwise");
    LedgerConfigMap::new(client, "lagwise-zero".into())
}

/// A ledger, and its storage.
fn start(hpas: Option<HpaMap>) -> (LedgerHandle, SharedConfigMap) {
    let shared = SharedConfigMap::default();
    let map = config_map(&shared);
    let hpas = watch::channel(hpas).1;
    (LedgerHandle::start(map, hpas, Vec::new()), shared)
}

fn record(hpa: &str) -> ZeroRecord {
    testing::record(hpa, &format!("target-of-{hpa}"))
}

const LONG: Duration = Duration::from_secs(60);

async fn write(ledger: &LedgerHandle, hpa: &str, is_new: bool) -> Result<(), RecordError> {
    let record = is_new.then(|| record(hpa));
    ledger.write(7, LONG, &hpa.into(), record).await
}

#[tokio::test]
async fn records_of_many_passes_are_written_together() {
    let (ledger, shared) = start(None);
    let names: Vec<_> = (0..40).map(|n| format!("h{n:02}")).collect();
    let written = names.iter().map(|name| write(&ledger, name, true));
    let written = futures::future::join_all(written).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    {
        let is = shared.lock().unwrap();
        assert_eq!(is.keys(), names);
        assert!(is.writes <= 4, "{} writes", is.writes);
    }
    let removed = names[5..].iter().map(|name| write(&ledger, name, false));
    futures::future::join_all(removed).await;
    assert_eq!(shared.lock().unwrap().keys(), names[..5]);
    let read = ledger.read(7, LONG).await.unwrap();
    assert_eq!(read.records().count(), 5);
    assert!(matches!(ledger.view(), LedgerView::Read(view) if view == read));
}

#[tokio::test]
async fn a_write_after_another_keeps_both() {
    let (ledger, shared) = start(None);
    write(&ledger, "a", true).await.unwrap();
    {
        let mut is = shared.lock().unwrap();
        let mut object = is.object.clone();
        object["data"]["theirs"] = json!(record("theirs").encode());
        is.put(object);
    }
    write(&ledger, "b", true).await.unwrap();
    assert_eq!(shared.lock().unwrap().keys(), ["a", "b", "theirs"]);
    // If it was deleted, the next write creates a new one.
    shared.lock().unwrap().object = Value::Null;
    write(&ledger, "c", true).await.unwrap();
    assert_eq!(shared.lock().unwrap().keys(), ["c"]);
}

#[tokio::test]
async fn reads_the_ledger_again_after_changes_by_others_and_in_another_term() {
    let (ledger, shared) = start(None);
    write(&ledger, "a", true).await.unwrap();
    shared.lock().unwrap().object = Value::Null;
    // Another term begins with reading.
    assert_eq!(ledger.read(8, LONG).await.unwrap().records().count(), 0);
    write(&ledger, "b", true).await.unwrap();
    shared.lock().unwrap().object = Value::Null;
    tokio::time::sleep(VERIFICATION_INTERVAL).await;
    // The request was of the former term.
    assert_eq!(ledger.read(7, LONG).await.unwrap().records().count(), 0);
    shared.lock().unwrap().refuses = true;
    tokio::time::sleep(VERIFICATION_INTERVAL).await;
    let refused = ApiError::Forbidden("configmaps is forbidden".into());
    assert_eq!(ledger.read(7, LONG).await, Err(refused.clone()));
    assert!(matches!(ledger.view(), LedgerView::Failed(error) if error == refused));
    assert_eq!(
        write(&ledger, "c", true).await,
        Err(RecordError::Api(refused))
    );
}

#[tokio::test]
async fn requests_without_time_left_write_nothing() {
    let (ledger, shared) = start(None);
    let none = Duration::ZERO;
    let written = ledger.write(7, none, &"a".into(), Some(record("a"))).await;
    assert!(matches!(written, Err(RecordError::Api(_))), "{written:?}");
    write(&ledger, "b", true).await.unwrap();
    assert_eq!(shared.lock().unwrap().keys(), ["b"]);
}

#[tokio::test]
async fn only_an_empty_ledger_of_lagwise_is_deleted() {
    let shared = SharedConfigMap::default();
    let map = config_map(&shared);
    // There is none.
    assert_eq!(map.delete_if_empty(LONG).await, Ok(()));
    let ours = json!({"labels": {"app.kubernetes.io/managed-by": "lagwise"}});
    for (metadata, data, is_deleted) in [
        (&ours, json!({}), true),
        (&ours, Value::Null, true),
        (&json!({}), json!({}), false),
        (&ours, json!({"notes": "of the operator"}), false),
    ] {
        let object = json!({"metadata": metadata, "data": data});
        shared.lock().unwrap().put(object);
        assert_eq!(map.delete_if_empty(LONG).await, Ok(()));
        let is_gone = shared.lock().unwrap().object.is_null();
        assert_eq!(is_gone, is_deleted, "{metadata} {data}");
    }
}

#[tokio::test]
async fn write_removes_records_of_hpas_that_are_gone() {
    let hpa = |name: &str, uid: &str| {
        Arc::new(HpaFacts {
            namespace: "shop".into(),
            name: name.into(),
            uid: uid.into(),
            ..HpaFacts::default()
        })
    };
    // `b` was deleted and created again.
    let hpas = [hpa("a", "a"), hpa("b", "b2"), hpa("d", "d")];
    let (ledger, shared) = start(Some(hpas.into_iter().collect()));
    let elsewhere = ZeroRecord {
        namespace: "elsewhere".into(),
        ..record("e")
    };
    let data = json!({
        "a": record("a").encode(), "b": record("b").encode(), "c": record("c").encode(),
        "e": elsewhere.encode(), "notes": "of the operator",
    });
    let object = json!({"metadata": {"name": "lagwise-zero"}, "data": data});
    shared.lock().unwrap().put(object);
    write(&ledger, "d", true).await.unwrap();
    assert_eq!(shared.lock().unwrap().keys(), ["a", "d", "notes"]);
    // HPAs in namespaces that are not watched may still exist.
    let watched = LedgerTask {
        map: LedgerConfigMap::new(
            Client::new(
                tower::service_fn(|_: Request<Body>| async {
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }),
                "lagwise",
            ),
            "lagwise-zero".into(),
        ),
        hpas: watch::channel(None).1,
        namespaces: vec!["shop".into()],
        stored: None,
        published: watch::channel(LedgerView::default()).0,
    };
    let none = Some(HpaMap::default());
    assert!(watched.is_deleted(&none, "a", &record("a")));
    assert!(!watched.is_deleted(&none, "e", &elsewhere));
    assert!(!watched.is_deleted(&None, "a", &record("a")));
}
