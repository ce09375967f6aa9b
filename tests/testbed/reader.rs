//! Objects of a control plane as JSON, read by a client that is there already: a test asks again and again while it
//! waits for something, and each start of kubectl costs a tenth of a second of a core.

use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result};
use axum::http::Request;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kubernetes::client;

/// A client with a thread of its own, so that it may be asked on any thread.
pub(super) struct Reader {
    client: kube::Client,
    runtime: Runtime,
}

impl Reader {
    /// Asks as the user of that file.
    pub(super) fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(client(kubeconfig))?;
        Ok(Self { client, runtime })
    }

    /// The object; `None` where the kind is not one that it knows.
    pub(super) fn read(
        &self,
        kind: &str,
        name: &str,
        namespace: Option<&str>,
    ) -> Option<Result<Value>> {
        let (version, plural) = resource(kind)?;
        let place = namespace.map_or_else(String::new, |of| format!("namespaces/{of}/"));
        Some(self.ask(&format!("/{version}/{place}{plural}/{name}")))
    }

    /// What the API server answers for the path.
    pub(super) fn ask(&self, path: &str) -> Result<Value> {
        let request = Request::get(path).body(Vec::new())?;
        let client = self.client.clone();
        let (answer, answered) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = answer.send(client.request::<Value>(request).await);
        });
        let answer = answered.recv().context("the client is gone")?;
        answer.with_context(|| format!("reading {path}"))
    }
}

/// Where the API server has objects of this kind: the path of its version, and the plural.
fn resource(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "apiservice" => ("apis/apiregistration.k8s.io/v1", "apiservices"),
        "configmap" => ("api/v1", "configmaps"),
        "deployment" => ("apis/apps/v1", "deployments"),
        "hpa" => ("apis/autoscaling/v2", "horizontalpodautoscalers"),
        "lease" => ("apis/coordination.k8s.io/v1", "leases"),
        "secret" => ("api/v1", "secrets"),
        "serviceaccount" => ("api/v1", "serviceaccounts"),
        _ => return None,
    })
}
