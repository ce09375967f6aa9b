//! A long-lived Kubernetes client for tests. Starting kubectl takes 0.1 s of CPU time, and tests poll the API server
//! many times while they wait.

use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result};
use axum::http::Request;
use axum::http::request::Builder;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kubernetes::client;

/// A client with its own thread, so that any thread can use it.
pub(super) struct ApiClient {
    client: kube::Client,
    runtime: Runtime,
}

impl ApiClient {
    /// A client for the user of this kubeconfig.
    pub(super) fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(client(kubeconfig))?;
        Ok(Self { client, runtime })
    }

    /// Gets an object; `None` for a kind that this client does not support.
    pub(super) fn read(
        &self,
        kind: &str,
        name: &str,
        namespace: Option<&str>,
    ) -> Option<Result<Value>> {
        let path = collection(kind, namespace)?;
        Some(self.get(&format!("{path}/{name}")))
    }

    /// Gets the response of the API server for a path.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.send(Request::get(path), path, None)
    }

    /// Applies an object (server-side apply). If it sets no namespace and its kind is namespaced, it is created in
    /// `namespace`.
    pub(super) fn apply(&self, namespace: &str, object: &Value) -> Result<Value> {
        let metadata = &object["metadata"];
        let kind = object["kind"].as_str().context("no kind")?.to_lowercase();
        let name = metadata["name"].as_str().context("no name")?;
        let namespace = metadata["namespace"].as_str().unwrap_or(namespace);
        let is_of_cluster = matches!(
            &*kind,
            "apiservice" | "clusterrole" | "clusterrolebinding" | "namespace"
        );
        let path = collection(&kind, (!is_of_cluster).then_some(namespace));
        let path = path.with_context(|| format!("the path of a {kind} is not known"))?;
        let path = format!("{path}/{name}?fieldManager=testbed&force=true");
        let request = Request::patch(&path).header("content-type", "application/apply-patch+yaml");
        self.send(request, &path, Some(object))
    }

    /// Creates an object at the path of its collection.
    pub(super) fn post(&self, path: &str, object: &Value) -> Result<Value> {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request, path, Some(object))
    }

    /// Deletes the object or the collection.
    pub(super) fn delete(&self, path: &str) -> Result<Value> {
        self.send(Request::delete(path), path, None)
    }

    fn send(&self, request: Builder, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(body.into_bytes())?;
        let client = self.client.clone();
        let (answer, answered) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = answer.send(client.request::<Value>(request).await);
        });
        let answer = answered.recv().context("the client is gone")?;
        answer.with_context(|| format!("asking for {path}"))
    }
}

/// The path of the objects of this kind.
pub(super) fn collection(kind: &str, namespace: Option<&str>) -> Option<String> {
    let (version, plural) = match kind {
        "apiservice" => ("apis/apiregistration.k8s.io/v1", "apiservices"),
        "clusterrole" => ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
        "clusterrolebinding" => ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
        "configmap" => ("api/v1", "configmaps"),
        "deployment" => ("apis/apps/v1", "deployments"),
        "hpa" => ("apis/autoscaling/v2", "horizontalpodautoscalers"),
        "lease" => ("apis/coordination.k8s.io/v1", "leases"),
        "namespace" => ("api/v1", "namespaces"),
        "rolebinding" => ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
        "secret" => ("api/v1", "secrets"),
        "service" => ("api/v1", "services"),
        "serviceaccount" => ("api/v1", "serviceaccounts"),
        _ => return None,
    };
    let place = namespace.map_or_else(String::new, |of| format!("namespaces/{of}/"));
    Some(format!("/{version}/{place}{plural}"))
}
