//! Marks pods as ready although no node runs them, so that rollouts complete.

use std::thread::JoinHandle;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use super::control_plane::ControlPlane;

/// Marks every new pod of a namespace as ready, until dropped.
pub(crate) struct ReadyPods {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReadyPods {
    /// Starts with the existing pods.
    pub(crate) fn keep(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(plane.client())?;
        let pods: kube::Api<Pod> = kube::Api::namespaced(client, namespace);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let keep = async move {
            let changes = watcher(pods.clone(), watcher::Config::default());
            let mut changes = Box::pin(changes.default_backoff().applied_objects());
            while let Some(change) = changes.next().await {
                let Some(name) = change
                    .ok()
                    .filter(|pod| !is_ready(pod))
                    .and_then(|p| p.metadata.name)
                else {
                    continue;
                };
                let status = json!({"status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                }});
                // A pod that was deleted needs no status.
                let _ = pods
                    .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                    .await;
            }
        };
        let thread = std::thread::Builder::new()
            .name("ready pods".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! { () = keep => {}, _ = stopped => {} }
                });
            })
            .context("starting the thread that makes pods ready")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for ReadyPods {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
