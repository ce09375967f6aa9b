//! Sets workloads without work to zero replicas and wakes them, as [`model::zero`](crate::model::decisions::scale_to_zero)
//! says.
//!
//! The mark on the HPA is written before the zero and taken away after the waking, so that a daemon
//! that dies in between never leaves a zero of its own that looks like a person's. Every write names
//! the resource version that was read, and is made only while the term lasts: a leader that was
//! paused finds a newer version than the one it has read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::scale::{ApiError, Scale, Scales, in_time};
use super::write_guard::WriteGuard;
use crate::model::decisions::scale_to_zero::{
    Candidate, Demand, WorkloadState, ZeroAction, candidates, step,
};
use crate::model::diagnostics::hpa_events::EventReason;
use crate::model::hpa::facts::{HpaFacts, asks_others, is_native, is_paused};
use crate::model::settings::annotation_keys::ZEROED_SINCE;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use crate::telemetry::zero::{ScaledToZero, WakeUp, ZeroFailed};

/// How often a workload without work is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Follows the snapshots until there are no more.
pub async fn keep(writing: WriteGuard) {
    let mut reader = writing.reader.clone();
    let mut keeper = ZeroReconciler {
        scales: Scales::new(writing.client.clone()),
        writing,
        workloads: BTreeMap::new(),
    };
    while reader.changed().await {
        keeper.turn().await;
    }
}

struct ZeroReconciler {
    writing: WriteGuard,
    scales: Scales,
    workloads: BTreeMap<HpaKey, ManagedWorkload>,
}

/// What is remembered of a workload.
#[derive(Debug, Default)]
struct ManagedWorkload {
    uid: Arc<str>,
    /// When it was last looked at.
    looked: Option<Instant>,
    /// Since when it has replicas, as far as was seen.
    up: Option<Instant>,
    /// When it was set to zero here.
    zeroed: Option<Instant>,
    failing: Option<ApiError>,
}

/// What a look at a workload shows.
struct ObservedWorkload {
    marked: bool,
    version: Option<String>,
    scale: Scale,
}

impl ZeroReconciler {
    async fn turn(&mut self) {
        let Some(snapshot) = self.writing.begin() else {
            self.workloads.clear();
            return;
        };
        let now = Moment::now();
        let candidates = candidates(snapshot.at(&now));
        let Some(hpas) = self.writing.hpas.borrow().clone() else {
            return;
        };
        let is_ours = |hpa: &&Arc<HpaFacts>| {
            let key = hpa.key();
            (candidates.contains_key(&key) || hpa.annotations.contains_key(ZEROED_SINCE))
                && may_write(hpa)
        };
        let mut kept = BTreeSet::new();
        for hpa in hpas.iter().filter(is_ours) {
            let key = hpa.key();
            kept.insert(key.clone());
            let workload = self.workloads.entry(key.clone()).or_default();
            if workload.uid != hpa.uid {
                *workload = ManagedWorkload {
                    uid: Arc::clone(&hpa.uid),
                    ..ManagedWorkload::default()
                };
            }
            let sleeper = candidates.get(&key).filter(|_| asks_others(hpa).is_none());
            let idle = snapshot.idle.get(&key).map(|since| now.since(since));
            if !is_due(workload, hpa, sleeper, idle) {
                continue;
            }
            workload.looked = Some(Instant::now());
            let done = self.look_after(&key, hpa, sleeper, idle).await;
            self.tell(&key, done.err());
        }
        self.workloads.retain(|key, _| kept.contains(key));
    }

    async fn look_after(
        &mut self,
        key: &HpaKey,
        hpa: &HpaFacts,
        sleeper: Option<&Candidate>,
        idle: Option<Duration>,
    ) -> Result<(), ApiError> {
        let seen = self.look(hpa).await?;
        let Some(workload) = self.workloads.get_mut(key) else {
            return Ok(());
        };
        let up = (seen.scale.replicas > 0).then(|| *workload.up.get_or_insert_with(Instant::now));
        // Of a workload that was found with replicas, nobody knows for how long it has had them; one
        // that was seen at zero before has them since then.
        workload.up = up;
        let (most, fewest) = (hpa.max_replicas, hpa.min_replicas.unwrap_or(1));
        let most = sleeper
            .and_then(|s| s.ceiling)
            .map_or(most, |c| c.min(most));
        let situation = WorkloadState {
            wanted: sleeper.is_some() && !is_native(hpa),
            marked: seen.marked,
            replicas: seen.scale.replicas,
            work: sleeper.map_or(Demand::Unknown, |sleeper| sleeper.work),
            idle: idle.zip(up).map(|(idle, up)| idle.min(up.elapsed())),
            cooldown: sleeper.map_or(Duration::MAX, |sleeper| sleeper.cooldown),
            zeroed: workload.zeroed.map(|zeroed| zeroed.elapsed()),
            bounds: (fewest, most),
        };
        match step(&situation) {
            ZeroAction::Rest => Ok(()),
            ZeroAction::Zero => {
                let version = self.mark(hpa, &seen, true).await?;
                let set = self.set(hpa, &seen.scale, 0).await;
                if set == Err(ApiError::Changed) && !seen.marked {
                    // Somebody else was first: were theirs a zero, the mark would make it ours.
                    let marked = ObservedWorkload {
                        marked: true,
                        version,
                        ..seen
                    };
                    self.mark(hpa, &marked, false).await?;
                }
                set?;
                if let Some(workload) = self.workloads.get_mut(key) {
                    workload.zeroed = Some(Instant::now());
                    workload.up = None;
                }
                ScaledToZero { hpa: key }.emit();
                self.writing.tell(key, EventReason::ScaledToZero);
                Ok(())
            }
            ZeroAction::Wake(replicas) => {
                self.set(hpa, &seen.scale, replicas).await?;
                if let Some(workload) = self.workloads.get_mut(key) {
                    workload.zeroed = None;
                    workload.up = Some(Instant::now());
                }
                WakeUp { hpa: key, replicas }.emit();
                self.writing.tell(key, EventReason::Woken(replicas));
                self.mark(hpa, &seen, false).await.map(drop)
            }
            ZeroAction::Unmark => {
                if let Some(workload) = self.workloads.get_mut(key) {
                    workload.zeroed = None;
                }
                self.mark(hpa, &seen, false).await.map(drop)
            }
        }
    }

    async fn look(&mut self, hpa: &HpaFacts) -> Result<ObservedWorkload, ApiError> {
        let within = self.writing.within()?;
        let api = self.writing.api(hpa);
        let object = in_time(within, api.get_metadata(&hpa.name)).await?;
        if object.metadata.uid.as_deref() != Some(&*hpa.uid) {
            return Err(ApiError::Changed);
        }
        let metadata = self.writing.claim(&api, object.metadata).await?;
        let annotations = metadata.annotations.unwrap_or_default();
        let scale = self
            .scales
            .read(&hpa.namespace, &hpa.scale_target, within)
            .await?;
        Ok(ObservedWorkload {
            marked: annotations.contains_key(ZEROED_SINCE),
            version: metadata.resource_version,
            scale,
        })
    }

    /// Marks the HPA, or takes the mark away; its resource version then.
    async fn mark(
        &self,
        hpa: &HpaFacts,
        seen: &ObservedWorkload,
        marked: bool,
    ) -> Result<Option<String>, ApiError> {
        if marked == seen.marked {
            return Ok(seen.version.clone());
        }
        let since =
            marked.then(|| humantime::format_rfc3339_seconds(SystemTime::now()).to_string());
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": seen.version,
            "annotations": {ZEROED_SINCE: since},
        }}));
        let params = PatchParams::default();
        let api = self.writing.api(hpa);
        let patched = api.patch_metadata(&hpa.name, &params, &patch);
        let is = in_time(self.writing.within()?, patched).await?;
        Ok(is.metadata.resource_version)
    }

    async fn set(&mut self, hpa: &HpaFacts, read: &Scale, replicas: u32) -> Result<(), ApiError> {
        let within = self.writing.within()?;
        let (namespace, target) = (&hpa.namespace, &hpa.scale_target);
        self.scales
            .set(namespace, target, read, replicas, within)
            .await
    }

    fn tell(&mut self, key: &HpaKey, error: Option<ApiError>) {
        let Some(workload) = self.workloads.get_mut(key) else {
            return;
        };
        // Somebody else's write is no failure: the next look sees it, and need not wait.
        if error == Some(ApiError::Changed) {
            workload.looked = None;
            return;
        }
        if let Some(reason) = error.as_ref().filter(|_| workload.failing != error) {
            ZeroFailed { hpa: key, reason }.emit();
        }
        workload.failing = error;
    }
}

/// Whether a workload has to be looked at now: at once where something waits to be woken, now and
/// then where there is nothing to do.
fn is_due(
    workload: &ManagedWorkload,
    hpa: &HpaFacts,
    sleeper: Option<&Candidate>,
    idle: Option<Duration>,
) -> bool {
    let sleeps = hpa.annotations.contains_key(ZEROED_SINCE) || workload.zeroed.is_some();
    let was_looked_at = |within| {
        let looked = workload.looked;
        looked.is_some_and(|looked| looked.elapsed() < within)
    };
    match sleeper {
        // Nobody wants it to sleep any more, or it goes to zero by itself.
        _ if sleeper.is_none() || is_native(hpa) => sleeps && !was_looked_at(LOOK_EVERY),
        Some(Candidate {
            work: Demand::Waiting(_) | Demand::NeverRan,
            ..
        }) => sleeps && (workload.failing.is_none() || !was_looked_at(LOOK_EVERY)),
        // Before the cooldown is over, too, so that a start by hand is seen as one.
        _ => (sleeps || idle.is_some()) && !was_looked_at(LOOK_EVERY),
    }
}

/// Whether the HPA is lagwise's to write: not a controller's, and not paused by a person.
fn may_write(hpa: &HpaFacts) -> bool {
    hpa.controller.is_none() && !is_paused(hpa)
}
