//! An API server that checks resource versions as the real one does.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::k8s::write_guard::testing::refusal;
use crate::model::decisions::zero_ledger::ZeroRecord;

/// One HPA `orders` in `shop` that scales a Deployment, and the requests for them.
pub(super) struct FakeApiServer {
    pub(super) hpa: Value,
    pub(super) replicas: u64,
    pub(super) scale_version: u64,
    pub(super) requests: Vec<String>,
    /// Another client writes the HPA right after it was read.
    pub(super) hpa_is_contested: bool,
    /// Another client scales the workload right after its scale was read.
    pub(super) scale_is_contested: bool,
    /// The API server refuses to have `spec` changed.
    pub(super) refuses_spec: bool,
    /// The ConfigMap of the ledger.
    pub(super) ledger: Value,
    /// The API server refuses all writes of the ledger.
    pub(super) refuses_ledger: bool,
}

pub(super) type SharedApiServer = Arc<Mutex<FakeApiServer>>;

pub(super) fn cluster(annotations: Value, replicas: u64) -> SharedApiServer {
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

pub(super) fn client(cluster: &SharedApiServer) -> Client {
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
    pub(super) fn records(&self) -> Vec<(String, String)> {
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

    pub(super) fn annotation(&self, key: &str) -> Value {
        self.hpa["metadata"]["annotations"][format!("lagwise.dev/{key}")].clone()
    }
}
