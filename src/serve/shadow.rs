//! Samples KEDA's and lagwise's replicas at each step and publishes the report, for `/shadow`, `/status`, `/explain`
//! and `/metrics`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::admin::{AdminEndpointOptions, json_response, respond_off_runtime};
use crate::blocking_work::do_blocking;
use crate::model::keda::shadow::{ObservedSet, ShadowLedger, ShadowReport};
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;

/// Time between two samples: as between two syncs of an HPA, at each of which KEDA reads its triggers.
pub const SHADOW_STEP: Duration = Duration::from_secs(15);

/// The response of a daemon that does not observe.
const NOT_OBSERVING: &str =
    "this daemon does not compare KEDA's replicas with its own; set kubernetes.mode: observe\n";

/// KEDA's objects, and why some of them cannot be read.
pub type ObservedObjects = watch::Receiver<(ObservedSet, Vec<String>)>;

/// Reads the latest report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShadowReader(Option<watch::Receiver<Arc<ShadowReport>>>);

impl ShadowReader {
    /// For a process that does not observe.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// The latest report; `None` if the process does not observe.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<ShadowReport>> {
        let report = self.0.as_ref()?;
        Some(Arc::clone(&report.borrow()))
    }
}

/// A reader of the report, and the task that takes a sample every `step`.
pub fn shadow(
    snapshots: SnapshotReader,
    objects: ObservedObjects,
    step: Duration,
) -> (ShadowReader, impl Future<Output = ()>) {
    let (reports, reader) = watch::channel(Arc::default());
    let sampling = sample(snapshots, objects, step, reports);
    (ShadowReader(Some(reader)), sampling)
}

async fn sample(
    snapshots: SnapshotReader,
    objects: ObservedObjects,
    step: Duration,
    reports: watch::Sender<Arc<ShadowReport>>,
) {
    let mut ticks = tokio::time::interval(step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ledger = ShadowLedger::new(step);
    loop {
        ticks.tick().await;
        let snapshot = snapshots.latest();
        if !snapshot.is_swept() {
            continue;
        }
        let (set, problems) = objects.borrow().clone();
        // With thousands of objects this takes longer than a task may keep a thread of the runtime.
        let sampled = do_blocking(move || {
            let now = Moment::now();
            let report = ledger.record(&set, snapshot.at(&now), problems);
            (ledger, report)
        });
        let report;
        (ledger, report) = sampled.await;
        reports.send_replace(Arc::new(report));
    }
}

/// Serves the latest report.
pub(super) async fn show(State(options): State<Arc<AdminEndpointOptions>>) -> Response {
    let Some(report) = options.shadow.latest() else {
        return (StatusCode::NOT_FOUND, NOT_OBSERVING).into_response();
    };
    respond_off_runtime(move || json_response(StatusCode::OK, &*report)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_election::Leadership;
    use crate::model::fixtures;
    use crate::model::keda::shadow::ShadowObject;
    use crate::model::lag::assembly::Scope;
    use crate::model::units::hpa_key::HpaKey;
    use crate::snapshot_channel;

    fn snapshots() -> (snapshot_channel::Publisher, SnapshotReader) {
        let row = (0, Ok(Some(1)), Ok(8));
        let read = fixtures::read(Duration::ZERO, "g", "orders", &[row]);
        let snapshot = fixtures::evaluated(&[], [read], Scope::Whole);
        snapshot_channel::channel(snapshot)
    }

    #[tokio::test]
    async fn reports_every_object_and_problem() {
        let (_publisher, reader) = snapshots();
        let mut set = ObservedSet::default();
        set.insert(ShadowObject {
            kind: "ScaledJob",
            key: HpaKey::new("shop", "import"),
            hpa: HpaKey::new("shop", "ScaledJob/import"),
            compared: Err("it is paused".to_owned()),
        });
        let problems = vec!["no right".to_owned()];
        let (_objects, objects) = watch::channel((set, problems.clone()));
        let (reports, sampling) = shadow(reader.clone(), objects, Duration::from_millis(1));
        let sampling = tokio::spawn(sampling);
        let mut receiver = reports.0.clone().unwrap();
        receiver.changed().await.unwrap();
        let report = reports.latest().unwrap();
        assert_eq!(report.problems, problems);
        assert_eq!(report.objects[0].name, "import");
        sampling.abort();
        let mut options = AdminEndpointOptions::new(reader, Leadership::alone());
        options.shadow = reports;
        let response = show(State(Arc::new(options))).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_daemon_that_serves_has_no_report() {
        let (_publisher, reader) = snapshots();
        let options = AdminEndpointOptions::new(reader, Leadership::alone());
        let response = show(State(Arc::new(options))).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}
