//! Builds [`Targets`], and updates them. The cost of an update depends on what changed, not on the number of HPAs.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::admission::{Admission, creation_order};
use super::budgets::{Amounts, BudgetExceeded};
use super::builder::HpaTargetBuilder;
use super::fair_share::DemandsWithoutRoom;
use super::group_targets::GroupTargets;
use super::target::{
    ConfiguredTarget, DeniedQuery, Findings, HpaTargets, Origin, QueryHash, Target, TargetOptions,
};
use super::watch_key::WatchKey;
use super::{GroupKey, Targets};
use crate::model::hpa::facts::MetricTarget;
use crate::model::hpa::facts::{HpaFacts, HpaMap};
use crate::model::settings::{GroupSettings, Settings};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, Moment};

/// Maximum rounds in which refused HPAs are tried again after one change.
const MAX_RETRIES: usize = 16;

impl Targets {
    /// The configured targets on these Kafka clusters, watched since `now`. The options also apply to all targets that
    /// are added later: an HPA is checked against them once.
    #[must_use]
    pub fn new(clusters: &[ClusterName], options: TargetOptions, now: Option<Moment>) -> Self {
        let TargetOptions {
            configured,
            thresholds,
            tenancy,
            budgets,
            writes,
        } = options;
        let configured = configured.iter().map(|target| Arc::new(convert(target)));
        let mut targets = Self {
            clusters: clusters.to_vec(),
            configured: configured.collect(),
            thresholds,
            group_defaults: Arc::new(GroupSettings {
                settings: Settings::group_defaults(thresholds),
                ..GroupSettings::default()
            }),
            tenancy: Arc::new(tenancy),
            writes: Arc::new(writes),
            admission: Admission::new(budgets),
            ..Self::default()
        };
        let mut changes = Changes::default();
        for target in targets.configured.iter() {
            changes.add(target);
        }
        targets.update_indexes(changes, now);
        targets
    }

    /// Targets for a single reading, which needs no times of when watching a key began.
    #[must_use]
    pub fn merge<H: Borrow<HpaFacts>>(
        clusters: &[ClusterName],
        configured: &[ConfiguredTarget],
        hpas: &[H],
        ad_hoc: BTreeSet<WatchKey>,
    ) -> Self {
        let hpas = hpas.iter().map(|hpa| Arc::new(hpa.borrow().clone()));
        let options = TargetOptions {
            configured: configured.to_vec(),
            ..TargetOptions::default()
        };
        Self::new(clusters, options, None)
            .with_ad_hoc(ad_hoc, None)
            .with_hpas(&hpas.collect(), None)
    }

    /// These targets with `hpas` in place of the current HPAs, as far as the budgets allow. New keys are watched since
    /// `now`.
    #[must_use]
    pub fn with_hpas(&self, hpas: &HpaMap, now: Option<Moment>) -> Self {
        let mut targets = self.clone();
        let mut changes = Changes::default();
        let mut changed = Vec::new();
        let mut shares_changed = false;
        self.facts.diff(hpas, |key, _, facts| match facts {
            Some(facts) => changed.push(Arc::clone(facts)),
            None => {
                shares_changed |= targets.admission.release(key);
                targets.replace(key, HpaTargets::default(), &mut changes);
            }
        });
        // HPAs that were admitted before come first, because they stay admitted.
        changed.sort_by_cached_key(|facts| {
            let key = facts.key();
            let is_admitted = self.admission.admitted(&key).is_some();
            (!is_admitted, creation_order(facts.created), key)
        });
        for facts in changed {
            let key = facts.key();
            let before = self.admission.admitted(&key).unwrap_or_default();
            let built = HpaTargetBuilder::new(self, &facts).build();
            let demand = built.demand();
            let admitted = targets.admission.admit(&key, facts.created, demand);
            let after = admitted
                .as_ref()
                .map_or_else(|_| Amounts::default(), |_| demand);
            shares_changed |= after != before;
            targets.replace_admitted(&key, built, admitted, hpas, &mut changes);
        }
        if shares_changed {
            targets.admit_waiting(hpas, &mut changes);
        }
        targets.facts = hpas.clone();
        targets.hpas_unlisted = false;
        targets.update_indexes(changes, now);
        targets
    }

    /// These targets while the HPAs are not listed yet.
    #[must_use]
    pub fn with_hpas_unlisted(self) -> Self {
        Self {
            hpas_unlisted: true,
            ..self
        }
    }

    /// These targets with `keys` in place of the current keys of requests. New keys are watched since `now`.
    #[must_use]
    pub fn with_ad_hoc(&self, keys: BTreeSet<WatchKey>, now: Option<Moment>) -> Self {
        let mut changes = Changes::default();
        for key in self.ad_hoc.symmetric_difference(&keys) {
            changes.groups.entry(group_key(key)).or_default();
        }
        let mut targets = Self {
            ad_hoc: Arc::new(keys),
            ..self.clone()
        };
        targets.update_indexes(changes, now);
        targets
    }

    /// Admits refused HPAs for which the budgets now suffice.
    fn admit_waiting(&mut self, hpas: &HpaMap, changes: &mut Changes) {
        for _ in 0..MAX_RETRIES {
            let mut is_changed = false;
            let mut without_room = DemandsWithoutRoom::default();
            for key in self.admission.retry_order() {
                let refusal = self.admission.refused().get(&key);
                let Some((refusal, facts)) = refusal.zip(hpas.get(&key)) else {
                    continue;
                };
                let demand = refusal.demand;
                if without_room.include(&key.namespace, demand) {
                    continue;
                }
                if !self.admission.has_room_for(&key) {
                    without_room.insert(&key.namespace, demand);
                    continue;
                }
                // The targets of a refused HPA are not kept, so they are built again.
                let built = HpaTargetBuilder::new(self, facts).build();
                let admitted = self.admission.admit(&key, facts.created, built.demand());
                if admitted.is_ok() {
                    is_changed = true;
                    without_room.clear();
                }
                self.replace_admitted(&key, built, admitted, hpas, changes);
            }
            // An admission changes the shares, so another refused HPA may now be the one to admit.
            if !is_changed {
                break;
            }
        }
    }

    /// Replaces the targets of one HPA by the result of its admission. Denies the targets of HPAs that lost their place
    /// to it.
    fn replace_admitted(
        &mut self,
        key: &HpaKey,
        built: HpaTargets,
        admitted: Result<Vec<HpaKey>, BudgetExceeded>,
        hpas: &HpaMap,
        changes: &mut Changes,
    ) {
        let displaced = match admitted {
            Ok(displaced) => displaced,
            Err(exceeded) => {
                self.replace(key, built.denied_by(key, exceeded), changes);
                return;
            }
        };
        self.replace(key, built, changes);
        for other in displaced {
            let refusal = self.admission.refused().get(&other);
            if let Some((reason, facts)) =
                refusal.map(|refusal| refusal.reason).zip(hpas.get(&other))
            {
                let built = HpaTargetBuilder::new(self, facts).build();
                self.replace(&other, built.denied_by(&other, reason), changes);
            }
        }
    }

    /// Replaces the targets of one HPA, and records in `changes` what that affects.
    fn replace(&mut self, key: &HpaKey, mut built: HpaTargets, changes: &mut Changes) {
        let before = match self.hpas.get(key) {
            Some(before) => Arc::clone(before),
            None => Arc::default(),
        };
        self.replace_findings(&before.findings, &built.findings);
        self.replace_denied(key, &before.denied, &built.denied);
        if before.targets == built.targets {
            // Sharing them keeps the evaluations that hold them.
            built.targets.clone_from(&before.targets);
        } else {
            changes.hpas.insert(key.clone());
            for target in &before.targets {
                changes.remove(target);
            }
            for target in &built.targets {
                changes.add(target);
            }
        }
        if built.is_empty() {
            self.hpas.remove(key);
        } else {
            self.hpas.insert(key.clone(), Arc::new(built));
        }
    }

    fn replace_denied(&mut self, key: &HpaKey, before: &[DeniedQuery], after: &[DeniedQuery]) {
        if before == after {
            return;
        }
        for denied in before {
            let mut reasons = self.denied.remove(&denied.query_hash).unwrap_or_default();
            Arc::make_mut(&mut reasons).remove(key);
            if !reasons.is_empty() {
                self.denied.insert(denied.query_hash, reasons);
            }
        }
        for denied in after {
            let mut reasons = self.denied.remove(&denied.query_hash).unwrap_or_default();
            Arc::make_mut(&mut reasons).insert(key.clone(), denied.reason.clone());
            self.denied.insert(denied.query_hash, reasons);
        }
    }

    fn replace_findings(&mut self, before: &Findings, after: &Findings) {
        for finding in before.difference(after) {
            self.findings.remove(finding);
        }
        for finding in after.difference(before) {
            self.findings.insert(Arc::clone(finding), ());
        }
    }

    /// Updates the targets by query and by group.
    fn update_indexes(&mut self, changes: Changes, now: Option<Moment>) {
        let Changes {
            hpas,
            groups,
            queries,
        } = changes;
        let merge = |known: &[Arc<Target>], new: Vec<Arc<Target>>| {
            let is_changed = |target: &Target| target.hpa().is_some_and(|hpa| hpas.contains(hpa));
            let kept = known.iter().filter(|target| !is_changed(target));
            let mut all: Vec<_> = kept.cloned().chain(new).collect();
            // Stable: the targets of one HPA stay in the order of its metrics. Configured ones come first.
            all.sort_by(|a, b| a.hpa().cmp(&b.hpa()));
            all
        };
        for (hash, new) in queries {
            let known = self.by_query.get(&hash);
            let all = merge(known.map_or(&[], |known| known), new);
            if all.is_empty() {
                self.by_query.remove(&hash);
            } else {
                self.by_query.insert(hash, all.into());
            }
        }
        for (key, new) in groups {
            let before = self.groups.get(&key).map(Arc::clone);
            let known = before.as_ref().map_or(&[][..], |before| before.targets());
            let ad_hoc = self.ad_hoc_keys(&key).map(|key| Arc::new(key.clone()));
            let group = GroupTargets::new(
                merge(known, new),
                ad_hoc.collect(),
                &self.group_defaults,
                before.as_deref(),
                now,
            );
            let conflicts = |group: &GroupTargets| -> Findings {
                group.conflicts(&key.0, &key.1).map(Arc::new).collect()
            };
            let conflicts_before = before.as_deref().map(conflicts).unwrap_or_default();
            self.replace_findings(&conflicts_before, &conflicts(&group));
            if group.is_empty() {
                self.groups.remove(&key);
            } else {
                self.groups.insert(key, Arc::new(group));
            }
        }
    }

    /// The keys of requests for one group.
    fn ad_hoc_keys<'a>(
        &'a self,
        (cluster, group): &'a GroupKey,
    ) -> impl Iterator<Item = &'a WatchKey> {
        let first = WatchKey {
            cluster: cluster.clone(),
            group: group.clone(),
            topics: BTreeSet::new(),
        };
        self.ad_hoc
            .range(first..)
            .take_while(move |key| key.cluster == *cluster && key.group == *group)
    }
}

/// Groups, queries and HPAs that a change affects.
#[derive(Default)]
struct Changes {
    /// The HPAs whose targets changed.
    hpas: BTreeSet<HpaKey>,
    /// The groups whose targets changed, each with its new targets.
    groups: BTreeMap<GroupKey, Vec<Arc<Target>>>,
    /// The queries whose targets changed, each with its new targets.
    queries: BTreeMap<QueryHash, Vec<Arc<Target>>>,
}

impl Changes {
    /// Records that a target is removed.
    fn remove(&mut self, target: &Target) {
        self.groups.entry(group_key(&target.key)).or_default();
        if let Some(hash) = target.query_hash {
            self.queries.entry(hash).or_default();
        }
    }

    /// Records a new target.
    fn add(&mut self, target: &Arc<Target>) {
        let group = self.groups.entry(group_key(&target.key));
        group.or_default().push(Arc::clone(target));
        if let Some(hash) = target.query_hash {
            let query = self.queries.entry(hash);
            query.or_default().push(Arc::clone(target));
        }
    }
}

fn group_key(key: &WatchKey) -> GroupKey {
    (key.cluster.clone(), key.group.clone())
}

fn convert(target: &ConfiguredTarget) -> Target {
    Target {
        origin: Origin::Config {
            name: Arc::clone(&target.name),
            namespaces: target.namespaces.clone(),
        },
        selector: None,
        metric: Metric::Lag,
        index: 0,
        label: target.group.to_string(),
        key: Arc::new(WatchKey {
            cluster: target.cluster.clone(),
            group: target.group.clone(),
            topics: target.settings.named_topics(),
        }),
        metric_target: target.lag_per_replica.map(MetricTarget::AverageValue),
        settings: Arc::new(target.settings.clone()),
        cap: None,
        query_hash: None,
    }
}
