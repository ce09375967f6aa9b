//! Writes the cap that [`model::cap`](crate::model::cap) decides on.
//!
//! Every write is made of what the object is now, names the version that was read, and is made only
//! while the term lasts: one that was overtaken fails and is decided anew at the next sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::hpa::facts_of;
use super::scale::{ScaleError, in_time};
use super::writing::Writing;
use crate::model::cap::{
    self, CEILING, CapMode, Change, Follow, Keeper, Live, Mark, Patience, USER_MAX, enforce,
    release,
};
use crate::model::parallelism::Limit;
use crate::model::query::Rules;
use crate::model::snapshot::LagSnapshot;
use crate::model::standing::{Standing, hpa_ceilings, standings_of};
use crate::model::target::HpaFacts;
use crate::model::types::Moment;
use crate::telemetry::cap::{CapFailed, CapFought, CapWritten};

/// The admission policy that keeps the account of users' numbers.
const POLICY: &str = "lagwise-cap";

/// How often it is looked for.
const LOOK_FOR_POLICY: Duration = Duration::from_secs(60);

/// Follows the snapshots until there are no more.
pub async fn keep(writing: Writing) {
    let mut reader = writing.reader.clone();
    let mut writer = Writer {
        writing,
        policy: None,
        hpas: BTreeMap::new(),
        swept: None,
    };
    while reader.changed().await {
        writer.turn().await;
    }
}

type Key = (Arc<str>, Arc<str>);

struct Writer {
    writing: Writing,
    policy: Option<(Keeper, Instant)>,
    hpas: BTreeMap<Key, Capped>,
    /// The last sweep that was looked at.
    swept: Option<Instant>,
}

/// What is remembered of an HPA.
#[derive(Debug, Default)]
struct Capped {
    follow: Follow,
    patience: Patience,
    fought: bool,
    failing: Option<ScaleError>,
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
    fn change(self, live: Live, keeper: Keeper) -> Change {
        match self {
            Goal::Hold(ceiling) => enforce(live, ceiling, keeper),
            Goal::Release => release(live, keeper).unwrap_or_default(),
        }
    }

    fn ceiling(self) -> Option<u32> {
        match self {
            Goal::Hold(ceiling) => Some(ceiling),
            Goal::Release => None,
        }
    }
}

impl Writer {
    async fn turn(&mut self) {
        if !self.writing.leads() {
            self.hpas.clear();
            return;
        }
        let snapshot = self.writing.reader.latest();
        // A read counts once, however often the snapshot is published.
        let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
        let swept = sweeps.map(|sweep| sweep.started.monotonic).max();
        if swept.is_none() || swept == self.swept {
            return;
        }
        self.swept = swept;
        let Some(all) = self.writing.hpas.borrow().clone() else {
            return;
        };
        let rules = self.writing.rules.clone();
        let is_enforced = |hpa: &HpaFacts| cap::mode(hpa, rules.cap) == CapMode::Enforce;
        let ours = |hpa: &Arc<HpaFacts>| is_enforced(hpa) || Live::of(hpa).is_marked();
        let mut hpas = all;
        hpas.retain(|hpa| ours(hpa) && !cap::is_paused(hpa));
        let keys: BTreeSet<Key> = hpas.iter().map(|hpa| key(hpa)).collect();
        self.hpas.retain(|key, _| keys.contains(key));
        if hpas.is_empty() {
            return;
        }
        let ceilings = complete_ceilings(&snapshot, &rules, &keys);
        for hpa in hpas {
            let key = key(&hpa);
            let capped = self.hpas.entry(key.clone()).or_default();
            let read = ceilings.get(&key).copied();
            let goal = if is_enforced(&hpa) {
                let next = capped.follow.next(read, Live::of(&hpa).ceiling);
                next.map(Goal::Hold)
            } else {
                Some(Goal::Release)
            };
            if let Some(goal) = goal {
                let done = self.apply(&key, &hpa, goal).await;
                self.tell(&key, done.err());
            }
        }
    }

    async fn apply(&mut self, key: &Key, hpa: &HpaFacts, goal: Goal) -> Result<(), ScaleError> {
        let keeper = self.keeper().await?;
        if goal.change(Live::of(hpa), keeper).is_empty() {
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
        if is.uid != hpa.uid || cap::is_paused(&is) {
            return Err(ScaleError::Changed);
        }
        let change = goal.change(Live::of(&is), keeper);
        if change.is_empty() {
            return Ok(());
        }
        let version = object.metadata.resource_version;
        let within = self.writing.within()?;
        write(&api, &hpa.name, version, &change, within).await?;
        if let Some(capped) = self.hpas.get_mut(key) {
            capped.patience.wrote(now);
            let fought = capped.patience.is_tried();
            if fought && !capped.fought {
                CapFought { hpa: key }.emit();
            }
            capped.fought = fought;
        }
        let ceiling = goal.ceiling();
        CapWritten { hpa: key, ceiling }.emit();
        Ok(())
    }

    /// Who keeps the account of users' numbers.
    async fn keeper(&mut self) -> Result<Keeper, ScaleError> {
        if let Some((keeper, looked)) = self.policy
            && looked.elapsed() < LOOK_FOR_POLICY
        {
            return Ok(keeper);
        }
        let keeper = keeper(&self.writing.client, self.writing.within()?).await?;
        self.policy = Some((keeper, Instant::now()));
        Ok(keeper)
    }

    fn tell(&mut self, key: &Key, error: Option<ScaleError>) {
        let Some(capped) = self.hpas.get_mut(key) else {
            return;
        };
        let error = error.filter(|error| *error != ScaleError::Changed);
        if let Some(reason) = error.as_ref().filter(|_| capped.failing != error) {
            CapFailed { hpa: key, reason }.emit();
        }
        capped.failing = error;
    }
}

fn key(hpa: &HpaFacts) -> Key {
    (Arc::clone(&hpa.namespace), Arc::clone(&hpa.name))
}

/// The ceilings of those HPAs of which every metric of ours was read whole in the last sweep.
fn complete_ceilings(
    snapshot: &LagSnapshot,
    rules: &Rules,
    of: &BTreeSet<Key>,
) -> BTreeMap<Key, Limit> {
    let now = Moment::now();
    let wanted = |namespace: &Arc<str>, name: &Arc<str>| {
        of.contains(&(Arc::clone(namespace), Arc::clone(name)))
    };
    let mut standings = standings_of(&snapshot.targets, snapshot, &now, rules, wanted);
    let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
    // What is served on while a broker is down says nothing of now.
    let last = sweeps.map(|sweep| sweep.started.monotonic).min();
    let is_current = |standing: &Standing<'_>| {
        let read = standing
            .outcome
            .as_ref()
            .map(|answer| answer.read.monotonic);
        read.is_ok_and(|read| last.is_some_and(|last| read >= last))
    };
    let stale: BTreeSet<(String, String)> = standings
        .iter()
        .filter(|standing| !is_current(standing))
        .map(|standing| (standing.namespace.to_owned(), standing.hpa.to_owned()))
        .collect();
    standings.retain(|s| !stale.contains(&(s.namespace.to_owned(), s.hpa.to_owned())));
    let ceilings = hpa_ceilings(&standings).into_iter();
    ceilings
        .map(|((namespace, name), limit)| ((namespace.into(), name.into()), limit))
        .collect()
}

/// Who keeps the account of users' numbers on this cluster: the admission policy where it is
/// installed and bound.
///
/// # Errors
/// The API server's, but for that it knows no such thing.
pub async fn keeper(client: &Client, within: Duration) -> Result<Keeper, ScaleError> {
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
            None => return Ok(Keeper::Lagwise),
        }
    }
    Ok(Keeper::Policy)
}

/// Writes a change, if nobody has changed anything since `version`.
///
/// # Errors
/// Why it may not be written.
pub async fn write(
    api: &Api<HorizontalPodAutoscaler>,
    name: &str,
    version: Option<String>,
    change: &Change,
    within: Duration,
) -> Result<(), ScaleError> {
    let mut annotations = Map::new();
    for (key, mark) in [(CEILING, change.ceiling), (USER_MAX, change.user)] {
        let value = match mark {
            None => continue,
            Some(Mark::Set(number)) => Value::String(number.to_string()),
            Some(Mark::Remove) => Value::Null,
        };
        annotations.insert(key.to_owned(), value);
    }
    let mut patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
    if let Some(max) = change.max {
        patch["spec"] = json!({"maxReplicas": max});
    }
    let params = PatchParams {
        field_manager: Some("lagwise".to_owned()),
        ..PatchParams::default()
    };
    let patched = Patch::Merge(patch);
    in_time(within, api.patch(name, &params, &patched))
        .await
        .map(drop)
}
