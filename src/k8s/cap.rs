//! Writes the cap that [`model::cap`](crate::model::decisions::cap) decides on.
//!
//! Every write is made of what the object is now, names the version that was read, and is made only
//! while the term lasts: one that was overtaken fails and is decided anew at the next sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::hpa::facts_of;
use super::scale::{ApiError, in_time};
use super::write_guard::WriteGuard;
use crate::model::decisions::cap::{
    AnnotationChange, CapPatch, CeilingHysteresis, FieldOwner, HpaFields, LastSeen, WriteBackoff,
    enforce, release,
};
use crate::model::decisions::enforceable::complete_reads;
use crate::model::decisions::fencing::EPOCH;
use crate::model::diagnostics::hpa_events::EventReason;
use crate::model::hpa::facts::{self, HpaFacts, has_our_metric, is_paused};
use crate::model::settings::annotation_keys::{CEILING, USER_MAX};
use crate::model::settings::cap_mode::{CapMode, NO_CEILING};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use crate::telemetry::cap::{CapFailed, CapFought, CapWritten};

/// The admission policy that keeps the account of users' numbers.
const POLICY: &str = "lagwise-cap";

/// The name by which the API server knows who wrote which field.
const FIELD_MANAGER: &str = "lagwise";

/// How often it is looked for.
const LOOK_FOR_POLICY: Duration = Duration::from_secs(60);

/// Follows the snapshots until there are no more.
pub async fn keep(writing: WriteGuard) {
    let mut reader = writing.reader.clone();
    let mut writer = CapReconciler {
        writing,
        policy: None,
        hpas: BTreeMap::new(),
        swept: Vec::new(),
    };
    while reader.changed().await {
        writer.turn().await;
    }
}

struct CapReconciler {
    writing: WriteGuard,
    policy: Option<(FieldOwner, Instant)>,
    hpas: BTreeMap<HpaKey, Capped>,
    /// The clusters' last sweeps, as they were looked at.
    swept: Vec<Instant>,
}

/// What is remembered of an HPA.
#[derive(Debug, Default)]
struct Capped {
    uid: Arc<str>,
    /// The HPA at the last look, for writes that say nothing of the user's number.
    seen: Option<LastSeen>,
    follow: CeilingHysteresis,
    patience: WriteBackoff,
    fought: bool,
    failing: Option<ApiError>,
}

impl Capped {
    fn of(uid: &Arc<str>) -> Self {
        Self {
            uid: Arc::clone(uid),
            ..Self::default()
        }
    }

    /// Whether the field is still what the cap has made it, though every mark of it was taken away.
    fn owes(&self, hpa: &HpaFacts, live: HpaFields) -> bool {
        self.uid == hpa.uid && self.seen.is_some_and(|_| live.seen(self.seen).is_capped())
    }
}

/// What is to become of an HPA.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// Its maximum is held to this ceiling.
    Hold(u32),
    /// It is the user's alone.
    Release,
}

impl Goal {
    fn change(self, live: HpaFields, seen: Option<LastSeen>, keeper: FieldOwner) -> CapPatch {
        match self {
            Goal::Hold(ceiling) => enforce(live, seen, ceiling, keeper),
            Goal::Release => release(live, seen, keeper).unwrap_or_default(),
        }
    }

    fn ceiling(self) -> Option<u32> {
        match self {
            Goal::Hold(ceiling) => Some(ceiling),
            Goal::Release => None,
        }
    }
}

impl CapReconciler {
    async fn turn(&mut self) {
        let Some(snapshot) = self.writing.begin() else {
            self.hpas.clear();
            return;
        };
        let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
        let swept: Vec<_> = sweeps.map(|sweep| sweep.started.monotonic).collect();
        if swept.is_empty() || swept == self.swept {
            return;
        }
        self.swept = swept;
        let Some(all) = self.writing.hpas.borrow().clone() else {
            return;
        };
        let rules = self.writing.rules.clone();
        // Without a metric of ours there is no ceiling, and never will be.
        let is_enforced =
            |hpa: &HpaFacts| facts::mode(hpa, rules.cap) == CapMode::Enforce && has_our_metric(hpa);
        let mut hpas = all;
        hpas.retain(|hpa| {
            let live = HpaFields::of(hpa);
            let owed = || self.hpas.get(&hpa.key()).is_some_and(|c| c.owes(hpa, live));
            !is_paused(hpa) && (is_enforced(hpa) || live.is_marked() || owed())
        });
        let keys: BTreeSet<HpaKey> = hpas.iter().map(|hpa| hpa.key()).collect();
        self.hpas.retain(|key, _| keys.contains(key));
        if hpas.is_empty() {
            return;
        }
        let now = Moment::now();
        let reads = complete_reads(snapshot.at(&now), |hpa| keys.contains(hpa));
        for hpa in hpas {
            let key = hpa.key();
            let live = HpaFields::of(&hpa);
            let capped = self.hpas.entry(key.clone()).or_default();
            if capped.uid != hpa.uid {
                *capped = Capped::of(&hpa.uid);
            }
            capped.seen = Some(live.seen(capped.seen));
            let goal = if is_enforced(&hpa) {
                let read = reads.get(&key).copied();
                capped.follow.next(read, live.ceiling).map(Goal::Hold)
            } else {
                Some(Goal::Release)
            };
            if let Some(goal) = goal {
                let done = self.apply(&key, &hpa, goal).await;
                self.tell(&key, done.err());
            }
        }
    }

    async fn apply(&mut self, key: &HpaKey, hpa: &HpaFacts, goal: Goal) -> Result<(), ApiError> {
        let keeper = self.keeper().await?;
        let seen = self.hpas.get(key).and_then(|capped| capped.seen);
        if goal.change(HpaFields::of(hpa), seen, keeper).is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let patience = |writer: &Self| writer.hpas.get(key).is_none_or(|c| c.patience.allows(now));
        if !patience(self) {
            return Ok(());
        }
        // The watch may be behind, behind our own last write even.
        let api = self.writing.api(hpa);
        let object = in_time(self.writing.within()?, api.get(&hpa.name)).await?;
        let is = facts_of(&object);
        if is.uid != hpa.uid || is_paused(&is) {
            return Err(ApiError::Changed);
        }
        let change = goal.change(HpaFields::of(&is), seen, keeper);
        if change.is_empty() {
            return Ok(());
        }
        let metadata = self.writing.claim(&api, object.metadata).await?;
        let within = self.writing.within()?;
        let written = write(&api, &metadata, &change, within).await?;
        if let Some(capped) = self.hpas.get_mut(key) {
            capped.seen = Some(HpaFields::of(&facts_of(&written)).seen(seen));
            capped.patience.wrote(now);
            let fought = capped.patience.is_tried();
            if fought && !capped.fought {
                CapFought { hpa: key }.emit();
                self.writing.tell(key, EventReason::CapFought);
            }
            capped.fought = fought;
        }
        let ceiling = goal.ceiling();
        CapWritten { hpa: key, ceiling }.emit();
        if let Some(cause) = told(ceiling, HpaFields::of(&is)) {
            self.writing.tell(key, cause);
        }
        Ok(())
    }

    /// Who keeps the account of users' numbers.
    async fn keeper(&mut self) -> Result<FieldOwner, ApiError> {
        if let Some((keeper, looked)) = self.policy
            && looked.elapsed() < LOOK_FOR_POLICY
        {
            return Ok(keeper);
        }
        let keeper = keeper(&self.writing.client, self.writing.within()?).await?;
        self.policy = Some((keeper, Instant::now()));
        Ok(keeper)
    }

    fn tell(&mut self, key: &HpaKey, error: Option<ApiError>) {
        let Some(capped) = self.hpas.get_mut(key) else {
            return;
        };
        let error = error.filter(|error| *error != ApiError::Changed);
        if let Some(reason) = error.as_ref().filter(|_| capped.failing != error) {
            CapFailed { hpa: key, reason }.emit();
        }
        capped.failing = error;
    }
}

/// What a person is told of a write; nothing of one that leaves the ceiling as it was, and of the second
/// step of a release.
fn told(ceiling: Option<u32>, was: HpaFields) -> Option<EventReason> {
    let held = was.ceiling.filter(|held| *held != NO_CEILING);
    match (ceiling, held) {
        (Some(now), Some(before)) if now > before => Some(EventReason::CapRaised(now)),
        (Some(now), before) if before != Some(now) => Some(EventReason::CapLowered(now)),
        (None, Some(_)) => Some(EventReason::CapReleased),
        _ => None,
    }
}

/// Who keeps the account of users' numbers on this cluster: the admission policy where it is
/// installed and bound.
///
/// # Errors
/// The API server's, but for that it knows no such thing.
pub async fn keeper(client: &Client, within: Duration) -> Result<FieldOwner, ApiError> {
    for kind in ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"] {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(
            &kind,
            match kind.kind.as_str() {
                "MutatingAdmissionPolicy" => "mutatingadmissionpolicies",
                _ => "mutatingadmissionpolicybindings",
            },
        );
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match in_time(within, api.get_metadata_opt(POLICY)).await? {
            Some(_) => {}
            None => return Ok(FieldOwner::Lagwise),
        }
    }
    Ok(FieldOwner::Policy)
}

/// Writes a change, if nobody has changed anything since `read`; what became of the HPA.
///
/// # Errors
/// Why it may not be written.
pub async fn write(
    api: &Api<HorizontalPodAutoscaler>,
    read: &ObjectMeta,
    change: &CapPatch,
    within: Duration,
) -> Result<HorizontalPodAutoscaler, ApiError> {
    let mut annotations = Map::new();
    for (key, mark) in [(CEILING, change.ceiling), (USER_MAX, change.user)] {
        let value = match mark {
            None => continue,
            Some(AnnotationChange::Set(number)) => Value::String(number.to_string()),
            Some(AnnotationChange::Remove) => Value::Null,
        };
        annotations.insert(key.to_owned(), value);
    }
    if change.is_last() {
        annotations.insert(EPOCH.to_owned(), Value::Null);
    }
    let mut metadata =
        json!({"resourceVersion": read.resource_version, "annotations": annotations});
    if change.is_last() {
        // Else the user's next apply of another number would be a conflict with lagwise.
        metadata["managedFields"] = json!(others_fields(read));
    }
    let mut patch = json!({"metadata": metadata});
    if let Some(max) = change.max {
        patch["spec"] = json!({"maxReplicas": max});
    }
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = read.name.as_deref().unwrap_or_default();
    let patched = Patch::Merge(patch);
    in_time(within, api.patch(name, &params, &patched)).await
}

/// Which fields are whose, but for those that are lagwise's.
fn others_fields(read: &ObjectMeta) -> Vec<&ManagedFieldsEntry> {
    let all = read.managed_fields.iter().flatten();
    all.filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
        .collect()
}
