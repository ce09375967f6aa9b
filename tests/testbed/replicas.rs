//! What a Deployment's replicas did over time, as a watch saw it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt, watcher};

use super::control_plane::ControlPlane;

/// Records every value of `status.replicas` from its start until it is dropped: no poll could tell that a value
/// was never there.
pub(crate) struct ReplicaSeries {
    seen: Arc<Mutex<Vec<(Duration, i32)>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReplicaSeries {
    /// Begins to record.
    pub(crate) fn record(plane: &ControlPlane, namespace: &str, deployment: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(plane.client())?;
        let deployments: kube::Api<Deployment> = kube::Api::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={deployment}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let record = {
            let seen = Arc::clone(&seen);
            async move {
                let started = Instant::now();
                let mut changes = Box::pin(
                    watcher(deployments, only)
                        .default_backoff()
                        .applied_objects(),
                );
                while let Some(change) = changes.next().await {
                    // An error is a broken watch; it starts again with a list, so the newest value is not missed.
                    let Ok(deployment) = change else { continue };
                    let replicas = deployment
                        .status
                        .and_then(|status| status.replicas)
                        .unwrap_or(0);
                    let mut seen = lock(&seen);
                    if seen.last().is_none_or(|(_, last)| *last != replicas) {
                        seen.push((started.elapsed(), replicas));
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("replica series".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! { () = record => {}, _ = stopped => {} }
                });
            })
            .context("starting the thread that watches")?;
        Ok(Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The values in their order, each once until it changes.
    pub(crate) fn values(&self) -> Vec<i32> {
        lock(&self.seen)
            .iter()
            .map(|(_, replicas)| *replicas)
            .collect()
    }

    /// The values with the time since the start of the recording.
    pub(crate) fn timed(&self) -> Vec<(Duration, i32)> {
        lock(&self.seen).clone()
    }

    /// The newest value; 0 before the first.
    pub(crate) fn now(&self) -> i32 {
        lock(&self.seen).last().map_or(0, |(_, replicas)| *replicas)
    }

    /// The largest value so far; 0 before the first.
    pub(crate) fn max(&self) -> i32 {
        self.values().into_iter().max().unwrap_or(0)
    }
}

impl Drop for ReplicaSeries {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
