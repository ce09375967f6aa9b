//! Passes against an API server that checks resource versions as the real one does.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::k8s::write_guard::testing::{leader, refusal};
use crate::k8s::zero_ledger::{LedgerConfigMap, LedgerHandle};
use crate::model::decisions::cap::{CapTarget, FieldOwner};
use crate::model::decisions::scale_to_zero::Demand;
use crate::model::decisions::zero_ledger::ZeroRecord;
use crate::model::decisions::zero_ledger::testing::record;

/// One HPA `orders` in `shop` that scales a Deployment, and what was asked about them.
struct FakeApiServer {
    hpa: Value,
    replicas: u64,
    scale_version: u64,
    requests: Vec<String>,
    /// Somebody else writes the HPA right after it was read.
    hpa_is_contested: bool,
    /// Somebody else scales the workload right after its scale was read.
    scale_is_contested: bool,
    /// The API server refuses to have `spec` changed.
    refuses_spec: bool,
    /// The ConfigMap of the ledger.
    ledger: Value,
    /// The API server refuses all writes of the ledger.
    refuses_ledger: bool,
}

type SharedApiServer = Arc<Mutex<FakeApiServer>>;

fn cluster(annotations: Value, replicas: u64) -> SharedApiServer {
    let hpa = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "namespace": "shop", "name": "orders", "uid": "u1", "resourceVersion": "1",
            "annotations": annotations,
        },
        "spec": {
            "minReplicas": 2,
            "maxReplicas": 20,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "billing"},
        },
    });
    Arc::new(Mutex::new(FakeApiServer {
        hpa,
        replicas,
        scale_version: 1,
        requests: Vec::new(),
        hpa_is_contested: false,
        scale_is_contested: false,
        refuses_spec: false,
        ledger: Value::Null,
        refuses_ledger: false,
    }))
}

fn client(cluster: &SharedApiServer) -> Client {
    let cluster = Arc::clone(cluster);
    let serve = move |request: Request<Body>| {
        let cluster = Arc::clone(&cluster);
        async move {
            let (method, path) = (
                request.method().to_string(),
                request.uri().path().to_owned(),
            );
            let body = request.into_body().collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, body) = cluster.lock().unwrap().answer(&method, &path, &body);
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = code;
            Ok::<_, Infallible>(response)
        }
    };
    Client::new(tower::service_fn(serve), "shop")
}

impl FakeApiServer {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let what = match path.rsplit('/').next() {
            Some("scale") => "scale",
            Some("orders") => "hpa",
            Some("configmaps" | "lagwise-zero") => "ledger",
            Some("v1") => {
                let deployments = json!({"name": "deployments", "kind": "Deployment",
                    "namespaced": true, "singularName": "", "verbs": []});
                let list = json!({"kind": "APIResourceList", "groupVersion": "apps/v1",
                    "resources": [deployments]});
                return (StatusCode::OK, list);
            }
            _ => return refusal(StatusCode::NOT_FOUND, "not found"),
        };
        let conflict = || refusal(StatusCode::CONFLICT, "the object has been modified");
        let version = &body["metadata"]["resourceVersion"];
        self.requests.push(format!("{method} {what}"));
        match (method, what) {
            (_, "ledger") => return self.answer_ledger(method, body),
            ("GET", "hpa") => {
                let read = self.hpa.clone();
                if self.hpa_is_contested {
                    self.bump();
                }
                return (StatusCode::OK, read);
            }
            ("GET", _) => {
                let read = self.scale();
                if self.scale_is_contested {
                    self.scale_version += 1;
                }
                return (StatusCode::OK, read);
            }
            (_, "hpa") if *version != self.hpa["metadata"]["resourceVersion"] => return conflict(),
            (_, "hpa") if self.refuses_spec && !body["spec"].is_null() => {
                return refusal(StatusCode::FORBIDDEN, "spec is not yours");
            }
            (_, "hpa") => {
                assert_eq!(body["metadata"]["uid"], "u1");
                let annotations = self.hpa["metadata"]["annotations"].as_object_mut().unwrap();
                annotations.extend(body["metadata"]["annotations"].as_object().unwrap().clone());
                annotations.retain(|_, value| !value.is_null());
                if !body["spec"].is_null() {
                    self.hpa["spec"]["maxReplicas"] = body["spec"]["maxReplicas"].clone();
                }
                self.bump();
            }
            _ if *version != json!(self.scale_version.to_string()) => return conflict(),
            _ => {
                self.replicas = body["spec"]["replicas"].as_u64().unwrap();
                self.scale_version += 1;
                return (StatusCode::OK, self.scale());
            }
        }
        (StatusCode::OK, self.hpa.clone())
    }

    fn answer_ledger(&mut self, method: &str, body: &Value) -> (StatusCode, Value) {
        let version = &body["metadata"]["resourceVersion"];
        match method {
            "GET" if self.ledger.is_null() => {
                return refusal(
                    StatusCode::NOT_FOUND,
                    "configmaps \"lagwise-zero\" not found",
                );
            }
            "GET" => {}
            _ if self.refuses_ledger => {
                return refusal(StatusCode::FORBIDDEN, "configmaps is forbidden");
            }
            "POST" => {
                self.ledger = body.clone();
                self.ledger["metadata"]["resourceVersion"] = json!("1");
            }
            _ if *version != self.ledger["metadata"]["resourceVersion"] => {
                return refusal(StatusCode::CONFLICT, "the object has been modified");
            }
            _ => {
                let data = self.ledger["data"].as_object_mut().unwrap();
                data.extend(body["data"].as_object().unwrap().clone());
                data.retain(|_, value| !value.is_null());
                self.ledger["metadata"]["resourceVersion"] = json!("2");
            }
        }
        (StatusCode::OK, self.ledger.clone())
    }

    /// The UIDs of the HPA and of the workload of each record.
    fn records(&self) -> Vec<(String, String)> {
        let data = self.ledger["data"].as_object();
        let records = data.into_iter().flatten().filter_map(|(hpa, text)| {
            let record: ZeroRecord = serde_json::from_str(text.as_str()?).ok()?;
            Some((hpa.clone(), record.target_uid))
        });
        records.collect()
    }

    fn bump(&mut self) {
        let version = &mut self.hpa["metadata"]["resourceVersion"];
        let number: u64 = version.as_str().unwrap().parse().unwrap();
        *version = json!((number + 1).to_string());
    }

    fn scale(&self) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "billing", "uid": "d1", "resourceVersion": self.scale_version.to_string()},
            "spec": {"replicas": self.replicas}, "status": {"replicas": self.replicas},
        })
    }

    fn annotation(&self, key: &str) -> Value {
        self.hpa["metadata"]["annotations"][format!("lagwise.dev/{key}")].clone()
    }
}

const HOLD: CapGoal = CapGoal {
    target: CapTarget::Hold(6),
    last_seen: None,
    owner: FieldOwner::Lagwise,
    was_refused: false,
};

/// A workload with this demand that has been idle for longer than its cooldown.
fn zero(demand: Demand) -> Option<ZeroInput> {
    let long_ago = Instant::now() - Duration::from_secs(60);
    Some(ZeroInput {
        candidate: Some(ZeroCandidate {
            demand,
            cooldown: Duration::from_secs(6),
            ceiling: None,
        }),
        idle: Some(Duration::from_secs(60)),
        up_since: Some(long_ago),
        zeroed_at: None,
    })
}

/// Runs a pass of the leader of that term.
async fn pass(
    cluster: &SharedApiServer,
    term: u64,
    cap: Option<CapGoal>,
    zero: Option<ZeroInput>,
) -> PassReport {
    let (mut guard, _publisher) = leader(client(cluster), term, Duration::from_secs(600));
    guard.take_snapshot();
    let map = LedgerConfigMap::new(guard.client.clone(), "lagwise-zero".into());
    let ledger = LedgerHandle::start(map, guard.hpas.clone(), Vec::new());
    let hpa = cluster.lock().unwrap().hpa.clone();
    let hpa = crate::k8s::hpa::facts_of(&serde_json::from_value(hpa).unwrap());
    let pass = Pass {
        scales: Scales::new(guard.client.clone()),
        ledger: Some(ledger),
        is_recorded: !cluster.lock().unwrap().records().is_empty(),
        guard,
        hpa: Arc::new(hpa),
        cap,
        zero,
    };
    pass.run().await
}

fn requests(cluster: &SharedApiServer) -> Vec<String> {
    std::mem::take(&mut cluster.lock().unwrap().requests)
}

fn asks_for_zero() -> Value {
    json!({"lagwise.dev/cap": "enforce", "lagwise.dev/scale-to-zero": "true"})
}

fn marked() -> Value {
    let mut annotations = asks_for_zero();
    annotations["lagwise.dev/zeroed-since"] = json!("2026-01-01T00:00:00Z");
    annotations
}

/// A workload at zero replicas whose HPA is marked, with a record for these UIDs of the HPA and of the workload.
fn at_zero(hpa_uid: &str, target_uid: &str) -> SharedApiServer {
    let cluster = cluster(marked(), 0);
    let record = ZeroRecord {
        name: "billing".into(),
        ..record("orders", target_uid)
    };
    cluster.lock().unwrap().ledger = json!({
        "metadata": {"name": "lagwise-zero", "resourceVersion": "1"},
        "data": {hpa_uid: record.encode()},
    });
    cluster
}

/// A workload that lagwise has scaled to zero.
fn asleep() -> SharedApiServer {
    at_zero("u1", "d1")
}

#[tokio::test]
async fn term_cap_and_mark_are_one_patch() {
    let cluster = cluster(asks_for_zero(), 3);
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "POST ledger",
        "PATCH hpa",
        "PATCH scale",
    ];
    assert_eq!(requests(&cluster), expected);
    assert_eq!(report.term_write, Ok(()));
    let written = report.cap.unwrap().unwrap().unwrap();
    assert_eq!((written.before.max, written.after.max), (20, 6));
    let zero = report.zero.unwrap();
    assert_eq!((zero.done, zero.error), (Some(ZeroAction::Zero), None));
    let is = cluster.lock().unwrap();
    assert_eq!((is.annotation("epoch"), is.replicas), (json!("7"), 0));
    assert_eq!(is.annotation("user-max-replicas"), "20");
    assert!(is.annotation("zeroed-since").is_string());
    assert_eq!(is.records(), [("u1".to_owned(), "d1".to_owned())]);
}

#[tokio::test]
async fn wakes_a_workload_before_removing_the_mark() {
    let cluster = asleep();
    let report = pass(&cluster, 0, None, zero(Demand::Waiting(3))).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "PATCH scale",
        "PATCH hpa",
        "PATCH ledger",
    ];
    assert_eq!(requests(&cluster), expected);
    let zero_report = report.zero.unwrap();
    assert_eq!(zero_report.done, Some(ZeroAction::Wake(3)));
    assert!(zero_report.up_since.is_some());
    let is = cluster.lock().unwrap();
    assert_eq!(
        (is.annotation("zeroed-since"), is.replicas),
        (Value::Null, 3)
    );
    assert_eq!(is.records(), []);
}

#[tokio::test]
async fn new_leader_writes_its_term_before_waking_a_workload() {
    let cluster = asleep();
    pass(&cluster, 7, None, zero(Demand::Waiting(3))).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "PATCH hpa",
        "PATCH scale",
        "PATCH hpa",
        "PATCH ledger",
    ];
    assert_eq!(requests(&cluster), expected);
    let is = cluster.lock().unwrap();
    assert_eq!((is.annotation("epoch"), is.replicas), (json!("7"), 3));
    assert!(is.annotation("zeroed-since").is_null());
}

#[tokio::test]
async fn conflicting_write_changes_nothing() {
    for zero_input in [None, zero(Demand::None)] {
        let cluster = cluster(asks_for_zero(), 3);
        cluster.lock().unwrap().hpa_is_contested = true;
        let report = pass(&cluster, 7, Some(HOLD), zero_input).await;
        assert_eq!(report.term_write, Err(ApiError::Changed));
        assert_eq!(report.cap, Some(Err(ApiError::Changed)));
        let zero_error = report.zero.and_then(|zero| zero.error);
        assert_eq!(zero_error, zero_input.map(|_| ApiError::Changed));
        let is = cluster.lock().unwrap();
        assert!(is.annotation("epoch").is_null() && is.annotation("ceiling").is_null());
        assert_eq!(
            (is.replicas, &is.hpa["spec"]["maxReplicas"]),
            (3, &json!(20))
        );
    }
}

#[tokio::test]
async fn does_not_mark_a_workload_scaled_by_others() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().scale_is_contested = true;
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    let changed = Some(ApiError::Changed);
    assert_eq!((zero_report.done, zero_report.error), (None, changed));
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_null());
    assert_eq!(is.records(), []);
    // The rest of the pass stands.
    assert_eq!(
        (is.annotation("epoch"), is.annotation("ceiling")),
        (json!("7"), json!("6"))
    );
}

#[tokio::test]
async fn keeps_the_mark_of_a_workload_it_could_not_wake() {
    let cluster = asleep();
    cluster.lock().unwrap().scale_is_contested = true;
    let report = pass(&cluster, 0, Some(HOLD), zero(Demand::Waiting(3))).await;
    let zero_report = report.zero.unwrap();
    assert_eq!(zero_report.error, Some(ApiError::Changed));
    assert!(report.cap.unwrap().unwrap().is_some());
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_string());
    assert_eq!(is.annotation("ceiling"), "6");
    assert_eq!(is.records(), [("u1".to_owned(), "d1".to_owned())]);
}

#[tokio::test]
async fn wakes_nothing_without_a_record_of_the_same_hpa_and_workload() {
    for (hpa_uid, target_uid, refusal) in [
        ("u2", "d1", None),
        ("u1", "d2", Some(ZeroRefusal::OtherTarget)),
    ] {
        let cluster = at_zero(hpa_uid, target_uid);
        for demand in [Demand::Waiting(3), Demand::NeverRan] {
            let report = pass(&cluster, 0, None, zero(demand)).await;
            let zero_report = report.zero.unwrap();
            assert_eq!((zero_report.done, zero_report.error), (None, None));
            assert_eq!(zero_report.refusal, refusal);
            assert_eq!(requests(&cluster), ["GET hpa", "GET scale", "GET ledger"]);
        }
        // Nor if the HPA asks for scale to zero no more.
        let opted_out = ZeroInput::default();
        pass(&cluster, 0, None, Some(opted_out)).await;
        assert_eq!(cluster.lock().unwrap().replicas, 0);
    }
}

#[tokio::test]
async fn scales_nothing_to_zero_that_cannot_be_recorded() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().refuses_ledger = true;
    let report = pass(&cluster, 0, None, zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    let refused = ApiError::Forbidden("configmaps is forbidden".into());
    assert_eq!((zero_report.done, zero_report.error), (None, Some(refused)));
    let refusal = ZeroRefusal::NoLedger("configmaps is forbidden".into());
    assert_eq!(zero_report.refusal, Some(refusal));
    // There is no room.
    cluster.lock().unwrap().refuses_ledger = false;
    cluster.lock().unwrap().ledger = json!({
        "metadata": {"name": "lagwise-zero", "resourceVersion": "1"},
        "data": {"other": "x".repeat(900 * 1024)},
    });
    let report = pass(&cluster, 0, None, zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    assert_eq!(
        (zero_report.done, zero_report.error, zero_report.refusal),
        (None, None, Some(ZeroRefusal::LedgerFull))
    );
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_null());
    assert_eq!(is.replicas, 3);
}

#[tokio::test]
async fn recorded_hpa_gets_the_term_whatever_it_asks_for() {
    let cluster = asleep();
    cluster.lock().unwrap().hpa["metadata"]["annotations"] = json!({});
    let report = pass(&cluster, 7, None, None).await;
    assert_eq!(report.term_write, Ok(()));
    assert_eq!(cluster.lock().unwrap().annotation("epoch"), "7");
}

#[tokio::test]
async fn removes_the_record_of_a_workload_started_by_others() {
    let cluster = asleep();
    cluster.lock().unwrap().replicas = 5;
    let report = pass(&cluster, 0, None, zero(Demand::Waiting(3))).await;
    assert_eq!(report.zero.unwrap().done, Some(ZeroAction::Unmark));
    let is = cluster.lock().unwrap();
    assert_eq!((is.records(), is.replicas), (vec![], 5));
    assert!(is.annotation("zeroed-since").is_null());
}

#[tokio::test]
async fn refused_cap_is_retried_without_other_changes() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().refuses_spec = true;
    let refused = ApiError::Forbidden("spec is not yours".into());
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    assert_eq!(report.term_write, Err(refused.clone()));
    assert_eq!(report.cap, Some(Err(refused.clone())));
    assert_eq!(report.zero.unwrap().error, Some(refused));
    let again = CapGoal {
        was_refused: true,
        ..HOLD
    };
    let report = pass(&cluster, 7, Some(again), zero(Demand::None)).await;
    assert_eq!((report.term_write, report.cap), (Ok(()), None));
    assert_eq!(report.zero.unwrap().done, Some(ZeroAction::Zero));
}

#[tokio::test]
async fn skips_a_paused_or_recreated_hpa() {
    let paused = json!({"lagwise.dev/cap": "enforce", "lagwise.dev/paused": "true"});
    let cluster = cluster(paused, 3);
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    assert_eq!(report.term_write, Err(ApiError::Changed));
    assert_eq!(requests(&cluster), ["GET hpa"]);
}
