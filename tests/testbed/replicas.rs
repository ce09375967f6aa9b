//! Records a number of an object over time by a watch: a Deployment's replicas, an HPA's maximum.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};

use super::control_plane::ControlPlane;

/// Records every value until dropped. Polling could miss a value that was there for a short time.
pub(crate) struct ReplicaSeries {
    seen: Arc<Mutex<Vec<(Duration, i32)>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReplicaSeries {
    /// A Deployment's `status.replicas`.
    pub(crate) fn record(plane: &ControlPlane, namespace: &str, deployment: &str) -> Result<Self> {
        let resource = ApiResource::erase::<Deployment>(&());
        Self::of(plane, resource, namespace, deployment, "/status/replicas")
    }

    /// A Deployment's `spec.replicas`.
    pub(crate) fn wanted(plane: &ControlPlane, namespace: &str, deployment: &str) -> Result<Self> {
        let resource = ApiResource::erase::<Deployment>(&());
        Self::of(plane, resource, namespace, deployment, "/spec/replicas")
    }

    /// An HPA's `spec.maxReplicas`.
    pub(crate) fn bound(plane: &ControlPlane, namespace: &str, hpa: &str) -> Result<Self> {
        let resource = ApiResource::erase::<HorizontalPodAutoscaler>(&());
        Self::of(plane, resource, namespace, hpa, "/spec/maxReplicas")
    }

    /// The number at `field` (a JSON pointer) of any object; 0 while it is not there.
    pub(crate) fn of(
        plane: &ControlPlane,
        resource: ApiResource,
        namespace: &str,
        name: &str,
        field: &'static str,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(plane.client())?;
        let objects: kube::Api<DynamicObject> =
            kube::Api::namespaced_with(client, namespace, &resource);
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let record = {
            let seen = Arc::clone(&seen);
            async move {
                let started = Instant::now();
                let mut changes =
                    Box::pin(watcher(objects, only).default_backoff().applied_objects());
                while let Some(change) = changes.next().await {
                    // An error is a broken watch; it starts again with a list, so the newest value is not missed.
                    let Ok(object) = change else { continue };
                    let value = object
                        .data
                        .pointer(field)
                        .and_then(serde_json::Value::as_i64);
                    let value = i32::try_from(value.unwrap_or(0)).unwrap_or(i32::MAX);
                    let mut seen = lock(&seen);
                    if seen.last().is_none_or(|(_, last)| *last != value) {
                        seen.push((started.elapsed(), value));
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
